// Draws the price over time as a staircase: a price holds until the next bid, so slanted lines would show prices that
// never existed.

import { setText, svgElement } from "../lib/dom.js";
import { amountMarks, timeMarkText, timeMarks } from "./scales.js";

const PAD = { top: 26, right: 12, bottom: 26 };
const CHARACTER_PX = 6.9; // Width of a character of the labels, rather too wide.
const DOTS_MAX = 60;
const TIME_MARK_PX = 120;
const AMOUNT_MARK_PX = 44;
const SPAN_LEAST_MS = 10_000;

export class PriceChart {
  #view = null; // What is drawn: {points, x, y, floor, told}.

  /** Draws into `svg`; `readout` gets the text of the bid under the pointer. */
  constructor(svg, readout) {
    this.svg = svg;
    this.readout = readout;
    this.probe = svgElement("g", { class: "chart-probe", visibility: "hidden" });
    svg.addEventListener("pointermove", (event) => this.#point(event));
    svg.addEventListener("pointerdown", (event) => this.#point(event));
    svg.addEventListener("pointerleave", () => this.#unpoint());
  }

  /**
   * Draws `points` ({at: ms, amount, isOwn, words()}, oldest first, at least two) into `width` by `height` pixels.
   * `money` formats an amount, `mark` a round one (without decimals if its second argument is true); `least` is the
   * currency's smallest unit; `until` (ms): until when the last price holds, null where the line ends with the last
   * point.
   */
  draw({ width, height }, points, { money, mark, least, until = null }) {
    this.svg.replaceChildren();
    this.#view = null;
    if (points.length < 2 || width === 0) return;
    const amounts = points.map(({ amount }) => amount);
    const count = Math.max(2, Math.floor((height - PAD.top - PAD.bottom) / AMOUNT_MARK_PX));
    const marks = amountMarks(Math.min(...amounts), Math.max(...amounts), count, least);
    const isWhole = Number.isInteger(marks[1] - marks[0]) && Number.isInteger(marks[0]);
    const labels = marks.map((amount) => mark(amount, isWhole));
    const left = Math.ceil(Math.max(...labels.map(({ length }) => length)) * CHARACTER_PX) + 12;
    const last = points.at(-1);
    const from = points[0].at;
    const now = Math.max(last.at, until ?? last.at);
    const to = Math.max(now, from + SPAN_LEAST_MS);
    const floor = height - PAD.bottom;
    const right = width - PAD.right;
    const x = (at) => left + ((at - from) / (to - from)) * (right - left);
    const y = (amount) => floor - ((amount - marks[0]) / (marks.at(-1) - marks[0])) * (floor - PAD.top);
    this.#view = { points, x, y, floor };
    this.#drawAmounts(marks.map(y), labels, { left, right });
    this.#drawTimes(from, to, { x, left, right, floor });
    const end = x(now);
    this.#drawLine(points, { x, y, floor, end });
    this.#drawEnd(end, y(last.amount), money(last.amount), { left });
    this.svg.append(this.probe);
  }

  #drawAmounts(places, labels, { left, right }) {
    places.forEach((place, index) => {
      const y = Math.round(place) + 0.5;
      this.svg.append(
        svgElement("line", { class: "chart-rule", x1: left, x2: right, y1: y, y2: y }),
        svgElement("text", { class: "chart-text chart-end", x: left - 10, y: y + 4 }, labels[index]),
      );
    });
  }

  #drawTimes(from, to, { x, left, right, floor }) {
    const count = Math.max(1, Math.floor((right - left) / TIME_MARK_PX));
    const { marks, step } = timeMarks(from, to, count, -new Date(from).getTimezoneOffset() * 60_000);
    for (const at of marks) {
      const place = x(at);
      const text = timeMarkText(at, step);
      const half = (text.length * CHARACTER_PX) / 2;
      this.svg.append(svgElement("line", { class: "chart-tick", x1: place, x2: place, y1: floor, y2: floor + 5 }));
      if (place - half < 0 || place + half > right + PAD.right) continue;
      this.svg.append(svgElement("text", { class: "chart-text chart-middle", x: place, y: floor + 19 }, text));
    }
  }

  #drawLine(points, { x, y, floor, end }) {
    const first = points[0];
    let line = `M${x(first.at).toFixed(1)} ${y(first.amount).toFixed(1)}`;
    for (const { at, amount } of points.slice(1)) line += `H${x(at).toFixed(1)}V${y(amount).toFixed(1)}`;
    line += `H${end.toFixed(1)}`;
    this.svg.append(
      svgElement("path", { class: "chart-area", d: `${line}V${floor}H${x(first.at).toFixed(1)}Z` }),
      svgElement("path", { class: "chart-line", d: line }),
    );
    if (points.length > DOTS_MAX) return;
    for (const { at, amount, isOwn } of points) {
      const dot = { class: isOwn ? "chart-dot is-own" : "chart-dot", cx: x(at), cy: y(amount), r: isOwn ? 3.5 : 2.25 };
      this.svg.append(svgElement("circle", dot));
    }
  }

  /** Writes the present price at the end of the line. */
  #drawEnd(x, y, text, { left }) {
    const fits = x - text.length * CHARACTER_PX * 1.15 > left;
    const place = fits ? { class: "chart-now-text chart-end", x: x + 4 } : { class: "chart-now-text", x: left + 4 };
    this.svg.append(
      svgElement("circle", { class: "chart-halo", cx: x, cy: y, r: 9 }),
      svgElement("circle", { class: "chart-now", cx: x, cy: y, r: 5 }),
      svgElement("text", { ...place, y: y - 12 }, text),
    );
  }

  #point({ clientX }) {
    if (this.#view === null) return;
    const { points, x, y, floor } = this.#view;
    const at = clientX - this.svg.getBoundingClientRect().left;
    const gap = (point) => Math.abs(x(point.at) - at);
    const nearest = points.reduce((best, point) => (gap(point) <= gap(best) ? point : best));
    const [left, top] = [x(nearest.at), y(nearest.amount)];
    this.probe.replaceChildren(
      svgElement("line", { class: "chart-probe-rule", x1: left, x2: left, y1: PAD.top - 10, y2: floor }),
      svgElement("circle", { class: "chart-probe-dot", cx: left, cy: top, r: 5 }),
    );
    this.probe.setAttribute("visibility", "visible");
    setText(this.readout, nearest.words());
  }

  #unpoint() {
    this.probe.setAttribute("visibility", "hidden");
    setText(this.readout, "");
  }
}
