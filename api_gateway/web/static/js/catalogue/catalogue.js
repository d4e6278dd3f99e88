// The catalogue: all items, page by page, with live prices for those in view.

import { mountAccount } from "../account/account.js";
import { bidOnItems } from "../bidder/bidon.js";
import { userId } from "../bidder/bidder.js";
import { NoticesButton } from "../bidder/notices.js";
import { OutbidNotice } from "../bidder/outbid.js";
import { mountTakeOver } from "../bidder/takeover.js";
import { onWatched, readWatched } from "../bidder/watching.js";
import { backoffMs } from "../feed/connection.js";
import { Feed } from "../feed/feed.js";
import { LinkMark } from "../feed/link.js";
import { ApiError, feedBase, getItem, listItems, pause } from "../lib/api.js";
import { byId, isolated, setText } from "../lib/dom.js";
import { mayBe, onSession, session } from "../lib/session.js";
import { STATUS_LABELS } from "../lib/status.js";
import { Card } from "./card.js";

const PAGE_SIZE = 24;
// A search reads further pages by itself, larger ones, up to so many lots.
const SEARCH_PAGE_SIZE = 200;
const SEARCHED_MAX = 1000;
const TYPING_MS = 150;
// The lists of one's own, by the names of their filters: which lots, the newest first.
const OWN_LISTS = { mine: () => bidOnItems(userId()), watched: readWatched };
const OWN_AT_ONCE = 96;
const READ_AT_ONCE = 6;
const SORTS = ["ending", "newest", "price"];
// The API's order by end begins with what has ended. Read by status, in this order, ended lots come last.
const BY_END = [
  ...["open", "paused", "scheduled"].map((status) => ({ status, sort: "ending" })),
  ...["sold", "unsold", "cancelled"].map((status) => ({ status, sort: "newest" })),
];

class Catalogue {
  #cards = new Map();
  #feed = null;
  #lists = []; // What is still to be read: {status, sort}, the present one first.
  #cursor = null; // In the present list; null at its beginning.
  #ids = null; // Of a list of one's own, those that are still to be read; null before it is known.
  #loads = 0;
  #read = 0; // Lots that were read since the list was chosen.
  #restored = 0; // Those of them that are lost for now.
  #failures = 0; // In succession.
  #retry = null; // The timer of the next attempt after a failure.
  #inView = new Set();
  #words = []; // The words of the search.
  link = new LinkMark();

