// The mark in the bar that says whether what is shown is live.

import { byId, setText } from "./dom.js";

/** Whoever has been live waits for that to come back; "stale" is a live feed that may lack the newest events. */
const WORDS = {
  live: "Live",
  stale: "Delayed",
  offline: "Offline",
  connecting: "Connecting…",
  reconnecting: "Reconnecting…",
  ended: "Not live",
};

export class LinkMark {
  #state = "connecting";
  #isStale = false;
  #wasLive = false;

  constructor() {
    this.box = byId("connection");
    addEventListener("online", () => this.#draw());
    addEventListener("offline", () => this.#draw());
  }

  /** The state of the connection. */
  set state(state) {
    this.#state = state;
    this.#wasLive ||= state === "live";
    this.#draw();
  }

  get isLive() {
    return this.#state === "live" && !this.#isStale;
  }

  get isStale() {
    return this.#state === "live" && this.#isStale;
  }

  set isStale(isStale) {
    this.#isStale = isStale;
    this.#draw();
  }

  #draw() {
    const shown = this.#shown();
    this.box.hidden = false;
    this.box.dataset.state = shown;
    setText(byId("connection-text"), WORDS[shown]);
  }

  #shown() {
    if (this.#state === "live") return this.#isStale ? "stale" : "live";
    if (this.#state === "ended") return "ended";
    if (navigator.onLine === false) return "offline";
    return this.#wasLive ? "reconnecting" : "connecting";
  }
}
