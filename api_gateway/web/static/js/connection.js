// One WebSocket to the live feed that comes back by itself: after a break, after a silence, and when the network returns.

import { noteServerTime } from "./clock.js";

const CONNECT_TIMEOUT_MS = 10000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30000;
const STEADY_AFTER_MS = 5000;
// Who asked for too much comes back as after so many attempts in vain, and says again in few messages what counts.
const SLOW_DOWN_ATTEMPT = 4;
// So many heartbeats may be missed before a connection counts as dead.
const HEARTBEATS_MISSED = 3;

/** The wait before attempt `attempt` (from 0): exponential, and half to one and a half of that by chance. */
export function backoffMs(attempt, random = Math.random) {
  const middle = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 16));
  return Math.min(BACKOFF_MAX_MS, middle * (0.5 + random()));
}

/** Close codes after which the same request would only be refused again; 4400 to 4499 are the feed's own ones. */
export function isFinal(code) {
  return [1002, 1007, 1008, 1009].includes(code) || (code >= 4400 && code < 4500);
}

/**
 * `address()` is asked before each attempt. `onOpen` may send; `onFrame` gets each message as an object; `onState` gets
 * "connecting", "live", "waiting" (for the next attempt) or "ended" (the server said that it is no use to come back).
 */
export class Connection {
  #socket = null;
  #timer = null;
  #watch = null;
  #attempt = 0;
  #running = false;
  #heardMs = null; // When the last frame came; null until this connection's first one.

  constructor(address, { onOpen = () => {}, onFrame, onState }) {
    this.address = address;
    this.onOpen = onOpen;
    this.onFrame = onFrame;
    this.onState = onState;
    // A socket does not notice that the network is gone. A new one does, and where the server is on this very machine
    // it is live again at once.
    addEventListener("offline", () => this.restart());
    addEventListener("online", () => this.#heardMs === null && this.restart());
    // Browsers keep no page for the way back that has an open connection.
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

  /** Replaces the connection at once: it looks alive and says nothing, or there is reason to believe that one works. */
  restart() {
    if (!this.#running) return;
    this.#attempt = 0;
    this.#connect();
  }

  /** Sends `message` where the connection is open. Everything is said again by `onOpen`, so a loss here is none. */
  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** Tries now instead of at the end of the wait: somebody is looking again. */
  #hurry() {
    const dead = this.#socket === null || this.#socket.readyState === WebSocket.CLOSED;
    if (this.#running && dead) this.#connect();
  }

  #drop() {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    const socket = this.#socket;
    this.#socket = null; // Its late events are no longer ours, see the guards below.
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
      // Something of what was said was not done, and nobody tells what.
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
      // A server that greets and hangs up at once must not be called in a tight loop: only a connection that held
      // starts the waits from the beginning.
      if (liveSinceMs !== null && performance.now() - liveSinceMs > STEADY_AFTER_MS) this.#attempt = 0;
      if (code === 4529) {
        this.#slowDown();
      } else if (isFinal(code)) {
        this.#running = false;
        this.#drop();
        this.onState("ended");
      } else {
        this.#retry();
      }
    };
  }

  /** Watches for silence, where the server has told how often its heart beats. */
  #listen(heartbeatS) {
    if (!(heartbeatS > 0)) return;
    const everyMs = heartbeatS * 1000;
    let lookedMs = performance.now();
    this.#watch = setInterval(() => {
      const nowMs = performance.now();
      // Late looks prove nothing: the page was held up, and frames may wait to be read.
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
