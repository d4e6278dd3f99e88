// The few DOM helpers that the pages share. Data reaches the page through textContent and attributes only.

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

/** Writes only what changed, so that a selection survives and screen readers hear nothing twice. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** What a program said, as a sentence: "amount is missing" becomes "Amount is missing." */
export function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}

/** At most one run of `draw` per animation frame, however often it is asked for. */
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
    // A hidden tab gets no animation frames, and one that is hidden now may have asked for its frame before. The timer
    // keeps its title and price right.
    timer = setTimeout(run, FRAME_LATE_MS);
  };
}

/**
 * Plays the animation of a price that moved, from its beginning. Two names for one animation take turns: to restart a
 * single one the browser would have to lay out the page in between, for each bid.
 */
export function flash(node) {
  const again = node.classList.contains("is-moved");
  node.classList.toggle("is-moved", !again);
  node.classList.toggle("is-moved-again", again);
}

/**
 * Says things to screen readers through the live region `node`. Of the news only the newest is said, at first once per
 * `everyMs` and, while it never stops, less and less often: nobody can listen to each bid of a fast auction, nor to
 * anything else meanwhile. What is said `atOnce` waits for nothing, and is never replaced by news.
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
