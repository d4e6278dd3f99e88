// Who may bid, on one lot, on all of a seller, or on all: those on whom something was ruled, one bidder who was looked
// up, and what can be ruled on them. Nothing is done without a question and a reason.

import { ApiError } from "../lib/api.js";
import { element, sentence, setText } from "../lib/dom.js";
import { moneyOf } from "./confirm.js";

const PAGE = 20;
// A page of the list may be empty although others follow.
const EMPTY_PAGES_MAX = 20;
const BUTTONS = ["approve", "block", "limit", "unlimit"];
const USER_ID = /^(?!\.+$)[A-Za-z0-9_.@-]{1,64}$/;
export const WHY_ARCHIVED = "Why? The archive keeps it; nobody else is told.";

export class Bidders {
  #user = null; // Who is shown, and what holds for them.
  #told = null;
  // A page of the server's may have some hundreds of bidders; this panel shows PAGE of them, from #from.
  #rows = [];
  #from = 0;
  #next = null; // The cursor of the server's next page.
  #here = null; // The cursor of this one.
  #asked = 0; // Answers to older questions than the newest are not shown,
  #listed = 0; // nor older lists.

  /**
   * `place`: where it is ruled; `where`, in words. `mayRule()`: not only look. `onTold(page)` runs after the list was
   * read, also because something was ruled. `extra`: a node for the card of a bidder.
   */
  constructor(root, { name, where, level, place, confirmation, mayRule, onTold = () => {}, extra = null }) {
    Object.assign(this, { place, confirmation, mayRule, onTold });
    this.input = element("input", {
      id: `${name}-find`, autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: 64,
      placeholder: "Id of the bidder", enterkeyhint: "search", "aria-describedby": `${name}-find-error`,
    });
    this.error = element("p", { id: `${name}-find-error`, class: "field-note is-bad", role: "alert" });
    this.title = element(level, { class: "bidder-name", tabindex: "-1" });
    this.tags = element("span", { class: "bidder-tags" });
    this.words = element("p", {});
    this.figures = element("dl", { class: "figures" });
    this.done = element("p", { class: "field-note", role: "status" });
    this.buttons = new Map(
      BUTTONS.filter((each) => place.rulings.includes(each.replace(/^un/, ""))).map((each) => [each, element("button", { type: "button", class: "button-quiet is-small" })]),
    );
    for (const [each, button] of this.buttons) button.addEventListener("click", () => this.ask(this.#rulingOf(each), this.#user));
    this.choices = element("div", { class: "lot-buttons" }, ...this.buttons.values());
    this.card = element(
      "div",
      { class: "bidder-card", hidden: "" },
      element("div", { class: "lot-line" }, this.title, this.tags),
      this.words, ...(extra === null ? [] : [extra]), this.figures, this.choices, this.done,
    );
    this.body = element("tbody", {});
    this.table = element(
      "table",
      { class: "listing", hidden: "" },
      element("caption", {}, "Approved, blocked or limited"),
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Bidder"), element("th", { scope: "col" }, "Ruling"))),
      this.body,
    );
    this.note = element("p", { class: "field-note", role: "status" });
    this.first = element("button", { type: "button", class: "button-quiet is-small", hidden: "" }, "First page");
    this.following = element("button", { type: "button", class: "button-quiet is-small", hidden: "" }, "Next page");
    this.first.addEventListener("click", () => this.#turn(null, 0));
    this.following.addEventListener("click", () => this.#turn(this.#isLast ? this.#next : this.#here, this.#isLast ? 0 : this.#from + PAGE));
    root.append(this.#form(name, where), this.error, this.card, this.table, this.note, element("div", { class: "lot-buttons" }, this.first, this.following));
  }

  #form(name, where) {
    const form = element(
      "form",
      { class: "find-lot", role: "search", "aria-label": `Look a bidder up, ${where}`, novalidate: "" },
      element("label", { for: `${name}-find`, class: "visually-hidden" }, "Id of the bidder"),
      this.input,
      element("button", { type: "submit", class: "button-quiet" }, "Look up"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#lookUp(this.input.value.trim());
    });
    return form;
  }

  /** Reads the list from its beginning: the place has become another, or is shown first. */
  async restart() {
    this.forget();
    await this.#list(null, 0);
  }

  /** Shows nobody any more. */
  forget() {
    this.#asked += 1;
    this.#listed += 1;
    this.#user = this.#told = null;
    this.#rows = [];
    this.#from = 0;
    this.#next = this.#here = null;
    this.input.value = "";
    setText(this.error, "");
    setText(this.note, "");
    for (const each of [this.title, this.words]) setText(each, "");
    this.draw();
  }

  /** Reads again who is shown, as after a change of what is told about them. */
  async refresh() {
    if (this.#user !== null) await this.#show(this.#user);
  }

  /** Reads the list again where it stands; an answer to an older question is not shown. */
  async readAgain() {
    await this.#list(this.#here, this.#from);
  }

  /** Whether the bidder is known here to be blocked. Of bidders on other pages of the list it is not known. */
  isBlocked(userId) {
    if (userId === this.#user) return this.#told.blocked;
    return this.#rows.some(({ user_id: id, blocked }) => blocked && id === userId);
  }

  /** Asks, and rules. */
  ask(ruling, userId) {
    const [title, words, yes] = this.place.questions(userId)[ruling];
    const amount = ruling === "limit" ? moneyOf(this.place.amountLabel, this.place.currency) : null;
    const question = { title, words, yes, isDanger: ruling === "block", why: WHY_ARCHIVED, amount };
    const rule = this.place.ruler();
    this.confirmation.ask(question, (reason, limit) => this.#rule(rule, ruling, userId, limit === null ? { reason } : { reason, amount: limit }));
  }

  async #rule(rule, ruling, userId, said) {
    try {
      await rule(userId, ruling, said);
    } catch (error) {
      // It may be done all the same.
      if (userId === this.#user) this.refresh();
      throw toldBetter(error);
    }
    // It is done; what cannot be read now is said on the page.
    await this.#lookUp(userId, false);
    setText(this.done, "Done, and noted in your name.");
    await this.readAgain();
    return this.card.hidden ? this.input : this.title;
  }

  async #lookUp(userId, hasFocus = true) {
    setText(this.error, "");
    this.input.setAttribute("aria-invalid", "false");
    if (!USER_ID.test(userId)) {
      setText(this.error, "An id has 1 to 64 letters, digits, dots, hyphens, underscores or at signs.");
      this.input.setAttribute("aria-invalid", "true");
      this.input.focus();
      return;
    }
    setText(this.done, "");
    if ((await this.#show(userId)) && hasFocus) this.title.focus();
  }

  /** Returns whether it could be read, and nobody has asked for another since. */
  async #show(userId) {
    this.#asked += 1;
    const asked = this.#asked;
    try {
      const told = await this.place.read(userId);
      if (asked !== this.#asked) return false;
      this.#user = userId;
      this.#told = told;
      this.draw();
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (asked !== this.#asked) return false;
      // What was known of the bidder may no longer hold.
      this.#user = this.#told = null;
      this.draw();
      setText(this.error, `The rulings on ${userId} could not be read. ${sentence(error.message)}`);
      return false;
    }
  }

  /** Whether this shows the last of what the server's page has. */
  get #isLast() {
    return this.#from + PAGE >= this.#rows.length;
  }

  async #turn(cursor, from) {
    await this.#list(cursor, from);
    // The button that was pressed may be gone now.
    const focused = document.activeElement;
    if (focused === document.body || focused.hidden) (this.following.hidden ? this.first : this.following).focus();
  }

  async #list(cursor, from) {
    this.#listed += 1;
    const asked = this.#listed;
    try {
      let at = cursor;
      let page = null;
      for (let read = 0; read < EMPTY_PAGES_MAX; read += 1) {
        page = await this.place.list(at, PAGE);
        if (asked !== this.#listed) return;
        if (page.bidders.length > 0 || page.next_cursor === null) break;
        at = page.next_cursor;
      }
      this.#here = at;
      this.#next = page.next_cursor;
      this.#rows = page.bidders.toSorted((one, other) => (one.user_id < other.user_id ? -1 : 1));
      // There may be fewer than before.
      this.#from = from < this.#rows.length ? from : 0;
      this.#drawRows();
      setText(this.note, this.#noteText());
      this.onTold(page);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (asked === this.#listed) setText(this.note, `The list could not be read. ${sentence(error.message)}`);
    }
  }

  get #shown() {
    return this.#rows.slice(this.#from, this.#from + PAGE);
  }

  #noteText() {
    const shown = this.#shown;
    if (shown.length > 0) return this.first.hidden && this.following.hidden ? "" : `From ${shown[0].user_id} to ${shown.at(-1).user_id}.`;
    if (this.#next !== null) return "None here; others may follow.";
    return this.#here === null ? "Nobody was approved, blocked or limited." : "There are no more.";
  }

  #drawRows() {
    this.table.hidden = this.#rows.length === 0;
    this.first.hidden = this.#here === null && this.#from === 0;
    this.following.hidden = this.#isLast && this.#next === null;
    this.body.replaceChildren(
      ...this.#shown.map((bidder) => {
        const { user_id: id } = bidder;
        const button = element("button", { type: "button", class: "as-link" }, id);
        button.addEventListener("click", () => this.#lookUp(id));
        return element("tr", {}, element("td", { class: "who" }, button), element("td", {}, ...tagNodes(this.place.tagsOf(bidder))));
      }),
    );
  }

  /** Draws who is shown anew; also after a change of what one may do. */
  draw() {
    if (this.#rows.length === 0) this.#drawRows();
    this.card.hidden = this.#user === null;
    if (this.#user === null) return;
    const { approved, blocked, limit } = this.#told;
    setText(this.title, this.#user);
    this.tags.replaceChildren(...tagNodes(this.place.tagsOf(this.#told)));
    setText(this.words, this.place.wordsOf(this.#told));
    this.figures.replaceChildren(
      ...this.place.figuresOf(this.#told).map(([label, value]) => element("div", {}, element("dt", {}, label), element("dd", {}, value))),
    );
    this.figures.hidden = this.figures.children.length === 0;
    this.choices.hidden = !this.mayRule();
    const label = (name, text) => this.buttons.has(name) && setText(this.buttons.get(name), text);
    label("approve", approved ? "Take approval back" : "Approve");
    label("block", blocked ? "Take block back" : "Block");
    this.buttons.get("block").classList.toggle("is-danger", !blocked);
    label("limit", limit === null ? "Limit" : "Change limit");
    label("unlimit", "Take limit back");
    this.buttons.get("unlimit")?.toggleAttribute("hidden", limit === null);
  }

  /** What a button does now. */
  #rulingOf(button) {
    const isThere = { approve: this.#told.approved, block: this.#told.blocked }[button] ?? false;
    return isThere ? `un${button}` : button;
  }
}

function tagNodes(tags) {
  return tags.map((tag) => element("span", { class: "tag" }, tag));
}

/** Says what to do where the server's words do not. */
export function toldBetter(error) {
  if (!(error instanceof ApiError)) return error;
  const more = {
    403: "Sign in as somebody who may rule on bidders.",
    409: error.code === "TOO_MANY_RULINGS" ? "Nothing was changed." : "",
    503: "The decision reaches all lots by itself; you may safely repeat it.",
  }[error.status];
  const unknown = error.status === 0 ? "It may have been done; you may safely repeat it." : "";
  error.message = [sentence(error.message), more ?? unknown].filter((words) => words !== "").join(" ");
  return error;
}
