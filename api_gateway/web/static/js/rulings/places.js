// Where something can be ruled on a bidder, on one lot, on all of a seller, or on all: the calls for that, and the words.

import { formatMoney } from "../lib/money.js";
import { OF_ALL, bidderOf, ofItem, ofSeller, rule, ruledBidders, spendingOf } from "./calls.js";

const STANDS = "Accepted bids stand, and a maximum keeps bidding. Only a void by an operator strikes a bid.";

const REFUSED = {
  BLOCKED: "May not bid here: blocked.",
  NOT_APPROVED: "May not bid here: not approved.",
};

/** Who may bid on a lot, in words. `asks`: it asks for approval; `houseAsks`: all lots do. */
export function whoMayBid({ isOver, asks, houseAsks }) {
  if (isOver) return "The bidding is over.";
  if (asks) return "This lot requires approval.";
  return houseAsks ? "All lots require approval." : "Everybody who is not blocked may bid.";
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
      approve: [`Approve ${user} on this lot?`, "An approval lets the bidder bid where approval is required. Blocks still apply.", "Approve"],
      unapprove: [`Take the approval of ${user} back?`, `An approval ${this.byHouse} still applies. ${STANDS}`, "Take it back"],
      block: [`Block ${user} on this lot?`, `Their further bids here are refused. ${STANDS}`, "Block"],
      unblock: [`Take the block of ${user} back?`, `Blocks by the seller and ${this.byHouse} still apply.`, "Take it back"],
      limit: [`Limit ${user} on this lot?`, "No bid and no maximum may exceed this amount. Bids that were accepted before stand.", "Limit"],
      unlimit: [`Take the limit of ${user} back?`, "Then bids on this lot may have any amount. A spending limit still applies.", "Take it back"],
    };
  }

  amountLabel = "Highest amount of one bid";
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
    return blocked ? `May not bid on any of ${this.lots}.` : `May bid on ${this.lots}, unless another ruling forbids it.`;
  }

  figuresOf() {
    return [];
  }

  questions(user) {
    return {
      block: [`Block ${user} on all of ${this.lots}?`, `Their further bids there, and on later lots, are refused. ${STANDS}`, "Block"],
      unblock: [`Take the block of ${user} back?`, "Blocks on single lots and by the house still apply.", "Take it back"],
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
    if (approved) return "May bid on lots that require approval.";
    return isAsked ? "May bid only on lots where they are approved." : "May bid on lots that do not require approval.";
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
      approve: [`Approve ${user} on all lots?`, "They may bid on lots that require approval. Blocks still apply.", "Approve"],
      unapprove: [`Take the approval of ${user} back?`, `Approvals on single lots still apply. ${STANDS}`, "Take it back"],
      block: [`Block ${user} on all lots?`, `Their further bids on any lot are refused. ${STANDS}`, "Block"],
      unblock: [`Take the block of ${user} back?`, "Blocks on single lots and by sellers still apply.", "Take it back"],
      limit: [
        `Limit what ${user} spends?`,
        `This limits the sum of the maxima with which they lead, over all lots ${inCurrency}. Their present leads count, and stand.`,
        "Limit",
      ],
      unlimit: [`Take the limit of ${user} back?`, `They may lead with any amount ${inCurrency}. Limits on single lots still apply.`, "Take it back"],
    };
  }

  amountLabel = "Highest total with which they may lead";
}
