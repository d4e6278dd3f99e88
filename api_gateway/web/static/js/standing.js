// Where a bidder stands in an auction. Who leads, everybody is told; that somebody has bid and does not lead, only the
// private channel of the feed tells, or this browser remembers it.

import { compareVersions } from "./feed.js";
import { isFinalStatus } from "./status.js";

/**
 * "lead", "won", "outbid", "lost", or null for whoever has no part in it. `item` is the newest public state, `me` the
 * bidder, `stake` what this browser remembers of their bids, `told` the newest frame of the private channel; both may be
 * null.
 */
export function standingOf(item, { me, stake, told }) {
  const isFinal = isFinalStatus(item.status);
  if (item.highest_bidder_id && item.highest_bidder_id === me) {
    if (item.status === "sold") return "won";
    return isFinal ? null : "lead";
  }
  if (item.status === "cancelled" || !hasBid(item, stake, told)) return null;
  return isFinal ? "lost" : "outbid";
}

/**
 * The newer one of two frames of the private channel, the first of which may be null. Of one version it is the later
 * one: a maximum is raised without an event.
 */
export function newerStanding(known, frame) {
  return known !== null && compareVersions(frame, known) < 0 ? known : frame;
}

function hasBid(item, stake, told) {
  const isTold = told !== null && told.standing !== "none";
  // A bid of ours that was just answered is known here before the channel tells it.
  if (told !== null && compareVersions(told, item) >= 0) return isTold;
  return isTold || stake !== null;
}
