// The page of one item: price, leader, end, bid form, history.

import { ApiError, feedBase, getItem, pause } from "./api.js";
import { BidForm } from "./bidform.js";
import { durationText, momentText, serverNow } from "./clock.js";
import { announcer, byId, flash, oncePerFrame, sentence, setText } from "./dom.js";
import { ItemFeed, Register, backoffMs, compareVersions, stateOf } from "./feed.js";
import { History } from "./history.js";
import { formatMoney } from "./money.js";
import { plateFor } from "./plate.js";
import { STATUS_LABELS, connectionText, endOf, isFinalStatus } from "./status.js";

const URGENT_MS = 60000;
const SOON_MS = 600000;
// How far the feed may lag behind the API, after somebody comes back to the page, before it is taken for dead.
const DEAF_AFTER_MS = 3000;

class ItemPage {
  #item = {};
  #register = new Register();
  #feed = null;
  #link = "connecting";
  #shown = { price: null, leader: null, status: null };

  constructor(itemId) {
    this.itemId = itemId;
    this.form = new BidForm(itemId, {
      onSettled: () => this.refresh(),
      onBidder: (userId) => {
        this.history.bidder = userId;
        this.draw();
      },
    });
    this.history = new History(itemId, { bidder: this.form.userId });
    this.announce = announcer(byId("announcer"));
    this.draw = oncePerFrame(() => this.#draw());
    byId("plate").append(plateFor(itemId));
    setText(byId("lot-id"), itemId);
    setText(byId("name"), itemId);
  }

  async open() {
    const basePromise = feedBase();
    basePromise.catch(() => {}); // Looked at below; without this a failure would be reported as unhandled.
    if (!(await this.#loadItem())) return;
    byId("lot").hidden = false;
    byId("loading").hidden = true;
    this.history.load(this.#register.state);
    this.form.resume();
    setInterval(() => this.#drawClock(), 250);
    document.addEventListener("visibilitychange", () => !document.hidden && this.refresh());
    await this.#follow(basePromise);
  }

  /** Reads the item until it is here. False where there is no such item. */
  async #loadItem() {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const item = await getItem(this.itemId);
        this.#register.offer(stateOf(item));
        // These are the register's now: left in the item, they would come back once the price had moved on.
        delete item.suggested_bids;
        this.#item = item;
        this.draw();
        return true;
      } catch (error) {
        if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429) {
          showMissing(error.message);
          return false;
        }
        setText(byId("loading"), "The house does not answer yet. Trying again…");
        await pause(Math.max(error.retryAfterMs ?? 0, backoffMs(attempt)));
      }
    }
  }

  async #follow(basePromise) {
    let base = await basePromise.catch(() => null);
    for (let attempt = 0; base === null; attempt += 1) {
      await pause(backoffMs(attempt));
      base = await feedBase().catch(() => null);
    }
    this.#feed = new ItemFeed(base, this.itemId, {
      onFrame: (frame) => this.#take(frame),
      onState: (state) => {
        this.#link = state;
        showConnection(state);
        // Without the feed the page still follows, at the pace of the attempts to get it back.
        if (state === "waiting") this.refresh();
      },
    });
    this.#feed.start();
  }

  #take(frame) {
    const state = stateOf(frame);
    if (state === null) return;
    this.#register.offer(state);
    this.history.take(frame, state);
    if (frame.type === "bid") this.form.heard(frame);
    this.draw();
  }

  /** Asks the API once: after a bid, when the page is looked at again, and when the feed could not be reached. */
  async refresh() {
    const item = await getItem(this.itemId).catch(() => null);
    const state = stateOf(item);
    if (state === null) return;
    this.#register.offer(state);
    this.draw();
    await pause(DEAF_AFTER_MS);
    const heard = this.#feed?.version ?? null;
    if (heard !== null && compareVersions(state, heard) <= 0) return;
    // The feed is down or deaf: the history comes from the API, and a connection that only looks alive is replaced.
    this.history.catchUp(state);
    if (this.#link === "live") this.#feed.restart();
  }

  get #now() {
    return { ...this.#item, ...this.#register.state };
  }

  #draw() {
    const item = this.#now;
    const currency = item.currency ?? "USD";
    const money = (amount) => formatMoney(amount, currency);
    const bids = item.bid_count ?? 0;
    const leader = item.highest_bidder_id ?? null;
    const mine = leader !== null && leader === this.form.userId;
    const final = isFinalStatus(item.status);
    const price = bids > 0 ? item.current_bid : item.start_price || item.min_next_bid;

    const name = item.name || this.itemId;
    setText(byId("name"), name);
    setText(byId("description"), item.description ?? "");
    byId("description").hidden = !item.description;
    document.title = `${money(price)} · ${name}`;

    setText(byId("price-label"), priceLabel(item.status, bids));
    setText(byId("price"), money(price));
    byId("price").dataset.length = money(price).length > 12 ? "long" : "short";
    setText(byId("bid-count"), bids.toLocaleString());
    setText(byId("leader-label"), item.status === "sold" ? "Sold to" : "Leader");
    setText(byId("leader"), leader ?? (final ? "Nobody" : "Nobody yet"));
    byId("leader-you").hidden = !mine;
    setText(byId("leader-you"), item.status === "sold" ? "You won" : "You lead");
    byId("panel").classList.toggle("is-mine", mine);
    byId("reserve").hidden = item.reserve_met !== false;

    const status = byId("status");
    setText(status, STATUS_LABELS[item.status] ?? item.status ?? "");
    status.dataset.status = item.status ?? "";
    this.form.update(item, currency);
    this.#drawNotice(item, mine, money);
    this.history.currency = currency;
    this.#drawClock();
    this.#tell({ price, leader, status: item.status ?? null }, { bids, mine, money });
  }

  /** The words in place of the form while nobody can bid. */
  #drawNotice(item, mine, money) {
    const open = item.status === "open" || item.status === undefined;
    byId("bid-form").hidden = !open;
    const notice = byId("notice");
    notice.hidden = open;
    if (open) return;
    const start = Date.parse(item.start_time ?? "");
    const words = {
      scheduled: Number.isNaN(start) ? "The bidding has not opened yet." : `The bidding opens on ${momentText(start)}.`,
      paused: "The bidding is paused. The remaining time is kept.",
      sold: mine ? `The lot is yours, at ${money(item.current_bid)}. Congratulations.` : "The bidding has closed.",
      unsold: item.reserve_met === false && item.bid_count > 0
        ? "The bidding has closed. The reserve was not met."
        : "The bidding has closed without a sale.",
      cancelled: "This lot was withdrawn from the sale.",
    };
    setText(notice, words[item.status] ?? "Nobody can bid at the moment.");
  }

  #drawClock() {
    const item = this.#now;
    const end = endOf(item);
    const box = byId("end");
    box.hidden = end === null || item.status === "cancelled";
    if (end === null) return;
    const final = isFinalStatus(item.status);
    const leftMs = end - serverNow();
    const running = leftMs > 0 ? "Closes in" : "The time is up";
    setText(byId("end-label"), final ? "Closed" : item.status === "paused" ? "Paused; was to close" : running);
    const moment = final || item.status === "paused";
    setText(byId("countdown"), moment ? momentText(end) : leftMs > 0 ? durationText(leftMs) : "Closing…");
    setText(byId("end-moment"), moment ? "" : momentText(end));
    box.dataset.pace = moment ? "" : leftMs < URGENT_MS ? "urgent" : leftMs < SOON_MS ? "soon" : "";
  }

  /** Draws attention to what changed since the last time: by movement, in words for screen readers, in the form. */
  #tell(next, { bids, mine, money }) {
    const before = this.#shown;
    this.#shown = next;
    if (before.price === null) return;
    if (next.price !== before.price) flash(byId("price"));
    const lost = before.leader === this.form.userId && next.leader !== null && !mine;
    if (lost) this.form.outbid();
    if (next.status !== before.status) {
      if (isFinalStatus(next.status)) this.form.ended();
      this.announce(`The lot is now ${(STATUS_LABELS[next.status] ?? next.status ?? "").toLowerCase()}.`);
    } else if (next.price !== before.price || next.leader !== before.leader) {
      this.announce(`${money(next.price)}, ${mine ? "you lead" : `${next.leader ?? "nobody"} leads`}, ${bids} bids.`);
    }
  }
}

function priceLabel(status, bids) {
  if (status === "sold") return "Hammer price";
  return bids > 0 ? "Current bid" : "Opening bid";
}

function showConnection(state) {
  const box = byId("connection");
  box.dataset.state = state;
  if (state === "live") box.dataset.connected = "yes";
  setText(byId("connection-text"), connectionText(state, box.dataset.connected === "yes"));
}

function showMissing(reason) {
  byId("loading").hidden = true;
  byId("lot").hidden = true;
  byId("missing").hidden = false;
  byId("connection").hidden = true;
  setText(byId("missing-reason"), sentence(reason));
  document.title = "No such lot";
}

/** The id in the address, or null. The server has checked its form; nothing is taken from it on trust all the same. */
function itemIdOf(path) {
  try {
    const id = decodeURIComponent(path.replace(/\/+$/, "").split("/").pop());
    return /^[A-Za-z0-9_-]{1,64}$/.test(id) ? id : null;
  } catch {
    return null;
  }
}

const itemId = itemIdOf(location.pathname);
if (itemId === null) showMissing("This is not the id of a lot.");
else new ItemPage(itemId).open();
