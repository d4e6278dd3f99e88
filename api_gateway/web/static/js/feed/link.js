// Shows whether the page is live: by the mark in the bar and, on the page of a lot, by a sentence beside the price.

import { byId, setText } from "../lib/dom.js";

/** "reconnecting": the page has been live before. "stale": the feed is live but may lack the newest events. */
const WORDS = {
  live: "Live",
  stale: "Delayed",
  offline: "Offline",
  connecting: "Connecting…",
  reconnecting: "Reconnecting…",
  ended: "Not live",
};

// Shorter breaks are not mentioned.
const BREAK_MS = 2000;

const NOTES = {
  stale: "Bids are taken, but this page may show them late: the live feed is catching up.",
  offline: "You are offline. The price may have moved.",
  connecting: "There is no live connection yet. The price may have moved.",
  reconnecting: "The live connection is interrupted, and comes back by itself. The price may have moved.",
  ended: "This page is no longer live, and asks for the price every few seconds.",
};

export class LinkMark {
  #state = "connecting";
  #isStale = false;
  #wasLive = false;
  #lostMs = performance.now(); // Since when it is not live; null while it is.

  constructor() {
    this.box = byId("connection");
    addEventListener("online", () => this.#draw());
    addEventListener("offline", () => this.#draw());
  }

  set state(state) {
    this.#state = state;
    this.#wasLive ||= state === "live";
    this.#lostMs = state === "live" ? null : (this.#lostMs ?? performance.now());
    this.#draw();
  }

  get isLive() {
    return this.#state === "live" && !this.#isStale;
  }

  get isStale() {
    return this.#state === "live" && this.#isStale;
  }

  /** Whether the server refused for good. */
  get isEnded() {
    return this.#state === "ended";
  }

  /** The sentence beside the price; "" while all is well, or for a short break. Call it regularly. */
  get note() {
    const isBrief = this.#lostMs !== null && performance.now() - this.#lostMs < BREAK_MS;
    return isBrief ? "" : (NOTES[this.#shown()] ?? "");
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
