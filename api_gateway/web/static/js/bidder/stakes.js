// What this browser remembers of an auction: that its bidder has bid, and the maximum that they left. The platform
// tells a maximum to its owner alone, and only if the house allows it; so mostly this is the only place that has it.

import { keep, recall } from "../lib/storage.js";

const KEY = "bidding.stakes";
const STAKES_MAX = 200;

function all() {
  try {
    const list = JSON.parse(recall(KEY) ?? "[]");
    return Array.isArray(list) ? list.filter((stake) => typeof stake?.item === "string") : [];
  } catch {
    return [];
  }
}

/** `{item, user, max}` of this bidder on this item; `max` is null if none was left. Null without a bid. */
export function stakeOf(itemId, userId) {
  return all().find(({ item, user }) => item === itemId && user === userId) ?? null;
}

/** The ids of the lots on which this bidder has bid here, the newest first. */
export function stakedItems(userId) {
  return all().filter(({ user }) => user === userId).map(({ item }) => item).reverse();
}

/** Notes an accepted bid, or a maximum that was told. `max` is a number; null keeps an earlier maximum. */
export function rememberStake(itemId, userId, max) {
  const stakes = all();
  const known = stakes.find(({ item, user }) => item === itemId && user === userId);
  const others = stakes.filter((stake) => stake !== known);
  const stake = { item: itemId, user: userId, max: max ?? known?.max ?? null };
  keep(KEY, JSON.stringify([...others, stake].slice(-STAKES_MAX)));
}

/** Forgets the maximum, which was struck together with its bid. */
export function forgetMaximum(itemId, userId) {
  const stakes = all().map((stake) =>
    stake.item === itemId && stake.user === userId ? { ...stake, max: null } : stake,
  );
  keep(KEY, JSON.stringify(stakes));
}
