// The calls about who may bid, on one lot, on all of a seller, or on all. A ruling is about later bids: what was accepted
// stands.

import { OPERATION_TIMEOUT_MS, request } from "../lib/api.js";

const CALLS = {
  approve: ["PUT", "approval"],
  unapprove: ["DELETE", "approval"],
  block: ["PUT", "block"],
  unblock: ["DELETE", "block"],
  limit: ["PUT", "limit"],
  unlimit: ["DELETE", "limit"],
};

/** Where the bidders of all items are. Each call takes such a place. */
export const OF_ALL = "/api/v1/bidders";

/** Where the bidders of an item are. */
export function ofItem(itemId) {
  return `/api/v1/items/${encodeURIComponent(itemId)}/bidders`;
}

/** Where those are whom a seller blocks on all items. */
export function ofSeller(sellerId) {
  return `/api/v1/sellers/${encodeURIComponent(sellerId)}/bidders`;
}

/** One page of those on whom something was ruled: `{bidders, next_cursor, approval_required}`. */
export function ruledBidders(place, { cursor, limit }) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (cursor) query.set("cursor", cursor);
  return request(`${place}?${query}`);
}

/** What holds for a bidder there. */
export function bidderOf(place, userId) {
  return request(`${place}/${encodeURIComponent(userId)}`);
}

/** With what a bidder leads over all items in the currency, and may still: `{limit, committed, remaining}`. */
export function spendingOf(userId, currency) {
  return request(`${OF_ALL}/${encodeURIComponent(userId)}/limit?${new URLSearchParams({ currency })}`);
}

/**
 * "approve", "block" or "limit", or the opposite with "un". `amount` is that of a limit; `currency` that of a spending
 * limit, over all items.
 */
export function rule(place, userId, ruling, said) {
  const [method, what] = CALLS[ruling];
  return change(`${place}/${encodeURIComponent(userId)}/${what}`, method, said);
}

/** Whether all items ask for approval, from now on. */
export function askApproval(isAsked, reason) {
  return change("/api/v1/approval-required", isAsked ? "PUT" : "DELETE", { reason });
}

function change(path, method, said) {
  const timeoutMs = OPERATION_TIMEOUT_MS;
  if (method === "PUT") return request(path, { method, body: said, timeoutMs });
  return request(`${path}?${new URLSearchParams(said)}`, { method, timeoutMs });
}
