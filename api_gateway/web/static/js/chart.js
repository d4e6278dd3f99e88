// The price over time as a staircase: a price holds until the next bid, so a slanted line would show prices that
// never were.

import { svgElement } from "./dom.js";

const PAD = { top: 24, right: 8, bottom: 24, left: 4 };
const DOTS_MAX = 40;

/**
 * Draws `points` ({at: ms, amount}, oldest first) into `svg`, which is `width` by `height` pixels. `money` and `time`
 * turn values into text; `until` (ms) is how long the last price has held so far, null where it ends with the last
 * point. Fewer than two points draw nothing.
 */
export function drawChart(svg, { width, height }, points, { money, time, until = null }) {
  svg.replaceChildren();
  if (points.length < 2 || width === 0) return;
  const first = points[0];
  const last = points[points.length - 1];
  const end = Math.max(last.at, until ?? last.at);
  const amounts = points.map(({ amount }) => amount);
  const low = Math.min(...amounts);
  const high = Math.max(...amounts);
  const x = (at) => PAD.left + ((at - first.at) / Math.max(1, end - first.at)) * (width - PAD.left - PAD.right);
  const y = (amount) =>
    height - PAD.bottom - ((amount - low) / (high - low || 1)) * (height - PAD.top - PAD.bottom);

  let line = `M${x(first.at).toFixed(1)} ${y(first.amount).toFixed(1)}`;
  for (const { at, amount } of points.slice(1)) line += `H${x(at).toFixed(1)}V${y(amount).toFixed(1)}`;
  line += `H${x(end).toFixed(1)}`;
  const floor = height - PAD.bottom;
  const area = `${line}V${floor}H${PAD.left}Z`;

  svg.append(
    svgElement("line", { class: "chart-rule", x1: 0, x2: width, y1: y(high), y2: y(high) }),
    svgElement("line", { class: "chart-rule", x1: 0, x2: width, y1: floor, y2: floor }),
    svgElement("path", { class: "chart-area", d: area }),
    svgElement("path", { class: "chart-line", d: line }),
  );
  if (points.length <= DOTS_MAX) {
    for (const { at, amount } of points) {
      svg.append(svgElement("circle", { class: "chart-dot", cx: x(at), cy: y(amount), r: 2 }));
    }
  }
  svg.append(
    svgElement("circle", { class: "chart-now", cx: x(end), cy: y(last.amount), r: 4.5 }),
    // Where the staircase cannot be: above its highest step, and low at the right.
    svgElement("text", { class: "chart-text", x: 0, y: y(high) - 8 }, money(high)),
    svgElement("text", { class: "chart-text chart-end", x: width - PAD.right - 6, y: floor - 7 }, money(low)),
    svgElement("text", { class: "chart-text", x: 0, y: height - 6 }, time(first.at)),
    svgElement("text", { class: "chart-text chart-end", x: width, y: height - 6 }, until === null ? time(end) : "now"),
  );
}
