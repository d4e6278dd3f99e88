// The clock on the panel: counts to the opening or the close, or stands still. It follows the server's time.

import { durationParts, lengthText, momentText, serverNow, timeText, two } from "../lib/clock.js";
import { byId, element, isolated, sentence, setText } from "../lib/dom.js";
import { URGENT_MS, endOf, isFinalStatus, startOf } from "../lib/status.js";

const SOON_MS = 900_000;
const MINUTE_MS = 60_000;
const UNITS = ["days", "hours", "minutes", "seconds"];
const SHORT = { days: "d", hours: "h", minutes: "min", seconds: "s" };

export class Countdown {
  #numbers = new Map();

  constructor() {
    this.box = byId("end");
    const face = byId("countdown");
    for (const unit of UNITS) {
      const number = element("span", { class: "number" });
      const word = element("span", { class: "word" }, SHORT[unit]);
      // The blanks are for screen readers and for copying; the visible gaps come from the style.
      const part = element("span", { class: "unit" }, number, " ", word, " ");
      face.append(part);
      this.#numbers.set(unit, { number, part });
    }
  }

  /** Draws the clock. Returns the milliseconds to the next opening or close, or null. */
  draw(item, circumstances) {
    const view = viewOf(item, circumstances);
    this.box.hidden = view === null;
    this.#drawExtension(item, circumstances);
    if (view === null) return null;
    setText(byId("end-label"), view.label);
    setText(byId("end-moment"), view.moment ?? "");
    const first = Date.parse(item.original_end_time ?? "");
    const moved = item.status === "open" && endOf(item) - first >= MINUTE_MS;
    setText(byId("end-first"), moved ? `It was first scheduled to close on ${momentText(first)}.${extendedTimes(item)}` : "");
    const running = view.leftMs !== undefined;
    byId("countdown").hidden = !running;
    if (running) this.#drawParts(durationParts(view.leftMs));
    this.box.dataset.pace = view.pace ?? "";
    return view.next ?? null;
  }

  #drawParts(parts) {
    // Units are shown from the largest that is not 0 on; minutes and seconds always.
    const largest = Math.min(2, UNITS.findIndex((unit) => parts[unit] > 0) >>> 0);
    UNITS.forEach((unit, index) => {
      const { number, part } = this.#numbers.get(unit);
      part.hidden = index < largest;
      const leads = index === largest && index < 2;
      setText(number, leads ? String(parts[unit]) : two(parts[unit]));
    });
  }

  #drawExtension(item, circumstances) {
    const extended = item.status === "open" ? circumstances.extended : null;
    const box = byId("extended");
    box.hidden = extended === null;
    if (extended === null) return;
    // Counted from the bid, the extension has an odd length, which would help nobody.
    const by = extended.byMs % MINUTE_MS === 0 ? ` by ${lengthText(extended.byMs)}` : "";
    const why = extended.reason === null ? "" : ` ${isolated(sentence(extended.reason))}`;
    setText(box, `Extended${by}. The bidding now closes at ${timeText(extended.end)}.${why}`);
  }
}

/** How often the end was extended, if the feed has told. */
function extendedTimes({ extensions }) {
  if (!(extensions > 0)) return "";
  return extensions === 1 ? " Extended once." : ` Extended ${extensions} times.`;
}

/** What the clock shows: `{label, leftMs, moment, pace, next}`, or null for nothing. */
function viewOf(item, circumstances) {
  const end = endOf(item);
  const start = startOf(item);
  if (item.status === "scheduled" && start !== null) {
    const leftMs = start - serverNow();
    return { label: leftMs > 0 ? "Opens in" : "Opening…", leftMs, moment: momentText(start), next: leftMs };
  }
  if (end === null || item.status === "cancelled") return null;
  if (isFinalStatus(item.status)) return { label: "Closed", moment: momentText(closedAt(end, circumstances)) };
  if (item.status === "paused") {
    const since = pausedSince(item, circumstances);
    return { label: "Paused, with this much time left", leftMs: Math.max(0, end - since), pace: "still" };
  }
  const leftMs = end - serverNow();
  const pace = leftMs <= URGENT_MS ? "urgent" : leftMs <= SOON_MS ? "soon" : "";
  return { label: leftMs > 0 ? "Closes in" : "Closing…", leftMs, moment: momentText(end), pace, next: leftMs };
}

/** When the time stopped: from the event, or else the API's last change. */
function pausedSince(item, circumstances) {
  const told = Date.parse(circumstances.paused?.timestamp ?? "");
  const since = Number.isNaN(told) ? Date.parse(item.updated_at ?? "") : told;
  return Number.isNaN(since) ? serverNow() : since;
}

/** When it closed: a lot that was bought closed before its end. */
function closedAt(end, circumstances) {
  const told = Date.parse(circumstances.closed?.timestamp ?? "");
  return Number.isNaN(told) ? Math.min(end, serverNow()) : told;
}
