// The bids of one item, newest first: read from the API, then extended by the feed. One row per seq, at most ROWS_MAX.

import { ownBids } from "../bidder/bidder.js";
import { Tones, publicName } from "../bidder/names.js";
import { listBids } from "../lib/api.js";
import { durationText, serverNow, timeText } from "../lib/clock.js";
import { byId, element, oncePerFrame, sentence, setText } from "../lib/dom.js";
import { decimalsOf, formatMark, formatMoney } from "../lib/money.js";
import { PriceChart } from "./chart.js";

const ROWS_MAX = 100;
const FETCH = 100;
const ROWS_AT_FIRST = 12; // As in record.css.
const REFILL_SOON_MS = 400;
const REFILL_EVERY_MS = 5000;
const CHART_EVERY_MS = 250;

export class History {
  #bids = new Map(); // by seq
  #struck = new Map(); // bids that an operator struck: the reason by bid id
  #repriced = new Set(); // ids of bids that stand at another price than they had set: a void lowered it
  #rows = new Map(); // by seq
  #ownAliases = new Set(); // as far as known: the platform does not tell who is behind an alias
  #tones = new Tones();
  #epoch = 0;
  #covered = -1; // Every bid up to this seq is here, or older than the rows that are kept.
  #timer = null;
  #fetchedMs = -Infinity;
  #fetches = 0;
  #told = 0; // Which of them was the newest to be answered.
  #chartedMs = -Infinity;
  #chartTimer = null;
  #size = { width: 0, height: 0 };
  #currency = "USD";
  #bidder = "";
  #isRunning = true;

