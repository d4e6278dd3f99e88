// The server's clock. The server alone decides whether a bid is in time, so countdowns follow its clock. Answers of the
// API tell it and, to the millisecond, the feed; in between it is kept by the browser's monotonic clock, so that a
// change of the local clock moves no countdown.

const SKEW_NOTICED_MS = 1500;
const SAMPLES_MAX = 12;
const SLEPT_MS = 2000;
const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86400;

let offsetMs = Date.now() - performance.now(); // The server's clock minus the monotonic one.
let samples = []; // The latest offsets from the feed.
let localMs = offsetMs; // The local clock minus the monotonic one, when last compared.

/**
 * Learns from the Date header of an answer to a request of `sentMs` that came at `receivedMs` (both of
 * `performance.now()`). The header has whole seconds, so it counts only if it contradicts the known offset, as after
 * the machine slept and the monotonic clock stood still. A slow answer is ignored: the header may be from any moment in
 * between.
 */
export function noteServerDate(header, sentMs, receivedMs) {
  const serverMs = Date.parse(header ?? "");
  if (Number.isNaN(serverMs)) return;
  const measured = serverMs + 500 - (sentMs + receivedMs) / 2;
  if (Math.abs(measured - offsetMs) <= SKEW_NOTICED_MS + (receivedMs - sentMs) / 2) return;
  samples = [];
  offsetMs = measured;
}

/**
 * Learns from the `server_time` of a frame that arrives now. Its transit makes the server's clock look late, never
 * early, so of the last few samples the one that is farthest ahead is the best.
 */
export function noteServerTime(text) {
  const serverMs = Date.parse(text ?? "");
  if (Number.isNaN(serverMs)) return;
  samples = [...samples, serverMs - performance.now()].slice(-SAMPLES_MAX);
  offsetMs = Math.max(...samples);
}

/**
 * Milliseconds since the Unix epoch by the server's clock, as far as known. While a machine sleeps, the monotonic clock
 * may stand still; if the local clock has run ahead of it, that one is used until the server tells the time again.
 */
export function serverNow() {
  const aheadMs = Date.now() - performance.now() - localMs;
  localMs += aheadMs;
  if (aheadMs > SLEPT_MS) offsetMs += aheadMs;
  return performance.now() + offsetMs;
}

/** Whole days, hours, minutes and seconds, rounded up: the last second is shown until it is over. */
export function durationParts(ms) {
  const seconds = Math.ceil(Math.max(0, ms) / 1000);
  return {
    days: Math.floor(seconds / DAY_S),
    hours: Math.floor((seconds % DAY_S) / HOUR_S),
    minutes: Math.floor((seconds % HOUR_S) / MINUTE_S),
    seconds: seconds % MINUTE_S,
  };
}

/** At least two digits. */
export function two(value) {
  return String(value).padStart(2, "0");
}

/** "2 d 4 h", "3 h 05 min" or "04:12", for milliseconds that are not negative. */
export function durationText(ms) {
  const { days, hours, minutes, seconds } = durationParts(ms);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${two(minutes)} min`;
  return `${two(minutes)}:${two(seconds)}`;
}

/** A length in words, to the second: 90 seconds are "1 minute 30 seconds". */
export function lengthText(ms) {
  const { days, hours, minutes, seconds } = durationParts(ms);
  const named = [[days, "day"], [hours, "hour"], [minutes, "minute"], [seconds, "second"]];
  const said = named.filter(([count]) => count > 0).map(([count, unit]) => `${count} ${unit}${count === 1 ? "" : "s"}`);
  return said.length > 0 ? said.join(" ") : "0 seconds";
}

const timeFormat = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const dayFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const momentFormat = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", hour: "numeric", minute: "2-digit", timeZoneName: "short",
});

/** A moment to the second, with the day if it is not today. */
export function timeText(ms) {
  const sameDay = new Date(ms).toDateString() === new Date().toDateString();
  return sameDay ? timeFormat.format(ms) : `${dayFormat.format(ms)}, ${timeFormat.format(ms)}`;
}

/** A moment to the minute, always with its day and its time zone. */
export function momentText(ms) {
  return momentFormat.format(ms);
}

/** The reader's time zone, such as "Europe/Berlin". */
export function timeZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone ?? "your time zone";
}
