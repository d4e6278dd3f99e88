// The private channel: authenticates the bidder with a feed token, so that the feed tells how they stand. Without a
// token the page works without it.

import { feedToken } from "../lib/api.js";

const ASK_AGAIN_MS = 10_000;
const WAIT_MS = 15_000;

export class PrivateChannel {
  #bidder = "";
  #token = null;
  #known = null; // The user id with which the connection is authenticated.
  #isOff = false;
  #asking = null; // The user id for which a token is being fetched.
  #askedMs = -Infinity;
  #timer = null;

  constructor(send) {
    this.send = send;
  }

  /** The bidder is now `userId`. */
  identify(userId) {
    if (userId === this.#bidder) return;
    this.#bidder = userId;
    this.#token = null;
    this.#say();
  }

  /** The connection is new, and not authenticated. */
  opened() {
    this.#known = null;
    this.#say();
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
