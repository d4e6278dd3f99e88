// The box under the bid form: shows what became of a bid, with buttons for what can be done about it.

import { byId, element } from "../lib/dom.js";

export class MessageBox {
  #tone = null;
  #asker = null; // The element that had the focus before a question took it.

  /** `fallback` gets the focus when a focused button of the box goes away. */
  constructor(fallback) {
    this.box = byId("verdict");
    this.fallback = fallback;
  }

  /** "good", "warn", "bad" or "wait"; null while the box is empty. */
  get tone() {
    return this.#tone;
  }

  /** Shows `text`, with a button for each `{label, run}` of `actions`. */
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

  /** Asks before something that cannot be undone. The focus goes to "no": a second press must not mean yes. */
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
    // An element that was hidden meanwhile takes no focus.
    if (asker === null || document.activeElement !== asker) this.fallback.focus();
  }
}
