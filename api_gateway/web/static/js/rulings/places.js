// Where something can be ruled on a bidder, on one lot, on all of a seller, or on all: the calls for that, and the words.

import { formatMoney } from "../lib/money.js";
import { OF_ALL, bidderOf, ofItem, ofSeller, rule, ruledBidders, spendingOf } from "./calls.js";

const STANDS = "Bids that were accepted stand, and a maximum goes on to bid: a void by an operator strikes it.";

const REFUSED = {
  BLOCKED: "May not bid here: blocked.",
  NOT_APPROVED: "May not bid here: approval is asked for, and not given.",
};

/** Who may bid on a lot, in words. `asks`: it asks for approval; `houseAsks`: all lots do. */
export function whoMayBid({ isOver, asks, houseAsks }) {
  if (isOver) return "The bidding is over.";
  if (asks) return "The lot asks for approval.";
  return houseAsks ? "All lots ask for approval." : "Whoever is not blocked may bid.";
}

/** One lot. `item` is what is shown: `{id, currency}`. */
export class LotPlace {
  item = null;
  rulings = ["approve", "block", "limit"];

  /** `byHouse`: the words for what was ruled for all lots. */
  constructor(byHouse = "on all lots") {
    this.byHouse = byHouse;
  }

  get id() {
    return this.item.id;
  }

  get currency() {
    return this.item.currency ?? "USD";
  }

  read(userId) {
    return bidderOf(ofItem(this.id), userId);
  }

  list(cursor, limit) {
    return ruledBidders(ofItem(this.id), { cursor, limit });
  }

  /** What rules on the lot that is shown now: while a dialog is open another one may come. */
  ruler() {
    const place = ofItem(this.id);
    return (userId, ruling, said) => rule(place, userId, ruling, said);
  }

  /** Of a row of the list, or of what `read` told. */
  tagsOf({ approved, blocked, limit, approved_for_all: approvedForAll, blocked_for_all: blockedForAll, blocked_by_seller: bySeller }) {
    return [
      ...(blocked ? ["Blocked"] : []),
      ...(bySeller ? ["Blocked by the seller"] : []),
      ...(blockedForAll ? [`Blocked ${this.byHouse}`] : []),
      ...(approved ? ["Approved"] : []),
      ...(approvedForAll ? [`Approved ${this.byHouse}`] : []),
      ...(limit === null ? [] : [`Up to ${formatMoney(limit, this.currency)} a bid`]),
    ];
  }

  wordsOf({ may_bid: mayBid, refusal }) {
    return mayBid ? "May bid here." : (REFUSED[refusal] ?? "May not bid here: sells the lot.");
  }

  figuresOf() {
    return [];
  }

  questions(user) {
    return {
      approve: [`Approve ${user} on this lot?`, "An approval lets somebody bid where that is asked for. Blocks go on.", "Approve"],
      unapprove: [`Take the approval of ${user} back?`, `An approval ${this.byHouse} goes on. ${STANDS}`, "Take it back"],
      block: [`Block ${user} on this lot?`, `No more of their bids are taken here. ${STANDS}`, "Block"],
      unblock: [`Take the block of ${user} back?`, `Blocks by the seller and ${this.byHouse} go on.`, "Take it back"],
      limit: [`Limit ${user} on this lot?`, "Neither a bid nor a maximum may be above this. What was accepted before stands.", "Limit"],
      unlimit: [`Take the limit of ${user} back?`, "Then bids on this lot may be of any amount. A spending limit goes on.", "Take it back"],
    };
  }

  amountLabel = "The most that one bid may come to";
}

/** All lots of a seller. `seller` is who is shown; `lots` are theirs, in words. */
export class SellerPlace {
  seller = null;
  lots = "your lots";
  rulings = ["block"];

  read(userId) {
    return bidderOf(ofSeller(this.seller), userId);
  }

  list(cursor, limit) {
    return ruledBidders(ofSeller(this.seller), { cursor, limit });
  }

  /** What rules on the lots of the seller who is shown now. */
  ruler() {
    const place = ofSeller(this.seller);
    return (userId, ruling, said) => rule(place, userId, ruling, said);
  }

  tagsOf({ blocked }) {
    return blocked ? ["Blocked"] : [];
  }

  wordsOf({ blocked }) {
    return blocked ? `May not bid on any of ${this.lots}.` : `May bid on ${this.lots}, where nothing else forbids it.`;
  }

  figuresOf() {
    return [];
  }

  questions(user) {
    return {
      block: [`Block ${user} on all of ${this.lots}?`, `No more of their bids are taken there, nor on later lots. ${STANDS}`, "Block"],
      unblock: [`Take the block of ${user} back?`, "Blocks on single lots and by the house go on.", "Take it back"],
    };
  }
}

/** All lots. What a bidder spends is told in the currency that `currencyOf()` returns. */
export class HousePlace {
  rulings = ["approve", "block", "limit"];

  constructor({ currencyOf }) {
    this.currencyOf = currencyOf;
  }

  get currency() {
    return this.currencyOf();
  }

  async read(userId) {
    const { currency } = this;
    const [told, spending] = await Promise.all([bidderOf(OF_ALL, userId), spendingOf(userId, currency)]);
    return { ...told, ...spending };
  }

  list(cursor, limit) {
    return ruledBidders(OF_ALL, { cursor, limit });
  }

  /** What rules on all lots, and on money in the currency of now. */
  ruler() {
    const { currency } = this;
    return (userId, ruling, said) => {
      const isOfMoney = ruling === "limit" || ruling === "unlimit";
      return rule(OF_ALL, userId, ruling, isOfMoney ? { ...said, currency } : said);
    };
  }

  tagsOf({ approved, blocked }) {
    return [...(blocked ? ["Blocked"] : []), ...(approved ? ["Approved"] : [])];
  }

  wordsOf({ approved, blocked, approval_required: isAsked }) {
    if (blocked) return "May not bid on any lot.";
    if (approved) return "May bid wherever approval is asked for.";
    return isAsked ? "May bid only on lots where they are approved." : "May bid where no approval is asked for.";
  }

  /** What somebody leads with is counted from their first limit in the currency on. */
  figuresOf({ limit, committed, remaining, currency }) {
    const money = (amount) => formatMoney(amount, currency);
    return [
      ["Spending limit", limit === null ? "None" : money(limit)],
      ["Leads with", committed === null ? "Not counted" : money(committed)],
      ["May still lead with", remaining === null ? "Any amount" : money(remaining)],
    ];
  }

  questions(user) {
    const inCurrency = `in ${this.currency}`;
    return {
      approve: [`Approve ${user} on all lots?`, "They may bid wherever approval is asked for. Blocks go on.", "Approve"],
      unapprove: [`Take the approval of ${user} back?`, `Approvals on single lots go on. ${STANDS}`, "Take it back"],
      block: [`Block ${user} on all lots?`, `No more of their bids are taken, on any lot. ${STANDS}`, "Block"],
      unblock: [`Take the block of ${user} back?`, "Blocks on single lots and by sellers go on.", "Take it back"],
      limit: [
        `Limit what ${user} spends?`,
        `The sum of the maxima with which they lead, over all lots ${inCurrency}. What they lead with already counts, and stands.`,
        "Limit",
      ],
      unlimit: [`Take the limit of ${user} back?`, `They may lead with any amount ${inCurrency}. Limits on single lots go on.`, "Take it back"],
    };
  }

  amountLabel = "The most that they may lead with";
}
