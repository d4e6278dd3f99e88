// How a bidder stands. The public state tells who leads. That somebody has bid and does not lead is told only by the
// private channel, or remembered by this browser.

import { compareVersions } from "../feed/feed.js";
import { isFinalStatus } from "../lib/status.js";

/**
 * "lead", "won", "outbid", "lost", or null for somebody without a bid. `item` is the newest public state, `me` who the
 * bidder is in it (see alias.js), `stake` what this browser remembers of their bids, `told` the newest frame of the private channel; the last
 * two may be null.
 */
export function standingOf(item, { me, stake, told }) {
  const isFinal = isFinalStatus(item.status);
  if (item.highest_bidder_id && item.highest_bidder_id === me && !isDenied(item, told)) {
    if (item.status === "sold") return "won";
    return isFinal ? null : "lead";
  }
  // Whoever leads may be this bidder.
  if (me === "" && told === null) return null;
  if (item.status === "cancelled" || !hasBid(item, stake, told)) return null;
  return isFinal ? "lost" : "outbid";
}

/**
 * The newer of two frames of the private channel; the first may be null. If their versions are equal, it is the later
 * one: a maximum is raised without an event.
 */
export function newerStanding(known, frame) {
  return known !== null && compareVersions(frame, known) < 0 ? known : frame;
}

/** Whether the channel says of this very state that somebody else leads: seldom two bidders share an alias. */
function isDenied(item, told) {
  return told !== null && ["outbid", "none"].includes(told.standing) && compareVersions(told, item) >= 0;
}

function hasBid(item, stake, told) {
  const isTold = told !== null && told.standing !== "none";
  // A bid that was just answered is known here before the channel tells it.
  if (told !== null && compareVersions(told, item) >= 0) return isTold;
  return isTold || stake !== null;
}
