// The live feed. Every frame carries the item's whole public state with its version (epoch, seq), so a reader keeps the
// highest version that it has seen and drops the rest: repeated, late and reordered frames can never turn a price back.

import { Connection } from "./connection.js";
import { PrivateChannel } from "./private.js";

const SUBSCRIBE_MAX = 100;
// Whoever scrolls for long must not say more than the feed takes from one viewer.
const GATHER_MS = 100;
const STATE_FIELDS = [
  "current_bid", "highest_bidder_id", "highest_bidder", "status", "bid_count", "min_next_bid", "currency", "end_time",
  "reserve_met", "suggested_bids", "extensions", "updated_at",
];
// These belong to one version and are not in every message: one of an older version must not outlive it.
const FLEETING_FIELDS = ["suggested_bids", "highest_bidder"];

/** Positive where version `a` is newer than `b`, 0 where they are the same. */
export function compareVersions(a, b) {
  return a.epoch - b.epoch || a.seq - b.seq;
}

/**
 * The state in a frame or an item of the API, or null for frames that carry none. A bidder's standing names a price and a
 * version too, but not the whole state: taken for one, it would pass over events that are still on their way.
 */
export function stateOf(message) {
  if (!Number.isInteger(message?.seq) || message.current_bid === undefined || message.type === "standing") return null;
  const state = { epoch: Number.isInteger(message.epoch) ? message.epoch : 0, seq: message.seq };
  for (const field of STATE_FIELDS) {
    if (message[field] !== undefined) state[field] = message[field];
  }
  // An event is a change; its time has another name.
  state.updated_at ??= message.timestamp;
  return state;
}

/** What the API tells of an item beyond its state: the terms, which never change. */
export function termsOf(item) {
  return Object.fromEntries(Object.entries(item).filter(([field]) => !STATE_FIELDS.includes(field)));
}

/** The newest known state of one item. */
export class Register {
  state = null;

  /** Takes `state` unless a newer one is known. True where the version rose. */
  offer(state) {
    if (state === null) return false;
    if (this.state === null) {
      this.state = state;
      return true;
    }
    const order = compareVersions(state, this.state);
    if (order < 0) return false;
    const merged = { ...this.state, ...state };
    for (const field of order > 0 ? FLEETING_FIELDS : []) {
      if (state[field] === undefined) delete merged[field];
    }
    this.state = merged;
    return order > 0;
  }
}

/** What a feed says of its own health: whether events may be missing at the moment, for any of the items. */
class Freshness {
  #isLost = false; // The whole service is cut off.
  #items = new Set(); // The items that are not up to date yet.
  #told = false;

  constructor(onStale) {
    this.onStale = onStale;
  }

  take(frame) {
    if (frame.type === "heartbeat") this.#isLost = frame.stale === true;
    else if (frame.type === "stale") this.#items[frame.stale === true ? "add" : "delete"](frame.item_id);
    else return;
    this.#tell();
  }

  forget(itemId) {
    if (this.#items.delete(itemId)) this.#tell();
  }

  reset() {
    this.#isLost = false;
    this.#items.clear();
    this.#tell();
  }

  #tell() {
    const isStale = this.#isLost || this.#items.size > 0;
    if (isStale === this.#told) return;
    this.#told = isStale;
    this.onStale(isStale);
  }
}

/**
 * Follows one item, and after a break asks for exactly what it missed. `onFrame` gets every frame, `onStale` whether
 * events may be missing at the moment. `since` is a version from which on the events are wanted the first time as well;
 * without it the feed begins with the present state.
 */
export class ItemFeed {
  #version = null;

  constructor(base, itemId, { onFrame, onState, onStale, since = null }) {
    this.#version = since;
    const address = () => {
      const resume = this.#version ? `?since=${this.#version.epoch}:${this.#version.seq}` : "";
      return `${base}/ws/items/${encodeURIComponent(itemId)}${resume}`;
    };
    const freshness = new Freshness(onStale);
    this.connection = new Connection(address, {
      onState,
      onOpen: () => {
        freshness.reset();
        this.channel.opened();
      },
      onFrame: (frame) => {
        const state = stateOf(frame);
        if (state && (this.#version === null || compareVersions(state, this.#version) > 0)) {
          this.#version = { epoch: state.epoch, seq: state.seq };
        }
        freshness.take(frame);
        if (this.channel.admits(frame)) onFrame(frame);
      },
    });
    this.channel = new PrivateChannel((message) => this.connection.send(message));
  }

  /** The version of the newest frame, or null. What the API said does not count: frames may still be missing. */
  get version() {
    return this.#version;
  }

  /** Asks to be told where `userId` stands. */
  identify(userId) {
    this.channel.identify(userId);
  }

  start() {
    this.connection.start();
  }

  restart() {
    this.connection.restart();
  }
}

/** Follows many items over one connection; items come and go as they are scrolled into view. */
export class CatalogueFeed {
  #watched = new Set();
  #added = new Set();
  #removed = new Set();
  #flushing = false;
  #freshness;

  constructor(base, { onFrame, onState, onStale, userId }) {
    this.#freshness = new Freshness(onStale);
    this.connection = new Connection(() => `${base}/ws`, {
      onState,
      onOpen: () => {
        this.#freshness.reset();
        this.channel.opened();
        this.#added.clear();
        this.#removed.clear();
        this.#say("subscribe", [...this.#watched]);
      },
      onFrame: (frame) => {
        this.#freshness.take(frame);
        if (this.channel.admits(frame)) onFrame(frame);
      },
    });
    this.channel = new PrivateChannel((message) => this.connection.send(message));
    this.channel.identify(userId);
  }

  watch(itemId) {
    if (this.#watched.has(itemId)) return;
    this.#watched.add(itemId);
    if (!this.#removed.delete(itemId)) this.#added.add(itemId);
    this.#later();
  }

  unwatch(itemId) {
    if (!this.#watched.delete(itemId)) return;
    this.#freshness.forget(itemId);
    if (!this.#added.delete(itemId)) this.#removed.add(itemId);
    this.#later();
  }

  /** One message for all that a scroll or a new page of items changed. */
  #later() {
    if (this.#flushing) return;
    this.#flushing = true;
    setTimeout(() => {
      this.#flushing = false;
      if (!this.connection.running) {
        if (this.#watched.size > 0) this.connection.start();
        return;
      }
      this.#say("unsubscribe", [...this.#removed]);
      this.#say("subscribe", [...this.#added]);
      this.#added.clear();
      this.#removed.clear();
    }, GATHER_MS);
  }

  #say(op, items) {
    for (let from = 0; from < items.length; from += SUBSCRIBE_MAX) {
      this.connection.send({ op, items: items.slice(from, from + SUBSCRIBE_MAX) });
    }
  }
}
