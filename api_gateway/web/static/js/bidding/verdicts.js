// Tells in plain words what became of a bid. Pure: everything that the words depend on is an argument.
//
// An attempt is `{bid, led, price}`: the body that was sent, whether its bidder led before it, and the price before it.
// The words are `{tone, text, choose}`: tone "good", "warn" or "bad"; `choose` is an amount to offer.

import { sentence } from "../lib/dom.js";

const REFUSALS = {
  NOT_STARTED: "The bidding has not opened yet. Your bid was not taken.",
  CLOSED: "The bidding has closed. Your bid came too late.",
  SOLD: "This lot has been sold. Your bid was not taken.",
  PAUSED: "The bidding is paused. Your bid was not taken.",
  CANCELLED: "This lot was withdrawn. Your bid was not taken.",
  OWN_ITEM: "Sellers cannot bid on their own lot.",
  BLOCKED: "You may not bid on this lot. Please ask the house.",
  NOT_APPROVED: "Only approved bidders may bid on this lot. Your bid was not taken; please ask the house.",
  LIMIT_EXCEEDED: "This is more than your limit. Your bid was not taken; bid less, or ask the house.",
  MAX_NOT_RAISED: "You lead already, and your maximum is at least as high. A maximum can only be raised.",
};

const PROBLEMS = {
  KEY_REUSED: "Your bid was not taken: its id was used before, for another bid. Please bid again.",
  OVERLOADED: "The house is too busy at the moment. Your bid was not taken.",
  OUTBOX_FULL: "The house cannot record bids at the moment. Your bid was not taken.",
  BEING_REBUILT: "This lot is being restored. Your bid was not taken; please try again in a moment.",
  UNAUTHENTICATED: "Your bid was not taken: you are not signed in any more. Sign in, and bid again.",
  FORBIDDEN: "Your bid was not taken: your account may not bid here.",
  UNAVAILABLE: "The house cannot take bids at the moment. Your bid was not taken.",
};

/** Whether the bid has only a maximum, so that the house chooses the price. */
export function isMaximum(bid) {
  return bid.amount === undefined;
}

/** "Your bid of $10.00", "Your maximum of $80.00". */
export function nameOfBid(bid, money) {
  return isMaximum(bid) ? `Your maximum of ${money(bid.max_amount)}` : `Your bid of ${money(bid.amount)}`;
}

/** Words for a verdict, accepted or refused. */
export function wordsForVerdict(verdict, attempt, money) {
  return verdict.success ? wordsForAccepted(verdict, attempt, money) : wordsForRefused(verdict, attempt, money);
}

function wordsForAccepted(verdict, { bid, led, price }, money) {
  const named = nameOfBid(bid, money);
  const now = money(verdict.current_bid);
  if (verdict.is_highest === false) {
    const outbid = `${named} was accepted, but another bidder's maximum is at least as high: you were outbid at once.`;
    return { tone: "warn", text: `${outbid} The price is now ${now}.` };
  }
  if (!isMaximum(bid)) return { tone: "good", text: `${named} was accepted. You lead.` };
  if (!led) return { tone: "good", text: `${named} stands. You lead at ${now}.` };
  const moved = verdict.current_bid === price ? `The price stays at ${now}` : `The price is now ${now}`;
  return { tone: "good", text: `Your maximum is raised to ${money(bid.max_amount)}. ${moved}, and you still lead.` };
}

function wordsForRefused(verdict, { bid }, money) {
  if (verdict.code !== "TOO_LOW" || typeof verdict.min_next_bid !== "number") {
    return { tone: "bad", text: REFUSALS[verdict.code] ?? verdict.message ?? "The bid was refused." };
  }
  const least = verdict.min_next_bid;
  const lead = verdict.you_lead ? " You lead already." : "";
  const asked = money(isMaximum(bid) ? bid.max_amount : bid.amount);
  return { tone: "bad", text: `${asked} is too low. The minimum is now ${money(least)}.${lead}`, choose: least };
}

/** Words for an ApiError. `unsettled`: the outcome is unknown; sending the same bid again tells it. */
export function wordsForFailure(error, { bid }, money) {
  if (error.outcomeUnknown) {
    const text = `${nameOfBid(bid, money)} was sent, and we still do not know whether it arrived.`;
    return { tone: "bad", text: `${text} Asking again sends the same bid; it cannot count twice.`, unsettled: true };
  }
  const known = PROBLEMS[error.code];
  if (known) return { tone: "bad", text: known };
  const wait = error.retryAfterMs > 0 ? ` Please wait ${Math.ceil(error.retryAfterMs / 1000)} s.` : "";
  return { tone: "bad", text: `Your bid was not taken. ${sentence(error.message)}${wait}` };
}
