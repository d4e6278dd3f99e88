// One WebSocket to the live feed that reconnects by itself: after a break, after a silence, and when the network
// returns.

import { noteServerTime } from "../lib/clock.js";

const CONNECT_TIMEOUT_MS = 10000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30000;
const STEADY_AFTER_MS = 5000;
// After asking for too much, wait as after so many failed attempts, then say in few messages what is still needed.
const SLOW_DOWN_ATTEMPT = 4;
// After so many missed heartbeats a connection counts as dead.
const HEARTBEATS_MISSED = 3;

/** The wait before attempt `attempt` (from 0): exponential, times a random factor of 0.5 to 1.5. */
export function backoffMs(attempt, random = Math.random) {
  const middle = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 16));
  return Math.min(BACKOFF_MAX_MS, middle * (0.5 + random()));
}

/** Close codes after which the same request would be refused again; 4400 to 4499 are the feed's own. */
export function isFinal(code) {
  return [1002, 1007, 1008, 1009].includes(code) || (code >= 4400 && code < 4500);
}

/**
 * `address()` is asked before each attempt. `onOpen` may send; `onFrame` gets each message as an object; `onState` gets
 * "connecting", "live", "waiting" (for the next attempt) or "ended" (the server refused for good).
 */
export class Connection {
  #socket = null;
  #timer = null;
  #watch = null;
  #attempt = 0;
  #running = false;
  #heardMs = null; // When this connection's last frame came; null before the first one.

  constructor(address, { onOpen = () => {}, onFrame, onState }) {
    this.address = address;
    this.onOpen = onOpen;
    this.onFrame = onFrame;
    this.onState = onState;
    // A socket does not notice that the network is gone. A new one does, and if the server is on this machine it is
    // live again at once.
    addEventListener("offline", () => this.restart());
    addEventListener("online", () => this.#heardMs === null && this.restart());
    // Browsers do not keep pages with an open connection in the back-forward cache.
    addEventListener("pagehide", () => this.#drop());
    addEventListener("pageshow", (event) => event.persisted && this.#hurry());
    document.addEventListener("visibilitychange", () => !document.hidden && this.#hurry());
  }

  get running() {
    return this.#running;
  }

  start() {
    this.#running = true;
    this.#connect();
  }

  /** Replaces the connection at once: it is silent, or a new one is likely to work. */
  restart() {
    if (!this.#running) return;
    this.#attempt = 0;
    this.#connect();
  }

  /** Gives up for good: what was asked for is not there. */
  end() {
    this.#running = false;
    this.#drop();
    this.onState("ended");
  }

  /** Sends `message` if the connection is open. `onOpen` says everything again, so nothing is lost otherwise. */
  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** Tries now instead of at the end of the wait: the page is visible again. */
  #hurry() {
    const dead = this.#socket === null || this.#socket.readyState === WebSocket.CLOSED;
    if (this.#running && dead) this.#connect();
  }

  #drop() {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    const socket = this.#socket;
    this.#socket = null; // The guards below ignore its late events.
    this.#heardMs = null;
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
      // Something was not carried out, and the server does not say what: reconnect and say all of it again.
      if (frame.type === "error" && frame.code === "TOO_MANY_OPERATIONS") return this.#slowDown();
      this.#heardMs = performance.now();
      if (frame.server_time !== undefined) noteServerTime(frame.server_time);
      if (liveSinceMs === null) {
        clearTimeout(this.#timer);
        liveSinceMs = this.#heardMs;
        this.#listen(frame.heartbeat_s);
        this.onState("live");
      }
      this.onFrame(frame);
    };
    socket.onclose = ({ code }) => {
      if (socket !== this.#socket) return;
      // A server that accepts and closes at once must not be called in a tight loop: only a connection that lasted
      // resets the waits.
      if (liveSinceMs !== null && performance.now() - liveSinceMs > STEADY_AFTER_MS) this.#attempt = 0;
      if (code === 4529) {
        this.#slowDown();
      } else if (isFinal(code)) {
        this.end();
      } else {
        this.#retry();
      }
    };
  }

  /** Watches for silence, if the server has told the interval of its heartbeats. */
  #listen(heartbeatS) {
    if (!(heartbeatS > 0)) return;
    const everyMs = heartbeatS * 1000;
    let lookedMs = performance.now();
    this.#watch = setInterval(() => {
      const nowMs = performance.now();
      // A late timer proves nothing: the page was suspended, and frames may wait to be read.
      const inTime = nowMs - lookedMs < 2 * everyMs;
      lookedMs = nowMs;
      if (inTime && nowMs - this.#heardMs > HEARTBEATS_MISSED * everyMs) this.#retry();
    }, everyMs);
  }

  #slowDown() {
    this.#attempt = Math.max(this.#attempt, SLOW_DOWN_ATTEMPT);
    this.#retry();
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
