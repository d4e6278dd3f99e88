// The row of quick bids: each button bids its amount.

import { byId, element, setText } from "../lib/dom.js";

export class QuickBids {
  #movedAtMs = -Infinity;

  /** `onBid(amount)` runs when a button is pressed; `fallback` gets the focus when a focused button goes away. */
  constructor(fallback, onBid) {
    this.box = byId("suggestions");
    this.fallback = fallback;
    this.onBid = onBid;
  }

  /** When the amounts last changed, in ms of `performance.now()`. */
  get movedAtMs() {
    return this.#movedAtMs;
  }

  get buttons() {
    return [...this.box.children];
  }

  /** Shows `amounts`, formatted by `money`. */
  draw(amounts, money) {
    byId("quick").hidden = amounts.length === 0;
    if (amounts.length === 0 && this.box.contains(document.activeElement)) this.fallback.focus();
    // The buttons are kept and relabelled, so that a focused one does not lose the focus at every new price.
    while (this.box.children.length > amounts.length) this.box.lastElementChild.remove();
    while (this.box.children.length < amounts.length) this.box.append(element("button", { type: "button", class: "chip" }));
    amounts.forEach((amount, index) => {
      const button = this.box.children[index];
      const text = money(amount);
      if (button.textContent !== "" && button.textContent !== text) this.#movedAtMs = performance.now();
      setText(button, text);
      button.setAttribute("aria-label", `Bid ${text} now`);
      button.onclick = () => this.onBid(amount);
    });
  }
}
