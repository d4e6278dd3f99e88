// The panel of an item: price, standing, facts, and the text that replaces the form while nobody can bid.

import { nameFor } from "../bidder/names.js";
import { momentText } from "../lib/clock.js";
import { byId, flash, isolated, sentence, setText } from "../lib/dom.js";
import { session, signsIn } from "../lib/session.js";
import { STATUS_LABELS, isFinalStatus, priceLabel, shownPrice, startOf } from "../lib/status.js";
import { softCloseWords, stepWords } from "../lib/termwords.js";

// A price of so many characters or more is set smaller, so that it fits on one line.
const LONG_PRICE = 13;
const LONGEST_PRICE = 17;

export class Panel {
  #price = null;
  #reserveSeen = false; // An older API lacks `has_reserve`; but only an item with a reserve can be short of it.

  /**
   * Draws `item` (terms and state) for the bidder `user`, who is `me` in the public state, with their `standing` (see standing.js) and their maximum
   * `max`, null if none is known. `viewers`: `{count, isExact}`, or null. `money` formats amounts; `isOwn(alias)` says
   * whether an alias is the bidder's own. `barred`: why this person may not bid at all, or null.
   */
  draw(item, { user, me, standing, max, viewers, circumstances, money, isOwn, barred }) {
    const mine = Boolean(item.highest_bidder_id) && item.highest_bidder_id === me;
    const leader = nameFor(me, item.highest_bidder, item.highest_bidder_id);
    this.#drawTags(item);
    this.#drawPrice(item, money);
    this.#drawFacts(item, { mine, leader, viewers });
    this.#drawTerms(item, money);
    this.#drawStanding(item, { standing, mine, max, leader, money });
    this.#drawNotice(item, { user, mine, leader, circumstances, money, isOwn, barred });
  }

  /** Shows for a while why the price fell. Call it regularly. */
  drawFall(item, circumstances) {
    const words = isFinalStatus(item.status) ? null : circumstances.fall;
    byId("fall").hidden = words === null;
    setText(byId("fall"), words ?? "");
  }

  #drawTags(item) {
    const status = byId("status");
    setText(status, STATUS_LABELS[item.status] ?? item.status ?? "");
    status.dataset.status = item.status ?? "";
    this.#reserveSeen ||= item.has_reserve ?? item.reserve_met === false;
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
    const length = text.length >= LONGEST_PRICE ? "longest" : text.length >= LONG_PRICE ? "long" : "short";
    price.dataset.length = length;
    if (this.#price !== null && this.#price !== text) flash(price);
    this.#price = text;
  }

  #drawFacts(item, { mine, leader, viewers }) {
    setText(byId("bid-count"), (item.bid_count ?? 0).toLocaleString());
    const isFinal = isFinalStatus(item.status);
    setText(byId("leader-label"), item.status === "sold" ? "Sold to" : isFinal ? "Highest bidder" : "Leader");
    setText(byId("leader"), leader ?? (isFinal ? "Nobody" : "Nobody yet"));
    byId("leader").classList.toggle("is-you", mine);
    byId("viewers-fact").hidden = viewers === null;
    if (viewers !== null) setText(byId("viewers"), `${viewers.isExact ? "" : "about "}${viewers.count.toLocaleString()}`);
  }

  #drawTerms(item, money) {
    const terms = [["term-start", item.start_price || null], ["term-buy-now", item.buy_now_price]];
    for (const [id, amount] of terms) {
      byId(`${id}-row`).hidden = typeof amount !== "number";
      setText(byId(id), money(amount));
    }
    byId("term-seller-row").hidden = !item.seller_id;
    setText(byId("term-seller"), item.seller_id ?? "");
    const words = {
      "term-step": item.increment ? stepWords(item.increment, item.current_bid, money) : "",
      "term-reserve": item.has_reserve === false ? "None" : "",
      "term-late": item.soft_close ? softCloseWords(item.soft_close) : "",
    };
    for (const [id, text] of Object.entries(words)) {
      byId(`${id}-row`).hidden = text === "";
      setText(byId(id), text);
    }
  }

  /** Draws the bidder's standing, and their maximum, which nobody else is shown. */
  #drawStanding(item, { standing, mine, max, leader, money }) {
    const box = byId("standing");
    box.hidden = standing === null;
    const maximum = byId("maximum");
    maximum.hidden = max === null || standing === null || standing === "won";
    byId("panel").dataset.standing = standing ?? "";
    if (standing === null) return;
    box.dataset.kind = standing;
    const words = {
      won: "You won this lot",
      lead: "You lead",
      outbid: leader ? "You were outbid" : "Your bid no longer stands",
      lost: "You were outbid",
    };
    setText(byId("standing-words"), words[standing]);
    if (max !== null) setText(maximum, maximumText(max, item, { mine, money }));
  }

  /** The text that replaces the form while this person cannot bid. */
  #drawNotice(item, { user, mine, leader, circumstances, money, isOwn, barred }) {
    const open = item.status === "open" || item.status === undefined;
    const own = Boolean(item.seller_id) && item.seller_id === user;
    const form = byId("bid-form");
    const hadFocus = form.contains(document.activeElement);
    form.hidden = !open || own || barred !== null;
    byId("paddle").hidden = isFinalStatus(item.status) || signsIn;
    const notice = byId("notice");
    notice.hidden = open && !own && barred === null;
    byId("sign-in-here").hidden = !(open && barred !== null && session() === null);
    if (notice.hidden) return;
    const words = open
      ? (barred ?? "This is your lot. Sellers cannot bid on their own lot.")
      : noticeText(item, { mine, leader, circumstances, money, isOwn });
    setText(notice, words);
    if (hadFocus) notice.focus();
  }
}

function maximumText(max, item, { mine, money }) {
  if (!mine) return `Your maximum was ${money(max)}.`;
  if (item.current_bid >= max) return `Your maximum of ${money(max)} is reached.`;
  return `Your maximum: ${money(max)}. Nobody else sees it.`;
}

/** Tells how the item ended, or why nobody can bid now. */
function noticeText(item, { mine, leader, circumstances, money, isOwn }) {
  const why = (event) => (event?.reason ? ` ${isolated(sentence(event.reason))}` : "");
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
    return `A bid was voided after the close, so the lot is not sold. ${isolated(sentence(voided.reason))}${offer}`;
  }
  if (!item.bid_count) return "The bidding has closed without a bid.";
  if (item.reserve_met === false) return "The bidding has closed. The reserve was not met, so the lot was not sold.";
  return "The bidding has closed, and the lot was not sold.";
}
