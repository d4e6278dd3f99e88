// The few DOM helpers that the pages share. Data reaches the page through textContent and attributes only.

const SVG = "http://www.w3.org/2000/svg";

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
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    // A hidden tab gets no animation frames; a timer still keeps its title and price right.
    const schedule = document.hidden ? (run) => setTimeout(run, 250) : requestAnimationFrame;
    schedule(() => {
      asked = false;
      draw();
    });
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
 * Says things to screen readers through the live region `node`, at most once per `everyMs`: in a fast auction the
 * newest price is said, not a queue of old ones.
 */
export function announcer(node, everyMs = 4000) {
  let waiting = null;
  let timer = null;
  const say = () => {
    timer = null;
    if (waiting === null) return;
    setText(node, waiting);
    waiting = null;
    timer = setTimeout(say, everyMs);
  };
  return (text) => {
    waiting = text;
    if (timer === null) say();
  };
}
