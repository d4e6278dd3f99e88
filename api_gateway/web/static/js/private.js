// The private channel: the feed is told who the bidder is, with a token of the house, and then tells where they stand.
// Where the house gives no token, everything goes on without it.

import { feedToken } from "./api.js";

const ASK_AGAIN_MS = 10_000;
const WAIT_MS = 15_000;

export class PrivateChannel {
  #bidder = "";
  #token = null;
  #known = null; // Whom the feed takes us for.
  #isOff = false;
  #asking = null; // For whom a token is on its way.
  #askedMs = -Infinity;
  #timer = null;

  constructor(send) {
    this.send = send;
  }

  /** From now on the bidder is `userId`. */
  identify(userId) {
    if (userId === this.#bidder) return;
    this.#bidder = userId;
    this.#token = null;
    this.#say();
  }

  /** The connection is a new one: nobody knows us there. */
  opened() {
    this.#known = null;
    this.#say();
  }

  /** Takes a frame. True where it may be shown; what is about somebody whom we no longer are may not. */
  admits(frame) {
    switch (frame.type) {
      case "authenticated":
        this.#known = frame.user_id;
        return false;
      case "standing":
      case "struck":
        return this.#known !== null && this.#known === this.#bidder;
      case "error":
        if (String(frame.code).startsWith("TOKEN_")) this.#expired();
        return false;
      default:
        return true;
    }
  }

  #expired() {
    this.#known = null;
    this.#token = null;
    if (performance.now() - this.#askedMs > ASK_AGAIN_MS) this.#say();
  }

  async #say() {
    const bidder = this.#bidder;
    if (this.#isOff || bidder === "" || this.#asking === bidder) return;
    if (this.#token === null) {
      this.#asking = bidder;
      this.#askedMs = performance.now();
      clearTimeout(this.#timer);
      const answer = await feedToken(bidder).catch(() => undefined);
      if (this.#asking === bidder) this.#asking = null;
      this.#isOff ||= answer === null;
      if (bidder !== this.#bidder || this.#isOff) return;
      if (answer === undefined) {
        // The house does not answer.
        this.#timer = setTimeout(() => this.#say(), WAIT_MS * (0.5 + Math.random()));
        return;
      }
      this.#token = answer.token;
    }
    this.send({ op: "authenticate", token: this.#token });
  }
}
