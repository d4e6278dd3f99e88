// The watch list: the lots that somebody follows without a bid. For a person who is signed in, the house keeps it, so
// that it is the same on all of their devices and nobody else sees it here; this page has it in memory alone. While
// nobody is signed in, the browser keeps it.

import { ApiError, pause, unwatchItem, watchItem, watchList } from "../lib/api.js";
import { onSession, session } from "../lib/session.js";
import { keep, recall } from "../lib/storage.js";

const KEY = "bidding.watching";
const WATCHED_MAX = 200;
// How often one lot is asked for while the house has too much to do, and how long to wait where it does not say.
const ATTEMPTS_MAX = 10;
const WAIT_LEAST_MS = 1000;

const listeners = new Set();
let known = null; // What the house keeps for the person who is signed in, the newest first; null before it was read.
let reading = null; // The promise of it.
let changes = 0; // Counts changes: a list that was read during a change may lack it.

/** The ids of the lots that are watched, the newest first; none before the house has told them. */
export function watchedItems() {
  return session() === null ? watchedHere() : (known ?? []);
}

export function isWatched(itemId) {
  return watchedItems().includes(itemId);
}

/** `listener()` runs when the list is another one: it was read, or changed, or is somebody else's now. */
export function onWatched(listener) {
  listeners.add(listener);
}

/** The same as `watchedItems()`, once the house has told them. Throws an ApiError. */
export async function readWatched() {
  if (session() === null) return watchedHere();
  if (known !== null) return known;
  if (reading === null) {
    const mine = read().finally(() => {
      if (reading === mine) reading = null;
    });
    reading = mine;
  }
  return reading;
}

/** Puts the lot on the list, or takes it off. Of more than 200 in a browser the oldest is dropped. Throws an ApiError. */
export async function setWatched(itemId, isOn) {
  const user = session()?.user;
  if (user === undefined) keepHere(isOn ? [itemId, ...without(watchedHere(), itemId)] : without(watchedHere(), itemId));
  else {
    await (isOn ? watchItem(itemId) : unwatchItem(itemId));
    changes += 1;
    // Somebody else may have signed in meanwhile.
    if (session()?.user !== user) return;
    if (known === null) await readWatched();
    else known = isOn ? [itemId, ...without(known, itemId)] : without(known, itemId);
  }
  tell();
}

/** The ids of the lots that this browser watches for nobody. */
export function watchedHere() {
  try {
    const list = JSON.parse(recall(KEY) ?? "[]");
    return Array.isArray(list) ? list.filter((id) => typeof id === "string") : [];
  } catch {
    return [];
  }
}

/**
 * Moves what this browser watches to the list of the person who is signed in. Lots that the house does not know are
 * dropped. Throws an ApiError; what was moved before is moved.
 */
export async function takeOver() {
  const user = session()?.user;
  // The oldest first, so that the order stays.
  for (const id of watchedHere().reverse()) {
    if (session()?.user !== user) return;
    try {
      // While it waits somebody else may sign in, whose list this is not.
      const isMine = await patiently(() => (session()?.user === user ? setWatched(id, true).then(() => true) : false));
      if (!isMine) return;
    } catch (error) {
      if (!(error instanceof ApiError) || ![404, 422].includes(error.status)) throw error;
    }
    keepHere(without(watchedHere(), id));
  }
}

async function read() {
  const user = session().user;
  for (;;) {
    const before = changes;
    const { items } = await watchList();
    if (session()?.user !== user) return [];
    if (before !== changes) continue;
    known = items.map(({ item_id: id }) => id);
    tell();
    return known;
  }
}

/** Waits where somebody asks for too much at a time, or the house for a while cannot do it. To repeat it does no harm. */
async function patiently(attempt) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await attempt();
    } catch (error) {
      const mayPass = error instanceof ApiError && [429, 503].includes(error.status);
      if (!mayPass || tried === ATTEMPTS_MAX) throw error;
      await pause(Math.max(error.retryAfterMs, WAIT_LEAST_MS));
    }
  }
}

function keepHere(ids) {
  keep(KEY, JSON.stringify(ids.slice(0, WATCHED_MAX)));
}

function without(ids, itemId) {
  return ids.filter((id) => id !== itemId);
}

function tell() {
  for (const listener of listeners) listener();
}

onSession(() => {
  known = reading = null;
  tell();
});
