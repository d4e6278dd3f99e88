// What an item's state means; the same on every page.

/** With less than this left, the clock looks urgent. */
export const URGENT_MS = 120_000;

export const STATUS_LABELS = {
  scheduled: "Upcoming",
  open: "Open",
  paused: "Paused",
  sold: "Sold",
  unsold: "Unsold",
  cancelled: "Withdrawn",
};

export function isFinalStatus(status) {
  return status === "sold" || status === "unsold" || status === "cancelled";
}

/** The end of an item in ms, or null. */
export function endOf(item) {
  return momentOf(item.end_time);
}

/** The start of an item in ms, or null. */
export function startOf(item) {
  return momentOf(item.start_time);
}

function momentOf(text) {
  const moment = Date.parse(text ?? "");
  return Number.isNaN(moment) ? null : moment;
}

/**
 * Whether buy-now is offered: until the first bid or, with a reserve, until that is met. Frames do not tell it, but it
 * follows from the state: without a reserve `reserve_met` is always true.
 */
export function buyNowOffered(item) {
  if (typeof item?.buy_now_price !== "number" || isFinalStatus(item.status)) return false;
  return item.reserve_met === false || !item.highest_bidder_id;
}

/** The price to show; before the first bid, the least first bid. */
export function shownPrice(item) {
  const nobody = !item.highest_bidder_id && !isFinalStatus(item.status);
  return nobody || !item.bid_count ? item.start_price || item.min_next_bid : item.current_bid;
}

export function priceLabel(item) {
  if (item.status === "sold") return "Hammer price";
  if (item.bid_count > 0 && (item.highest_bidder_id || isFinalStatus(item.status))) {
    return isFinalStatus(item.status) ? "Last bid" : "Current bid";
  }
  return "Opening bid";
}
