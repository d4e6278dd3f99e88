// Tells that somebody else leads now on a lot where this bidder led: on every page, and by the browser while the tab is
// hidden. A lead that was lost between two pages is told by the next one: the browser remembers who led when it last saw
// the lot. Of a lot that is only watched, the browser tells the first bid that comes while the tab is hidden.

import { backoffMs } from "../feed/connection.js";
import { Register, compareVersions, stateOf } from "../feed/feed.js";
import { ApiError, getItem, pause } from "../lib/api.js";
import { byId, element, isolated } from "../lib/dom.js";
import { formatMoney } from "../lib/money.js";
import { session } from "../lib/session.js";
import { isFinalStatus } from "../lib/status.js";
import { learnAlias, publicSelf } from "./alias.js";
import { bidOnItems } from "./bidon.js";
import { BrowserNotices, noticesState } from "./notices.js";
import { forgetLead, ledAt, rememberLead, stakedItems } from "./stakes.js";
import { newerStanding, standingOf } from "./standing.js";
import { isWatched, watchedItems } from "./watching.js";

const FOLLOWED_MAX = 50;
const SHOWN_MAX = 3;
// How often a lot is asked for, to name it in a notice.
const ASKED_MAX = 4;

export class OutbidNotice {
  // By item id: {register, told, standing, hasBid, led}. `led`: the version at which this bidder was last seen to lead, on
  // this page or one before; null where they were not, or where the loss was told.
  #lots = new Map();
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
    if (frame.type === "standing") lot.told = newerStanding(lot.told, frame);
    this.#meet(frame.item_id, lot, stateOf(frame));
  }

  /** Takes a state that the API has told. */
  meet(itemId, state) {
    const lot = this.#lots.get(itemId);
    if (lot !== undefined) this.#meet(itemId, lot, state);
  }

  /** The answer to a bid says that this bidder leads at this version. */
  led(itemId, version) {
    const lot = this.#lots.get(itemId);
    const state = lot?.register.state ?? null;
    // What is newer has told already how they stand.
    if (lot === undefined || (state !== null && compareVersions(state, version) > 0)) return;
    lot.led = version;
    lot.hasBid = true;
    rememberLead(itemId, this.userId, version);
  }

  #meet(itemId, lot, offered) {
    const before = lot.register.state;
    lot.register.offer(offered);
    const state = lot.register.state;
    if (state === null) return;
    const me = publicSelf(itemId, this.userId);
    const ledBefore = lot.standing === "lead";
    lot.standing = standingOf(state, { me, stake: lot.hasBid ? {} : null, told: lot.told });
    lot.hasBid ||= lot.standing === "lead";
    if (lot.standing !== "outbid") this.#hide(itemId);
    if (lot.standing === "lead") {
      lot.led = { epoch: state.epoch, seq: state.seq };
      // Not at each bid that their maximum answers: nobody else led since.
      if (!ledBefore) rememberLead(itemId, this.userId, lot.led);
    } else if (me !== "" || lot.told !== null) this.#lost(itemId, lot, state);
    if (!lot.hasBid && before !== null && state.bid_count > before.bid_count) this.#tellOfBid(itemId);
  }

  /** They do not lead in this state. */
  #lost(itemId, lot, state) {
    // The first frame of a page may be older than what the page before has seen.
    if (lot.led === null || compareVersions(state, lot.led) <= 0) return;
    lot.led = null;
    // Where nobody leads now, the bid was voided.
    if (lot.standing === "outbid" && Boolean(state.highest_bidder)) this.#tellOutbid(itemId, lot);
    else forgetLead(itemId, this.userId, state);
  }

  #follow(itemId, hasBid) {
    if (hasBid && this.#lots.has(itemId)) this.#lots.get(itemId).hasBid = true;
    if (this.#lots.has(itemId) || this.#lots.size > FOLLOWED_MAX) return;
    const led = ledAt(itemId, this.userId);
    this.#lots.set(itemId, { register: new Register(), told: null, standing: null, hasBid: hasBid || led !== null, led });
  }

  async #tellOutbid(itemId, lot) {
    const isSaidByPage = itemId === this.own && !this.#browser.areWanted;
    // A frame has neither the name nor the currency.
    const item = isSaidByPage ? null : await itemNow(itemId);
    // Somebody else bids here now, or they lead again.
    if (this.#lots.get(itemId) !== lot || lot.standing !== "outbid") return;
    // What could not be told now is told by the next page.
    if (item === null && !isSaidByPage) return;
    forgetLead(itemId, this.userId, lot.register.state);
    if (isSaidByPage || isFinalStatus(item.status)) return;
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

/** The lot, asked for some times; null where it cannot be read. */
async function itemNow(itemId) {
  for (let asked = 1; ; asked += 1) {
    try {
      return await getItem(itemId);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (asked === ASKED_MAX || !(error.passing || error.status === 429)) return null;
      await pause(Math.max(error.retryAfterMs, backoffMs(asked)));
    }
  }
}