  constructor() {
    this.grid = byId("grid");
    this.outbid = new OutbidNotice(userId(), { onMore: () => this.#followOthers() });
    onWatched(() => this.#followOthers());
    mountTakeOver(() => this.status === "watched" && this.show(this.status, this.sort, this.search));
    this.viewed = new IntersectionObserver((entries) => this.#seen(entries), { rootMargin: "300px" });
    byId("more").addEventListener("click", () => this.#showMore());
    byId("retry").addEventListener("click", () => {
      if (this.#hasMore) this.#load();
      else this.show(this.status, this.sort, this.search);
    });
    new NoticesButton(() => this.#followOthers());
    for (const chip of byId("filters").querySelectorAll("button")) {
      chip.addEventListener("click", () => this.show(chip.dataset.status, this.sort, this.search));
    }
    byId("sort").addEventListener("change", () => this.show(this.status, byId("sort").value, this.search));
    let typing = null;
    byId("find").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.find(byId("find").value), TYPING_MS);
    });
    byId("find-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#openFound();
    });
    setInterval(() => {
      for (const id of this.#inView) this.#cards.get(id)?.drawClock();
    }, 1000);
  }

  /** Shows, from the first page on, the items of one status ("" for all) that match `search`, in one order. */
  show(status, sort, search) {
    for (const chip of byId("filters").querySelectorAll("button")) {
      chip.setAttribute("aria-pressed", String(chip.dataset.status === status));
    }
    byId("sort").value = sort;
    byId("notify-row").hidden = !Object.hasOwn(OWN_LISTS, status);
    this.status = status;
    this.sort = sort;
    this.#searchFor(search);
    for (const id of this.#cards.keys()) this.#unwatch(id);
    this.#cards.clear();
    this.#inView.clear();
    this.viewed.disconnect();
    this.grid.replaceChildren();
    this.#lists = sort === "ending" && status === "" ? [...BY_END] : [{ status, sort }];
    this.#cursor = null;
    this.#ids = null;
    this.#read = 0;
    this.#restored = 0;
    this.#load();
  }

  /** Somebody's sign-in has ended: shows none of their lists any more. */
  forgetOwn() {
    this.outbid.identify(userId());
    if (Object.hasOwn(OWN_LISTS, this.status)) this.show(this.status, this.sort, this.search);
  }

  /** Filters the lots, and reads further pages if there are any. */
  find(search) {
    this.#searchFor(search);
    for (const card of this.#cards.values()) card.node.hidden = !card.matches(this.#words);
    this.#report({});
    // After a failure it waits, however fast somebody types.
    if (this.#mayHold() && this.#retry === null) this.#load();
  }

  #searchFor(search) {
    this.search = search.trim();
    this.#words = this.search.toLowerCase().split(/\s+/).filter(Boolean);
    const query = new URLSearchParams();
    if (this.status) query.set("status", this.status);
    if (this.sort !== SORTS[0]) query.set("sort", this.sort);
    if (this.search) query.set("q", this.search);
    history.replaceState(null, "", `${query}` ? `/?${query}` : "/");
  }

  /** Opens the lot whose id was typed, or the only one that was found. */
  #openFound() {
    this.find(byId("find").value);
    const shown = [...this.#cards.entries()].filter(([, card]) => !card.node.hidden).map(([id]) => id);
    const found = shown.length === 1 ? shown[0] : shown.find((id) => id === this.search);
    if (this.#words.length > 0 && found !== undefined) location.assign(`/items/${encodeURIComponent(found)}`);
  }

  /** Whether further matches may be among the lots that were not read yet. */
  #mayHold() {
    return this.#words.length > 0 && this.#hasMore && this.#read < SEARCHED_MAX;
  }

  /** Whether there may be lots that were not read yet. */
  get #hasMore() {
    return this.#lists.length > 0;
  }

  async follow() {
    let base = null;
    for (let attempt = 0; base === null; attempt += 1) {
      base = await feedBase().catch(() => null);
      if (base === null) await pause(backoffMs(attempt));
    }
    this.#feed = new Feed(base, {
      onFrame: (frame) => {
        this.#cards.get(frame.item_id)?.take(frame);
        this.outbid.take(frame);
      },
      onState: (state) => {
        this.link.state = state;
      },
      onStale: (isStale) => {
        this.link.isStale = isStale;
      },
      userId: userId(),
    });
    for (const id of this.#inView) this.#feed.watch(id);
    this.#followOthers();
  }

  /** Follows the lots that concern this bidder, in sight or not. */
  #followOthers() {
    for (const id of this.outbid.items) {
      this.#feed?.watch(id);
      // The frames of a lot in sight may have come before it was known to concern them.
      const card = this.#cards.get(id);
      if (card !== undefined) this.outbid.meet(id, card.state);
    }
  }

  /** A lot with a bid of one's own is followed out of sight, too. */
  #unwatch(id) {
    if (!this.outbid.items.includes(id)) this.#feed?.unwatch(id);
  }

  /** Moves the focus to the first new lot: the button may go away, and stands after the lots. */
  async #showMore() {
    const known = this.#cards.size;
    await this.#load();
    const next = [...this.#cards.values()][known];
    if (document.activeElement === byId("more") || document.activeElement === document.body) {
      next?.node.querySelector("a").focus();
    }
  }

  /** Reads lots of a list of one's own; while somebody searches, all of them. What cannot be read for good is left out. */
  async #loadOwn(load) {
    const ids = this.#ids ?? [...(await OWN_LISTS[this.status]())];
    if (load !== this.#loads) return;
    this.#ids = ids;
    for (let read = 0; ids.length > 0 && (read < OWN_AT_ONCE || this.#mayHold()); read += READ_AT_ONCE) {
      const some = ids.slice(0, READ_AT_ONCE);
      const items = await Promise.all(some.map((id) => getItem(id).catch(leftOut)));
      if (load !== this.#loads) return;
      ids.splice(0, some.length);
      for (const item of items) if (item !== null) this.#add(item);
      this.#read += some.length;
    }
    if (ids.length === 0) this.#lists = [];
  }

  /** Reads a page of the list; while somebody searches, on to the next one, until enough lots were read. */
  async #loadPages(load) {
    do {
      const most = this.#words.length > 0 ? SEARCH_PAGE_SIZE : PAGE_SIZE;
      for (let left = most; left > 0 && this.#hasMore; ) {
        const page = await listItems({ ...this.#lists[0], cursor: this.#cursor ?? "", limit: left });
        if (load !== this.#loads) return; // Another filter was chosen meanwhile.
        this.#cursor = page.next_cursor ?? null;
        if (this.#cursor === null) this.#lists.shift();
        for (const item of page.items) this.#add(item);
        const lost = page.being_rebuilt?.length ?? 0;
        this.#restored += lost;
        // A page that has nothing counts too, so that an end comes.
        const read = Math.max(1, page.items.length + lost);
        this.#read += read;
        left -= read;
      }
    } while (this.#mayHold());
  }

  /** After a failure that may pass it tries again by itself, after longer and longer waits. */
  async #load() {
    this.#loads += 1;
    const load = this.#loads;
    clearTimeout(this.#retry);
    this.#retry = null;
    this.#report({ busy: true });
    try {
      if (Object.hasOwn(OWN_LISTS, this.status)) await this.#loadOwn(load);
      else await this.#loadPages(load);
      if (load !== this.#loads) return;
      this.#failures = 0;
      this.#report({});
    } catch (error) {
      if (load !== this.#loads) return;
      // What is refused for good is not asked for again; the button begins anew.
      if (!mayPass(error)) this.#lists = [];
      this.#report({ error });
      if (!mayPass(error)) return;
      const waitMs = Math.max(error.retryAfterMs, backoffMs(this.#failures));
      this.#failures += 1;
      this.#retry = setTimeout(() => this.#load(), waitMs);
    }
  }

  #add(item) {
    // The list may shift between two pages while items are added, so known items are skipped.
    if (this.#cards.has(item.id)) return;
    const card = new Card(item, userId());
    this.#cards.set(item.id, card);
    this.outbid.meet(item.id, card.state);
    card.node.hidden = !card.matches(this.#words);
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
        this.#unwatch(id);
      }
    }
  }

  #report({ busy = false, error = null }) {
    const count = [...this.#cards.values()].filter(({ node }) => !node.hidden).length;
    const none = count === 0 && !busy && error === null;
    const isNarrowed = this.status !== "" || this.#words.length > 0;
    this.grid.setAttribute("aria-busy", String(busy));
    byId("loading").hidden = !(busy && count === 0);
    byId("trouble").hidden = error === null;
    const isLost = error?.code === "BEING_REBUILT";
    if (error !== null) setText(byId("trouble-text"), isLost ? "The lots are being restored." : error.message);
    byId("empty").hidden = !none || isNarrowed;
    byId("filter-row").hidden = !byId("empty").hidden;
    byId("none-such").hidden = !none || !isNarrowed;
    const searched = !this.#hasMore ? "" : ` Only the first ${this.#cards.size} lots were searched.`;
    setText(
      byId("none-such-text"),
      this.#words.length > 0 ? `No lot matches “${isolated(this.search)}”.${searched}` : emptyText(this.status),
    );
    byId("open-id").hidden = !/^[A-Za-z0-9_-]{1,64}$/.test(this.search);
    byId("open-id").href = `/items/${encodeURIComponent(this.search)}`;
    byId("more").hidden = !this.#hasMore || (count === 0 && this.#words.length === 0);
    byId("more").setAttribute("aria-disabled", String(busy));
    const more = this.#hasMore ? "+" : "";
    const restored = this.#restored === 0 ? "" : `, ${this.#restored} more being restored`;
    const lots = `${count}${more} ${count === 1 ? "lot" : "lots"}${restored}`;
    setText(byId("count"), count + this.#restored === 0 ? "" : lots);
  }
}

function mayPass(error) {
  return error instanceof ApiError && (error.passing || error.status === 429);
}

/** Null for a lot that is no longer there; a failure that may pass is thrown again. */
function leftOut(error) {
  if (mayPass(error)) throw error;
  return null;
}

function emptyText(status) {
  if (status === "mine") return session() !== null ? "You have not bid on a lot." : "You have not bid on a lot in this browser.";
  if (status === "watched") return "You watch no lot. Each lot has a button for that.";
  return "No lot has this status at the moment.";
}

mountAccount();
// The page shows the lists and standings of the person who is signed in, so it is loaded anew for another one. Where a
// session only expired, the page stays, with a notice, and without that person's lists.
onSession((reason) => {
  if (["in", "out"].includes(reason)) location.reload();
  else catalogue.forgetOwn();
});
for (const id of ["add-lot", "add-first"]) byId(id).hidden = !mayBe("seller", "operator");
setText(byId("origin"), location.origin);
const catalogue = new Catalogue();
const asked = new URLSearchParams(location.search);
byId("find").value = asked.get("q") ?? "";
catalogue.show(
  Object.hasOwn({ ...STATUS_LABELS, ...OWN_LISTS }, asked.get("status") ?? "") ? asked.get("status") : "",
  SORTS.includes(asked.get("sort")) ? asked.get("sort") : SORTS[0],
  byId("find").value,
);
catalogue.follow();
