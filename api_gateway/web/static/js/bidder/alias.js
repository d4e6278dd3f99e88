// By which name the public knows this bidder on an item. Where the house hides who bids, that is an alias: the private
// channel tells it, and so does a bid of one's own in the feed. Elsewhere it is the user id.

import { session, signsIn } from "../lib/session.js";
import { keep, recall } from "../lib/storage.js";

const KEY = "bidding.aliases";
const ALIASES_MAX = 200;

function all() {
  try {
    const list = JSON.parse(recall(KEY) ?? "[]");
    return Array.isArray(list) ? list.filter((each) => typeof each?.alias === "string") : [];
  } catch {
    return [];
  }
}

/** What stands for `user` where items and frames say who leads; "" while it is not known, and for nobody. */
export function publicSelf(itemId, user) {
  if (!signsIn) return user;
  return all().find((each) => each.item === itemId && each.user === user)?.alias ?? "";
}

/** Notes an alias of `user` that was told. True if it was not known. */
export function learnAlias(itemId, user, alias) {
  // A frame may come after they have signed out, which leaves nothing of them.
  if (!signsIn || user === "" || session()?.user !== user) return false;
  if (typeof alias !== "string" || publicSelf(itemId, user) === alias) return false;
  const others = all().filter((each) => each.item !== itemId || each.user !== user);
  keep(KEY, JSON.stringify([...others, { item: itemId, user, alias }].slice(-ALIASES_MAX)));
  return true;
}
