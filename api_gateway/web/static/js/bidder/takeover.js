// Offers a person who has signed in to take over the lots that this browser watched before. It asks first, because the
// lots may be those of somebody else who uses this browser.

import { ApiError } from "../lib/api.js";
import { element, sentence, setText } from "../lib/dom.js";
import { onSession, session } from "../lib/session.js";
import { takeOver, watchedHere } from "./watching.js";

const KEY = "bidding.left_watched";

/** Builds the offer below the bar. Call it once on a page. `onDone()` runs after lots were added. */
export function mountTakeOver(onDone = () => {}) {
  const words = element("p", { tabindex: "-1" });
  const yes = element("button", { type: "button", class: "button-quiet" }, "Add to your watch list");
  const no = element("button", { type: "button", class: "button-quiet" }, "Not now");
  const note = element("section", { class: "take-over", "aria-label": "Lots that this browser watches", hidden: "" }, words, yes, no);
  document.querySelector("header.bar").after(note);
  const draw = () => {
    const count = watchedHere().length;
    note.hidden = session() === null || count === 0 || isLeft();
    yes.hidden = no.hidden = false;
    setText(words, `Before you signed in, this browser watched ${count === 1 ? "a lot" : `${count} lots`}.`);
  };
  let isBusy = false;
  yes.addEventListener("click", async () => {
    if (isBusy) return;
    isBusy = true;
    yes.setAttribute("aria-disabled", "true");
    // The house may make it wait between two lots.
    setText(words, "They are being added to your watch list…");
    try {
      await takeOver();
      yes.hidden = no.hidden = true;
      setText(words, "They are on your watch list now.");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const left = watchedHere().length;
      setText(words, `${left === 1 ? "One lot was" : `${left} lots were`} not added. ${sentence(error.message)}`);
    } finally {
      isBusy = false;
      yes.removeAttribute("aria-disabled");
    }
    words.focus();
    onDone();
  });
  no.addEventListener("click", () => {
    leave();
    note.hidden = true;
  });
  onSession(draw);
  draw();
}

/** Whether the person who is signed in has said no, in this tab. */
function isLeft() {
  try {
    return sessionStorage.getItem(KEY) === session()?.user;
  } catch {
    return false;
  }
}

function leave() {
  try {
    sessionStorage.setItem(KEY, session()?.user ?? "");
  } catch {
    // Then it is asked again on the next page.
  }
}
