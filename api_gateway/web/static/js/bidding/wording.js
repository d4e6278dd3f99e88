// The line under the field and the words on the button. Pure.
//
// `view` is `{mode, leads, isUpTo, buyNow, money}`: mode "bid" or "max"; `isUpTo`: the amount that is offered is sent as
// a maximum; `buyNow`: the buy-now price where the amount reaches it, else null.

/**
 * The line under the field. `least` is `{amount, above, own}`, the least valid amount; `above`: it must be more than
 * that; `own`: that is the bidder's own maximum. `low`: what is in the field is below it.
 */
export function hintFor(least, low, view) {
  if (low) return `Too low. ${leastText(least, view)}.`;
  if (view.buyNow !== null) return "This reaches the buy-now price: the lot would be yours at once.";
  return leastText(least, view);
}

function leastText({ amount, above, own }, { mode, leads, isUpTo, money }) {
  if (amount === null) return "";
  const said = money(amount);
  if (mode === "bid") {
    if (isUpTo) return "The house bids only what it takes to lead, up to this";
    return leads ? `You lead. Bidding against yourself takes ${said}` : `Minimum next bid ${said}`;
  }
  if (!above) return `At least ${said}`;
  return own ? `More than ${said}, your maximum so far` : `More than ${said}`;
}

/** The words on the button; `amount` is null where the field has none. */
export function labelFor(amount, { mode, leads, isUpTo, buyNow, money }) {
  if (buyNow !== null) return `Buy now for ${money(buyNow)}`;
  if (mode === "bid") {
    if (amount === null) return "Place bid";
    return isUpTo ? `Bid up to ${money(amount)}` : `Bid ${money(amount)}`;
  }
  const words = leads ? "Raise your maximum" : "Leave a maximum";
  return amount === null ? words : `${words} ${leads ? "to" : "of"} ${money(amount)}`;
}
