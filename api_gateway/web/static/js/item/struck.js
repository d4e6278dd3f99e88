// The notice to a bidder whose bid was voided. The private channel tells it, also to a bidder who returns later. The
// public event and the history tell it too, so the notice works without a private channel. Each bid is shown once. Its
// words are "voided", not "struck": at an auction a struck lot is a sold one.

import { byId, element, isolated, sentence } from "../lib/dom.js";

const SHOWN_MAX = 5;

export class StruckNotice {
  #told = new Map(); // by bid id: the frame
  #drawn = "";

  constructor() {
    this.box = byId("struck");
  }

  /** Takes a frame of the private channel, or a `voided` event; `isOwn`: of a bid of this bidder. */
  take(frame, isOwn) {
    const isMine = frame.type === "struck" || (frame.type === "voided" && isOwn);
    if (!isMine || typeof frame.bid_id !== "string") return;
    // What comes later may know less: the history has no reason.
    const known = this.#told.get(frame.bid_id);
    if (frame.reason || !known) this.#told.set(frame.bid_id, { ...known, ...frame });
  }

  /** Another bidder uses this page now. */
  forget() {
    this.#told.clear();
  }

  draw(money) {
    const newest = [...this.#told.values()].sort((a, b) => b.seq - a.seq).slice(0, SHOWN_MAX);
    const texts = newest.map((frame) => struckText(frame, money));
    if (texts.join("\n") === this.#drawn) return;
    this.#drawn = texts.join("\n");
    this.box.hidden = texts.length === 0;
    this.box.replaceChildren(...texts.map((text) => element("p", {}, text)));
  }
}

/** A raise has no amount: it had set no price, and nobody but the bidder saw it. */
export function struckText({ amount, reason }, money) {
  const what = typeof amount === "number" ? `Your bid of ${money(amount)}` : "The maximum that you had raised";
  return `${what} was voided by the auctioneer${reason ? `: ${isolated(sentence(reason))}` : "."}`;
}
