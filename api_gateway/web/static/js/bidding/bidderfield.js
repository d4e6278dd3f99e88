// The field with the bidder's name.

import { isUserId, rememberUserId, userId } from "../bidder/bidder.js";
import { byId, setText } from "../lib/dom.js";

export class BidderField {
  /** `onBidder(userId)` runs when the bidder changes. */
  constructor(onBidder) {
    this.onBidder = onBidder;
    this.input = byId("user-id");
    this.input.addEventListener("change", () => this.check());
    this.input.addEventListener("input", () => this.#fit());
    this.show();
  }

  get userId() {
    return this.input.value.trim();
  }

  /** Shows who is known now. */
  show() {
    this.input.value = userId();
    this.#fit();
  }

  /** Whether it is a name; remembers it, or says what a name is. */
  check() {
    const valid = isUserId(this.userId);
    this.input.setAttribute("aria-invalid", String(!valid));
    setText(byId("user-hint"), valid ? "" : "Use 1 to 64 letters, digits, or . _ - @");
    if (!valid) return false;
    rememberUserId(this.userId);
    this.onBidder(this.userId);
    return true;
  }

  #fit() {
    this.input.size = Math.min(28, Math.max(8, this.input.value.length));
  }
}
