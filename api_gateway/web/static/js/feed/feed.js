// The client of the live feed. Every frame has the item's whole public state with its version (epoch, seq), so the page
// keeps the highest version and drops the rest: repeated, late or reordered frames can never turn a price back.

import { Connection } from "./connection.js";
import { PrivateChannel } from "./private.js";

const SUBSCRIBE_MAX = 100;
// Long scrolling must not send more messages than the feed accepts from one viewer.
const GATHER_MS = 100;
const STATE_FIELDS = [
  "current_bid", "highest_bidder_id", "highest_bidder", "status", "bid_count", "min_next_bid", "currency", "end_time",
  "reserve_met", "suggested_bids", "extensions", "updated_at",
];
// These belong to one version and are not in every frame: they must not outlive their version.
const FLEETING_FIELDS = ["suggested_bids", "highest_bidder"];

/** Positive if version `a` is newer than `b`, 0 if they are the same. */
export function compareVersions(a, b) {
  return a.epoch - b.epoch || a.seq - b.seq;
}

/**
 * The state in a frame or an item of the API, or null for frames without one. A bidder's standing has a price and a
 * version too, but not the whole state: taken as one, it would skip events that are still in flight.
 */
export function stateOf(message) {
  if (!Number.isInteger(message?.seq) || message.current_bid === undefined || message.type === "standing") return null;
  const state = { epoch: Number.isInteger(message.epoch) ? message.epoch : 0, seq: message.seq };
  for (const field of STATE_FIELDS) {
    if (message[field] !== undefined) state[field] = message[field];
  }
  // An event has its time under another name.
  state.updated_at ??= message.timestamp;
  return state;
}

/** The terms of an item of the API, which never change. */
export function termsOf(item) {
  return Object.fromEntries(Object.entries(item).filter(([field]) => !STATE_FIELDS.includes(field)));
}

/** The newest known state of one item. */
export class Register {
  state = null;

  /** Takes `state` unless a newer one is known. True if the version rose. */
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

/** The health of a feed: whether events of any item may be missing at the moment. */
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
 * Follows many items over one connection; they come and go. `onFrame` gets every frame, `onStale` whether events may be
 * missing at the moment. `room`, if given, is `{itemId, since}`: the item of the page. After a break it is asked for
 * exactly what was missed, from the version `since` on (null: from the present state); it alone decides whether the feed
 * is stale, and without it the feed has ended.
 */
export class Feed {
  #room;
  #version = null; // Of the room's newest frame.
  #watched = new Set();
  #added = new Set();
  #removed = new Set();
  #flushing = false;
  #freshness;

  constructor(base, { onFrame, onState, onStale, userId, room = null }) {
    this.#room = room?.itemId ?? null;
    this.#version = room?.since ?? null;
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
      onFrame: (frame) => this.#take(frame, onFrame),
    });
    this.channel = new PrivateChannel((message) => this.connection.send(message));
    this.channel.identify(userId);
    if (this.#room !== null) this.#watched.add(this.#room);
  }

  /** The version of the room's newest frame, or null. States from the API do not count: frames may still be missing. */
  get version() {
    return this.#version;
  }

  /** Asks for the standings of `userId`. */
  identify(userId) {
    this.channel.identify(userId);
  }

  /** Connects at once; without it the feed connects when there is something to follow. */
  start() {
    this.connection.start();
  }

  restart() {
    this.connection.restart();
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

  #take(frame, onFrame) {
    const isOfRoom = this.#room !== null && frame.item_id === this.#room;
    if (isOfRoom) {
      const state = stateOf(frame);
      if (state && (this.#version === null || compareVersions(state, this.#version) > 0)) {
        this.#version = { epoch: state.epoch, seq: state.seq };
      }
      if (frame.type === "error" && frame.code === "ITEM_NOT_FOUND") this.connection.end();
    }
    if (this.#room === null || isOfRoom || frame.item_id === undefined) this.#freshness.take(frame);
    if (this.channel.admits(frame)) onFrame(frame);
  }

  /** Sends one message for all changes of a scroll or a new page of items. */
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
    const room = this.#room;
    if (op === "subscribe" && items.includes(room)) {
      const since = this.#version && { [room]: `${this.#version.epoch}:${this.#version.seq}` };
      this.connection.send({ op, items: [room], ...(since && { since }) });
      items = items.filter((id) => id !== room);
    }
    for (let from = 0; from < items.length; from += SUBSCRIBE_MAX) {
      this.connection.send({ op, items: items.slice(from, from + SUBSCRIBE_MAX) });
    }
  }
}
