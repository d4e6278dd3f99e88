// Draws a rosette of fine lines, as on share certificates, in place of a lot's photograph. The same id always gives the
// same rosette.

import { svgElement } from "./dom.js";

const SIZE = 200;
const POINTS = 360;
const TONES = 5;

/** FNV-1a, 32 bits: enough to spread similar ids. */
function hashOf(text) {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193) >>> 0;
  }
  return hash;
}

/** Small numbers out of a seed, always the same ones (a linear congruential generator). */
function numbersFrom(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** One closed wave around the centre: radius `middle`, `waves` crests of height `swing`. */
function ring(middle, swing, waves, phase) {
  let path = "";
  for (let point = 0; point <= POINTS; point += 1) {
    const angle = (point / POINTS) * 2 * Math.PI;
    const radius = middle + swing * Math.cos(waves * angle + phase);
    const x = SIZE / 2 + radius * Math.cos(angle);
    const y = SIZE / 2 + radius * Math.sin(angle);
    path += `${point === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
  }
  return `${path}Z`;
}

/** The rosette of an item, as an SVG that is decoration only. */
export function plateFor(itemId) {
  const next = numbersFrom(hashOf(itemId));
  const tone = next(TONES);
  const outerWaves = 8 + next(9);
  const innerWaves = 5 + next(7);
  const outerLines = 7 + next(4);
  const bands = [
    { middle: 76, swing: 12 + next(6), waves: outerWaves, lines: outerLines },
    { middle: 47, swing: 13 + next(6), waves: innerWaves, lines: 8 },
    { middle: 20, swing: 9 + next(4), waves: innerWaves + 3, lines: 5 },
  ];
  const paths = bands.flatMap(({ middle, swing, waves, lines }) =>
    Array.from({ length: lines }, (_unused, line) =>
      svgElement("path", { d: ring(middle, swing, waves, (line / lines) * 2 * Math.PI) })),
  );
  const frame = { class: `rosette tone-${tone}`, viewBox: `0 0 ${SIZE} ${SIZE}` };
  return svgElement("svg", { ...frame, "aria-hidden": "true", focusable: "false" }, ...paths);
}
