// Which amounts the page offers. While others bid slowly these are the minimum and steps above it. While they bid fast
// they are maxima that hold for some seconds, so that they stand still long enough to be pressed.

import { decimalsOf, minorUnits } from "../lib/money.js";
import { Pace } from "./pace.js";

const OFFERS_MAX = 3;
// For how long a fast lot's first offer is made to hold, and with how much time left it is made anew.
const HOLD_S = 6;
const RENEW_S = 2;
// Multiples of that time for the three offers.
const TIMES = [1, 2, 4];
// An offer that holds for longer than this, at the present pace, is higher than it need be.
const TOO_LONG_S = 20;
// For how long an offer of the fast lot stays under a pointer when the lot is calm again.
const CALM_MS = 3_000;

export class Offers {
  #pace = new Pace();
  #units = []; // The fast lot's offers, in minor units; empty while it is slow.
  #fastAtMs = -Infinity; // When it was fast last.

  /** Whether the offers are maxima, of which the house bids as little as leads. */
  get areMaxima() {
    return this.#units.length > 0;
  }

  /** Takes each state of the item, to learn how fast others bid. */
  note({ bid_count, epoch, current_bid: price }, currency) {
    this.#pace.note({ bid_count, epoch, price: minorUnits(price ?? 0, currency) }, performance.now());
  }

  /**
   * The amounts to offer for the item's `state`. `minimum`: the least valid bid, or null. `isHeld`: a pointer or a
   * promise is on an offer, so it stays as long as it is valid.
   */
  draw(state, { currency, minimum, isHeld }) {
    if (minimum === null) return [];
    const scale = 10 ** decimalsOf(currency);
    const now = performance.now();
    const lowest = minorUnits(minimum, currency);
    const step = state.highest_bidder_id ? Math.max(0, lowest - minorUnits(state.current_bid, currency)) : 0;
    // Below a reserve a maximum would be shown in full, so nothing far above the minimum is offered there.
    this.#units = state.reserve_met === false ? [] : this.#held({ least: lowest, step, isHeld }, now);
    if (this.areMaxima) return this.#units.map((units) => units / scale);
    // Any amount from the minimum on is valid: without the item's own suggestions, steps of the same size are.
    const { suggested_bids: suggested } = state;
    if (Array.isArray(suggested) && suggested.length > 0) return suggested.slice(0, OFFERS_MAX);
    if (step === 0) return [minimum];
    return Array.from({ length: OFFERS_MAX }, (_unused, index) => (lowest + index * step) / scale);
  }

  #held({ least, step, isHeld }, now) {
    const [first] = this.#units;
    const stays = this.areMaxima && first >= least;
    const isFast = this.#pace.isFast(now);
    if (isFast) this.#fastAtMs = now;
    if (isHeld && stays && now - this.#fastAtMs < CALM_MS) return this.#units;
    if (!isFast) return [];
    const rise = this.#pace.risePerSecond(now);
    const isRight = stays && first >= least + RENEW_S * rise && first <= least + Math.max(TOO_LONG_S * rise, step);
    if (isRight) return this.#units;
    const unit = Math.max(1, step);
    return TIMES.map((times) => least + Math.max(times, Math.ceil((times * HOLD_S * rise) / unit)) * unit);
  }
}
