// The notice to a bidder whose bid was struck. The private channel tells it, also to a bidder who returns later. The
// public event tells it too, so the notice works without a private channel. Each bid is shown once.

import { byId, element, sentence } from "../lib/dom.js";

const SHOWN_MAX = 5;

export class StruckNotice {
  #told = new Map(); // by bid id: the frame
  #drawn = "";

  constructor() {
    this.box = byId("struck");
  }

  /** Takes a frame of the private channel, or a `voided` event of the bidder `me`. */
  take(frame, me) {
    const isMine = frame.type === "struck" || (frame.type === "voided" && frame.user_id === me && me !== "");
    if (isMine && typeof frame.bid_id === "string") this.#told.set(frame.bid_id, frame);
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
  return `${what} was struck by the auctioneer${reason ? `: ${sentence(reason)}` : "."}`;
}
