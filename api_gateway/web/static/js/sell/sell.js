// The page that adds a lot: a short form, more terms on demand, and the same terms in words.

import { askToSignIn, mountAccount } from "../account/account.js";
import { config, createItem } from "../lib/api.js";
import { serverNow, timeZone } from "../lib/clock.js";
import { byId, element, sentence, setText } from "../lib/dom.js";
import { CURRENCIES } from "../lib/money.js";
import { mayBe, onSession, session, signsIn } from "../lib/session.js";
import { Photos } from "./photos.js";
import { bodyOf, idFor, placeOfError, readDraft, wordsOf } from "./terms.js";

const STEPS_MAX = 32;

class SellPage {
  #made = { name: null, id: "" }; // The id that was made for a name; the same for every attempt.
  #mayExist = false; // An attempt of unknown outcome may have created the lot.
  #sending = false;

  constructor() {
    this.form = byId("sell");
    this.steps = byId("steps");
    this.fields = new Map();
    for (const box of this.form.querySelectorAll("[data-field]")) this.#prepareField(box);
    for (const zone of document.querySelectorAll(".zone")) setText(zone, timeZone());
    this.photos = new Photos({
      onRefused: (text) => this.#refuse(new Map([["photos", text]])),
      onChange: () => this.#clear(byId("photos")),
    });
    byId("currency").append(...CURRENCIES.map((code) => element("option", { value: code }, code)));
    this.#addStep();
    this.#addStep();
    byId("add-step").addEventListener("click", () => {
      this.#addStep();
      this.steps.lastElementChild.querySelector("input").focus();
      this.draw();
    });
    this.form.addEventListener("input", (event) => {
      this.#clear(event.target);
      this.draw();
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("sign-in-here").addEventListener("click", askToSignIn);
    onSession(() => this.#admit());
    this.#admit();
    // The answer's Date header tells how wrong this machine's clock is.
    config().then(({ takes_images: takesImages }) => {
      byId("photos").closest("[data-field]").hidden = !takesImages;
      this.draw();
    }, () => {});
    this.draw();
  }

  /** Shows what this person may do here. What is typed stays, whoever comes and goes. */
  #admit() {
    const mayAdd = mayBe("seller", "operator");
    const isOut = signsIn && session() === null;
    byId("barred").hidden = mayAdd;
    setText(byId("barred"), isOut ? "Sign in as a seller to add a lot." : "Your account may not sell. Please ask the house.");
    byId("submit").hidden = !mayAdd;
    byId("sign-in-here").hidden = !isOut;
    // Sellers sell in their own name.
    const { box } = this.fields.get("seller_id");
    box.hidden = signsIn && !mayBe("operator");
    if (box.hidden && !isOut) box.querySelector("input").value = "";
    this.draw();
  }

  /** Gives each field a place for its error, to which its controls refer. */
  #prepareField(box) {
    const name = box.dataset.field;
    const error = element("p", { id: `error-${name}`, class: "field-note is-bad" });
    const note = box.querySelector(":scope > .field-note");
    if (note) note.id = `note-${name}`;
    if (box.tagName === "FIELDSET") box.querySelector("legend").after(error);
    else box.append(error);
    const described = [error.id, note?.id].filter(Boolean).join(" ");
    const control = box.tagName === "FIELDSET" ? null : box.querySelector("input, select, textarea");
    const target = control ?? box; // A group of controls shares one error.
    target.setAttribute("aria-describedby", described);
    this.fields.set(name, { box, error, target });
  }

  #addStep() {
    const row = byId("step").content.cloneNode(true).firstElementChild;
    row.querySelector("button").addEventListener("click", () => {
      row.remove();
      byId("add-step").focus();
      this.draw();
    });
    this.steps.append(row);
  }

