// Times as the auction sees them. The server alone decides whether a bid is in time, so countdowns follow its clock.

const SKEW_NOTICED_MS = 1500;
const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86400;

let offsetMs = 0;

/**
 * Learns from the Date header of an answer that was asked for at `sentMs` and came at `receivedMs` (local clock). The
 * header has whole seconds, so a small difference says nothing and is ignored.
 */
export function noteServerDate(header, sentMs, receivedMs) {
  const serverMs = Date.parse(header ?? "");
  if (Number.isNaN(serverMs)) return;
  const measured = serverMs + 500 - (sentMs + receivedMs) / 2;
  offsetMs = Math.abs(measured) > SKEW_NOTICED_MS ? measured : 0;
}

/** Milliseconds since the Unix epoch, as near to the server's clock as we know. */
export function serverNow() {
  return Date.now() + offsetMs;
}

const two = (value) => String(value).padStart(2, "0");

/** "2 d 4 h", "3 h 05 min", "04:12", for a number of milliseconds that is not negative. */
export function durationText(ms) {
  const seconds = Math.ceil(Math.max(0, ms) / 1000);
  if (seconds >= DAY_S) return `${Math.floor(seconds / DAY_S)} d ${Math.floor((seconds % DAY_S) / HOUR_S)} h`;
  if (seconds >= HOUR_S) {
    return `${Math.floor(seconds / HOUR_S)} h ${two(Math.floor((seconds % HOUR_S) / MINUTE_S))} min`;
  }
  return `${two(Math.floor(seconds / MINUTE_S))}:${two(seconds % MINUTE_S)}`;
}

const timeFormat = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const dayFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const momentFormat = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit",
});

/** A moment to the second; with the day where it is not today. */
export function timeText(ms) {
  const sameDay = new Date(ms).toDateString() === new Date().toDateString();
  return sameDay ? timeFormat.format(ms) : `${dayFormat.format(ms)}, ${timeFormat.format(ms)}`;
}

/** A moment to the minute, always with its day. */
export function momentText(ms) {
  return momentFormat.format(ms);
}
