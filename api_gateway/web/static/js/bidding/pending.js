// The bid whose outcome is not known yet. It survives a reload, and is kept as long as the tab.

/** Stores the attempt of one item: `{bid, led, price}`, see verdicts.js. */
export class Pending {
  constructor(itemId) {
    this.key = `bidding.pending.${itemId}`;
  }

  /** The attempt, or null. */
  get() {
    try {
      const attempt = JSON.parse(sessionStorage.getItem(this.key) ?? "null");
      return typeof attempt?.bid?.bid_id === "string" ? attempt : null;
    } catch {
      return null;
    }
  }

  holds(attempt) {
    return this.get()?.bid.bid_id === attempt.bid.bid_id;
  }

  set(attempt) {
    try {
      sessionStorage.setItem(this.key, JSON.stringify(attempt));
    } catch {
      // Without storage a reload forgets the pending bid; the history still shows it.
    }
  }

  /** Forgets `attempt`, unless a newer one has taken its place. */
  clear(attempt) {
    if (!this.holds(attempt)) return;
    try {
      sessionStorage.removeItem(this.key);
    } catch {
      // Without storage there is nothing to remove.
    }
  }
}
