// Why an item is as it is. The state says that an item is paused or cancelled, or that a bid was struck; the reason and
// the moment are in the event itself. After a reload the feed replays the last few events, so they are not lost.

import { sentence } from "./dom.js";
import { compareVersions } from "./feed.js";

const REPLAYED_EVENTS = 30;
const EXTENDED_SHOWN_MS = 15_000;
const FALL_SHOWN_MS = 30_000;
const TOLD = ["paused", "cancelled", "voided", "closed"];

export class Circumstances {
  #newest = new Map(); // by type of frame
  #extended = null;
  #fall = null;

  /** Takes any frame of the item. */
  take(frame) {
    if (!TOLD.includes(frame.type)) return;
    const known = this.#newest.get(frame.type);
    if (!known || compareVersions(frame, known) > 0) this.#newest.set(frame.type, frame);
  }

  /** Compares two states, one after the other, for what deserves to be said aloud for a while. */
  compare(before, after) {
    if (before === null) return;
    const now = performance.now();
    // Only a bid that was struck can make a price fall; an item that was rebuilt begins a new count.
    if (after.current_bid < before.current_bid && after.epoch === before.epoch) this.#fall = { untilMs: now + FALL_SHOWN_MS };
    // An end that moved while the bidding went on was extended; one that moved over a pause was not.
    if (before.status !== "open" || after.status !== "open" || before.end_time === after.end_time) return;
    const [from, to] = [Date.parse(before.end_time ?? ""), Date.parse(after.end_time ?? "")];
    if (to > from) this.#extended = { byMs: to - from, end: to, untilMs: now + EXTENDED_SHOWN_MS };
  }

  /** `{byMs, end}` for some seconds after the end moved, else null. */
  get extended() {
    return this.#extended !== null && performance.now() < this.#extended.untilMs ? this.#extended : null;
  }

  /** Words for some time after the price fell, else null. */
  get fall() {
    if (this.#fall === null || performance.now() >= this.#fall.untilMs) return null;
    const reason = this.#newest.get("voided")?.reason;
    return `A bid was struck, so the price fell.${reason ? ` ${sentence(reason)}` : ""}`;
  }

  /** The newest "paused" event: its timestamp is the moment from which the time stands still. */
  get paused() {
    return this.#newest.get("paused") ?? null;
  }

  get closed() {
    return this.#newest.get("closed") ?? null;
  }

  get cancelled() {
    return this.#newest.get("cancelled") ?? null;
  }

  /** The newest "voided" event, where it is what the state came from: nothing was bid after it. */
  voidedAt(state) {
    const voided = this.#newest.get("voided");
    return voided && compareVersions(voided, state) === 0 ? voided : null;
  }
}

/** The version to follow an item from, so that the events behind its state come along; null where none are needed. */
export function replayFrom({ epoch, seq, status }) {
  return status === "open" ? null : { epoch, seq: Math.max(0, seq - REPLAYED_EVENTS) };
}
