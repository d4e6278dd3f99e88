// The photographs of a new lot: each is uploaded as soon as it is chosen, one after another.

import { ApiError, uploadImage } from "../lib/api.js";
import { byId, element, sentence, setText } from "../lib/dom.js";

export const PHOTOS_MAX = 12;
const TYPES = ["image/jpeg", "image/png", "image/webp"];

// About the time or the sender, not the photograph: after signing in, or later, the same one may be taken.
const MAY_PASS = [401, 408, 429];

const WORDS = {
  IMAGE_TYPE: "This is no JPEG, PNG or WebP image.",
  BODY_TOO_LARGE: "This photograph has too many bytes. Please choose a smaller one.",
};

/** Why the server did not take a photograph, in the words of the page where it has some. */
function wordsOf(error) {
  return WORDS[error.code] ?? sentence(error.message);
}

/** One chosen file. `url`: once it is uploaded. */
class Row {
  url = null;
  isFailed = false;

  constructor(file, { onRemove, onRetry }) {
    this.file = file;
    this.abort = new AbortController();
    this.thumb = element("div", { class: "photo-thumb" });
    this.state = element("p", { class: "photo-state" });
    this.progress = element("progress", { max: "1", value: "0", "aria-label": `Upload of ${file.name}` });
    this.retry = element("button", { type: "button", class: "button-quiet" }, "Try again");
    this.retry.setAttribute("aria-label", `Try again to upload ${file.name}`);
    this.retry.hidden = true;
    this.retry.addEventListener("click", onRetry);
    const remove = element("button", { type: "button", class: "button-quiet" }, "Remove");
    remove.setAttribute("aria-label", `Remove ${file.name}`);
    remove.addEventListener("click", onRemove);
    this.remove = remove;
    this.node = element(
      "li",
      { class: "photo-row" },
      this.thumb,
      element("div", { class: "photo-words" }, element("p", { class: "photo-name" }, file.name), this.progress, this.state),
      element("div", { class: "photo-buttons" }, this.retry, remove),
    );
    this.wait();
  }

  get isPending() {
    return this.url === null && !this.isFailed;
  }

  wait() {
    this.isFailed = false;
    this.retry.hidden = true;
    this.progress.hidden = false;
    this.progress.value = 0;
    this.#say("Waiting…", false);
  }

  at(share) {
    this.progress.value = share;
    this.#say(share < 1 ? `${Math.floor(share * 100)} %` : "Being checked…", false);
  }

  done({ url, width, height }) {
    this.url = url;
    this.progress.hidden = true;
    // Named by the lot's title once the lot is there; here by its file, right beside it.
    this.thumb.replaceChildren(element("img", { class: "photo", src: url, alt: "" }));
    this.#say(`Uploaded, ${width} by ${height} pixels`, false);
  }

  failed(text, { mayRetry }) {
    const hadFocus = document.activeElement === this.retry;
    this.isFailed = true;
    this.progress.hidden = true;
    this.retry.hidden = !mayRetry;
    if (hadFocus && !mayRetry) this.remove.focus();
    this.#say(text, true);
  }

  #say(text, isBad) {
    setText(this.state, text);
    this.state.classList.toggle("is-bad", isBad);
  }
}

export class Photos {
  #rows = [];
  #running = null; // The promise of what is being uploaded.

  constructor({ onRefused, onChange }) {
    this.input = byId("photos");
    this.list = byId("photo-list");
    this.news = byId("photo-news");
    this.onRefused = onRefused;
    this.onChange = onChange;
    this.input.addEventListener("change", () => {
      this.#add([...this.input.files]);
      this.input.value = ""; // So that the same file can be chosen again.
    });
  }

  /** The addresses of those that are uploaded, in order. */
  get urls() {
    return this.#rows.filter((row) => row.url !== null).map((row) => row.url);
  }

  /** Waits for what is being uploaded; then the error to show, or null. */
  async settled() {
    await this.#running;
    const failed = this.#rows.filter((row) => row.isFailed).length;
    if (failed === 0) return null;
    const which = failed === 1 ? "One photograph was" : `${failed} photographs were`;
    return `${which} not uploaded. Try again, or remove what failed.`;
  }

  #add(files) {
    const room = PHOTOS_MAX - this.#rows.length;
    if (files.length > room) this.onRefused(`A lot may have ${PHOTOS_MAX} photographs.`);
    for (const file of files.slice(0, room)) {
      const row = new Row(file, { onRemove: () => this.#remove(row), onRetry: () => this.#retry(row) });
      this.#rows.push(row);
      this.list.append(row.node);
      if (!TYPES.includes(file.type)) row.failed(WORDS.IMAGE_TYPE, { mayRetry: false });
    }
    this.#draw();
    this.#start();
  }

  #remove(row) {
    row.abort.abort();
    const index = this.#rows.indexOf(row);
    this.#rows.splice(index, 1);
    row.node.remove();
    this.#draw();
    setText(this.news, `${row.file.name} was removed.`);
    // The focus stays near: on what has taken the place, or on the field.
    const next = this.#rows[index] ?? this.#rows[index - 1];
    (next?.remove ?? this.input).focus();
  }

  #retry(row) {
    row.wait();
    row.remove.focus();
    this.#start();
  }

  #draw() {
    this.list.hidden = this.#rows.length === 0;
    this.input.disabled = this.#rows.length >= PHOTOS_MAX;
    this.onChange();
  }

  #start() {
    this.#running ??= this.#uploadAll().finally(() => {
      this.#running = null;
    });
  }

  async #uploadAll() {
    for (let row = this.#next(); row !== undefined; row = this.#next()) await this.#upload(row);
  }

  #next() {
    return this.#rows.find((row) => row.isPending);
  }

  async #upload(row) {
    try {
      const told = await uploadImage(row.file, { onProgress: (share) => row.at(share), signal: row.abort.signal });
      if (row.abort.signal.aborted) return;
      if (this.urls.includes(told.url)) row.failed("This photograph is there already.", { mayRetry: false });
      else row.done(told);
      setText(this.news, row.isFailed ? `${row.file.name} is there already.` : `${row.file.name} is uploaded.`);
    } catch (error) {
      if (row.abort.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      row.failed(wordsOf(error), { mayRetry: error.passing || MAY_PASS.includes(error.status) });
      setText(this.news, `${row.file.name} was not uploaded. ${wordsOf(error)}`);
    }
    this.onChange();
  }
}
