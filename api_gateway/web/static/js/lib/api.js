// The client of the HTTP API.

import { noteServerDate } from "./clock.js";
import { bearer, endSession } from "./session.js";

const READ_TIMEOUT_MS = 8000;
const BID_TIMEOUT_MS = 4000;
const UPLOAD_TIMEOUT_MS = 75000;
const GIVE_UP_MS = 30000;
// A void counts all bids of the item anew; a spending limit looks for all with which the bidder leads.
export const OPERATION_TIMEOUT_MS = 60000;
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

/**
 * By default a POST with a body, and a GET without one. `token`: by default that of the person who is signed in. `key`:
 * under which a repetition is known.
 */
export async function request(path, { method, body, timeoutMs = READ_TIMEOUT_MS, token = bearer(), key = null } = {}) {
  const sentMs = performance.now();
  let response;
  let text;
  try {
    response = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      ...(body !== undefined && { body: JSON.stringify(body) }),
      headers: {
        ...(body !== undefined && { "Content-Type": "application/json" }),
        ...(token !== null && { Authorization: `Bearer ${token}` }),
        ...(key !== null && { "Idempotency-Key": key }),
      },
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
  // The token was good when the session began.
  if (response.status === 401 && token !== null) endSession("refused", token);
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

/** The item. Looking never creates one: in an open catalogue a mistyped address would. */
export function getItem(itemId) {
  return request(`${itemPath(itemId)}?may_open=false`);
}

/** One page of the catalogue: `{items, next_cursor}`. */
export function listItems({ status = "", sort = "", cursor = "", limit = 24 } = {}) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (status) query.set("status", status);
  if (sort) query.set("sort", sort);
  if (cursor) query.set("cursor", cursor);
  return request(`/api/v1/items?${query}`);
}

/** One page of what a seller sells, the newest first: `{items, next_cursor}`. */
export function listItemsOf(seller, { status = "", cursor = "", limit = 24 } = {}) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (status) query.set("status", status);
  if (cursor) query.set("cursor", cursor);
  return request(`/api/v1/sellers/${encodeURIComponent(seller)}/items?${query}`);
}

/** The watch list of the person who is signed in: `{items: [{item_id, since}]}`, the newest first. */
export function watchList() {
  return request("/api/v1/me/watch-list");
}

/** Puts an item on that list. */
export function watchItem(itemId) {
  return request(`/api/v1/me/watch-list/${encodeURIComponent(itemId)}`, { method: "PUT" });
}

/** Takes it off. */
export function unwatchItem(itemId) {
  return request(`/api/v1/me/watch-list/${encodeURIComponent(itemId)}`, { method: "DELETE" });
}

/** One page of the items on which the caller has bid: `{items: [{item_id, first_bid_at}], next_cursor}`. */
export function ownBids({ cursor = "", limit }) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (cursor) query.set("cursor", cursor);
  return request(`/api/v1/me/bids?${query}`);
}

/** The newest bids of an item: `{bids, next_cursor}`, newest first. */
export function listBids(itemId, limit) {
  return request(`${itemPath(itemId)}/bids?limit=${limit}`);
}

/**
 * Uploads an image file, and tells `onProgress` how much of it is sent, 0 to 1: `{url, width, height, …}`. The same file
 * again is the same image, so a repetition does no harm.
 */
export function uploadImage(file, { onProgress, signal }) {
  const request = new XMLHttpRequest(); // fetch tells no progress.
  const token = bearer();
  return new Promise((resolve, reject) => {
    const fail = (text) => () => reject(new ApiError(text));
    request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(total > 0 ? loaded / total : 0));
    request.addEventListener("error", fail("The server could not be reached."));
    request.addEventListener("timeout", fail("The server did not answer in time."));
    request.addEventListener("abort", fail("The upload was ended."));
    request.addEventListener("load", () => {
      const headers = { get: (name) => request.getResponseHeader(name) };
      const response = { ok: request.status >= 200 && request.status < 300, status: request.status, headers };
      let parsed = null;
      try {
        parsed = JSON.parse(request.responseText);
      } catch {
        // An answer that is not JSON came from a proxy in between.
      }
      if (response.ok && parsed !== null) {
        resolve(parsed);
        return;
      }
      if (response.status === 401 && token !== null) endSession("refused", token);
      reject(problemOf(response, parsed));
    });
    signal.addEventListener("abort", () => request.abort());
    request.open("POST", "/api/v1/images");
    if (token !== null) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.timeout = UPLOAD_TIMEOUT_MS;
    request.setRequestHeader("Content-Type", file.type);
    request.send(file);
  });
}

