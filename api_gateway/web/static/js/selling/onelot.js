// One lot of a seller, and who may bid on it. It is asked for again and again while somebody looks: after the end there is
// nothing to rule.

import { compareVersions, stateOf } from "../feed/feed.js";
import { ApiError, getItem } from "../lib/api.js";
import { momentText } from "../lib/clock.js";
import { byId, sentence, setText } from "../lib/dom.js";
import { formatMoney } from "../lib/money.js";
import { STATUS_LABELS, endOf, isFinalStatus, shownPrice } from "../lib/status.js";
import { Bidders } from "../rulings/bidders.js";
import { LotPlace, whoMayBid } from "../rulings/places.js";

const EVERY_MS = 5000;
// An id, or the address of a lot's page, or of this page with a lot.
const LOT = /^(?:[^?#]*\/items\/|.*[?&]lot=)?([A-Za-z0-9_-]{1,64})\/?(?:[?&#].*)?$/;

export class OneLot {
  #item = null;
  #asked = 0; // Answers to older questions than the newest are not shown.
  #asks = false; // Whether the lot asks for approval,
  #houseAsks = false; // or all lots do.
  #couldRule = false;
  #place = new LotPlace("by the house");

  /**
   * `ownId()`: whose lots alone may be shown, null for all; `mayRuleFor(seller)`: not only look. `onSeller(id)` runs when
   * a lot of a seller is shown.
   */
  constructor({ confirmation, mayLook, mayRuleFor, ownId, onSeller }) {
    Object.assign(this, { mayLook, mayRuleFor, ownId, onSeller });
    this.bidders = new Bidders(byId("lot-bidders"), {
      name: "lot-bidder",
      where: "on the lot",
      level: "h5",
      place: this.#place,
      confirmation,
      mayRule: () => this.#mayRule,
      onTold: (page) => {
        this.#asks = page.approval_required;
        this.#draw();
      },
    });
    byId("find-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.open(byId("find").value.trim());
    });
    setInterval(() => this.#readAgain(), EVERY_MS);
    document.addEventListener("visibilitychange", () => this.#readAgain());
  }

  /** `text`: what was typed, an id or an address. */
  async open(text) {
    this.#asked += 1;
    const asked = this.#asked;
    this.#refuse("");
    const id = LOT.exec(text)?.[1];
    if (id === undefined) {
      this.#refuse("Give the id of a lot, 1 to 64 letters, digits, hyphens or underscores, or the address of its page.");
      return;
    }
    try {
      const item = await getItem(id);
      if (asked !== this.#asked) return;
      const words = this.#notOwnText(id, item.seller_id);
      if (words !== null) {
        this.close();
        byId("find").value = id;
        this.#refuse(words);
        return;
      }
      this.#show(id, item);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (asked === this.#asked) this.#refuse(error.status === 404 ? `No lot has the id “${id}”.` : sentence(error.message));
    }
  }

  /** Shows a lot of a list, and moves the focus to it. */
  async choose(id) {
    await this.open(id);
    if (byId("lot").hidden) return;
    byId("lot-name").focus();
    byId("lot-name").scrollIntoView({ block: "center" });
  }

  #show(id, item) {
    this.#item = { ...item, id };
    this.#place.item = { id, currency: item.currency };
    this.#asks = item.approval_required ?? false;
    byId("find").value = id;
    history.replaceState(null, "", `/selling?lot=${encodeURIComponent(id)}`);
    this.#draw();
    if (item.seller_id) this.onSeller(item.seller_id);
    this.bidders.restart();
  }

  /** Shows no lot any more, and nobody who was ruled on. */
  close() {
    this.#asked += 1;
    this.#item = null;
    byId("find").value = "";
    this.#refuse("");
    byId("lot").hidden = true;
    this.bidders.forget();
  }

  /** Takes the news whether all lots ask for approval, or whom the seller blocks on all lots. */
  asked(houseAsks) {
    this.#houseAsks = houseAsks;
    if (this.#item === null) return;
    this.#draw();
    this.bidders.refresh();
  }

  #refuse(words) {
    setText(byId("find-error"), words);
    byId("find").setAttribute("aria-invalid", String(words !== ""));
    if (words !== "") byId("find").focus();
  }

  /** Why the lot is not shown; null where it is. */
  #notOwnText(id, seller) {
    const own = this.ownId();
    if (own === null || own === seller) return null;
    return seller
      ? `“${id}” is sold by ${seller}. Here you say who may bid on lots of your own.`
      : `“${id}” names no seller, so the house alone says who may bid on it.`;
  }

  async #readAgain() {
    if (this.#item === null || document.hidden || !this.mayLook() || isFinalStatus(this.#item.status)) return;
    const { id } = this.#item;
    const item = await getItem(id).catch(() => null);
    if (item === null || id !== this.#item?.id) return;
    // An answer that took long may come after a newer one.
    if (compareVersions(stateOf(item), stateOf(this.#item)) < 0) return;
    this.#item = { ...item, id };
    this.#draw();
  }

  get #mayRule() {
    return this.#item !== null && this.mayRuleFor(this.#item.seller_id) && !isFinalStatus(this.#item.status);
  }

  #draw() {
    const item = this.#item;
    if (item === null) return; // It was closed meanwhile.
    byId("lot").hidden = false;
    setText(byId("lot-name"), item.name || item.id);
    setText(byId("lot-status"), STATUS_LABELS[item.status] ?? item.status);
    byId("lot-status").dataset.status = item.status;
    setText(byId("lot-price"), formatMoney(shownPrice(item), item.currency ?? "USD"));
    setText(byId("lot-bids"), (item.bid_count ?? 0).toLocaleString());
    const end = endOf(item);
    setText(byId("lot-end"), end === null ? "Never" : momentText(end));
    byId("lot-link").href = `/items/${encodeURIComponent(item.id)}`;
    setText(byId("who-words"), whoMayBid({ isOver: isFinalStatus(item.status), asks: this.#asks, houseAsks: this.#houseAsks }));
    if (this.#couldRule === this.#mayRule) return;
    this.#couldRule = this.#mayRule;
    this.bidders.draw();
  }
}
