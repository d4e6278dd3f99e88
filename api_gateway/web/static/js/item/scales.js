// The marks of a chart's axes: round amounts and round times. Pure.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const TIME_STEPS = [
  SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 15 * SECOND, 30 * SECOND,
  MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
  HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY,
];

/**
 * Round amounts from at most `low` to at least `high`, about `count` steps apart: 1, 2, 2.5 or 5 times a power of ten,
 * and never finer than `least`, the smallest unit of the currency.
 */
export function amountMarks(low, high, count, least) {
  const rough = Math.max((high - low) / count, least);
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 2.5, 5, 10].find((candidate) => candidate * power >= rough * (1 - 1e-9)) ?? 10;
  // 2.5 smallest units are not an amount.
  const step = factor === 2.5 && 2.5 * power < 10 * least ? 5 * power : factor * power;
  const from = Math.floor(low / step + 1e-9);
  const to = Math.max(from + 1, Math.ceil(high / step - 1e-9));
  return Array.from({ length: to - from + 1 }, (_unused, index) => Number(((from + index) * step).toPrecision(12)));
}

/**
 * Round times between `from` and `to` (ms since the epoch), at most `count`: full seconds, minutes, hours or days of a
 * clock that is `offsetMs` ahead of UTC.
 */
export function timeMarks(from, to, count, offsetMs) {
  const step = TIME_STEPS.find((candidate) => (to - from) / candidate <= count) ?? TIME_STEPS.at(-1);
  const marks = [];
  for (let at = Math.ceil((from + offsetMs) / step) * step - offsetMs; at <= to && marks.length <= count; at += step) {
    marks.push(at);
  }
  return { marks, step };
}

const dayFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const minuteFormat = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const secondFormat = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit", second: "2-digit" });

/** The text of a time mark; `step`: the distance to the next one. */
export function timeMarkText(at, step) {
  const format = step >= DAY ? dayFormat : step >= MINUTE ? minuteFormat : secondFormat;
  return format.format(at);
}
