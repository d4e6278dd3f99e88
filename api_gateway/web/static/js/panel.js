// The panel of an item: price, standing, facts, and the words in place of the form while nobody can bid.

import { momentText } from "./clock.js";
import { byId, flash, sentence, setText } from "./dom.js";
import { nameFor } from "./names.js";
import { STATUS_LABELS, isFinalStatus, priceLabel, shownPrice, startOf } from "./status.js";

const LONG_PRICE = 12;

export class Panel {
  #price = null;
  #reserveSeen = false; // Only an item with a reserve was ever short of it.

  /**
   * Draws `item` (terms and state) for the bidder `me`, whose `stake` is what this browser remembers of their part.
   * `money` turns amounts into text, `isOwn(alias)` says whether an alias is the bidder's own.
   */
  draw(item, { me, stake, circumstances, money, isOwn }) {
    const mine = Boolean(item.highest_bidder_id) && item.highest_bidder_id === me;
    const leader = nameFor(me, item.highest_bidder, item.highest_bidder_id);
    this.#drawTags(item);
    this.#drawPrice(item, money);
    this.#drawFacts(item, { mine, leader, money });
    this.#drawStanding(item, { me, mine, stake, leader, money });
    this.#drawNotice(item, { me, mine, leader, circumstances, money, isOwn });
    byId("panel").dataset.mine = String(mine);
  }

  /** Says for a while why the price fell; to be called now and then. */
  drawFall(item, circumstances) {
    const words = isFinalStatus(item.status) ? null : circumstances.fall;
    byId("fall").hidden = words === null;
    setText(byId("fall"), words ?? "");
  }

  #drawTags(item) {
    const status = byId("status");
    setText(status, STATUS_LABELS[item.status] ?? item.status ?? "");
    status.dataset.status = item.status ?? "";
    this.#reserveSeen ||= item.reserve_met === false;
    const reserve = byId("reserve");
    reserve.hidden = !this.#reserveSeen || item.status === "cancelled";
    setText(reserve, item.reserve_met === false ? "Reserve not met" : "Reserve met");
    reserve.classList.toggle("tag-good", item.reserve_met !== false);
  }

  #drawPrice(item, money) {
    const text = money(shownPrice(item));
    const price = byId("price");
    setText(byId("price-label"), priceLabel(item));
    setText(price, text);
    price.dataset.length = text.length > LONG_PRICE ? "long" : "short";
    if (this.#price !== null && this.#price !== text) flash(price);
    this.#price = text;
  }

  #drawFacts(item, { mine, leader, money }) {
    setText(byId("bid-count"), (item.bid_count ?? 0).toLocaleString());
    setText(byId("leader-label"), item.status === "sold" ? "Sold to" : "Leader");
    setText(byId("leader"), leader ?? (isFinalStatus(item.status) ? "Nobody" : "Nobody yet"));
    byId("leader").classList.toggle("is-you", mine);
    const terms = [["term-start", item.start_price || null], ["term-buy-now", item.buy_now_price]];
    for (const [id, amount] of terms) {
      byId(`${id}-row`).hidden = typeof amount !== "number";
      setText(byId(id), money(amount));
    }
    byId("term-seller-row").hidden = !item.seller_id;
    setText(byId("term-seller"), item.seller_id ?? "");
  }

  /** Where the bidder stands: leading, outbid, won; with the maximum that only this browser knows. */
  #drawStanding(item, { me, mine, stake, leader, money }) {
    const final = isFinalStatus(item.status);
    const part = stake !== null;
    const box = byId("standing");
    const kind = standingOf(item, { mine, part, final });
    box.hidden = kind === null;
    if (kind === null) return;
    box.dataset.kind = kind;
    const words = {
      won: "You won this lot",
      lead: "You lead",
      outbid: leader ? `You were outbid. ${leader} leads` : "Your bid no longer stands",
      lost: "You were outbid",
    };
    setText(byId("standing-words"), words[kind]);
    const max = stake?.max ?? null;
    const maximum = byId("maximum");
    maximum.hidden = max === null || kind === "won" || me === "";
    if (max !== null) setText(maximum, maximumText(max, item, { mine, money }));
  }

  /** The words in place of the form while this person cannot bid. */
  #drawNotice(item, { me, mine, leader, circumstances, money, isOwn }) {
    const open = item.status === "open" || item.status === undefined;
    const own = Boolean(item.seller_id) && item.seller_id === me;
    byId("bid-form").hidden = !open || own;
    byId("paddle").hidden = isFinalStatus(item.status);
    const notice = byId("notice");
    notice.hidden = open && !own;
    if (notice.hidden) return;
    const words = open
      ? "This is your lot. Sellers cannot bid on their own lot."
      : noticeText(item, { mine, leader, circumstances, money, isOwn });
    setText(notice, words);
  }
}

function standingOf(item, { mine, part, final }) {
  if (mine) return item.status === "sold" ? "won" : final ? null : "lead";
  if (!part || item.status === "cancelled") return null;
  return final ? "lost" : "outbid";
}

function maximumText(max, item, { mine, money }) {
  if (!mine) return `Your maximum was ${money(max)}.`;
  if (item.current_bid >= max) return `Your maximum of ${money(max)} is reached.`;
  return `Your maximum: ${money(max)}. Only this browser shows it.`;
}

/** What became of the item, or why it waits. */
function noticeText(item, { mine, leader, circumstances, money, isOwn }) {
  const why = (event) => (event?.reason ? ` ${sentence(event.reason)}` : "");
  const start = startOf(item);
  switch (item.status) {
    case "scheduled":
      return start === null ? "The bidding has not opened yet." : `The bidding opens on ${momentText(start)}.`;
    case "paused":
      return `The bidding is paused, and the remaining time is kept.${why(circumstances.paused)}`;
    case "sold":
      return mine
        ? `The lot is yours, at ${money(item.current_bid)}. Congratulations.`
        : `Sold to ${leader ?? "the last bidder"} at ${money(item.current_bid)}.`;
    case "unsold":
      return unsoldText(item, circumstances, isOwn);
    case "cancelled":
      return `This lot was withdrawn from the sale.${why(circumstances.cancelled)}`;
    default:
      return "Nobody can bid at the moment.";
  }
}

function unsoldText(item, circumstances, isOwn) {
  const voided = circumstances.voidedAt(item);
  if (voided) {
    const to = isOwn(voided.offered_to) ? "you: please wait for the house" : voided.offered_to;
    const offer = to ? ` The lot is offered to ${to}.` : "";
    return `A bid was struck after the close, so the lot is not sold. ${sentence(voided.reason)}${offer}`;
  }
  if (!item.bid_count) return "The bidding has closed without a bid.";
  if (item.reserve_met === false) return "The bidding has closed. The reserve was not met, so the lot was not sold.";
  return "The bidding has closed, and the lot was not sold.";
}
