// When the page asks before it sends a bid: what is typed or pressed by mistake cannot be taken back. Pure.

// A bid is far above the minimum if it is at least this many times as high (a zero too many makes it ten times as
// high), and at least this many minor units above it.
const FAR_TIMES = 5;
const FAR_UNITS = 10_000;
// In currencies without decimals.
const FAR_WHOLE = 1_000;

/**
 * The question to ask before a bid of `units`, or null. `least`: the minimum, in minor units too; `leads`: the bidder
 * leads, so that a bid would raise their own; `isMax`: it is a maximum, and `isOffered`: one that the page has offered;
 * `decimals`: of the currency.
 */
export function questionFor({ units, least, leads, isMax, isOffered, decimals = 2 }, said, minimum) {
  const far = decimals > 0 ? FAR_UNITS : FAR_WHOLE;
  if (least !== null && units >= FAR_TIMES * least && units - least >= far) {
    const what = isMax ? `A maximum of ${said}` : `${said}`;
    return `${what} is ${timesText(units / least)} the minimum of ${minimum}. Is that what you mean?`;
  }
  if (leads && isOffered) return `You lead already. Raise your maximum to ${said}?`;
  if (leads && !isMax) return `You lead already. A bid of ${said} would only raise your own price.`;
  return null;
}

function timesText(times) {
  return `${Math.floor(times).toLocaleString()} times`;
}
