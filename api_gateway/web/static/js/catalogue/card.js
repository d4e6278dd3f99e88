// One item in the catalogue: price, clock, and the bidder's standing.

import { learnAlias, publicSelf } from "../bidder/alias.js";
import { nameFor } from "../bidder/names.js";
import { stakeOf } from "../bidder/stakes.js";
import { newerStanding, standingOf } from "../bidder/standing.js";
import { Register, stateOf, termsOf } from "../feed/feed.js";
import { durationText, momentText, serverNow } from "../lib/clock.js";
import { element, flash, oncePerFrame, setText } from "../lib/dom.js";
import { formatMoney } from "../lib/money.js";
import { pictureFor } from "../lib/photos.js";
import {
  STATUS_LABELS, URGENT_MS, buyNowOffered, endOf, isFinalStatus, priceLabel, shownPrice, startOf,
} from "../lib/status.js";

export class Card {
  #terms;
  #register = new Register();
  #shownPrice = null;
  #told = null; // The newest frame of the private channel.

  /** `item` is from the API's list, `me` is the bidder's user id. */
  constructor(item, me) {
    this.me = me;
    this.#terms = termsOf(item);
    this.#register.offer(stateOf(item));
    this.price = element("p", { class: "card-price" });
    this.label = element("p", { class: "card-label" });
    this.status = element("span", { class: "badge" });
    this.meta = element("p", { class: "card-meta" });
    this.end = element("p", { class: "card-end" });
    this.tags = element("p", { class: "card-tags" });
    const href = `/items/${encodeURIComponent(item.id)}`;
    const name = element("a", { href, class: "card-link" }, item.name || item.id);
    this.node = element(
      "li",
      { class: "card", "data-id": item.id },
      element("div", { class: "plate" }, pictureFor(item), this.status),
      element(
        "div",
        { class: "card-body" },
        element("h2", { dir: "auto" }, name),
        this.tags,
        element("div", { class: "card-figures" }, element("div", {}, this.label, this.price), this.end),
        this.meta,
      ),
    );
    this.draw = oncePerFrame(() => this.#draw());
    this.#draw();
  }

  /** Whether each of `words` (in lower case) is in its name, its id or its seller's name. */
  matches(words) {
    const { id, name, seller_id: seller } = this.#terms;
    const text = `${name ?? ""} ${id} ${seller ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  }

  take(frame) {
    if (frame.type === "standing") {
      learnAlias(this.#terms.id, this.me, frame.alias);
      this.#told = newerStanding(this.#told, frame);
    }
    if (frame.type === "standing" || this.#register.offer(stateOf(frame))) this.draw();
  }

  /** The newest known state. */
  get state() {
    return this.#register.state;
  }

  get #now() {
    return { ...this.#terms, ...this.#register.state };
  }

  /** Who the bidder is in the public state. */
  get #self() {
    return publicSelf(this.#terms.id, this.me);
  }

  #draw() {
    const item = this.#now;
    const price = shownPrice(item);
    setText(this.label, priceLabel(item));
    setText(this.price, formatMoney(price, item.currency ?? "USD"));
    setText(this.status, STATUS_LABELS[item.status] ?? item.status ?? "");
    this.status.dataset.status = item.status ?? "";
    setText(this.meta, bidsText(item, this.#self));
    this.tags.replaceChildren(
      ...tagsOf(item, this.me, this.#self, this.#told).map(({ text, kind }) => element("span", { class: `tag ${kind ?? ""}`.trim() }, text)),
    );
    this.drawClock();
    if (this.#shownPrice !== null && this.#shownPrice !== price) flash(this.price);
    this.#shownPrice = price;
  }

  drawClock() {
    const { text, urgent = false } = clockOf(this.#now);
    setText(this.end, text);
    this.end.classList.toggle("is-urgent", urgent);
  }
}

/** The text of the clock. The last change of a sold or unsold lot was its close. */
function clockOf(item) {
  const end = endOf(item);
  const start = startOf(item);
  if (item.status === "scheduled" && start !== null) {
    const leftMs = start - serverNow();
    return { text: leftMs > 0 ? `Opens in ${durationText(leftMs)}` : "Opening…" };
  }
  if (item.status === "open" && end !== null) {
    const leftMs = end - serverNow();
    return { text: leftMs > 0 ? durationText(leftMs) : "Closing…", urgent: leftMs <= URGENT_MS };
  }
  const changedMs = Date.parse(item.updated_at ?? "");
  const closed = (item.status === "sold" || item.status === "unsold") && !Number.isNaN(changedMs);
  return { text: closed ? momentText(changedMs) : "" };
}

function bidsText(item, me) {
  const bids = item.bid_count ?? 0;
  if (bids === 0) return isFinalStatus(item.status) ? "No bids" : "No bids yet";
  const count = bids === 1 ? "1 bid" : `${bids.toLocaleString()} bids`;
  const leader = nameFor(me, item.highest_bidder, item.highest_bidder_id);
  if (leader === null || item.status === "unsold" || item.status === "cancelled") return count;
  return `${count} · ${item.status === "sold" ? "sold to" : "led by"} ${leader === "You" ? "you" : leader}`;
}

const STANDINGS = {
  lead: { text: "You lead", kind: "tag-good" },
  won: { text: "You won", kind: "tag-good" },
  outbid: { text: "You were outbid", kind: "tag-bad" },
};

/** The most important facts, for everybody and for this bidder: `{text, kind}`. */
function tagsOf(item, user, me, told) {
  const standing = STANDINGS[standingOf(item, { me, stake: stakeOf(item.id, user), told })];
  const tags = standing ? [standing] : [];
  if (item.reserve_met === false && item.status !== "cancelled") tags.push({ text: "Reserve not met" });
  if (buyNowOffered(item) && item.status === "open") {
    tags.push({ text: `Buy now ${formatMoney(item.buy_now_price, item.currency ?? "USD")}` });
  }
  return tags;
}
