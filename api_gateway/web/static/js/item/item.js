// The page of one item: connects the state (from API and feed), the panel, the clock, the bid form and the history.

import { askToSignIn, mountAccount } from "../account/account.js";
import { learnAlias, publicSelf } from "../bidder/alias.js";
import { nameFor } from "../bidder/names.js";
import { forgetMaximum, rememberStake, stakeOf } from "../bidder/stakes.js";
import { newerStanding, standingOf } from "../bidder/standing.js";
import { NoticesButton } from "../bidder/notices.js";
import { OutbidNotice } from "../bidder/outbid.js";
import { mountTakeOver } from "../bidder/takeover.js";
import { isWatched, onWatched, readWatched, setWatched } from "../bidder/watching.js";
import { BidForm } from "../bidding/bidform.js";
import { backoffMs } from "../feed/connection.js";
import { Feed, Register, compareVersions, stateOf, termsOf } from "../feed/feed.js";
import { LinkMark } from "../feed/link.js";
import { ApiError, feedBase, getItem, pause } from "../lib/api.js";
import { announcer, byId, isolated, oncePerFrame, sentence, setText } from "../lib/dom.js";
import { formatMoney } from "../lib/money.js";
import { plateFor } from "../lib/plate.js";
import { mayBe, onSession, session } from "../lib/session.js";
import { STATUS_LABELS, URGENT_MS, isFinalStatus, shownPrice } from "../lib/status.js";
import { Circumstances, replayFrom } from "./circumstances.js";
import { Countdown } from "./countdown.js";
import { History } from "./history.js";
import { Panel } from "./panel.js";
import { showPhotos } from "./photos.js";
import { StruckNotice } from "./struck.js";

const TICK_MS = 250;
const CHART_EVERY_MS = 5000;
// When somebody returns to the page: how long the feed may lag behind the API before it counts as dead.
const DEAF_AFTER_MS = 3000;
// How late an opening or a close may be before the API is asked, and how often it is asked then.
const OVERDUE_MS = 2000;
const OVERDUE_EVERY_MS = 5000;
// How often the API is asked while the feed is delayed or has ended.
const STALE_EVERY_MS = 5000;
const ASKED_JITTER_MS = 2000;
// The remaining times that screen readers announce.
const WARNINGS = [[URGENT_MS, "Two minutes are left."], [15_000, "15 seconds are left."]];
const TITLE_MARKS = { outbid: "Outbid · ", won: "Won · " };

const RESTORED = "This lot is being restored after a failure. It comes back by itself; bids are not taken until then.";

class ItemPage {
  #isRestored = false; // Whether the lot is lost for now.
  #terms = {};
  #register = new Register();
  #circumstances = new Circumstances();
  #feed = null;
  #toldStanding = null; // The newest frame of the private channel.
  #viewers = null;
  #told = null; // What screen readers were last told.
  #nextMs = null;
  #askedMs = -Infinity;

