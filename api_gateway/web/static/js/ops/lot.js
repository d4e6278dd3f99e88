// One lot, as operators see it: live, its bids with the names of the bidders, who may bid, what was done to it, and the
// buttons for that.

import { backoffMs } from "../feed/connection.js";
import { Register, stateOf } from "../feed/feed.js";
import { ApiError, auditOf, extend, getItem, namedBids, operate } from "../lib/api.js";
import { momentText, timeText } from "../lib/clock.js";
import { byId, element, isolated, oncePerFrame, sentence, setText } from "../lib/dom.js";
import { formatMoney } from "../lib/money.js";
import { STATUS_LABELS, endOf, isFinalStatus, shownPrice } from "../lib/status.js";
import { Bidders } from "../rulings/bidders.js";
import { LotPlace, whoMayBid } from "../rulings/places.js";

const BIDS_MAX = 50;
const AUDIT_MAX = 20;
const READ_EVERY_MS = 1500;
// After what lacks something, because the archive is away.
const PARTIAL_AGAIN_MS = 5000;
const ID = /^[A-Za-z0-9_-]{1,64}$/;
const DONE = { paused: "Paused", resumed: "Resumed", cancelled: "Withdrawn", voided: "Bid voided" };
const RULED = {
  approve: "Approved",
  unapprove: "Approval taken back",
  block: "Blocked",
  unblock: "Block taken back",
  unlimit: "Limit taken back",
};
const MINUTES_MAX = 30 * 24 * 60;
const MINUTES = { label: "By how many minutes?", parse: minutesOf, complaint: "Give whole minutes, such as 10." };

export class Lot {
  #id = null;
  #item = null;
  #register = new Register();
  #bids = [];
  #asked = 0; // Answers to older questions for a lot than the newest are not shown.
  #reading = null; // The newest reading of bids and audit that is under way; what older ones bring is not shown.
  #isDue = false; // Something has happened since it began, which it may lack.
  #failures = 0; // Of readings, in succession.
  #readMs = -Infinity;
  #timer = null;
  #place = new LotPlace();
  #asksApproval = false;
  #couldRule = false;

