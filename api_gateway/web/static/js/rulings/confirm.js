// The question before anything is done to a lot or ruled on a bidder: what it means, why it is done, and how much.

import { byId, sentence, setText } from "../lib/dom.js";
import { parseAmount } from "../lib/money.js";

/** An amount of money that is asked for. */
export function moneyOf(label, currency) {
  return {
    label: `${label} (${currency})`,
    parse: (text) => parseAmount(text, currency),
    complaint: "Give one amount above 0, such as 400.",
  };
}

const TOLD = "Why? Everybody who watches the lot is told.";

export class Confirmation {
  #run = null;
  #asked = null;
  #isBusy = false;

  constructor() {
    this.node = byId("confirm");
    this.reason = byId("reason");
    this.amount = byId("amount");
    byId("confirm-no").addEventListener("click", () => this.node.close());
    // Escape closes a dialog; not while the answer is awaited.
    this.node.addEventListener("cancel", (event) => this.#isBusy && event.preventDefault());
    // What was asked may name a bidder.
    this.node.addEventListener("close", () => setText(byId("confirm-words"), ""));
    byId("confirm-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  /**
   * `run(reason, amount)` does it; where it throws an Error, the dialog shows its message and stays. What it returns, if
   * anything, is the node that gets the focus where the button that was pressed is there no longer. `amount`: a number
   * that is asked for too, with its label, `parse(text)`, which gives null for what is none, and the complaint then.
   */
  ask({ title, words, yes, isDanger = false, why = TOLD, amount = null }, run) {
    this.#run = run;
    this.#asked = amount;
    setText(byId("confirm-title"), title);
    setText(byId("confirm-words"), words);
    setText(byId("reason-label"), why);
    setText(byId("confirm-yes"), yes);
    byId("confirm-yes").classList.toggle("is-danger", isDanger);
    byId("amount-field").hidden = amount === null;
    setText(byId("amount-label"), amount?.label ?? "");
    this.reason.value = this.amount.value = "";
    this.#complain(this.reason, "");
    this.#complain(this.amount, "");
    this.node.showModal();
    (amount === null ? this.reason : this.amount).focus();
  }

  async #submit() {
    if (this.#isBusy) return;
    const reason = this.reason.value.trim();
    const amount = this.#asked === null ? null : this.#asked.parse(this.amount.value);
    this.#complain(this.reason, reason === "" ? "Please give a reason; it is kept." : "");
    const isMissing = this.#asked !== null && amount === null;
    this.#complain(this.amount, isMissing ? this.#asked.complaint : "");
    if (reason === "" || isMissing) return;
    this.#busy(true);
    try {
      const next = await this.#run(reason, amount);
      this.node.close();
      // A button that is gone did not get the focus back; where it is then depends on the browser.
      const focused = document.activeElement;
      if (focused === document.body || this.node.contains(focused)) next?.focus();
    } catch (error) {
      this.#complain(this.#asked !== null && /^(amount|the end)\b/.test(error.message) ? this.amount : this.reason, sentence(error.message));
    } finally {
      this.#busy(false);
    }
  }

  #complain(field, words) {
    setText(byId(`${field.id}-error`), words);
    field.setAttribute("aria-invalid", String(words !== ""));
    if (words !== "") field.focus();
  }

  #busy(isBusy) {
    this.#isBusy = isBusy;
    byId("confirm-yes").setAttribute("aria-disabled", String(isBusy));
  }
}
