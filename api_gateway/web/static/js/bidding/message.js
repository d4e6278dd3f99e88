// The box under the bid form: shows what became of a bid, with buttons for what can be done about it.

import { byId, element } from "../lib/dom.js";

/** How long a control that has just appeared does nothing: a press in that time was meant for what was there before. */
export const ARMED_AFTER_MS = 600;

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

  /** Shows `text`, with a button for each `{label, run, isHarmless}` of `actions`; the harmless ones work at once. */
  say(tone, text, actions = []) {
    const buttons = actions.map(({ label, run, isHarmless = false }) => {
      const button = element("button", { type: "button", class: "button-quiet" }, label);
      if (!isHarmless) button.setAttribute("aria-disabled", "true");
      button.addEventListener("click", () => button.getAttribute("aria-disabled") !== "true" && run());
      if (!isHarmless) setTimeout(() => button.removeAttribute("aria-disabled"), ARMED_AFTER_MS);
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
    this.say("wait", text, [yes, { ...no, isHarmless: true }]);
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
