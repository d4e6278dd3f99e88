// Sends one bid at a time until its outcome is known, and looks up the one whose page was left before.

import { rememberOwnBid } from "../bidder/bidder.js";
import { findVerdict, pause, placeBid } from "../lib/api.js";
import { Pending } from "./pending.js";

// How long to wait for the answer after the feed has shown the bid; the feed does not have the whole verdict.
const ANSWER_BEHIND_MS = 1500;
// How long a bid may still be in flight after its page was left.
const ON_ITS_WAY_MS = 2000;

/**
 * The attempts on one item: `{bid, led, price}`, see verdicts.js. `form` is told of each: `began(attempt)`,
 * `repeats(error)`, then `settled(verdict, attempt)` or `failed(error, attempt)`, which returns whether the outcome is
 * still unknown, and `over()`. `verdictOf(frame)` is the part of the verdict that the feed tells.
 */
export class Attempts {
  #underWay = null; // The attempt whose outcome is awaited.
  #seen = () => {}; // Called when the feed shows that attempt.
  #pending;
  #form;

  constructor(itemId, form) {
    this.itemId = itemId;
    this.#form = form;
    this.#pending = new Pending(itemId);
  }

  get isIdle() {
    return this.#underWay === null;
  }

  /** The bid that is under way goes on; what becomes of it is for its bidder alone, who is not here any more. */
  forget() {
    this.#seen = () => {};
    this.#underWay = null;
  }

  isOf(frame) {
    return this.#underWay !== null && frame.bid_id === this.#underWay.bid.bid_id;
  }

  /** The feed shows the bid that is under way: it was accepted. */
  heard(frame) {
    this.#seen(frame);
  }

  /** Sends the bid until its outcome is known. Repeated with the same bid id, it cannot count twice. */
  async send(attempt, { mayHaveArrived = false } = {}) {
    const { bid } = attempt;
    this.#underWay = attempt;
    this.#form.began(attempt);
    this.#pending.set(attempt);
    rememberOwnBid(bid.bid_id, bid.user_id);
    const onRepeat = (error) => this.#underWay === attempt && this.#form.repeats(error);
    const answer = placeBid(this.itemId, bid, { mayHaveArrived, onRepeat });
    const seen = new Promise((resolve) => {
      this.#seen = (frame) => pause(ANSWER_BEHIND_MS).then(() => resolve(this.#form.verdictOf(frame)));
    });
    answer.catch(() => {}); // Handled in the race; if the feed was faster, the answer is not needed.
    try {
      const verdict = await Promise.race([answer, seen]);
      this.#pending.clear(attempt);
      if (this.#underWay !== attempt) return; // Somebody else is signed in by now.
      this.#underWay = null;
      this.#form.settled(verdict, attempt);
    } catch (error) {
      if (this.#underWay !== attempt) return;
      this.#underWay = null;
      if (!this.#form.failed(error, attempt)) this.#pending.clear(attempt);
    }
    this.#form.over();
  }

  /**
   * Looks up what became of a bid that was unanswered when the page was left. `isOwn(bid)`: whether the bid is this
   * bidder's; one of somebody else who was signed in here is not looked up. `looks(attempt)` is called where the look
   * takes a while; `cannotLook(attempt)` where it failed; `found(verdict, attempt)` at the end, with null for a bid
   * that did not arrive.
   */
  async resume(isOwn, { looks, cannotLook, found }) {
    const attempt = this.#pending.get();
    const isTold = () => this.#pending.holds(attempt) && isOwn(attempt.bid);
    if (attempt === null || !isTold()) return;
    let verdict = null;
    try {
      verdict = await findVerdict(this.itemId, attempt.bid);
      if (verdict === null && isTold()) {
        looks(attempt);
        await pause(ON_ITS_WAY_MS);
        verdict = await findVerdict(this.itemId, attempt.bid);
      }
    } catch {
      if (isTold()) cannotLook(attempt);
      return;
    }
    // The message of a bid that was placed meanwhile stays.
    if (!isTold()) return;
    this.#pending.clear(attempt);
    found(verdict, attempt);
  }
}
