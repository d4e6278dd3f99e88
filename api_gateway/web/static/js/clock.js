// Times as the auction sees them. The server alone decides whether a bid is in time, so countdowns follow its clock.
// It is told in answers and, to the millisecond, by the feed; in between the browser's monotonic clock carries it on, so
// that setting the local clock moves no countdown.

const SKEW_NOTICED_MS = 1500;
const SAMPLES_MAX = 12;
const SLEPT_MS = 2000;
const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86400;

let offsetMs = Date.now() - performance.now(); // The server's clock minus the monotonic one.
let samples = []; // The offsets that the feed told lately.
let localMs = offsetMs; // The local clock minus the monotonic one, at the last look.

/**
 * Learns from the Date header of an answer that was asked for at `sentMs` and came at `receivedMs` (both of
 * `performance.now()`). The header has whole seconds, so a small difference says nothing: it counts only where it
 * contradicts what is known, as after the machine slept, when the monotonic clock may have stood still. Of an answer that
 * took long, nobody knows when on its way the time was told.
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
 * Learns from the `server_time` of a frame that arrives now. It was some time on its way, which makes the server's clock
 * look late and never early: so the latest of the last few tellings is the best one.
 */
export function noteServerTime(text) {
  const serverMs = Date.parse(text ?? "");
  if (Number.isNaN(serverMs)) return;
  samples = [...samples, serverMs - performance.now()].slice(-SAMPLES_MAX);
  offsetMs = Math.max(...samples);
}

/**
 * Milliseconds since the Unix epoch, as near to the server's clock as we know. While a machine sleeps, the monotonic clock
 * may stand still; then the local one has run ahead of it, and is believed until the server tells the time again.
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

/** Two digits, as clocks show them. */
export function two(value) {
  return String(value).padStart(2, "0");
}

/** "2 d 4 h", "3 h 05 min", "04:12", for a number of milliseconds that is not negative. */
export function durationText(ms) {
  const { days, hours, minutes, seconds } = durationParts(ms);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${two(minutes)} min`;
  return `${two(minutes)}:${two(seconds)}`;
}

/** A length in words, to the second: "90 seconds" is said as "1 minute 30 seconds". */
export function lengthText(ms) {
  const { days, hours, minutes, seconds } = durationParts(ms);
  const named = [[days, "day"], [hours, "hour"], [minutes, "minute"], [seconds, "second"]];
  const said = named.filter(([count]) => count > 0).map(([count, unit]) => `${count} ${unit}${count === 1 ? "" : "s"}`);
  return said.length > 0 ? said.join(" ") : "0 seconds";
}

const timeFormat = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const dayFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const momentFormat = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", hour: "numeric", minute: "2-digit",
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

/** The reader's time zone, such as "Europe/Berlin". */
export function timeZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone ?? "your time zone";
}
