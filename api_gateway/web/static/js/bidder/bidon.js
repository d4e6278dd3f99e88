// The lots on which a bidder has bid. For a bidder who is signed in, the house knows them, also those bid on from other
// devices; those of this browser are known at once.

import { ownBids } from "../lib/api.js";
import { mayBe, session } from "../lib/session.js";
import { stakedItems } from "./stakes.js";

const PAGE = 200;
const MOST = 600;

/** Their ids, about the newest first, `most` of them. Throws an ApiError. */
export async function bidOnItems(userId, most = MOST) {
  const here = stakedItems(userId);
  if (session() === null || !mayBe("bidder")) return here;
  const told = [];
  let cursor = "";
  do {
    const page = await ownBids({ cursor, limit: Math.min(PAGE, most) });
    told.push(...page.items.map(({ item_id: id }) => id));
    cursor = page.next_cursor;
  } while (cursor !== null && told.length < most);
  // What the house has not archived yet is known here.
  return [...new Set([...here.filter((id) => !told.includes(id)), ...told])].slice(0, most);
}
