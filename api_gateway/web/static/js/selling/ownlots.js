// The lots of a seller, the newest first, in pages, with their prices as they are now.

import { ApiError, listItemsOf } from "../lib/api.js";
import { durationText, momentText, serverNow } from "../lib/clock.js";
import { byId, element, sentence, setText } from "../lib/dom.js";
import { formatMoney } from "../lib/money.js";
import { STATUS_LABELS, endOf, isFinalStatus, priceLabel, shownPrice, startOf } from "../lib/status.js";

const PAGE = 24;
const EVERY_MS = 10_000;

export class OwnLots {
  #seller = null;
  #isOwn = false;
  #cursors = [null]; // Of the pages up to the one that is shown.
  #next = null; // Of the page after it.
  #asked = 0; // Answers to older questions than the newest are not shown.

  /** `mayLook()`: whether somebody may look now. `onChosen(id)` runs when somebody asks who may bid on a lot. */
  constructor({ mayLook, onChosen }) {
    Object.assign(this, { mayLook, onChosen });
    byId("lots-status").addEventListener("change", () => this.#restart());
    byId("lots-next").addEventListener("click", () => this.#turn([...this.#cursors, this.#next]));
    byId("lots-first").addEventListener("click", () => this.#turn([null]));
    setInterval(() => this.#readAgain(), EVERY_MS);
    document.addEventListener("visibilitychange", () => this.#readAgain());
  }

  /** Shows what this seller sells; `isOwn`: whoever looks is the seller. */
  open(seller, isOwn) {
    if (seller === this.#seller) return;
    this.#seller = seller;
    this.#isOwn = isOwn;
    byId("lots").hidden = false;
    setText(byId("lots-title"), isOwn ? "Your lots" : `Lots of ${seller}`);
    byId("lots-status").value = "";
    this.#restart();
  }

  /** Shows no seller's lots any more. */
  close() {
    this.#asked += 1;
    this.#seller = null;
    byId("lots").hidden = true;
    byId("lots-rows").replaceChildren();
    for (const id of ["lots-title", "lots-note"]) setText(byId(id), "");
  }

  #restart() {
    byId("lots-rows").replaceChildren();
    byId("lots-table").hidden = true;
    setText(byId("lots-note"), "Reading the lots…");
    return this.#show([null]);
  }

  async #turn(cursors) {
    await this.#show(cursors);
    // The button that was pressed may be gone now.
    const focused = document.activeElement;
    if (focused === document.body || focused.hidden) byId(byId("lots-next").hidden ? "lots-first" : "lots-next").focus();
  }

  /** So that prices, ends and new lots are shown without a reload. */
  #readAgain() {
    if (this.#seller !== null && !document.hidden && this.mayLook()) this.#show(this.#cursors);
  }

  async #show(cursors) {
    this.#asked += 1;
    const asked = this.#asked;
    try {
      const page = await listItemsOf(this.#seller, {
        status: byId("lots-status").value,
        cursor: cursors.at(-1) ?? "",
        limit: PAGE,
      });
      if (asked !== this.#asked) return;
      this.#cursors = cursors;
      this.#next = page.next_cursor ?? null;
      this.#draw(page);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (asked === this.#asked) setText(byId("lots-note"), `The lots could not be read. ${sentence(error.message)}`);
    }
  }

  #draw({ items, being_rebuilt: lost = [] }) {
    // A link that somebody is on stays the same node.
    const rows = new Map([...byId("lots-rows").children].map((row) => [row.dataset.id, row]));
    const drawn = items.map((item) => this.#drawRow(rows.get(item.id) ?? this.#row(item.id), item));
    const body = byId("lots-rows");
    if (drawn.length !== body.children.length || drawn.some((row, at) => row !== body.children[at])) body.replaceChildren(...drawn);
    byId("lots-table").hidden = items.length === 0;
    byId("lots-first").hidden = this.#cursors.length === 1;
    byId("lots-next").hidden = this.#next === null;
    const restored = lost.length === 0 ? "" : `${lost.length} more being restored.`;
    setText(byId("lots-note"), items.length === 0 && restored === "" ? this.#emptyText() : restored);
  }

  #emptyText() {
    if (this.#cursors.length > 1) return "There are no more.";
    if (byId("lots-status").value !== "") return "None of these lots has this status at the moment.";
    return this.#isOwn ? "You have no lots yet." : "This seller has no lots.";
  }

  #row(id) {
    const link = element("a", { class: "lot-name", href: `/items/${encodeURIComponent(id)}`, dir: "auto" });
    const choose = element("button", { type: "button", class: "button-quiet is-small" }, "Who may bid");
    choose.addEventListener("click", () => this.onChosen(id));
    const cell = (name, label, ...children) => element("td", { class: name, role: "cell", "data-label": label }, ...children);
    return element(
      "tr",
      { "data-id": id, role: "row" },
      element("th", { scope: "row", role: "rowheader", class: "name" }, link, element("span", { class: "lot-id" }, id)),
      cell("state", "State", element("span", { class: "badge" })),
      cell("amount", "Price", element("span", { class: "price-now" }), element("span", { class: "price-is" })),
      cell("amount bids", "Bids"),
      cell("when", "End"),
      element("td", { class: "choose", role: "cell" }, choose),
    );
  }

  #drawRow(row, item) {
    const part = (selector) => row.querySelector(selector);
    const name = item.name || item.id;
    setText(part(".lot-name"), name);
    part("button").setAttribute("aria-label", `Who may bid on ${name}`);
    setText(part(".badge"), STATUS_LABELS[item.status] ?? item.status);
    part(".badge").dataset.status = item.status;
    setText(part(".price-now"), formatMoney(shownPrice(item), item.currency ?? "USD"));
    const isShort = item.reserve_met === false && item.bid_count > 0 && item.status !== "cancelled";
    setText(part(".price-is"), isShort ? `${priceLabel(item)}, reserve not met` : priceLabel(item));
    setText(part(".bids"), (item.bid_count ?? 0).toLocaleString());
    setText(part(".when"), endText(item));
    return row;
  }
}

/** When the lot ends or ended, or begins. */
function endText(item) {
  const start = startOf(item);
  if (item.status === "scheduled" && start !== null) return `Opens ${momentText(start)}`;
  const changed = Date.parse(item.updated_at ?? "");
  if (isFinalStatus(item.status)) return Number.isNaN(changed) ? "" : momentText(changed);
  const end = endOf(item);
  if (end === null) return "Never";
  const leftMs = end - serverNow();
  if (item.status === "paused") return "After the pause";
  return leftMs > 0 && leftMs < 3_600_000 ? `In ${durationText(leftMs)}` : momentText(end);
}
