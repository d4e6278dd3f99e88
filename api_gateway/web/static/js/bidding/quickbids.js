// The row of quick bids: each button bids its amount. The row keeps its place while it offers nothing, so that nothing
// below it moves when it comes back.

import { byId, element, setText } from "../lib/dom.js";
import { ARMED_AFTER_MS } from "./message.js";

const BUTTONS = 3;

export class QuickBids {
  #movedAtMs = -Infinity;
  #shownAtMs = -Infinity;

  /** `onBid(amount)` runs when a button is pressed; `fallback` gets the focus when a focused button goes away. */
  constructor(fallback, onBid) {
    this.row = byId("quick");
    this.box = byId("suggestions");
    this.fallback = fallback;
    this.onBid = onBid;
    this.box.append(...Array.from({ length: BUTTONS }, () => element("button", { type: "button", class: "chip" }, "—")));
    this.row.dataset.state = "first";
  }

  /** When the amounts last changed, in ms of `performance.now()`. */
  get movedAtMs() {
    return this.#movedAtMs;
  }

  /** Whether the buttons work: for a moment after they have appeared they do not. */
  get isArmed() {
    return performance.now() - this.#shownAtMs >= ARMED_AFTER_MS;
  }

  get buttons() {
    return [...this.box.children];
  }

  /** Shows at most three `amounts`, formatted by `money`; `areMaxima`: each is sent as a maximum. */
  draw(amounts, money, { areMaxima = false } = {}) {
    if (amounts.length === 0) {
      if (this.box.contains(document.activeElement)) this.fallback.focus();
      this.row.dataset.state = "empty";
      return;
    }
    const now = performance.now();
    // What has just appeared under a finger was not what the finger meant.
    if (this.row.dataset.state === "empty") this.#shownAtMs = now;
    const isFirst = this.row.dataset.state !== "shown";
    this.row.dataset.state = "shown";
    setText(byId("quick-label"), areMaxima ? "Bids come fast: bid up to" : "Quick bid");
    // The buttons are kept and relabelled, so that a focused one does not lose the focus at every new price.
    this.buttons.forEach((button, index) => {
      button.hidden = index >= amounts.length;
      if (button.hidden) return;
      const amount = amounts[index];
      const text = money(amount);
      if (!isFirst && button.textContent !== text) this.#movedAtMs = now;
      setText(button, text);
      const name = areMaxima ? `Bid up to ${text} now` : `Bid ${text} now`;
      if (button.getAttribute("aria-label") !== name) button.setAttribute("aria-label", name);
      button.onclick = () => this.isArmed && this.onBid(amount);
    });
  }
}
