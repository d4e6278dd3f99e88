// The calls about who may bid, on one lot or on all. A ruling is about later bids: what was accepted stands.

import { OPERATION_TIMEOUT_MS, request } from "../lib/api.js";

const CALLS = {
  approve: ["PUT", "approval"],
  unapprove: ["DELETE", "approval"],
  block: ["PUT", "block"],
  unblock: ["DELETE", "block"],
  limit: ["PUT", "limit"],
  unlimit: ["DELETE", "limit"],
};

/** Where the bidders of an item are; without one those of all items. */
function biddersPath(itemId) {
  return itemId === null ? "/api/v1/bidders" : `/api/v1/items/${encodeURIComponent(itemId)}/bidders`;
}

/** One page of those on whom something was ruled: `{bidders, next_cursor, approval_required}`. */
export function ruledBidders(itemId, { cursor, limit }) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (cursor) query.set("cursor", cursor);
  return request(`${biddersPath(itemId)}?${query}`);
}

/** What holds for a bidder, on the item or on all. */
export function bidderOf(itemId, userId) {
  return request(`${biddersPath(itemId)}/${encodeURIComponent(userId)}`);
}

/** With what a bidder leads over all items in the currency, and may still: `{limit, committed, remaining}`. */
export function spendingOf(userId, currency) {
  return request(`${biddersPath(null)}/${encodeURIComponent(userId)}/limit?${new URLSearchParams({ currency })}`);
}

/**
 * "approve", "block" or "limit", or the opposite with "un". `amount` is that of a limit; `currency` that of a spending
 * limit, over all items.
 */
export function rule(itemId, userId, ruling, said) {
  const [, what] = CALLS[ruling];
  return change(`${biddersPath(itemId)}/${encodeURIComponent(userId)}/${what}`, CALLS[ruling][0], said);
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