  /** `onOwnVoided(bid)` runs for each bid of this browser's bidder that the API tells is void. */
  constructor(itemId, { bidder, onOwnVoided = () => {} }) {
    this.itemId = itemId;
    this.onOwnVoided = onOwnVoided;
    this.#bidder = bidder;
    this.body = byId("history-rows");
    this.chart = new PriceChart(byId("chart"), byId("chart-readout"));
    this.fold = byId("history-fold");
    this.fold.addEventListener("click", () => {
      const folded = this.fold.getAttribute("aria-expanded") === "true";
      this.fold.setAttribute("aria-expanded", String(!folded));
      this.draw();
    });
    this.draw = oncePerFrame(() => this.#draw());
    // The size comes from an observer: asking for it would lay out the whole page again after each new row.
    new ResizeObserver(([entry]) => {
      this.#size = entry.contentRect;
      this.draw();
    }).observe(byId("chart"));
  }

  set currency(currency) {
    if (currency === this.#currency) return;
    this.#currency = currency;
    this.#forgetRows();
  }

  get bidder() {
    return this.#bidder;
  }

  set bidder(userId) {
    if (userId === this.#bidder) return;
    this.#bidder = userId;
    this.#ownAliases.clear();
    for (const bid of this.#bids.values()) this.#meetSelf(bid);
    this.#forgetRows();
  }

  /** Whether the price still holds, so that the chart's line continues to the present. */
  set isRunning(isRunning) {
    this.#isRunning = isRunning;
  }

  /** Notes an alias of the bidder, for example from a state that has the leader's id and alias. */
  meetSelf(alias) {
    this.#meetSelf({ bidder: alias, user_id: this.#bidder });
  }

  /** Whether an alias is known to be the bidder's own. */
  isOwn(alias) {
    return this.#ownAliases.has(alias);
  }

  /** Whether the bid is known to be the bidder's, by its user id or alias. */
  isOwnBid(bidId) {
    if (ownBids(this.#bidder).has(bidId)) return true;
    const bid = [...this.#bids.values()].find(({ bid_id: id }) => id === bidId);
    return bid !== undefined && this.#ownAliases.has(bid.bidder);
  }

  /** Reads the newest bids. `version`: of the state known before the call; the answer has everything up to it. */
  async load(version) {
    this.#fetchedMs = performance.now();
    this.#fetches += 1;
    const fetched = this.#fetches;
    try {
      const page = await listBids(this.itemId, FETCH);
      for (const bid of page.bids) this.#add(bid);
      const newest = page.bids.length > 0 ? page.bids[0].seq : -1;
      this.#covered = Math.max(this.#covered, newest, version?.seq ?? -1);
      // The rows of an older answer count; what it says of all rows does not.
      if (fetched > this.#told) setText(byId("history-note"), page.partial === true ? "Older bids cannot be read at the moment." : "");
      this.#told = Math.max(this.#told, fetched);
    } catch (error) {
      if (error.status === 410) {
        // The lot was over long ago: nothing follows, and nothing is to be read again.
        this.#covered = Math.max(this.#covered, version?.seq ?? -1);
        setText(byId("history-note"), "The bids of this lot are no longer kept here; the house has a record of them.");
      } else if (version === null || version.seq > this.#covered) {
        // Where another answer has brought them meanwhile, nothing is missing.
        setText(byId("history-note"), "Earlier bids could not be read yet. New bids appear as they come.");
        this.#refill(version);
      }
    }
    this.draw();
  }

  /** Reads again if the state is newer than the rows. */
  catchUp(version) {
    if (version.seq > this.#covered) this.load(version);
  }

  /** Takes one frame of the feed, whose state is `state`. */
  take(frame, state) {
    if (state.epoch < this.#epoch) return;
    if (state.epoch > this.#epoch) {
      // The item was rebuilt, so seqs of the old epoch no longer count. Before the first frame the epoch is 0.
      if (this.#epoch > 0) this.#restart();
      this.#epoch = state.epoch;
    }
    if (frame.type === "bid") this.#add(frame);
    if (frame.type === "voided") this.#void(frame);
    // One frame may stand for several bids of a busy item, and a reconnection may skip some.
    if (state.seq > this.#covered + 1) this.#refill(state);
    else this.#covered = Math.max(this.#covered, state.seq);
    this.draw();
  }

  #restart() {
    this.#bids.clear();
    this.#covered = -1;
    this.#forgetRows();
  }

  /** Reads the API again soon, but not often: all viewers of a busy item see the same gap. */
  #refill(version) {
    if (this.#timer !== null) return;
    const since = performance.now() - this.#fetchedMs;
    const waitMs = Math.max(REFILL_SOON_MS, REFILL_EVERY_MS - since) * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      // A read that was in progress may have closed the gap.
      if (version === null) this.load(version);
      else this.catchUp(version);
    }, waitMs);
  }

  #add(bid) {
    if (!Number.isInteger(bid.seq) || typeof bid.amount !== "number") return;
    this.#meetSelf(bid);
    if (bid.status === "voided" && !this.#struck.has(bid.bid_id)) this.#strike(bid.bid_id, "");
    if (bid.status === "voided" && bid.kind !== "proxy" && ownBids(this.#bidder).has(bid.bid_id)) this.onOwnVoided(bid);
    if (bid.status === "repriced") this.#reprice(bid.bid_id);
    // A row that is here stays as it is; only its alias may be added.
    const known = this.#bids.get(bid.seq);
    if (known?.bidder !== undefined || (known && bid.bidder === undefined)) return;
    this.#bids.set(bid.seq, { ...known, ...bid });
    if (known) this.#forgetRows();
    if (this.#bids.size > 2 * ROWS_MAX) this.#trim();
  }

  /** Learns the bidder's alias from a bid of their own, and with it which other rows are theirs. */
  #meetSelf(bid) {
    if (bid.bidder === undefined || this.#ownAliases.has(bid.bidder)) return;
    const byProxy = bid.kind === "proxy"; // Its bid id is that of the rival's bid.
    const own = bid.user_id === this.#bidder || (!byProxy && ownBids(this.#bidder).has(bid.bid_id));
    if (!own) return;
    this.#ownAliases.add(bid.bidder);
    this.#forgetRows();
  }

  /** Strikes a bid, the automatic bids that came from its maximum, and rows above the remaining price. */
  #void(voided) {
    this.#strike(voided.bid_id, voided.reason ?? "");
    if (!voided.bidder) return; // An event of an older version.
    for (const bid of this.#bids.values()) {
      if (bid.seq >= voided.seq || this.#struck.has(bid.bid_id)) continue;
      const isAbove = bid.amount > voided.current_bid;
      const isLater = bid.seq > voided.voided_seq && bid.seq < (voided.automatic_until ?? 0);
      if (bid.kind !== "proxy" && isAbove) this.#reprice(bid.bid_id);
      else if (bid.kind === "proxy" && (isAbove || (isLater && bid.bidder === voided.bidder))) this.#strike(bid.bid_id, "");
    }
  }

  #reprice(bidId) {
    this.#repriced.add(bidId);
    this.#forgetRows();
  }

  /** Strikes a bid, and the automatic bid that answered it. */
  #strike(bidId, reason) {
    this.#struck.set(bidId, reason);
    this.#struck.set(`${bidId}/proxy`, "");
    this.#forgetRows();
  }

  #trim() {
    for (const seq of [...this.#bids.keys()].sort((a, b) => b - a).slice(ROWS_MAX)) this.#bids.delete(seq);
  }

  #forgetRows() {
    for (const row of this.#rows.values()) row.remove();
    this.#rows.clear();
    this.draw();
  }

  #draw() {
    this.#trim();
    const newestFirst = [...this.#bids.values()].sort((a, b) => b.seq - a.seq);
    for (const [seq, row] of this.#rows) {
      if (this.#bids.has(seq)) continue;
      row.remove();
      this.#rows.delete(seq);
    }
    const first = this.#rows.size === 0;
    for (const bid of [...newestFirst].reverse()) this.#tones.of(publicName(bid.bidder, bid.user_id) ?? "—");
    let place = this.body.firstChild;
    for (const bid of newestFirst) {
      const known = this.#rows.get(bid.seq);
      if (known) {
        place = known.nextSibling;
        continue;
      }
      const row = this.#row(bid);
      if (!first) row.classList.add("is-new");
      this.body.insertBefore(row, place);
      this.#rows.set(bid.seq, row);
    }
    const none = newestFirst.length === 0;
    byId("history-table").hidden = none;
    byId("history-empty").hidden = !none;
    setText(byId("history-bound"), newestFirst.length >= ROWS_MAX ? `The latest ${ROWS_MAX}` : "");
    this.#drawFold(newestFirst.length);
    // Rows come as fast as bids; the chart is drawn less often, because each time all of it is drawn.
    const waitMs = this.#chartedMs + CHART_EVERY_MS - performance.now();
    if (waitMs <= 0) {
      this.#chartedMs = performance.now();
      this.#drawChart(newestFirst);
    } else if (this.#chartTimer === null) {
      this.#chartTimer = setTimeout(() => {
        this.#chartTimer = null;
        this.draw();
      }, waitMs);
    }
  }

  #drawFold(count) {
    const isOpen = this.fold.getAttribute("aria-expanded") === "true";
    byId("history-table").dataset.folded = String(!isOpen);
    this.fold.hidden = count <= ROWS_AT_FIRST;
    setText(this.fold, isOpen ? `Show the latest ${ROWS_AT_FIRST} only` : `Show all ${count} steps`);
  }

  #row(bid) {
    const alias = publicName(bid.bidder, bid.user_id) ?? "—";
    const isOwn = this.#ownAliases.has(bid.bidder) || bid.user_id === this.#bidder;
    const struck = this.#struck.has(bid.bid_id);
    const repriced = !struck && this.#repriced.has(bid.bid_id);
    const at = Date.parse(bid.timestamp);
    const when = Number.isNaN(at) ? "" : timeText(at);
    return element(
      "tr",
      { class: [isOwn ? "is-own" : "", struck ? "is-struck" : "", repriced ? "is-repriced" : ""].join(" ").trim() || null },
      this.#bidderCell(bid, { alias, isOwn, struck, repriced }),
      element("td", { class: "amount" }, formatMoney(bid.amount, this.#currency)),
      element("td", { class: "when" }, element("time", { datetime: bid.timestamp ?? null }, when)),
    );
  }

  #bidderCell(bid, { alias, isOwn, struck, repriced }) {
    const paddle = element("span", { class: `paddle-dot tone-${this.#tones.of(alias)}`, "aria-hidden": "true" });
    const cell = element("td", { class: "who" }, paddle, element("span", { class: "name" }, isOwn ? "You" : alias));
    const tag = (text) => cell.append(element("span", { class: "tag" }, text));
    if (bid.kind === "proxy") tag("Automatic");
    if (bid.kind === "buy_now") tag("Bought now");
    if (struck) tag("Void");
    if (repriced) tag("Stands at another price");
    const reason = this.#struck.get(bid.bid_id);
    if (reason) cell.append(element("p", { class: "row-note", dir: "auto" }, sentence(reason)));
    return cell;
  }

  #drawChart(newestFirst) {
    const money = (amount) => formatMoney(amount, this.#currency);
    const points = newestFirst
      .filter(({ bid_id: id }) => !this.#struck.has(id) && !this.#repriced.has(id))
      .filter((bid) => !Number.isNaN(Date.parse(bid.timestamp)))
      .map((bid) => this.#point(bid, money))
      .reverse();
    const isWorth = points.length >= 2;
    byId("chart-figure").hidden = !isWorth;
    if (!isWorth) return;
    this.chart.draw(this.#size, points, {
      money,
      mark: (amount, isWhole) => formatMark(amount, this.#currency, isWhole),
      least: 10 ** -decimalsOf(this.#currency),
      until: this.#isRunning ? serverNow() : null,
    });
    byId("chart-own").hidden = !points.some(({ isOwn }) => isOwn);
    const [first, last] = [points[0], points.at(-1)];
    const [from, to] = [money(first.amount), money(last.amount)];
    const bidders = new Set(newestFirst.map(({ bidder }) => bidder)).size;
    const latest = newestFirst.length >= ROWS_MAX ? "the latest " : "";
    // "Steps", not "bids": they include automatic bids, which the number of bids does not.
    setText(byId("chart-span"), `${from} to ${to} in ${latest}${points.length} steps`);
    setText(
      byId("chart-words"),
      `A staircase of ${latest}${points.length} steps by ${bidders} ${bidders === 1 ? "bidder" : "bidders"}, ` +
        `from ${from} at ${timeText(first.at)} to ${to} at ${timeText(last.at)}, ` +
        `within ${durationText(last.at - first.at)}. The table of bids below has the same numbers.`,
    );
  }

  #point(bid, money) {
    const at = Date.parse(bid.timestamp);
    const isOwn = this.#ownAliases.has(bid.bidder) || bid.user_id === this.#bidder;
    const who = isOwn ? "You" : (publicName(bid.bidder, bid.user_id) ?? "—");
    return { at, amount: bid.amount, isOwn, words: () => `${money(bid.amount)} · ${who} · ${timeText(at)}` };
  }
}
