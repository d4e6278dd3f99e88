// DOM helpers that the pages share. Data gets into a page as text content and attributes only.

const SVG = "http://www.w3.org/2000/svg";
const FRAME_LATE_MS = 250;

/** The element with this id; an error names the id instead of a later "null has no property". */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`no element #${id}`);
  return node;
}

/** A new HTML element. A null or undefined attribute is left out; children are nodes or text. */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** A new SVG element, by the same rules. */
export function svgElement(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/** Writes only a change, so that a selection survives and screen readers say nothing twice. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A program's message as a sentence: "amount is missing" becomes "Amount is missing." */
export function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}

// The scripts that run from right to left, and the invisible characters that set a direction.
const TURNS = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]|[\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const DIRECTIONS = /[\u202a-\u202e\u2066-\u2069]/g;

/**
 * Text that people wrote, for use among words of the page: its direction does not turn theirs. Its own marks of a
 * direction are left out, because they could end the isolation. Where it is an element of its own, `dir="auto"` does.
 */
export function isolated(text) {
  return TURNS.test(text) ? `\u2068${text.replace(DIRECTIONS, "")}\u2069` : text;
}

/** Runs `draw` at most once per animation frame, however often it is requested. */
export function oncePerFrame(draw) {
  let frame = null;
  let timer = null;
  const run = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    frame = null;
    draw();
  };
  return () => {
    if (frame !== null) return;
    frame = requestAnimationFrame(run);
    // A hidden tab gets no animation frames, and one may be pending from before it was hidden. The timer keeps title
    // and price up to date.
    timer = setTimeout(run, FRAME_LATE_MS);
  };
}

/**
 * Plays the animation of a price change from its beginning. Two names of one animation alternate: to restart a single
 * one, the browser would have to lay out the page again for each bid.
 */
export function flash(node) {
  const again = node.classList.contains("is-moved");
  node.classList.toggle("is-moved", !again);
  node.classList.toggle("is-moved-again", again);
}

/**
 * Announces texts to screen readers through the live region `node`: only the newest, at most once per `everyMs`, and
 * less and less often while they keep coming, because nobody can listen to each bid of a fast auction. A text with
 * `atOnce` does not wait, and is not replaced by a newer one.
 */
export function announcer(node, everyMs = 4000, mostMs = 16_000) {
  let waiting = "";
  let timer = null;
  let pauseMs = everyMs;
  const say = (text) => {
    waiting = "";
    setText(node, text);
    clearTimeout(timer);
    timer = setTimeout(next, pauseMs);
  };
  const next = () => {
    timer = null;
    pauseMs = waiting === "" ? everyMs : Math.min(mostMs, 2 * pauseMs);
    if (waiting !== "") say(waiting);
  };
  return (text, { atOnce = false } = {}) => {
    if (atOnce) say(text);
    else if (timer === null) say(text);
    else waiting = text;
  };
}
