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

export function connectionText(state, waitMs) {
  if (state === "live") return "Live";
  if (state === "connecting") return "Connecting…";
  if (state === "ended") return "Not live";
  return navigator.onLine === false ? "Offline" : `Back in ${Math.max(1, Math.round(waitMs / 1000))} s`;
}