  /**
   * `onWatch(id, former)` runs when another lot is shown. `mayOperate()`: not only look. `houseAsks()`: all lots ask for
   * approval.
   */
  constructor({ confirmation, onWatch, mayOperate, houseAsks }) {
    this.confirmation = confirmation;
    this.onWatch = onWatch;
    this.mayOperate = mayOperate;
    this.houseAsks = houseAsks;
    this.draw = oncePerFrame(() => this.#draw());
    this.bidders = new Bidders(byId("lot-bidders"), {
      name: "lot-bidder",
      where: "on the lot",
      level: "h5",
      place: this.#place,
      confirmation,
      mayRule: () => this.#mayRule(),
      onTold: (page) => {
        this.#asksApproval = page.approval_required;
        this.#drawBids();
        this.draw();
        // After a ruling no frame comes, and it stands among what was done.
        this.#readSoon();
      },
    });
    byId("find-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.open(byId("find").value.trim());
    });
    const questions = {
      pause: ["Pause the bidding?", "Nobody can bid until it is resumed; the remaining time is kept.", "Pause"],
      resume: ["Resume the bidding?", "The end moves by the length of the pause.", "Resume"],
      cancel: ["Withdraw the lot?", "This is final: the bidding ends, and nobody wins.", "Withdraw"],
    };
    byId("extend").addEventListener("click", () => this.#askExtend());
    for (const [operation, [title, words, yes]] of Object.entries(questions)) {
      const question = { title, words, yes, isDanger: operation === "cancel" };
      byId(operation).addEventListener("click", () => this.#ask(question, operation));
    }
  }

  async open(id) {
    this.#asked += 1;
    const asked = this.#asked;
    setText(byId("find-error"), "");
    if (!ID.test(id)) {
      setText(byId("find-error"), "An id has 1 to 64 letters, digits, hyphens or underscores.");
      byId("find").focus();
      return;
    }
    try {
      const item = await getItem(id);
      if (asked !== this.#asked) return;
      const former = this.#id;
      this.#id = id;
      this.#item = item;
      this.#register = new Register();
      this.#register.offer(stateOf(item));
      this.#place.item = { id, currency: item.currency };
      this.#bids = [];
      this.#asksApproval = item.approval_required ?? false;
      byId("find").value = id;
      byId("bids").replaceChildren();
      byId("audit").replaceChildren();
      setText(byId("done"), "");
      history.replaceState(null, "", `/ops?lot=${encodeURIComponent(id)}`);
      this.onWatch(id, former);
      this.draw();
      await Promise.all([this.#read(), this.bidders.restart()]);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (asked === this.#asked) setText(byId("find-error"), error.status === 404 ? `No lot has the id “${id}”.` : sentence(error.message));
    }
  }

  /** Shows no lot any more, and forgets whose bids it had. */
  close() {
    this.#asked += 1;
    this.#id = null;
    this.#item = null;
    this.#bids = [];
    this.#reading = null;
    clearTimeout(this.#timer);
    this.#timer = null;
    byId("lot").hidden = true;
    for (const part of ["bids", "audit"]) byId(part).replaceChildren();
    this.bidders.forget();
    setText(byId("lot-leader"), "—");
  }

  /** Takes a frame of the feed. */
  take(frame) {
    if (this.#id === null || frame.item_id !== this.#id || !this.#register.offer(stateOf(frame))) return;
    this.draw();
    this.#readSoon();
  }

  /** Whether all lots ask for approval is known anew. */
  asked() {
    if (this.#id === null) return;
    this.draw();
    this.bidders.refresh();
  }

  /** Asks before an operation, about the lot that is shown now: while the dialog is open another one may come. */
  #ask(question, operation) {
    this.#askAnd(question, (id, reason) => operate(id, operation, reason));
  }

  #askExtend() {
    const { status } = this.#now;
    const words =
      `${status === "paused" ? "The remaining time grows by this length." : `It closes on ${momentText(endOf(this.#now))}.`} ` +
      "The end can only move later, by 30 days in all.";
    // Sent again after no answer, it is the same request.
    const key = crypto.getRandomValues(new Uint32Array(4)).join("-");
    this.#askAnd({ title: "Move the end?", words, yes: "Move the end", amount: MINUTES }, (id, reason, minutes) =>
      extend(id, minutes * 60, reason, `${key}-${minutes}`),
    );
  }

  #askAnd(question, run) {
    const id = this.#id;
    const { name } = this.#now;
    const words = `The lot is ${name ? `“${isolated(name)}” (${id})` : id}. ${question.words}`;
    this.confirmation.ask({ ...question, words }, (reason, amount) => this.#did(id, run(id, reason, amount)));
  }

  async #did(id, answer) {
    const item = await answer;
    if (id !== this.#id) return;
    this.#register.offer(stateOf(item));
    setText(byId("done"), "Done, and noted in your name.");
    this.draw();
    // However long the next reading would wait after one that failed.
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#readSoon();
  }

  /** Reads bids and audit, but not for every frame of a busy lot, and not twice at a time. */
  #readSoon(leastMs = 250) {
    this.#isDue = true;
    if (this.#reading !== null || this.#timer !== null) return;
    const waitMs = Math.max(leastMs, this.#readMs + READ_EVERY_MS - performance.now());
    this.#timer = setTimeout(() => this.#read(), waitMs);
  }

  /** What happens meanwhile is read afterwards, and so is what could not be read. */
  async #read() {
    const id = this.#id;
    const reading = {};
    this.#reading = reading;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#isDue = false;
    this.#readMs = performance.now();
    // Each by itself: the rulings of a lot can be read even if only its export has its bids.
    const [page, audit] = await Promise.allSettled([namedBids(id, BIDS_MAX), auditOf(id, AUDIT_MAX)]);
    if (reading !== this.#reading) return; // Another lot is shown, or none.
    if (page.status === "fulfilled") this.#bids = page.value.bids;
    setText(byId("bids-note"), noteOf(page, audit));
    this.#drawBids();
    if (audit.status === "fulfilled") this.#drawAudit(audit.value);
    const againMs = this.#againMs([page, audit]);
    this.#reading = null;
    if (this.#isDue || againMs !== undefined) this.#readSoon(againMs);
    this.draw();
  }

  /** After how long to read again, if an answer failed for now or lacks something; else undefined. */
  #againMs(answers) {
    const passing = answers.map(({ reason }) => reason).filter((error) => error instanceof ApiError && (error.passing || error.status === 429));
    if (passing.length > 0) {
      const waitMs = Math.max(backoffMs(this.#failures), ...passing.map(({ retryAfterMs }) => retryAfterMs));
      this.#failures += 1;
      return waitMs;
    }
    this.#failures = 0;
    return answers.some(({ value }) => value?.partial) ? PARTIAL_AGAIN_MS : undefined;
  }

  /** After the end nothing is decided by it any more. */
  #mayRule() {
    return this.mayOperate() && !isFinalStatus(this.#now.status);
  }

  get #now() {
    return { ...this.#item, ...this.#register.state };
  }

  #money(amount) {
    return formatMoney(amount, this.#item.currency ?? "USD");
  }

  #draw() {
    if (this.#id === null) return; // It was closed meanwhile.
    const item = this.#now;
    byId("lot").hidden = false;
    setText(byId("lot-name"), item.name || this.#id);
    setText(byId("lot-status"), STATUS_LABELS[item.status] ?? item.status);
    byId("lot-status").dataset.status = item.status;
    setText(byId("lot-price"), this.#money(shownPrice(item)));
    setText(byId("lot-leader"), this.#leaderText(item));
    setText(byId("lot-bids"), (item.bid_count ?? 0).toLocaleString());
    const end = endOf(item);
    setText(byId("lot-end"), end === null ? "Never" : momentText(end));
    byId("lot-link").href = `/items/${encodeURIComponent(this.#id)}`;
    const may = this.mayOperate();
    const isOver = isFinalStatus(item.status);
    byId("pause").hidden = !may || item.status !== "open";
    byId("resume").hidden = !may || item.status !== "paused";
    byId("extend").hidden = !may || isOver || end === null;
    byId("cancel").hidden = !may || isOver;
    this.#drawWho(isOver);
  }

  #drawWho(isOver) {
    setText(byId("who-words"), whoMayBid({ isOver, asks: this.#asksApproval, houseAsks: this.houseAsks() }));
    if (this.#couldRule === this.#mayRule()) return;
    this.#couldRule = this.#mayRule();
    this.bidders.draw();
    this.#drawBids();
  }

  /** The leader's name, where a bid that was read tells it; else the alias. */
  #leaderText(item) {
    if (!item.highest_bidder) return "Nobody";
    const named = this.#bids.find(({ bidder }) => bidder === item.highest_bidder);
    return named === undefined ? item.highest_bidder : named.user_id;
  }

  #drawBids() {
    const rows = byId("bids");
    const focused = rows.contains(document.activeElement) ? document.activeElement.dataset.does : null;
    rows.replaceChildren(...this.#bids.map((bid) => this.#bidRow(bid)));
    if (focused !== null) rows.querySelector(`[data-does="${CSS.escape(focused)}"]`)?.focus();
  }

  #bidRow(bid) {
    const marks = [];
    if (bid.kind === "proxy") marks.push("Automatic");
    if (bid.kind === "buy_now") marks.push("Bought now");
    if (bid.status === "voided") marks.push("Void");
    if (bid.status === "repriced") marks.push("Stands at another price");
    const isBlocked = this.bidders.isBlocked(bid.user_id);
    if (isBlocked) marks.push("Blocked");
    const last = element("div", { class: "does" });
    if (this.#mayRule() && !isBlocked) {
      last.append(rowButton("Block", `Block ${bid.user_id}, who bid ${this.#money(bid.amount)}`, `block ${bid.bid_id}`, () => this.bidders.ask("block", bid.user_id)));
    }
    if (this.mayOperate() && bid.kind !== "proxy" && bid.status !== "voided" && this.#now.status !== "cancelled") {
      last.append(rowButton("Void", `Void the bid of ${this.#money(bid.amount)} by ${bid.user_id}`, `void ${bid.bid_id}`, () => this.#askVoid(bid)));
    }
    return element(
      "tr",
      { class: bid.status === "voided" ? "is-struck" : null },
      element("td", { class: "who" }, element("span", { class: "name" }, bid.user_id), ...marks.map((mark) => element("span", { class: "tag" }, mark))),
      element("td", { class: "alias" }, bid.bidder),
      element("td", { class: "amount" }, this.#money(bid.amount)),
      element("td", { class: "when" }, element("time", { datetime: bid.timestamp }, timeText(Date.parse(bid.timestamp)))),
      element("td", {}, last),
    );
  }

  #askVoid(bid) {
    const words =
      `${bid.user_id} bid ${this.#money(bid.amount)}. The lot becomes what its other bids make it: the price may fall, and somebody else may lead. ` +
      "After the close nobody wins.";
    const question = { title: "Void this bid?", words, yes: "Void the bid", isDanger: true };
    this.#ask(question, `bids/${encodeURIComponent(bid.bid_id)}/void`);
  }

  #drawAudit({ operations, rulings }) {
    const done = operations.map(({ type, bid_id: whom, end_time: moved, ...rest }) => ({ ...rest, what: doneText(type, moved), whom }));
    const ruled = rulings.map(({ ruling, amount, user_id: whom, ...rest }) => ({
      ...rest,
      what: amount === null ? (RULED[ruling] ?? ruling) : `Limited to ${this.#money(amount)}`,
      whom,
    }));
    const all = [...done, ...ruled].sort((one, other) => Date.parse(other.at) - Date.parse(one.at));
    byId("audit-part").hidden = all.length === 0;
    byId("audit").replaceChildren(
      ...all.map(({ what, whom, by, reason, at }) =>
        element(
          "tr",
          {},
          element("td", {}, what, whom === null ? null : element("span", { class: "lot-id" }, ` ${whom}`)),
          element("td", {}, by ?? "—"),
          element("td", { class: "detail", dir: "auto" }, reason ?? ""),
          element("td", { class: "when" }, element("time", { datetime: at }, timeText(Date.parse(at)))),
        ),
      ),
    );
  }
}

/** What is to be said beside the bids, from how reading them and the audit has ended. */
function noteOf(page, audit) {
  if (page.status === "rejected") return `The bids could not be read. ${sentence(page.reason.message)}`;
  if (audit.status === "rejected") return `What was done could not be read. ${sentence(audit.reason.message)}`;
  return page.value.partial || audit.value.partial ? "What is older cannot be read at the moment." : "";
}

function doneText(type, moved) {
  if (type === "end_moved") return `End moved to ${momentText(Date.parse(moved))}`;
  return DONE[type] ?? type;
}

/** Whole minutes above 0, up to 30 days of them; else null. */
function minutesOf(text) {
  const minutes = /^\d{1,5}$/.test(text.trim()) ? Number(text) : 0;
  return minutes > 0 && minutes <= MINUTES_MAX ? minutes : null;
}

/** `does`: by which the button is found again when its row is drawn anew. */
function rowButton(text, label, does, onClick) {
  const button = element("button", { type: "button", class: "button-quiet is-small", "data-does": does, "aria-label": label }, text);
  button.addEventListener("click", onClick);
  return button;
}
