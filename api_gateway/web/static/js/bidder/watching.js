// The watch list: the lots that somebody follows without a bid, kept by this browser.

import { keep, recall } from "../lib/storage.js";

const KEY = "bidding.watching";
const WATCHED_MAX = 200;

/** The ids of the watched lots, the newest first. */
export function watchedItems() {
  try {
    const list = JSON.parse(recall(KEY) ?? "[]");
    return Array.isArray(list) ? list.filter((id) => typeof id === "string") : [];
  } catch {
    return [];
  }
}

export function isWatched(itemId) {
  return watchedItems().includes(itemId);
}

/** Puts the lot on the list, or takes it off. Of more than 200 the oldest is dropped. */
export function setWatched(itemId, isOn) {
  const others = watchedItems().filter((id) => id !== itemId);
  keep(KEY, JSON.stringify((isOn ? [itemId, ...others] : others).slice(0, WATCHED_MAX)));
}
