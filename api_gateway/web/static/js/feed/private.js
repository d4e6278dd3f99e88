// The private channel: authenticates the bidder with a feed ticket, so that the feed tells how they stand, and which
// alias is theirs. Without a ticket the page works without it.

import { feedTicket } from "../lib/api.js";

const ASK_AGAIN_MS = 10_000;
const WAIT_MS = 15_000;
// A ticket is good once, so each connection needs one. After a break all pages come back together, so they ask at
// random times.
const SPREAD_MS = 3000;

export class PrivateChannel {
  #bidder = "";
  #known = null; // The user id with which the connection is authenticated.
  #isOff = false;
  #connections = 0;
  #asking = 0; // Which question is the newest: the answers to others are too late.
  #askedMs = -Infinity;
  #timer = null;

  constructor(send) {
    this.send = send;
  }

  /** The bidder is now `userId`; "" for nobody, whose frames are not shown. */
  identify(userId) {
    if (userId === this.#bidder) return;
    this.#bidder = userId;
    this.#isOff = false;
    if (this.#connections > 0) this.#say(0);
  }

  /** The connection is new, and not authenticated. */
  opened() {
    this.#known = null;
    this.#connections += 1;
    this.#say(this.#connections === 1 ? 0 : Math.random() * SPREAD_MS);
  }

  /** Takes a frame. True if it may be shown: frames about a former bidder may not. */
  admits(frame) {
    switch (frame.type) {
      case "authenticated":
        this.#known = frame.user_id;
        return false;
      case "standing":
      case "struck":
        return this.#known !== null && this.#known === this.#bidder;
      case "error":
        if (!/^(TOKEN|TICKET)_/.test(String(frame.code))) return true;
        this.#ended();
        return false;
      default:
        return true;
    }
  }

  /** The session is over, or the ticket came too late. */
  #ended() {
    this.#known = null;
    const sinceMs = performance.now() - this.#askedMs;
    this.#say(sinceMs > ASK_AGAIN_MS ? 0 : ASK_AGAIN_MS - sinceMs);
  }

  #say(waitMs) {
    clearTimeout(this.#timer);
    this.#asking += 1;
    if (this.#isOff || this.#bidder === "") return;
    this.#timer = setTimeout(() => this.#ask(), waitMs);
  }

  async #ask() {
    this.#asking += 1;
    const asking = this.#asking;
    this.#askedMs = performance.now();
    const answer = await feedTicket(this.#bidder).catch(() => undefined);
    if (asking !== this.#asking) return;
    // Undefined: the house does not answer. Null: it gives this page none.
    if (answer === undefined) this.#say(WAIT_MS * (0.5 + Math.random()));
    else if (answer === null) this.#isOff = true;
    else this.send({ op: "authenticate", ticket: answer.ticket });
  }
}