  constructor(itemId) {
    this.itemId = itemId;
    this.form = new BidForm(itemId, {
      onSettled: () => {
        this.draw();
        this.refresh();
      },
      onLed: (version) => this.outbid.led(itemId, version),
      onBidder: (userId) => {
        if (this.history.bidder === userId) return;
        this.history.bidder = userId;
        this.#toldStanding = null;
        this.#told = null;
        this.struck.forget();
        this.#feed?.identify(userId);
        this.outbid.identify(userId);
        this.outbid.meet(itemId, this.#register.state);
        this.#followOthers();
        this.draw();
      },
    });
    this.panel = new Panel();
    this.struck = new StruckNotice();
    this.countdown = new Countdown();
    this.history = new History(itemId, {
      bidder: this.form.userId,
      // The history of a bidder who returns tells it too, without the reason.
      onOwnVoided: (bid) => {
        this.struck.take({ ...bid, type: "voided" }, true);
        this.draw();
      },
    });
    this.outbid = new OutbidNotice(this.form.userId, { own: itemId, onMore: () => this.#followOthers() });
    this.link = new LinkMark();
    this.announce = announcer(byId("announcer"));
    this.draw = oncePerFrame(() => this.#draw());
    this.#prepareWatching();
    byId("sign-in-here").addEventListener("click", askToSignIn);
    onSession((reason) => {
      this.form.identify(reason);
      // What was unanswered when the session ended can be looked up again.
      if (reason === "in") this.form.resume();
      this.draw();
    });
    byId("plate").append(plateFor(itemId));
    setText(byId("lot-id"), itemId);
    setText(byId("name"), itemId);
    byId("who-may-bid").href = `/selling?lot=${encodeURIComponent(itemId)}`;
  }

  async open() {
    const basePromise = feedBase();
    basePromise.catch(() => {}); // Handled below; without this a failure would be reported as unhandled.
    if (!(await this.#loadItem())) return;
    showPhotos(this.#terms);
    this.#draw();
    byId("lot").hidden = false;
    byId("loading").hidden = true;
    this.history.load(this.#register.state);
    this.form.resume();
    setInterval(() => this.#tick(), TICK_MS);
    setInterval(() => !document.hidden && this.history.draw(), CHART_EVERY_MS);
    document.addEventListener("visibilitychange", () => !document.hidden && this.refresh());
    await this.#follow(basePromise);
  }

  #prepareWatching() {
    const button = byId("watch");
    const show = () => button.setAttribute("aria-pressed", String(isWatched(this.itemId)));
    let isBusy = false;
    button.addEventListener("click", async () => {
      if (isBusy) return;
      isBusy = true;
      const isOn = button.getAttribute("aria-pressed") !== "true";
      try {
        await setWatched(this.itemId, isOn);
        setText(byId("watch-note"), "");
        show();
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        setText(byId("watch-note"), `Your watch list stays as it was. ${sentence(error.message)}`);
      } finally {
        isBusy = false;
      }
    });
    onWatched(() => {
      show();
      this.#followOthers();
    });
    const read = () =>
      readWatched().then(show, (error) => {
        if (!(error instanceof ApiError)) throw error;
        setText(byId("watch-note"), `Your watch list could not be read. ${sentence(error.message)}`);
      });
    onSession(() => {
      setText(byId("watch-note"), "");
      read();
    });
    show();
    read();
    mountTakeOver();
    new NoticesButton(() => this.#followOthers());
  }

  /** Follows the other lots that concern this bidder, over the same connection. */
  #followOthers() {
    for (const id of this.outbid.items) this.#feed?.watch(id);
  }

  /** Retries until the item is read. False if there is no such item. */
  async #loadItem() {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const item = await getItem(this.itemId);
        this.#offer(stateOf(item));
        this.#terms = termsOf(item);
        return true;
      } catch (error) {
        if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429) {
          showMissing(error.status === 404 ? `No lot has the id “${this.itemId}”.` : error.message);
          return false;
        }
        const isLost = error.code === "BEING_REBUILT";
        setText(byId("loading"), isLost ? RESTORED : "The house does not answer yet. Trying again…");
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
    this.#feed = new Feed(base, {
      room: { itemId: this.itemId, since: replayFrom(this.#register.state) },
      userId: this.form.userId,
      onFrame: (frame) => this.#take(frame),
      onState: (state) => {
        this.link.state = state;
        if (state !== "live") this.#viewers = null;
        this.draw();
        // Without the feed, each attempt to reconnect also asks the API.
        if (state === "waiting") this.#refreshUnlessBack();
      },
      onStale: (isStale) => {
        this.link.isStale = isStale;
      },
    });
    this.#feed.start();
    this.#followOthers();
  }

  #offer(state) {
    const before = this.#register.state;
    if (this.#register.offer(state)) this.#circumstances.compare(before, this.#register.state);
    this.outbid.meet(this.itemId, state);
  }

  #take(frame) {
    this.outbid.take(frame);
    if (frame.item_id !== undefined && frame.item_id !== this.itemId) return;
    if (frame.type === "error" && frame.code === "BEING_REBUILT") this.#isRestored = true;
    if (frame.type === "viewers") this.#viewers = { count: frame.viewers, isExact: frame.exact !== false };
    if (frame.type === "standing") this.#hear(frame);
    const isOwn = frame.type === "voided" && this.history.isOwnBid(frame.bid_id);
    this.struck.take(frame, isOwn || (frame.user_id === this.#self && frame.user_id !== ""));
    if (["viewers", "standing", "struck"].includes(frame.type)) this.draw();
    const state = stateOf(frame);
    if (state === null) return;
    this.#isRestored = false;
    this.#circumstances.take(frame);
    // A maximum goes with its bid, and an earlier one may come back. Where the private channel tells maxima, it tells
    // which one stands now; elsewhere that is unknown, so none is shown.
    if (isOwn && typeof this.#toldStanding?.your_maximum !== "number") forgetMaximum(this.itemId, this.form.userId);
    this.#offer(state);
    this.history.take(frame, state);
    if (frame.type === "bid") this.form.heard(frame);
    this.draw();
  }

  /** Takes a standing of the private channel; with the bidder's own maximum, where the house allows it. */
  #hear(frame) {
    if (learnAlias(this.itemId, this.form.userId, frame.alias)) this.history.meetSelf(frame.alias);
    const known = this.#toldStanding;
    this.#toldStanding = newerStanding(known, frame);
    if (this.#toldStanding !== frame) return;
    if (typeof frame.your_maximum === "number") rememberStake(this.itemId, this.form.userId, frame.your_maximum);
    // A maximum was told before, and none now: it was struck together with its bid.
    else if (typeof known?.your_maximum === "number") forgetMaximum(this.itemId, this.form.userId);
  }

  /** All pages lose the feed together: they ask at random times, and those that have it back do not ask. */
  async #refreshUnlessBack() {
    await pause(Math.random() * ASKED_JITTER_MS);
    if (!this.link.isLive) this.refresh();
  }

  /** Asks the API once: after a bid, when the page becomes visible, and when the feed could not be reached. */
  async refresh() {
    const item = await getItem(this.itemId).catch(() => null);
    const state = stateOf(item);
    if (state === null) return;
    this.#offer(state);
    this.draw();
    await pause(DEAF_AFTER_MS);
    const heard = this.#feed?.version ?? null;
    if (heard !== null && compareVersions(state, heard) <= 0) return;
    // The feed is down or silent: read the history from the API, and replace a connection that only seems alive.
    this.history.catchUp(state);
    if (this.link.isLive) this.#feed.restart();
  }

  /** Who the bidder is in the public state: "" while that is not known. */
  get #self() {
    return publicSelf(this.itemId, this.form.userId);
  }

  /** Why this person may not bid at all, in words; null where they may. */
  get #barred() {
    if (mayBe("bidder")) return null;
    if (session() === null) return "Sign in to bid on this lot.";
    const seller = this.#now.seller_id;
    if (seller && seller === this.form.userId) return "This is your own lot: others bid here, you cannot.";
    return "Your account may not bid. Please ask the house.";
  }

  get #now() {
    return { ...this.#terms, ...this.#register.state };
  }

  #draw() {
    const item = this.#now;
    const user = this.form.userId;
    const me = this.#self;
    const currency = item.currency ?? "USD";
    const money = (amount) => formatMoney(amount, currency);
    const name = item.name || this.itemId;
    setText(byId("name"), name);
    setText(byId("description"), item.description ?? "");
    byId("description").hidden = !item.description;
    byId("who-may-bid").hidden = !item.seller_id || item.seller_id !== user || !mayBe("seller");
    const stake = stakeOf(this.itemId, user);
    const standing = standingOf(item, { me, stake, told: this.#toldStanding });
    document.title = `${TITLE_MARKS[standing] ?? ""}${money(shownPrice(item))} · ${isolated(name)}`;
    if (item.highest_bidder_id === me) this.history.meetSelf(item.highest_bidder);
    this.panel.draw(item, {
      user,
      me,
      barred: this.#barred,
      money,
      standing,
      max: stake?.max ?? null,
      viewers: this.#viewers,
      circumstances: this.#circumstances,
      isOwn: (alias) => this.history.isOwn(alias),
    });
    this.struck.draw(money);
    this.form.update(item, currency);
    this.history.currency = currency;
    this.history.isRunning = item.status === "open";
    this.#tick();
    this.#tell(item, { me, standing, money });
  }

  #drawLink() {
    const note = this.#isRestored ? RESTORED : isFinalStatus(this.#now.status) ? "" : this.link.note;
    byId("link-note").hidden = note === "";
    setText(byId("link-note"), note);
  }

  /** Runs the clock. If an opening or a close is overdue, the feed may have failed: ask the API. */
  #tick() {
    const item = this.#now;
    this.#drawLink();
    const nextMs = this.countdown.draw(item, this.#circumstances);
    this.panel.drawFall(item, this.#circumstances);
    for (const [leftMs, words] of item.status === "open" ? WARNINGS : []) {
      if (this.#nextMs > leftMs && nextMs <= leftMs) this.announce(words, { atOnce: true });
    }
    this.#nextMs = nextMs;
    const isOverdue = nextMs !== null && nextMs < -OVERDUE_MS;
    const isBehind = (this.link.isStale || this.link.isEnded) && !document.hidden;
    const everyMs = isOverdue ? OVERDUE_EVERY_MS : STALE_EVERY_MS;
    if (!(isOverdue || isBehind) || performance.now() - this.#askedMs < everyMs) return;
    this.#askedMs = performance.now() + Math.random() * ASKED_JITTER_MS;
    this.refresh();
  }

  /** Tells screen readers and the form what changed since the last call. What concerns the bidder is urgent. */
  #tell(item, { me, standing, money }) {
    const { status, current_bid: price, highest_bidder_id: leader } = item;
    const before = this.#told;
    this.#told = { status, price, leader, standing };
    if (before === null) return;
    const now = money(shownPrice(item));
    if (status !== before.status) {
      if (isFinalStatus(status)) this.form.ended();
      const label = (STATUS_LABELS[status] ?? status ?? "").toLowerCase();
      this.announce(`The lot is now ${label}, at ${now}.`, { atOnce: true });
    } else if (price !== before.price || leader !== before.leader) {
      const fell = price < before.price ? " A bid was voided." : "";
      const who = leader === me ? "You lead" : `${nameFor(me, item.highest_bidder, leader) ?? "Nobody"} leads`;
      this.announce(`${now}. ${who}, ${item.bid_count} ${item.bid_count === 1 ? "bid" : "bids"}.${fell}`);
    }
    if (standing === before.standing) return;
    const urgent = { outbid: `You were outbid. The price is ${now}.`, won: `You won this lot, at ${now}.` };
    setText(byId("alert"), urgent[standing] ?? "");
  }
}

function showMissing(reason) {
  byId("loading").hidden = true;
  byId("lot").hidden = true;
  byId("missing").hidden = false;
  byId("connection").hidden = true;
  setText(byId("missing-reason"), sentence(reason));
  document.title = "No such lot";
}

/** The item id in the address, or null. The server has checked it; it is checked here too. */
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
mountAccount();
