// The terms of an item in words, for seller and bidders. Pure; the terms are those of the API.

import { lengthText, momentText } from "./clock.js";

/** The soft close as a sentence. */
export function softCloseWords({ trigger_s: triggerS, extend_s: extendS, mode, max_count: maxCount, hard_end: hardEnd }) {
  const within = lengthText(triggerS * 1000);
  const by = lengthText(extendS * 1000);
  const moves = mode === "from_bid" ? `moves the close to ${by} after that bid` : `moves the close by another ${by}`;
  const often = maxCount ? timesText(maxCount) : "any number of times";
  const hardMs = Date.parse(hardEnd ?? "");
  const hard = Number.isNaN(hardMs) ? "" : `, but never past ${momentText(hardMs)}`;
  return `A bid in the last ${within} ${moves}, ${often}${hard}.`;
}

function timesText(count) {
  return { 1: "once", 2: "at most twice" }[count] ?? `at most ${count} times`;
}

/** The steps between bids as a sentence. A ladder without steps is eBay's. */
export function incrementWords({ kind, value, steps }, money) {
  if (kind === "flat") return `Each bid must be ${money(value)} above the last.`;
  if (kind === "percent") return `Each bid must be ${value}% above the last.`;
  if (!steps) return "The steps between bids grow with the price, as on eBay.";
  const parts = steps.map(({ below, increment }, index) => {
    if (below !== undefined) return `${money(increment)} below ${money(below)}`;
    return index === 0 ? money(increment) : `${money(increment)} from there on`;
  });
  return `The steps between bids: ${parts.join(", ")}.`;
}

/** What a bid must add at `price`, in a few words. */
export function stepWords({ kind, value, steps }, price, money) {
  if (kind === "flat") return money(value);
  if (kind === "percent") return `${value}%`;
  const step = steps.find(({ below }) => below === undefined || price < below);
  return steps.length > 1 ? `${money(step.increment)} at this price` : money(step.increment);
}