  /** The values of the form, as text. */
  #values() {
    const values = Object.fromEntries(new FormData(this.form));
    values.steps = Array.from(this.steps.children, (row) => ({
      below: row.querySelector('[name="below"]').value,
      increment: row.querySelector('[name="adds"]').value,
    }));
    return values;
  }

  /** Shows the fields of the chosen options, and the terms in words. */
  draw() {
    const values = this.#values();
    for (const box of this.form.querySelectorAll("[data-shown-for]")) {
      const [field, value] = box.dataset.shownFor.split("=");
      box.hidden = values[field] !== value;
    }
    const rows = [...this.steps.children];
    for (const row of rows) {
      const isLast = row === rows.at(-1);
      row.querySelector(".step-bound").hidden = isLast;
      row.querySelector(".step-rest").hidden = !isLast;
      setText(row.querySelector(".step-rest"), rows.length === 1 ? "At any price" : "Above that");
      row.querySelector("button").hidden = rows.length === 1;
    }
    byId("add-step").hidden = rows.length >= STEPS_MAX;
    const { draft } = readDraft(values, serverNow());
    setText(byId("words-name"), draft.name || "Your lot");
    byId("words").replaceChildren(...wordsOf(draft, serverNow()).map((words) => element("li", {}, words)));
  }

  async #submit() {
    if (this.#sending) return;
    if (!mayBe("seller", "operator")) {
      askToSignIn();
      return;
    }
    const { draft, errors } = readDraft(this.#values(), serverNow());
    this.#clearAll();
    if (errors.size > 0) {
      this.#refuse(errors);
      return;
    }
    this.#busy(true, "Waiting for the photographs…");
    const failed = await this.photos.settled();
    if (failed !== null) {
      this.#busy(false, "");
      this.#refuse(new Map([["photos", failed]]));
      return;
    }
    const body = bodyOf(draft, this.#idOf(draft), serverNow());
    if (this.photos.urls.length > 0) body.image_urls = this.photos.urls;
    this.#busy(true, "Adding the lot…");
    try {
      const id = await createItem(body, {
        mayExist: this.#mayExist,
        onRepeat: () => this.#busy(true, "No answer yet. Asking again; the lot cannot be added twice."),
      });
      location.assign(`/items/${encodeURIComponent(id)}`);
    } catch (error) {
      this.#busy(false, "");
      this.#failed(error);
    }
  }

  #idOf({ id, name }) {
    if (id !== "") return id;
    if (this.#made.name !== name && !this.#mayExist) this.#made = { name, id: idFor(name) };
    return this.#made.id;
  }

  #failed(error) {
    if (error.passing) {
      this.#mayExist ||= error.outcomeUnknown;
      const unknown = "The house did not say whether the lot was added. Trying again cannot add it twice.";
      this.#top(error.outcomeUnknown ? unknown : `The lot was not added. ${sentence(error.message)} Please try again.`);
      return;
    }
    const { field, text } = placeOfError(error);
    if (field === null) this.#top(`The lot was not added. ${sentence(text)}`);
    else this.#refuse(new Map([[field, sentence(text)]]));
  }

  /** Shows errors at their fields, and moves the focus to the first one. */
  #refuse(errors) {
    for (const [name, text] of errors) {
      const { box, error, target } = this.fields.get(name);
      setText(error, text);
      box.classList.add("has-error");
      if (target !== box) target.setAttribute("aria-invalid", "true");
      box.closest("details")?.setAttribute("open", "");
      box.closest("[data-shown-for]")?.removeAttribute("hidden");
    }
    const first = [...this.fields.values()].find(({ box }) => box.classList.contains("has-error"));
    const count = errors.size === 1 ? "One field needs" : `${errors.size} fields need`;
    this.#top(`${count} another look. Nothing was added yet.`);
    const control = first.target === first.box ? first.box.querySelector("input:checked, input") : first.target;
    control.focus();
  }

  #top(text) {
    byId("problem").hidden = false;
    setText(byId("problem-text"), text);
    byId("problem").focus();
  }

  #clear(control) {
    for (let box = control.closest("[data-field]"); box; box = box.parentElement.closest("[data-field]")) {
      const { error, target } = this.fields.get(box.dataset.field);
      setText(error, "");
      box.classList.remove("has-error");
      target.removeAttribute("aria-invalid");
    }
  }

  #clearAll() {
    byId("problem").hidden = true;
    for (const { target } of this.fields.values()) this.#clear(target);
  }

  #busy(sending, text) {
    this.#sending = sending;
    byId("submit").setAttribute("aria-disabled", String(sending));
    setText(byId("progress"), text);
  }
}

new SellPage();
mountAccount();
