// "Press again": what moved under a finger a moment ago is not bid at once. The page names an amount, which stands still
// until it is pressed again.

// If the page changed an amount less than this ago, the bidder may have meant to press the one before.
export const JUST_MOVED_MS = 600;
// For how long an amount stands still that "press again" has named.
const PROMISED_MS = 4000;

export class SecondPress {
  #promise = null; // What "press again" has named: {amount, untilMs}.
  replaces = false; // The page's amount stands where a typed one was refused.

  /** Whether an amount is named that must not move. */
  get isAwaited() {
    return this.#promise !== null;
  }

  /** Names an amount. */
  ask(amount) {
    this.replaces = false;
    this.#promise = { amount, untilMs: performance.now() + PROMISED_MS };
  }

  forget() {
    this.#promise = null;
  }

  /** Forgets the amount that was named where it is below the `minimum` now, or is waited for no longer: true then. */
  expire(minimum) {
    if (this.#promise === null) return false;
    if (minimum <= this.#promise.amount && performance.now() < this.#promise.untilMs) return false;
    this.#promise = null;
    return true;
  }

  /** Whether the page showed another amount a moment ago, and has not named this one. */
  isNeeded(amount, movedAtMs) {
    const now = performance.now();
    const isPromised = this.#promise?.amount === amount && now < this.#promise.untilMs;
    return (now - movedAtMs < JUST_MOVED_MS || this.replaces) && !isPromised;
  }
}
