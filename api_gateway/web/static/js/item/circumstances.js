// The reasons behind an item's state: why it is paused or cancelled, or why a bid was struck, and since when. Only the
// events tell. After a reload the feed replays the last few events, so the reasons are not lost.

import { compareVersions } from "../feed/feed.js";
import { isolated, sentence } from "../lib/dom.js";

const REPLAYED_EVENTS = 30;
const EXTENDED_SHOWN_MS = 15_000;
const FALL_SHOWN_MS = 30_000;
const TOLD = ["paused", "cancelled", "voided", "closed", "extended"];

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

  /** Compares two successive states, and notes a moved end or a fallen price, which are shown for a while. */
  compare(before, after) {
    if (before === null) return;
    const now = performance.now();
    // Within an epoch only a struck bid makes a price fall.
    if (after.current_bid < before.current_bid && after.epoch === before.epoch) this.#fall = { untilMs: now + FALL_SHOWN_MS };
    // An end that moved while the item was open was extended; a pause moves it too.
    if (before.status !== "open" || after.status !== "open" || before.end_time === after.end_time) return;
    const [from, to] = [Date.parse(before.end_time ?? ""), Date.parse(after.end_time ?? "")];
    if (to > from) this.#extended = { byMs: to - from, end: to, untilMs: now + EXTENDED_SHOWN_MS };
  }

  /** `{byMs, end, reason}` for some seconds after the end moved, else null. A late bid gives no reason. */
  get extended() {
    if (this.#extended === null || performance.now() >= this.#extended.untilMs) return null;
    const told = this.#newest.get("extended");
    const isOfIt = told !== undefined && Date.parse(told.end_time ?? "") === this.#extended.end;
    return { ...this.#extended, reason: (isOfIt && told.reason) || null };
  }

  /** A sentence for some seconds after the price fell, else null. */
  get fall() {
    if (this.#fall === null || performance.now() >= this.#fall.untilMs) return null;
    const reason = this.#newest.get("voided")?.reason;
    return `A bid was voided, so the price fell.${reason ? ` ${isolated(sentence(reason))}` : ""}`;
  }

  /** The newest "paused" event: its timestamp is when the time stopped. */
  get paused() {
    return this.#newest.get("paused") ?? null;
  }

  get closed() {
    return this.#newest.get("closed") ?? null;
  }

  get cancelled() {
    return this.#newest.get("cancelled") ?? null;
  }

  /** The newest "voided" event, if the present state came from it: there was no bid after it. */
  voidedAt(state) {
    const voided = this.#newest.get("voided");
    return voided && compareVersions(voided, state) === 0 ? voided : null;
  }
}

/** The version from which to follow an item, so that the events behind its state are replayed; null for none. */
export function replayFrom({ epoch, seq, status }) {
  return status === "open" ? null : { epoch, seq: Math.max(0, seq - REPLAYED_EVENTS) };
}
