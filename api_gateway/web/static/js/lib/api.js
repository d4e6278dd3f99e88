// The client of the HTTP API.

import { noteServerDate } from "./clock.js";

const READ_TIMEOUT_MS = 8000;
const BID_TIMEOUT_MS = 4000;
const GIVE_UP_MS = 30000;
const RETRY_FIRST_MS = 300;
const RETRY_MAX_MS = 4000;

// With these codes the server says that it did nothing; after any other 5xx the outcome is unknown.
const NOT_CARRIED_OUT = ["UNAVAILABLE", "OVERLOADED", "OUTBOX_FULL", "BEING_REBUILT"];
// These are about the time or the sender, not the request: they do not tell the outcome of an earlier attempt.
const SETTLES_NOTHING = [401, 403, 408, 425, 429];

/**
 * Any failure of a request. `status` is 0 if no answer came; `code` and `field` are those of the problem document.
 * `outcomeUnknown`: the request may have been, or may yet be, carried out; sending it again, with the same key, tells.
 * `passing`: the same request may succeed later.
 */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", field = "", retryAfterMs = 0 } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.field = field;
    this.retryAfterMs = retryAfterMs;
    this.outcomeUnknown = status === 0 || status === 409 || (status >= 500 && !NOT_CARRIED_OUT.includes(code));
  }

  get passing() {
    return this.outcomeUnknown || this.status >= 500;
  }
}

/** With a body it is a POST, without one a GET. */
async function request(path, { body, timeoutMs = READ_TIMEOUT_MS } = {}) {
  const sentMs = performance.now();
  let response;
  let text;
  try {
    response = await fetch(path, {
      ...(body !== undefined && {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      }),
      signal: AbortSignal.timeout(timeoutMs),
      cache: "no-store",
    });
    // The time-out includes the body: a connection may break after the status line.
    text = await response.text();
  } catch (error) {
    const late = error instanceof DOMException && error.name === "TimeoutError";
    throw new ApiError(late ? "The server did not answer in time." : "The server could not be reached.");
  }
  noteServerDate(response.headers.get("Date"), sentMs, performance.now());
  let parsed = null;
  try {
    parsed = JSON.parse(text);
  } catch {
    // Handled below: an answer that is not JSON came from a proxy in between.
  }
  if (response.ok && parsed !== null) return parsed;
  throw problemOf(response, parsed);
}

/** An error out of `application/problem+json`, or out of whatever came instead. */
function problemOf(response, parsed) {
  const said = parsed && typeof parsed === "object" ? parsed : {};
  const message = [said.detail, said.error, said.title, said.message].find((text) => typeof text === "string" && text);
  const seconds = Number(response.headers.get("Retry-After") ?? 0);
  return new ApiError(message ?? `The server answered ${response.status}.`, {
    // After an unreadable success the outcome is as unknown as without an answer.
    status: response.ok ? 0 : response.status,
    code: typeof said.code === "string" ? said.code : "",
    field: typeof said.field === "string" ? said.field : "",
    retryAfterMs: Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 30) * 1000 : 0,
  });
}

const itemPath = (itemId) => `/api/v1/items/${encodeURIComponent(itemId)}`;

export function getItem(itemId) {
  return request(itemPath(itemId));
}

/** One page of the catalogue: `{items, next_cursor}`. */
export function listItems({ status = "", sort = "", cursor = "", limit = 24 } = {}) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (status) query.set("status", status);
  if (sort) query.set("sort", sort);
  if (cursor) query.set("cursor", cursor);
  return request(`/api/v1/items?${query}`);
}

/** The newest bids of an item: `{bids, next_cursor}`, newest first. */
export function listBids(itemId, limit) {
  return request(`${itemPath(itemId)}/bids?limit=${limit}`);
}

/**
 * Repeats `attempt()` until its outcome is final, for up to 30 s; calls `onRepeat` before each repetition. Throws the
 * last ApiError; if any attempt may have been carried out, its `outcomeUnknown` is true.
 */
async function persistently(attempt, onRepeat) {
  const startedMs = performance.now();
  let unknown = false;
  for (let number = 0; ; number += 1) {
    try {
      return await attempt(unknown);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      unknown ||= error.outcomeUnknown;
      // A definite answer to the repeated request settles the earlier attempts too: they had the same key.
      const isOpen = error.passing || (unknown && SETTLES_NOTHING.includes(error.status));
      if (isOpen) error.outcomeUnknown = unknown;
      if (!isOpen || performance.now() - startedMs > GIVE_UP_MS) throw error;
      onRepeat(error);
      const backoffMs = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** number) * (0.5 + Math.random());
      await pause(Math.max(error.retryAfterMs, backoffMs));
    }
  }
}

/**
 * Creates an item and returns its id. The id is part of `terms`, so a repetition cannot make a second lot. If an
 * earlier attempt may have arrived (with `mayExist` also one before this call), "exists already" means that it did.
 */
export function createItem(terms, { mayExist, onRepeat }) {
  return persistently(async (unknown) => {
    try {
      await request("/api/v1/items", { body: terms });
    } catch (error) {
      if (error.code !== "ITEM_EXISTS") throw error;
      // A conflict, not an unknown outcome: the id belongs to another item.
      if (!unknown && !mayExist) throw new ApiError(error.message, { status: 422, code: error.code, field: "id" });
    }
    return terms.id;
  }, onRepeat);
}

/**
 * Places a bid and returns the verdict, accepted or refused. While the outcome is unknown (no answer, a time-out, 5xx)
 * the same bid goes out again with the SAME bid id: the platform counts it once, however often it arrives.
 */
export function placeBid(itemId, bid, onRepeat) {
  return persistently(
    () => request(`${itemPath(itemId)}/bid`, { body: bid, timeoutMs: BID_TIMEOUT_MS }),
    onRepeat,
  );
}

/** The stored verdict of an earlier bid, or null where it never arrived. */
export async function findVerdict(itemId, bid) {
  const query = new URLSearchParams({ item_id: itemId, user_id: bid.user_id });
  try {
    return await request(`/api/v1/bids/by-key/${encodeURIComponent(bid.bid_id)}?${query}`);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

/**
 * A feed token for `userId`: `{token, expires_in}`. Null where the server gives pages no tokens or has no private
 * channel; the page works without.
 */
export async function feedToken(userId) {
  try {
    return await request("/api/v1/feed-token", { body: { user_id: userId } });
  } catch (error) {
    if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429) return null;
    throw error;
  }
}

/** Where the live feed is: as configured, or on its port of the host that the page came from. */
export async function feedBase() {
  const { feed_url: url, feed_port: port } = await request("/config.json");
  return url || `${location.protocol === "https:" ? "wss" : "ws"}://${location.hostname}:${port ?? 8081}`;
}

export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
