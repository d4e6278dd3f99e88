// What this browser remembers of its own part in an auction: that somebody bid from here, and the maximum that was
// left. The platform tells a maximum to its owner alone, and only where the house allows even that; so mostly this is
// the only place that can show it.

import { keep, recall } from "./storage.js";

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

/** `{item, user, max}` of this bidder on this item, with `max` null where none was left; null without a bid. */
export function stakeOf(itemId, userId) {
  return all().find(({ item, user }) => item === itemId && user === userId) ?? null;
}

/** Notes an accepted bid, or a maximum that was told. `max` (a number) is a maximum; null leaves an earlier one as it is. */
export function rememberStake(itemId, userId, max) {
  const stakes = all();
  const known = stakes.find(({ item, user }) => item === itemId && user === userId);
  const others = stakes.filter((stake) => stake !== known);
  const stake = { item: itemId, user: userId, max: max ?? known?.max ?? null };
  keep(KEY, JSON.stringify([...others, stake].slice(-STAKES_MAX)));
}

/** Forgets the maximum: it was struck together with a bid. */
export function forgetMaximum(itemId, userId) {
  const stakes = all().map((stake) =>
    stake.item === itemId && stake.user === userId ? { ...stake, max: null } : stake,
  );
  keep(KEY, JSON.stringify(stakes));
}
