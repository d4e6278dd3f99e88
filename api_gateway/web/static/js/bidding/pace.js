// How fast others bid. It decides whether the page offers the minimum, or amounts that hold for some seconds.

const WINDOW_MS = 4000;
// FAST_FROM bids within the window make a lot fast; it stays fast until there are only FAST_UNTIL.
const FAST_FROM = 3;
const FAST_UNTIL = 1;

export class Pace {
  #changes = []; // {atMs, bids, rise}: how many bids a new state brought, and how far each raised the price.
  #last = null;
  #isFast = false;

  /** Takes a state of the item at `nowMs`. `price` is in minor units. */
  note({ bid_count: count, price, epoch }, nowMs) {
    const last = this.#last;
    this.#last = { count, price, epoch };
    // What a void or a rebuilt item changes says nothing about the pace.
    if (last === null || last.epoch !== epoch || count <= last.count) return;
    const bids = count - last.count;
    this.#changes.push({ atMs: nowMs, bids, rise: Math.max(0, price - last.price) / bids });
    this.#forget(nowMs);
  }

  /** Whether bids come so fast that an amount is out of date before somebody can press it. */
  isFast(nowMs) {
    this.#forget(nowMs);
    const bids = this.#bids();
    this.#isFast = bids >= (this.#isFast ? FAST_UNTIL + 1 : FAST_FROM);
    return this.#isFast;
  }

  /**
   * How far the price rises in a second, in minor units. It is reckoned from the middle one of the rises, so that a
   * single bid far above the others does not count.
   */
  risePerSecond(nowMs) {
    this.#forget(nowMs);
    if (this.#changes.length === 0) return 0;
    const rises = this.#changes.map(({ rise }) => rise).sort((a, b) => a - b);
    return (rises[rises.length >> 1] * this.#bids() * 1000) / WINDOW_MS;
  }

  #bids() {
    return this.#changes.reduce((sum, { bids }) => sum + bids, 0);
  }

  #forget(nowMs) {
    while (this.#changes.length > 0 && this.#changes[0].atMs < nowMs - WINDOW_MS) this.#changes.shift();
  }
}
