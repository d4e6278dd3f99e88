// Words for an item's status and for the state of the connection, the same on every page.

export const STATUS_LABELS = {
  scheduled: "Upcoming",
  open: "Open",
  paused: "Paused",
  sold: "Sold",
  unsold: "Unsold",
  cancelled: "Withdrawn",
};

export function isFinalStatus(status) {
  return status === "sold" || status === "unsold" || status === "cancelled";
}

/** The end of an item in ms, or null where it has none. */
export function endOf(item) {
  const end = Date.parse(item.end_time ?? "");
  return Number.isNaN(end) ? null : end;
}

/** `connected` says whether the feed has been live before: then the person waits for it to come back. */
export function connectionText(state, connected) {
  if (state === "live") return "Live";
  if (state === "ended") return "Not live";
  if (navigator.onLine === false) return "Offline";
  return connected ? "Reconnecting…" : "Connecting…";
}
