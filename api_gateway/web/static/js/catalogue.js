// The catalogue: all items, a page at a time, with live prices for those in view.

import { feedBase, getItem, listItems, pause } from "./api.js";
import { userId } from "./bidder.js";
import { Card } from "./card.js";
import { byId, sentence, setText } from "./dom.js";
import { CatalogueFeed, backoffMs } from "./feed.js";
import { STATUS_LABELS, connectionText } from "./status.js";

const PAGE_SIZE = 24;
const SORTS = ["newest", "ending", "price"];

class Catalogue {
  #cards = new Map();
  #feed = null;
  #cursor = null;
  #loads = 0;
  #inView = new Set();

  constructor() {
    this.grid = byId("grid");
    this.viewed = new IntersectionObserver((entries) => this.#seen(entries), { rootMargin: "300px" });
    byId("more").addEventListener("click", () => this.#load());
    byId("retry").addEventListener("click", () => this.#load());
    for (const chip of byId("filters").querySelectorAll("button")) {
      chip.addEventListener("click", () => this.show(chip.dataset.status, this.sort));
    }
    byId("sort").addEventListener("change", () => this.show(this.status, byId("sort").value));
    setInterval(() => {
      for (const id of this.#inView) this.#cards.get(id)?.drawClock();
    }, 1000);
  }

  /** Shows the items of one status ("" for all) in one order, from the first page on. */
  show(status, sort) {
    for (const chip of byId("filters").querySelectorAll("button")) {
      chip.setAttribute("aria-pressed", String(chip.dataset.status === status));
    }
    const query = new URLSearchParams();
    if (status) query.set("status", status);
    if (sort !== SORTS[0]) query.set("sort", sort);
    history.replaceState(null, "", `${query}` ? `/?${query}` : "/");
    byId("sort").value = sort;
    this.status = status;
    this.sort = sort;
    for (const id of this.#cards.keys()) this.#feed?.unwatch(id);
    this.#cards.clear();
    this.#inView.clear();
    this.viewed.disconnect();
    this.grid.replaceChildren();
    this.#cursor = null;
    this.#load();
  }

  async follow() {
    let base = null;
    for (let attempt = 0; base === null; attempt += 1) {
      base = await feedBase().catch(() => null);
      if (base === null) await pause(backoffMs(attempt));
    }
    this.#feed = new CatalogueFeed(base, {
      onFrame: (frame) => this.#cards.get(frame.item_id)?.take(frame),
      onState: showConnection,
    });
    for (const id of this.#inView) this.#feed.watch(id);
  }

  async #load() {
    this.#loads += 1;
    const load = this.#loads;
    this.#report({ busy: true });
    try {
      const page = await listItems({
        status: this.status,
        sort: this.sort,
        cursor: this.#cursor ?? "",
        limit: PAGE_SIZE,
      });
      if (load !== this.#loads) return; // Another filter was chosen meanwhile.
      this.#cursor = page.next_cursor ?? null;
      for (const item of page.items) this.#add(item);
      this.#report({});
    } catch (error) {
      if (load === this.#loads) this.#report({ error });
    }
  }

  #add(item) {
    // The list may shift between two pages while items are added; nothing is shown twice.
    if (this.#cards.has(item.id)) return;
    const card = new Card(item, userId());
    this.#cards.set(item.id, card);
    this.grid.append(card.node);
    this.viewed.observe(card.node);
  }

  #seen(entries) {
    for (const { target, isIntersecting } of entries) {
      const id = target.dataset.id;
      if (isIntersecting && target.isConnected) {
        this.#inView.add(id);
        this.#feed?.watch(id);
      } else {
        this.#inView.delete(id);
        this.#feed?.unwatch(id);
      }
    }
  }

  #report({ busy = false, error = null }) {
    const count = this.#cards.size;
    const none = count === 0 && !busy && error === null;
    this.grid.setAttribute("aria-busy", String(busy));
    byId("loading").hidden = !(busy && count === 0);
    byId("trouble").hidden = error === null;
    if (error !== null) setText(byId("trouble-text"), error.message);
    byId("empty").hidden = !none || this.status !== "";
    byId("filter-row").hidden = !byId("empty").hidden;
    byId("none-such").hidden = !none || this.status === "";
    byId("more").hidden = this.#cursor === null || count === 0;
    byId("more").setAttribute("aria-disabled", String(busy));
    const more = this.#cursor === null ? "" : "+";
    setText(byId("count"), count === 0 ? "" : `${count}${more} ${count === 1 ? "lot" : "lots"}`);
  }
}

function showConnection(state) {
  const box = byId("connection");
  box.hidden = false;
  box.dataset.state = state;
  if (state === "live") box.dataset.connected = "yes";
  setText(byId("connection-text"), connectionText(state, box.dataset.connected === "yes"));
}

/** "Open a lot by its id". The id is looked up first, so that a typing error is told here and not on an empty page. */
function prepareOpenForm() {
  const form = byId("open-form");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = byId("open-id");
    const id = field.value.trim();
    const message = byId("open-message");
    if (!/^[A-Za-z0-9_-]{1,64}$/.test(id)) {
      setText(message, "An id has 1 to 64 letters, digits, hyphens or underscores.");
      field.focus();
      return;
    }
    setText(message, "");
    try {
      await getItem(id);
      location.assign(`/items/${encodeURIComponent(id)}`);
    } catch (error) {
      setText(message, sentence(error.message));
    }
  });
}

prepareOpenForm();
setText(byId("origin"), location.origin);
const catalogue = new Catalogue();
const asked = new URLSearchParams(location.search);
catalogue.show(
  Object.hasOwn(STATUS_LABELS, asked.get("status") ?? "") ? asked.get("status") : "",
  SORTS.includes(asked.get("sort")) ? asked.get("sort") : SORTS[0],
);
catalogue.follow();