/**
 * Repeats `attempt()` until its outcome is final, for up to 30 s; calls `onRepeat` before each repetition. Throws the
 * last ApiError; if any attempt may have been carried out, its `outcomeUnknown` is true. `unknown`: one before this call
 * may have been.
 */
async function persistently(attempt, onRepeat, unknown) {
  const startedMs = performance.now();
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
      if (!unknown) throw new ApiError(error.message, { status: 422, code: error.code, field: "id" });
    }
    return terms.id;
  }, onRepeat, mayExist);
}

/**
 * Places a bid and returns the verdict, accepted or refused. While the outcome is unknown (no answer, a time-out, 5xx)
 * the same bid goes out again with the SAME bid id: the platform counts it once, however often it arrives.
 * `mayHaveArrived`: it was sent before this call, and its outcome is not known.
 */
export function placeBid(itemId, bid, { mayHaveArrived = false, onRepeat }) {
  return persistently(
    () => request(`${itemPath(itemId)}/bid`, { body: bid, timeoutMs: BID_TIMEOUT_MS }),
    onRepeat,
    mayHaveArrived,
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

/** A feed ticket for `userId`, good once: `{ticket}`. Null where the server gives this page none; it works without. */
export async function feedTicket(userId) {
  try {
    return await request("/api/v1/feed-ticket", { body: { user_id: userId } });
  } catch (error) {
    if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429) return null;
    throw error;
  }
}

/** How the parts of the platform are: `{time, parts, hot_items}`. For operators. */
export function overview() {
  return request("/api/v1/ops/overview");
}

/** What could not be archived: `{count, dead_letters}`. For operators. */
export function deadLetters(limit) {
  return request(`/api/v1/ops/dead-letters?limit=${limit}`);
}

/** What operators did to the platform: `{acts}`, newest first. For operators and auditors. */
export function actsDone(limit) {
  return request(`/api/v1/ops/acts?limit=${limit}`);
}

/** The newest bids of an item with the names of their bidders. For operators. */
export function namedBids(itemId, limit) {
  return request(`${itemPath(itemId)}/named-bids?limit=${limit}`);
}

/** What was done to an item: `{operations}`, newest first. For operators. */
export function auditOf(itemId, limit) {
  return request(`${itemPath(itemId)}/audit?limit=${limit}`);
}

/** "pause", "resume" or "cancel", or `bids/<bid id>/void`; returns the item after it. */
export function operate(itemId, operation, reason) {
  return request(`${itemPath(itemId)}/${operation}`, { body: { reason }, timeoutMs: OPERATION_TIMEOUT_MS });
}

/** Moves the end of an item later by so many seconds, under `key` once; returns the item after it. */
export function extend(itemId, bySeconds, reason, key) {
  return request(`${itemPath(itemId)}/extend`, { body: { by_s: bySeconds, reason }, timeoutMs: OPERATION_TIMEOUT_MS, key });
}

/** Whom a token names: `{user_id, roles, expires}`. */
export function whoIs(token) {
  return request("/api/v1/me", { token });
}

/** The token that was put under a code, which is good once. */
export async function tokenFor(code) {
  return (await request("/api/v1/sign-in", { body: { code }, token: null })).token;
}

/** How the server is set up: `{feed_url, feed_port, takes_images}`. */
export function config() {
  return request("/config.json");
}

/** Where the live feed is: as configured, or on its port of the host that the page came from. */
export async function feedBase() {
  const { feed_url: url, feed_port: port } = await config();
  return url || `${location.protocol === "https:" ? "wss" : "ws"}://${location.hostname}:${port ?? 8081}`;
}

export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
