// Who may bid on all lots, and whether all lots ask for approval.

import { byId, element, setText } from "../lib/dom.js";
import { CURRENCIES } from "../lib/money.js";
import { Bidders, WHY_ARCHIVED, toldBetter } from "../rulings/bidders.js";
import { askApproval } from "../rulings/calls.js";
import { HousePlace } from "../rulings/places.js";

export class HouseBidders {
  #isAsked = null; // Not known yet.

  /** `onRules()` runs when it is known anew whether all lots ask for approval. */
  constructor({ confirmation, mayRule, onRules }) {
    this.confirmation = confirmation;
    this.mayRule = mayRule;
    this.onRules = onRules;
    this.button = byId("approval");
    this.button.addEventListener("click", () => this.#ask());
    const currency = element("select", { id: "spending-currency", autocomplete: "off" }, ...CURRENCIES.map((code) => element("option", { value: code }, code)));
    currency.addEventListener("change", () => this.bidders.refresh());
    this.bidders = new Bidders(byId("house-bidders"), {
      name: "house-bidder",
      where: "on all lots",
      level: "h3",
      place: new HousePlace({ currencyOf: () => currency.value }),
      confirmation,
      mayRule,
      onTold: (page) => this.#know(page.approval_required),
      extra: element("div", { class: "spending" }, element("label", { for: "spending-currency" }, "What they lead with, in"), currency),
    });
  }

  get asksApproval() {
    return this.#isAsked === true;
  }

  /** Somebody may look from now on, or may do something else than before. */
  async restart() {
    this.#draw();
    await this.bidders.restart();
  }

  /** Shows nobody any more. */
  forget() {
    this.bidders.forget();
  }

  #know(isAsked) {
    this.#isAsked = isAsked;
    this.#draw();
    this.onRules();
  }

  #draw() {
    this.button.hidden = this.#isAsked === null || !this.mayRule();
    if (this.#isAsked === null) return;
    setText(byId("approval-words"), this.#isAsked ? "All lots require approval." : "A lot requires approval only if its terms say so.");
    setText(this.button, this.#isAsked ? "No longer require approval" : "Require approval on all lots");
  }

  #ask() {
    const isAsked = !this.#isAsked;
    const question = isAsked
      ? { title: "Require approval on all lots?", words: "From now on only approved bidders may bid. Accepted bids stand.", yes: "Require approval" }
      : { title: "No longer require approval?", words: "Lots with approval in their own terms still require it.", yes: "No longer require it" };
    this.confirmation.ask({ ...question, why: WHY_ARCHIVED }, async (reason) => {
      try {
        const { approval_required: isAskedNow } = await askApproval(isAsked, reason);
        this.#know(isAskedNow);
        // A list that was asked for before says what held then.
        await Promise.all([this.bidders.refresh(), this.bidders.readAgain()]);
      } catch (error) {
        throw toldBetter(error);
      }
    });
  }
}
