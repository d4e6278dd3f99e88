// The field with the amount, the line under it, and whether the bidder chose what stands there.

import { byId, setText } from "../lib/dom.js";
import { decimalsOf, inputText, parseAmount, symbolOf } from "../lib/money.js";
import { hintFor } from "./wording.js";

export class AmountField {
  #currency = "USD";
  #movedAtMs = -Infinity;
  isTouched = false; // The bidder chose the amount: it no longer follows the price.

  /** `onTyped()` runs when the bidder changes the amount, `onLeft()` when they leave it and have not chosen one. */
  constructor({ onTyped, onLeft }) {
    this.input = byId("amount");
    this.input.addEventListener("input", () => {
      this.isTouched = this.input.value.trim() !== "";
      onTyped();
    });
    this.input.addEventListener("blur", () => {
      if (!this.isTouched) onLeft();
    });
  }

  /** When the page last changed the amount, in ms of `performance.now()`. */
  get movedAtMs() {
    return this.#movedAtMs;
  }

  /** The amount that stands there, or null. */
  get amount() {
    return parseAmount(this.input.value, this.#currency);
  }

  useCurrency(currency) {
    this.#currency = currency;
    setText(byId("symbol"), symbolOf(currency));
    this.input.inputMode = decimalsOf(currency) === 0 ? "numeric" : "decimal";
  }

  clear() {
    this.input.value = "";
  }

  focus() {
    this.input.focus();
  }

  /** Puts an amount there that the bidder has chosen. */
  choose(amount) {
    this.input.value = inputText(amount, this.#currency);
    this.isTouched = true;
  }

  /** Puts an amount of the page's own there. `first`: the page has just appeared, so nothing has moved. */
  follow(amount, first) {
    const text = inputText(amount, this.#currency);
    if (this.input.value === text) return;
    this.input.value = text;
    if (!first) this.#movedAtMs = performance.now();
  }

  /** Draws the line under the field; `least`, `low` and `view` as in wording.js. */
  describe(least, low, view) {
    const isBad = low || this.#isUnclear;
    this.input.setAttribute("aria-invalid", String(isBad));
    const hint = byId("amount-hint");
    const example = inputText(1234 + (decimalsOf(this.#currency) > 0 ? 0.5 : 0), this.#currency);
    setText(hint, this.#isUnclear ? `Please write the amount like ${example}.` : hintFor(least, low, view));
    hint.classList.toggle("is-bad", isBad);
  }

  get #isUnclear() {
    return this.isTouched && this.amount === null;
  }
}
