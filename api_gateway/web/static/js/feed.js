// The live feed. Every frame carries the item's whole public state with its version (epoch, seq), so a reader keeps the
// highest version that it has seen and drops the rest: repeated, late and reordered frames can never turn a price back.

import { noteServerTime } from "./clock.js";

const CONNECT_TIMEOUT_MS = 10000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30000;
const STEADY_AFTER_MS = 5000;
const SUBSCRIBE_MAX = 100;
const STATE_FIELDS = [
  "current_bid", "highest_bidder_id", "highest_bidder", "status", "bid_count", "min_next_bid", "currency", "end_time",
  "reserve_met", "suggested_bids",
];
// These belong to one version and are not in every message: one of an older version must not outlive it.
const FLEETING_FIELDS = ["suggested_bids", "highest_bidder"];

/** Positive where version `a` is newer than `b`, 0 where they are the same. */
export function compareVersions(a, b) {
  return a.epoch - b.epoch || a.seq - b.seq;
}

/** The state in a frame or an item of the API, or null for frames that carry none. */
export function stateOf(message) {
  if (!Number.isInteger(message?.seq) || message.current_bid === undefined) return null;
  const state = { epoch: Number.isInteger(message.epoch) ? message.epoch : 0, seq: message.seq };
  for (const field of STATE_FIELDS) {
    if (message[field] !== undefined) state[field] = message[field];
  }
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

/** The wait before attempt `attempt` (from 0): exponential, and half to one and a half of that by chance. */
export function backoffMs(attempt, random = Math.random) {
  const middle = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 16));
  return Math.min(BACKOFF_MAX_MS, middle * (0.5 + random()));
}

/**
 * One WebSocket that comes back. `address()` is asked before each attempt. `onState` gets "connecting", "live",
 * "waiting" (for the next attempt) or "ended" (the server said that it is no use to come back).
 */
class Connection {
  #socket = null;
  #timer = null;
  #attempt = 0;
  #running = false;

  constructor(address, { onOpen = () => {}, onFrame, onState }) {
    this.address = address;
    this.onOpen = onOpen;
    this.onFrame = onFrame;
    this.onState = onState;
    addEventListener("online", () => this.hurry());
    addEventListener("pageshow", (event) => event.persisted && this.hurry());
    document.addEventListener("visibilitychange", () => !document.hidden && this.hurry());
  }

  get running() {
    return this.#running;
  }

  start() {
    this.#running = true;
    this.#connect();
  }

  stop() {
    this.#running = false;
    this.#drop();
  }

  /** Sends `message` where the connection is open. Everything is said again by `onOpen`, so a loss here is none. */
  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** Tries now instead of at the end of the wait: the network is back, or somebody is looking again. */
  hurry() {
    const dead = this.#socket === null || this.#socket.readyState === WebSocket.CLOSED;
    if (this.#running && dead) this.#connect();
  }

  /** Replaces a connection that looks alive and says nothing. */
  restart() {
    if (this.#running) this.#connect();
  }

  #drop() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null; // Its late events are no longer ours, see the guards below.
    socket?.close();
  }

  #connect() {
    this.#drop();
    this.onState("connecting");
    const socket = new WebSocket(this.address());
    this.#socket = socket;
    let liveSinceMs = null;
    this.#timer = setTimeout(() => socket === this.#socket && this.#retry(), CONNECT_TIMEOUT_MS);
    socket.onopen = () => {
      if (socket === this.#socket) this.onOpen();
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      const frame = parse(data);
      if (frame === null) return;
      if (frame.type === "connected") noteServerTime(frame.server_time, Date.now());
      if (liveSinceMs === null) {
        clearTimeout(this.#timer);
        liveSinceMs = performance.now();
        this.onState("live");
      }
      this.onFrame(frame);
    };
    socket.onclose = ({ code }) => {
      if (socket !== this.#socket) return;
      // A server that greets and hangs up at once must not be called in a tight loop: only a connection that held
      // starts the waits from the beginning.
      if (liveSinceMs !== null && performance.now() - liveSinceMs > STEADY_AFTER_MS) this.#attempt = 0;
      if (isFinal(code)) {
        this.stop();
        this.onState("ended");
      } else {
        this.#retry();
      }
    };
  }

  #retry() {
    this.#drop();
    this.onState("waiting");
    this.#timer = setTimeout(() => this.#connect(), backoffMs(this.#attempt));
    this.#attempt += 1;
  }
}

function parse(data) {
  try {
    const frame = JSON.parse(data);
    return frame !== null && typeof frame === "object" ? frame : null;
  } catch {
    return null;
  }
}

/** Close codes after which the same request would only be refused again; 4400 to 4499 are the feed's own ones. */
function isFinal(code) {
  return [1002, 1007, 1008, 1009].includes(code) || (code >= 4400 && code < 4500);
}

/**
 * Follows one item, and after a break asks for exactly what it missed. `onFrame` gets every frame. `since` is a version
 * from which on the events are wanted the first time as well; without it the feed begins with the present state.
 */
export class ItemFeed {
  #version = null;

  constructor(base, itemId, { onFrame, onState, since = null }) {
    this.#version = since;
    const address = () => {
      const resume = this.#version ? `?since=${this.#version.epoch}:${this.#version.seq}` : "";
      return `${base}/ws/items/${encodeURIComponent(itemId)}${resume}`;
    };
    this.connection = new Connection(address, {
      onState,
      onFrame: (frame) => {
        const state = stateOf(frame);
        if (state && (this.#version === null || compareVersions(state, this.#version) > 0)) {
          this.#version = { epoch: state.epoch, seq: state.seq };
        }
        onFrame(frame);
      },
    });
  }

  /** The version of the newest frame, or null. What the API said does not count: frames may still be missing. */
  get version() {
    return this.#version;
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

  constructor(base, { onFrame, onState }) {
    this.connection = new Connection(() => `${base}/ws`, {
      onFrame,
      onState,
      onOpen: () => {
        this.#added.clear();
        this.#removed.clear();
        this.#say("subscribe", [...this.#watched]);
      },
    });
  }

  watch(itemId) {
    if (this.#watched.has(itemId)) return;
    this.#watched.add(itemId);
    if (!this.#removed.delete(itemId)) this.#added.add(itemId);
    this.#later();
  }

  unwatch(itemId) {
    if (!this.#watched.delete(itemId)) return;
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
    }, 30);
  }

  #say(op, items) {
    for (let from = 0; from < items.length; from += SUBSCRIBE_MAX) {
      this.connection.send({ op, items: items.slice(from, from + SUBSCRIBE_MAX) });
    }
  }
}
