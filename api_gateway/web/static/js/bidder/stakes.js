// What this browser remembers of an auction: that its bidder has bid, the maximum that they left, and whether they led
// when it last saw the lot. The platform tells a maximum to its owner alone, and only if the house allows it; so mostly
// this is the only place that has it.

import { compareVersions } from "../feed/feed.js";
import { session, signsIn } from "../lib/session.js";
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

function isOf(itemId, userId) {
  return ({ item, user }) => item === itemId && user === userId;
}

/** `{item, user, max, led}` of this bidder on this item; `max` is null if none was left. Null without a bid. */
export function stakeOf(itemId, userId) {
  return all().find(isOf(itemId, userId)) ?? null;
}

/** The ids of the lots on which this bidder has bid here, the newest first. */
export function stakedItems(userId) {
  return all().filter(({ user }) => user === userId).map(({ item }) => item).reverse();
}

/** Notes an accepted bid, or a maximum that was told. `max` is a number; null keeps an earlier maximum. */
export function rememberStake(itemId, userId, max) {
  const stakes = all();
  const known = stakes.find(isOf(itemId, userId));
  const others = stakes.filter((stake) => stake !== known);
  const stake = { item: itemId, user: userId, max: max ?? known?.max ?? null, led: known?.led ?? null };
  keep(KEY, JSON.stringify([...others, stake].slice(-STAKES_MAX)));
}

/** Forgets the maximum, which was struck together with its bid. */
export function forgetMaximum(itemId, userId) {
  change(itemId, userId, { max: null });
}

/**
 * The version at which this browser last saw that the bidder leads, `{epoch, seq}`; null where it did not, or where they
 * were told since that somebody else does.
 */
export function ledAt(itemId, userId) {
  const led = stakeOf(itemId, userId)?.led;
  return Number.isInteger(led?.epoch) && Number.isInteger(led.seq) ? led : null;
}

/** Notes that the bidder leads at this version, wherever they have bid. */
export function rememberLead(itemId, userId, { epoch, seq }) {
  // A frame may come after they have signed out, which leaves nothing of them.
  if (userId === "" || (signsIn && session()?.user !== userId)) return;
  const known = ledAt(itemId, userId);
  if (known !== null && compareVersions(known, { epoch, seq }) >= 0) return;
  if (stakeOf(itemId, userId) === null) rememberStake(itemId, userId, null);
  change(itemId, userId, { led: { epoch, seq } });
}

/** They were told that they do not lead at this version, or it concerns nobody. A later lead, seen in another tab, stays. */
export function forgetLead(itemId, userId, version) {
  const led = ledAt(itemId, userId);
  if (led !== null && compareVersions(led, version) < 0) change(itemId, userId, { led: null });
}

function change(itemId, userId, what) {
  const isIt = isOf(itemId, userId);
  keep(KEY, JSON.stringify(all().map((stake) => (isIt(stake) ? { ...stake, ...what } : stake))));
}
