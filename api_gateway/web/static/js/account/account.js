// The part of the bar that tells who is signed in, and the dialog to sign in. Where the house has no sign-in, the page
// has neither.

import { ApiError, whoIs } from "../lib/api.js";
import { element, sentence, setText } from "../lib/dom.js";
import { beginSession, endSession, mayBe, onSession, session, signsIn } from "../lib/session.js";
import { forgetAll } from "../lib/storage.js";

const ENDED = {
  expired: "Your sign-in has ended. Sign in again to go on; what you have typed is kept.",
  refused: "The house no longer accepts your sign-in. Sign in again to go on; what you have typed is kept.",
};

let dialog = null;

/** Opens the dialog. */
export function askToSignIn() {
  dialog?.open();
}

/** Verifies a token by asking who it is. Throws an ApiError. */
export async function sessionOf(token) {
  const { user_id: user, roles, expires } = await whoIs(token);
  return { token, user, roles, expiresMs: Date.parse(expires) };
}

/** Builds what belongs to the account into the bar. Call it once, on each page. */
export function mountAccount() {
  if (!signsIn) return;
  const box = document.getElementById("account");
  const name = element("span", { class: "account-name" });
  const operations = element("a", { href: "/ops", class: "account-link" }, "Operations");
  const selling = element("a", { href: "/selling", class: "account-link" }, "Your lots");
  const enter = element("button", { type: "button", class: "button-quiet" }, "Sign in");
  const leave = element("button", { type: "button", class: "button-quiet" }, "Sign out");
  const note = element("div", { class: "account-note", role: "alert", hidden: "" });
  dialog = new SignInDialog();
  enter.addEventListener("click", () => dialog.open());
  leave.addEventListener("click", () => {
    forgetAll();
    endSession("out");
    enter.focus();
  });
  box.append(operations, selling, name, enter, leave);
  box.closest("header").after(note);
  document.body.append(dialog.node);
  const draw = () => {
    const known = session();
    setText(name, known?.user ?? "");
    name.hidden = leave.hidden = known === null;
    enter.hidden = known !== null;
    operations.hidden = location.pathname === "/ops" || !mayBe("operator", "auditor");
    selling.hidden = location.pathname === "/selling" || !mayBe("seller");
  };
  onSession((reason) => {
    const words = ENDED[reason];
    note.hidden = words === undefined;
    if (words !== undefined) {
      const again = element("button", { type: "button", class: "button-quiet" }, "Sign in again");
      again.addEventListener("click", () => dialog.open());
      note.replaceChildren(element("p", {}, words), again);
    }
    draw();
  });
  draw();
}

class SignInDialog {
  #isBusy = false;

  constructor() {
    this.token = element("textarea", {
      id: "sign-in-token", rows: 4, maxlength: 8192, autocomplete: "off", autocapitalize: "none", spellcheck: "false",
      "aria-describedby": "sign-in-error",
    });
    this.error = element("p", { id: "sign-in-error", class: "field-note is-bad", role: "alert" });
    const submit = element("button", { type: "submit", class: "button" }, "Sign in");
    const cancel = element("button", { type: "button", class: "button-quiet" }, "Cancel");
    const form = element(
      "form",
      { novalidate: "" },
      element("h2", { id: "sign-in-title" }, "Sign in"),
      element("p", { class: "field-note" }, "Paste the token that your house gave you. It stays in this tab, and is gone when you sign out or close it."),
      element("label", { for: "sign-in-token" }, "Token"),
      this.token,
      this.error,
      element("div", { class: "dialog-buttons" }, submit, cancel),
    );
    this.node = element("dialog", { class: "dialog", "aria-labelledby": "sign-in-title" }, form);
    cancel.addEventListener("click", () => this.node.close());
    // A token that was not used does not stay on the screen.
    this.node.addEventListener("close", () => {
      this.token.value = "";
      setText(this.error, "");
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  open() {
    if (!this.node.open) this.node.showModal();
    this.token.focus();
  }

  async #submit() {
    if (this.#isBusy) return;
    const token = this.token.value.trim().replace(/^Bearer\s+/i, "");
    if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) {
      this.#refuse("This is not a token. A token has three parts, with dots between them.");
      return;
    }
    this.#isBusy = true;
    try {
      const known = await sessionOf(token);
      this.node.close();
      beginSession(known);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#refuse(sentence(error.message));
    } finally {
      this.#isBusy = false;
    }
  }

  #refuse(words) {
    setText(this.error, words);
    this.token.setAttribute("aria-invalid", "true");
    this.token.focus();
  }
}
