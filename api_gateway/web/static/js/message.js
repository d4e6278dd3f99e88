// The box under the bid form: what became of a bid, with what can be done about it.

import { byId, element } from "./dom.js";

export class MessageBox {
  #tone = null;
  #asker = null; // What had the focus before a question took it.

  /** `fallback` gets the focus where a button of the box had it and goes away. */
  constructor(fallback) {
    this.box = byId("verdict");
    this.fallback = fallback;
  }

  /** "good", "warn", "bad" or "wait"; null while nothing is said. */
  get tone() {
    return this.#tone;
  }

  /** Says `text`, with a button for each `{label, run}` of `actions`. */
  say(tone, text, actions = []) {
    const buttons = actions.map(({ label, run }) => {
      const button = element("button", { type: "button", class: "button-quiet" }, label);
      button.addEventListener("click", run);
      return button;
    });
    this.#show(tone, element("p", {}, text), ...buttons);
  }

  clear() {
    this.#show(null);
  }

  /** Asks before something that cannot be undone. The focus goes to the way back: a second press must not mean yes. */
  ask(text, yes, no) {
    const asker = document.activeElement;
    this.say("wait", text, [yes, no]);
    this.#asker = asker;
    this.box.lastElementChild.focus();
  }

  #show(tone, ...nodes) {
    const hadFocus = this.box.contains(document.activeElement);
    const asker = this.#asker;
    this.#asker = null;
    this.#tone = tone;
    this.box.className = tone === null ? "verdict" : `verdict is-${tone}`;
    this.box.replaceChildren(...nodes);
    if (!hadFocus) return;
    asker?.focus();
    // What is hidden meanwhile takes no focus.
    if (asker === null || document.activeElement !== asker) this.fallback.focus();
  }
}
