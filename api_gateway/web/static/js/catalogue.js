// The catalogue: all items, a page at a time, with live prices for those in view.

import { ApiError, createItem, feedBase, getItem, listItems, pause } from "./api.js";
import { durationText, momentText, serverNow } from "./clock.js";
import { byId, element, flash, oncePerFrame, sentence, setText } from "./dom.js";
import { CatalogueFeed, Register, backoffMs, stateOf } from "./feed.js";
import { formatMoney, parseAmount } from "./money.js";
import { plateFor } from "./plate.js";
import { STATUS_LABELS, connectionText, endOf, isFinalStatus } from "./status.js";

const PAGE_SIZE = 24;
const URGENT_MS = 60000;
const NEW_ITEM_CURRENCY = "USD";

/** One item in the list. */
class Card {
  #item;
  #register = new Register();
  #shownPrice = null;

  constructor(item) {
    this.#item = item;
    this.#register.offer(stateOf(item));
    this.price = element("p", { class: "card-price" });
    this.label = element("p", { class: "card-label" });
    this.status = element("span", { class: "badge" });
    this.meta = element("p", { class: "card-meta" });
    this.end = element("p", { class: "card-end" });
    const href = `/items/${encodeURIComponent(item.id)}`;
    const name = element("a", { href, class: "card-link" }, item.name || item.id);
    this.node = element(
      "li",
      { class: "card", "data-id": item.id },
      element("div", { class: "plate" }, plateFor(item.id), this.status),
      element(
        "div",
        { class: "card-body" },
        element("p", { class: "lot-id" }, item.id),
        element("h2", {}, name),
        element("div", { class: "card-figures" }, element("div", {}, this.label, this.price), this.end),
        this.meta,
      ),
    );
    this.draw = oncePerFrame(() => this.#draw());
    this.#draw();
  }

  take(frame) {
    if (this.#register.offer(stateOf(frame))) this.draw();
  }

  get #now() {
    return { ...this.#item, ...this.#register.state };
  }

  #draw() {
    const item = this.#now;
    const bids = item.bid_count ?? 0;
    const price = bids > 0 ? item.current_bid : item.start_price || item.min_next_bid;
    setText(this.label, item.status === "sold" ? "Hammer price" : bids > 0 ? "Current bid" : "Opening bid");
    setText(this.price, formatMoney(price, item.currency ?? "USD"));
    setText(this.status, STATUS_LABELS[item.status] ?? item.status ?? "");
    this.status.dataset.status = item.status ?? "";
    setText(this.meta, bidsText(bids, item));
    this.drawClock();
    if (this.#shownPrice !== null && this.#shownPrice !== price) flash(this.price);
    this.#shownPrice = price;
  }

  drawClock() {
    const item = this.#now;
    const end = endOf(item);
    const start = Date.parse(item.start_time ?? "");
    let text = "";
    let urgent = false;
    if (item.status === "scheduled" && !Number.isNaN(start)) {
      text = `Opens ${momentText(start)}`;
    } else if (end !== null && item.status === "open") {
      const leftMs = end - serverNow();
      urgent = leftMs < URGENT_MS;
      text = leftMs > 0 ? durationText(leftMs) : "Closing…";
    }
    setText(this.end, text);
    this.end.classList.toggle("is-urgent", urgent);
  }
}

function bidsText(bids, { highest_bidder_id: leader, status }) {
  if (bids === 0) return isFinalStatus(status) ? "No bids" : "No bids yet";
  const count = bids === 1 ? "1 bid" : `${bids.toLocaleString()} bids`;
  if (!leader) return count;
  return `${count} · ${status === "sold" ? "sold to" : "led by"} ${leader}`;
}

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
      chip.addEventListener("click", () => this.filter(chip.dataset.status));
    }
    setInterval(() => {
      for (const id of this.#inView) this.#cards.get(id)?.drawClock();
    }, 1000);
  }

  filter(status) {
    for (const chip of byId("filters").querySelectorAll("button")) {
      chip.setAttribute("aria-pressed", String(chip.dataset.status === status));
    }
    history.replaceState(null, "", status ? `/?status=${encodeURIComponent(status)}` : "/");
    this.status = status;
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
    this.#show({ busy: true });
    try {
      const page = await listItems({ status: this.status, cursor: this.#cursor ?? "", limit: PAGE_SIZE });
      if (load !== this.#loads) return; // Another filter was chosen meanwhile.
      this.#cursor = page.next_cursor ?? null;
      for (const item of page.items) this.#add(item);
      this.#show({});
    } catch (error) {
      if (load === this.#loads) this.#show({ error });
    }
  }

  #add(item) {
    // The list may shift between two pages while items are added; nothing is shown twice.
    if (this.#cards.has(item.id)) return;
    const card = new Card(item);
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

  #show({ busy = false, error = null }) {
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

/** Both places that offer it get the same form: the empty page, and the dialog behind the button. */
function placeNewItemForms() {
  const template = byId("new-item");
  for (const place of document.querySelectorAll("[data-new-item]")) {
    place.append(template.content.cloneNode(true));
    const form = place.querySelector("form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submitNewItem(form);
    });
  }
  const dialog = byId("new-item-dialog");
  byId("add").addEventListener("click", () => dialog.showModal());
  byId("dialog-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

async function submitNewItem(form) {
  const { name, start_price: price, duration } = form.elements;
  const message = form.querySelector(".form-message");
  const start = price.value.trim() === "" ? 0 : parseAmount(price.value, NEW_ITEM_CURRENCY);
  const zero = /^0*(\.0*)?$/.test(price.value.trim());
  if (name.value.trim() === "") return refuse(name, "Please give the lot a name.");
  if (start === null && !zero) return refuse(price, "Please write the price like 100.00.");
  const terms = { name: name.value.trim(), start_price: start ?? 0 };
  const seconds = Number(duration.value);
  if (seconds > 0) terms.duration_s = seconds; // Counted by the server's clock, which is the one that matters.
  setText(message, "Adding the lot…");
  try {
    const item = await createItem(terms);
    location.assign(`/items/${encodeURIComponent(item.id)}`);
  } catch (error) {
    // The server makes the id, so a repetition would be a second lot: the person decides, not the script.
    const unknown = !(error instanceof ApiError) || error.outcomeUnknown;
    setText(message, sentence(error.message) + (unknown ? " See whether the lot is there before you try again." : ""));
  }

  function refuse(field, text) {
    setText(message, text);
    field.focus();
  }
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

placeNewItemForms();
prepareOpenForm();
setText(byId("origin"), location.origin);
const catalogue = new Catalogue();
const asked = new URLSearchParams(location.search).get("status") ?? "";
catalogue.filter(Object.hasOwn(STATUS_LABELS, asked) ? asked : "");
catalogue.follow();
