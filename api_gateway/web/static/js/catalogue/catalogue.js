// The catalogue: all items, page by page, with live prices for those in view.

import { userId } from "../bidder/bidder.js";
import { backoffMs } from "../feed/connection.js";
import { CatalogueFeed } from "../feed/feed.js";
import { LinkMark } from "../feed/link.js";
import { feedBase, listItems, pause } from "../lib/api.js";
import { byId, setText } from "../lib/dom.js";
import { STATUS_LABELS } from "../lib/status.js";
import { Card } from "./card.js";

const PAGE_SIZE = 24;
// A search reads further pages by itself, larger ones, up to so many lots.
const SEARCH_PAGE_SIZE = 200;
const SEARCHED_MAX = 1000;
const TYPING_MS = 150;
const SORTS = ["newest", "ending", "price"];

class Catalogue {
  #cards = new Map();
  #feed = null;
  #cursor = null;
  #loads = 0;
  #restored = 0; // Lots of this list that are lost for now.
  #inView = new Set();
  #words = []; // The words of the search.
  link = new LinkMark();

  constructor() {
    this.grid = byId("grid");
    this.viewed = new IntersectionObserver((entries) => this.#seen(entries), { rootMargin: "300px" });
    byId("more").addEventListener("click", () => this.#showMore());
    byId("retry").addEventListener("click", () => this.#load());
    for (const chip of byId("filters").querySelectorAll("button")) {
      chip.addEventListener("click", () => this.show(chip.dataset.status, this.sort, this.search));
    }
    byId("sort").addEventListener("change", () => this.show(this.status, byId("sort").value, this.search));
    let typing = null;
    byId("find").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.find(byId("find").value), TYPING_MS);
    });
    byId("find-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#openFound();
    });
    setInterval(() => {
      for (const id of this.#inView) this.#cards.get(id)?.drawClock();
    }, 1000);
  }

  /** Shows, from the first page on, the items of one status ("" for all) that match `search`, in one order. */
  show(status, sort, search) {
    for (const chip of byId("filters").querySelectorAll("button")) {
      chip.setAttribute("aria-pressed", String(chip.dataset.status === status));
    }
    byId("sort").value = sort;
    this.status = status;
    this.sort = sort;
    this.#searchFor(search);
    for (const id of this.#cards.keys()) this.#feed?.unwatch(id);
    this.#cards.clear();
    this.#inView.clear();
    this.viewed.disconnect();
    this.grid.replaceChildren();
    this.#cursor = null;
    this.#restored = 0;
    this.#load();
  }

  /** Filters the lots, and reads further pages if there are any. */
  find(search) {
    this.#searchFor(search);
    for (const card of this.#cards.values()) card.node.hidden = !card.matches(this.#words);
    this.#report({});
    if (this.#mayHold()) this.#load();
  }

  #searchFor(search) {
    this.search = search.trim();
    this.#words = this.search.toLowerCase().split(/\s+/).filter(Boolean);
    const query = new URLSearchParams();
    if (this.status) query.set("status", this.status);
    if (this.sort !== SORTS[0]) query.set("sort", this.sort);
    if (this.search) query.set("q", this.search);
    history.replaceState(null, "", `${query}` ? `/?${query}` : "/");
  }

  /** Opens the lot whose id was typed, or the only one that was found. */
  #openFound() {
    this.find(byId("find").value);
    const shown = [...this.#cards.entries()].filter(([, card]) => !card.node.hidden).map(([id]) => id);
    const found = shown.length === 1 ? shown[0] : shown.find((id) => id === this.search);
    if (this.#words.length > 0 && found !== undefined) location.assign(`/items/${encodeURIComponent(found)}`);
  }

  /** Whether further matches may be among the lots that were not read yet. */
  #mayHold() {
    return this.#words.length > 0 && this.#cursor !== null && this.#cards.size < SEARCHED_MAX;
  }

  async follow() {
    let base = null;
    for (let attempt = 0; base === null; attempt += 1) {
      base = await feedBase().catch(() => null);
      if (base === null) await pause(backoffMs(attempt));
    }
    this.#feed = new CatalogueFeed(base, {
      onFrame: (frame) => this.#cards.get(frame.item_id)?.take(frame),
      onState: (state) => {
        this.link.state = state;
      },
      onStale: (isStale) => {
        this.link.isStale = isStale;
      },
      userId: userId(),
    });
    for (const id of this.#inView) this.#feed.watch(id);
  }

  /** Moves the focus to the first new lot: the button may go away, and stands after the lots. */
  async #showMore() {
    const last = this.grid.lastElementChild;
    await this.#load();
    const next = last?.nextElementSibling;
    if (document.activeElement === byId("more") || document.activeElement === document.body) {
      next?.querySelector("a").focus();
    }
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
        limit: this.#words.length > 0 ? SEARCH_PAGE_SIZE : PAGE_SIZE,
      });
      if (load !== this.#loads) return; // Another filter was chosen meanwhile.
      this.#cursor = page.next_cursor ?? null;
      for (const item of page.items) this.#add(item);
      this.#restored += page.being_rebuilt?.length ?? 0;
      if (this.#mayHold()) this.#load();
      else this.#report({});
    } catch (error) {
      if (load === this.#loads) this.#report({ error });
    }
  }

  #add(item) {
    // The list may shift between two pages while items are added, so known items are skipped.
    if (this.#cards.has(item.id)) return;
    const card = new Card(item, userId());
    this.#cards.set(item.id, card);
    card.node.hidden = !card.matches(this.#words);
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
    const count = [...this.#cards.values()].filter(({ node }) => !node.hidden).length;
    const none = count === 0 && !busy && error === null;
    const isNarrowed = this.status !== "" || this.#words.length > 0;
    this.grid.setAttribute("aria-busy", String(busy));
    byId("loading").hidden = !(busy && count === 0);
    byId("trouble").hidden = error === null;
    const isLost = error?.code === "BEING_REBUILT";
    if (error !== null) setText(byId("trouble-text"), isLost ? "The lots are being restored." : error.message);
    byId("empty").hidden = !none || isNarrowed;
    byId("filter-row").hidden = !byId("empty").hidden;
    byId("none-such").hidden = !none || !isNarrowed;
    const searched = this.#cursor === null ? "" : ` Only the first ${this.#cards.size} lots were searched.`;
    setText(
      byId("none-such-text"),
      this.#words.length > 0 ? `No lot matches “${this.search}”.${searched}` : "No lot has this status at the moment.",
    );
    byId("open-id").hidden = !/^[A-Za-z0-9_-]{1,64}$/.test(this.search);
    byId("open-id").href = `/items/${encodeURIComponent(this.search)}`;
    byId("more").hidden = this.#cursor === null || (count === 0 && this.#words.length === 0);
    byId("more").setAttribute("aria-disabled", String(busy));
    const more = this.#cursor === null ? "" : "+";
    const restored = this.#restored === 0 ? "" : `, ${this.#restored} more being restored`;
    const lots = `${count}${more} ${count === 1 ? "lot" : "lots"}${restored}`;
    setText(byId("count"), count + this.#restored === 0 ? "" : lots);
  }
}

setText(byId("origin"), location.origin);
const catalogue = new Catalogue();
const asked = new URLSearchParams(location.search);
byId("find").value = asked.get("q") ?? "";
catalogue.show(
  Object.hasOwn(STATUS_LABELS, asked.get("status") ?? "") ? asked.get("status") : "",
  SORTS.includes(asked.get("sort")) ? asked.get("sort") : SORTS[0],
  byId("find").value,
);
catalogue.follow();
