// Tells that somebody else leads now on a lot where this bidder led: on every page, and by the browser while the tab is
// hidden. Of a lot that is only watched, the browser tells the first bid that comes while the tab is hidden.

import { Register, stateOf } from "../feed/feed.js";
import { ApiError, getItem } from "../lib/api.js";
import { byId, element, isolated } from "../lib/dom.js";
import { formatMoney } from "../lib/money.js";
import { session } from "../lib/session.js";
import { isFinalStatus } from "../lib/status.js";
import { learnAlias, publicSelf } from "./alias.js";
import { bidOnItems } from "./bidon.js";
import { BrowserNotices, noticesState } from "./notices.js";
import { stakedItems } from "./stakes.js";
import { newerStanding, standingOf } from "./standing.js";
import { isWatched, watchedItems } from "./watching.js";

const FOLLOWED_MAX = 50;
const SHOWN_MAX = 3;

export class OutbidNotice {
  #lots = new Map(); // by item id: {register, told, standing, hasBid}
  #shown = new Map(); // by item id: the notice on the page
  #bidsTold = new Set(); // The watched lots of which a bid was told since the tab was hidden.
  #browser = new BrowserNotices();

  /**
   * `own`: the lot of the page, which says itself that its bidder was outbid; the browser tells of it, too. `onMore()`
   * runs when `items` has more.
   */
  constructor(userId, { own = null, onMore = () => {} } = {}) {
    this.own = own;
    this.onMore = onMore;
    this.box = byId("outbid");
    document.addEventListener("visibilitychange", () => this.#bidsTold.clear());
    this.identify(userId);
  }

  /** The bidder is now `userId`. */
  identify(userId) {
    this.userId = userId;
    for (const id of this.#shown.keys()) this.#hide(id);
    this.#lots.clear();
    for (const id of stakedItems(userId).slice(0, FOLLOWED_MAX)) this.#follow(id, true);
    if (this.own !== null) this.#follow(this.own, false);
    this.#meetOthers();
  }

  /** Follows the lots on which this bidder has bid elsewhere, too. */
  async #meetOthers() {
    if (session() === null) return;
    const user = this.userId;
    let ids = [];
    try {
      ids = await bidOnItems(user, FOLLOWED_MAX);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // Those of this browser are followed already.
    }
    if (user !== this.userId) return;
    for (const id of ids) this.#follow(id, true);
    if (ids.length > 0) this.onMore();
  }

  /** The other lots whose frames it wants: those with a bid and, where the browser tells of them, those watched. */
  get items() {
    if (noticesState() === "on") for (const id of watchedItems()) this.#follow(id, false);
    return [...this.#lots.keys()].filter((id) => id !== this.own).slice(0, FOLLOWED_MAX);
  }

  take(frame) {
    if (frame.type === "standing") learnAlias(frame.item_id, this.userId, frame.alias);
    const lot = this.#lots.get(frame.item_id);
    if (lot === undefined) return;
    const before = lot.register.state;
    const ledBefore = lot.standing === "lead";
    if (frame.type === "standing") lot.told = newerStanding(lot.told, frame);
    lot.register.offer(stateOf(frame));
    const state = lot.register.state;
    if (state === null) return;
    lot.standing = standingOf(state, { me: publicSelf(frame.item_id, this.userId), stake: lot.hasBid ? {} : null, told: lot.told });
    lot.hasBid ||= lot.standing === "lead";
    if (lot.standing !== "outbid") this.#hide(frame.item_id);
    // Where nobody leads now, the bid was voided.
    const isOutbid = ledBefore && lot.standing === "outbid" && Boolean(state.highest_bidder);
    if (isOutbid) this.#tellOutbid(frame.item_id);
    if (!lot.hasBid && before !== null && state.bid_count > before.bid_count) this.#tellOfBid(frame.item_id);
  }

  #follow(itemId, hasBid) {
    if (hasBid && this.#lots.has(itemId)) this.#lots.get(itemId).hasBid = true;
    if (this.#lots.has(itemId) || this.#lots.size > FOLLOWED_MAX) return;
    this.#lots.set(itemId, { register: new Register(), told: null, standing: null, hasBid });
  }

  async #tellOutbid(itemId) {
    if (itemId === this.own && !this.#browser.areWanted) return;
    // A frame has neither the name nor the currency.
    const item = await getItem(itemId).catch(() => null);
    if (item === null || isFinalStatus(item.status) || this.#lots.get(itemId)?.standing !== "outbid") return;
    const price = formatMoney(item.current_bid, item.currency ?? "USD");
    const name = item.name || itemId;
    this.#browser.tell(itemId, `You were outbid on ${isolated(name)}`, `The price is now ${price}.`);
    if (itemId !== this.own) this.#show(itemId, name, price);
  }

  async #tellOfBid(itemId) {
    if (!this.#browser.areWanted || !isWatched(itemId) || this.#bidsTold.has(itemId)) return;
    this.#bidsTold.add(itemId);
    const item = await getItem(itemId).catch(() => null);
    if (item === null) return;
    const price = formatMoney(item.current_bid, item.currency ?? "USD");
    this.#browser.tell(itemId, `A bid on ${isolated(item.name || itemId)}`, `The price is now ${price}.`);
  }

  #show(itemId, name, price) {
    this.#hide(itemId);
    const href = `/items/${encodeURIComponent(itemId)}`;
    const close = element("button", { type: "button", class: "button-quiet", "aria-label": "Close this notice" }, "×");
    close.addEventListener("click", () => this.#hide(itemId));
    const link = element("a", { href, dir: "auto" }, name);
    const notice = element("div", { class: "outbid" }, element("p", {}, "You were outbid on ", link, `, now at ${price}.`), close);
    this.#shown.set(itemId, notice);
    this.box.append(notice);
    if (this.#shown.size > SHOWN_MAX) this.#hide(this.#shown.keys().next().value);
  }

  #hide(itemId) {
    this.#shown.get(itemId)?.remove();
    this.#shown.delete(itemId);
  }
}
