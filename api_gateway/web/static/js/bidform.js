// The bid form: prefilled with the least that counts, and honest about what became of a bid.

import { findVerdict, placeBid } from "./api.js";
import { isUserId, newBidId, rememberOwnBid, rememberUserId, userId } from "./bidder.js";
import { byId, element, sentence, setText } from "./dom.js";
import { decimalsOf, formatMoney, inputText, minorUnits, parseAmount, symbolOf } from "./money.js";

// An amount that the page itself changed less than this ago was perhaps not the one that the bidder meant to press.
const JUST_MOVED_MS = 600;
const SUGGESTIONS_MAX = 3;

const REFUSALS = {
  NOT_STARTED: "The bidding has not opened yet.",
  CLOSED: "The bidding has closed.",
  SOLD: "This lot has been sold.",
  PAUSED: "The bidding is paused. Your bid was not taken.",
  CANCELLED: "This lot was withdrawn.",
  OWN_ITEM: "Sellers cannot bid on their own lot.",
  BIDDER_BLOCKED: "This bidder may not bid on this lot.",
  MAX_NOT_RAISED: "You lead already, with a maximum at least as high.",
  NOT_APPROVED: "This lot asks for approval before the first bid.",
};

export class BidForm {
  #currency = "USD";
  #minimum = null;
  #touched = false; // The amount is the bidder's own: it no longer follows the price.
  #movedAtMs = -Infinity;
  #underWay = null; // The bid whose outcome is being waited for.
  #seen = () => {}; // Settles it when the feed shows it.
  #tone = null;
  #state = null;
  #acceptedSeq = Infinity; // Of the bid that the message is about.

  /** `onSettled()` runs after each attempt, `onBidder(userId)` when the bidder changes. */
  constructor(itemId, { onSettled, onBidder }) {
    this.itemId = itemId;
    this.onSettled = onSettled;
    this.onBidder = onBidder;
    this.pendingKey = `bidding.pending.${itemId}`;
    this.form = byId("bid-form");
    this.amount = byId("amount");
    this.bidder = byId("user-id");
    this.button = byId("bid-button");
    this.bidder.value = userId();
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.amount.addEventListener("input", () => {
      this.#touched = this.amount.value.trim() !== "";
      this.#describe();
    });
    this.amount.addEventListener("blur", () => {
      if (!this.#touched) this.#follow();
    });
    this.bidder.addEventListener("change", () => this.#bidderChanged());
    this.bidder.addEventListener("input", () => this.#fitBidder());
    this.#fitBidder();
  }

  get userId() {
    return this.bidder.value.trim();
  }

  /** Shows the newest state of the item. */
  update(state, currency) {
    const first = this.#minimum === null;
    this.#state = state;
    this.#currency = currency;
    this.#minimum = typeof state.min_next_bid === "number" ? state.min_next_bid : null;
    setText(byId("symbol"), symbolOf(currency));
    this.amount.inputMode = decimalsOf(currency) === 0 ? "numeric" : "decimal";
    if (!this.#touched) this.#follow(first);
    this.#suggest(state);
    this.#describe();
    if (this.#tone === "good") this.#checkLead();
  }

  /** Takes a bid of the feed: where it is ours and still under way, it was accepted, whatever became of the answer. */
  heard(frame) {
    if (this.#underWay !== null && frame.bid_id === this.#underWay.bid_id && frame.kind !== "proxy") this.#seen(frame);
  }

  /** After the end, a message about an accepted bid says nothing that the result does not; a refusal stays. */
  ended() {
    if (this.#tone === "good" || this.#tone === "warn") this.#say(null, "");
  }

  /** A bid that was under way when the page was left: looks up what became of it. */
  async resume() {
    const bid = this.#pending();
    if (bid === null) return;
    try {
      const verdict = await findVerdict(this.itemId, bid);
      this.#setPending(null);
      if (verdict !== null) this.#settle(verdict, bid);
      else this.#say("warn", `Your bid of ${this.#money(bid.amount)} did not arrive before you left the page.`);
    } catch {
      this.#say("warn", `We could not look up your bid of ${this.#money(bid.amount)} yet.`, {
        label: "Look again",
        run: () => this.resume(),
      });
    }
  }

  /** Tells that somebody else leads now, unless a bid is under way: its own outcome comes first. */
  outbid() {
    if (this.#underWay === null) this.#say("warn", "You have been outbid.");
  }

  /** An "accepted" must not stand there once somebody else leads, also where both came in the same moment. */
  #checkLead() {
    const { highest_bidder_id: leader, seq } = this.#state;
    if (leader && leader !== this.userId && seq > this.#acceptedSeq) this.outbid();
  }

  #money(amount) {
    return formatMoney(amount, this.#currency);
  }

  /** Puts the minimum into the field, unless the bidder is typing there. */
  #follow(first = false) {
    if (this.#minimum === null) return;
    const text = inputText(this.#minimum, this.#currency);
    if (this.amount.value === text) return;
    this.amount.value = text;
    if (!first) this.#movedAtMs = performance.now();
  }

  #choose(amount) {
    this.amount.value = inputText(amount, this.#currency);
    this.#touched = true;
    this.#describe();
    this.button.focus();
  }

  /** The item's own suggestions, or the minimum and steps of the same size: any amount from the minimum on is valid. */
  #offers({ suggested_bids: suggested, current_bid: current, bid_count: bids }) {
    if (Array.isArray(suggested) && suggested.length > 0) return suggested.slice(0, SUGGESTIONS_MAX);
    if (this.#minimum === null) return [];
    const least = minorUnits(this.#minimum, this.#currency);
    const step = bids > 0 ? least - minorUnits(current, this.#currency) : 0;
    if (step <= 0) return [this.#minimum];
    const scale = 10 ** decimalsOf(this.#currency);
    return Array.from({ length: SUGGESTIONS_MAX }, (_unused, index) => (least + index * step) / scale);
  }

  #suggest(state) {
    const offers = this.#offers(state);
    const box = byId("suggestions");
    // The buttons are kept and relabelled, so that one which holds the focus does not lose it to every new price.
    while (box.children.length > offers.length) box.lastElementChild.remove();
    while (box.children.length < offers.length) box.append(element("button", { type: "button", class: "chip" }));
    offers.forEach((amount, index) => {
      const button = box.children[index];
      setText(button, this.#money(amount));
      button.onclick = () => this.#choose(amount);
    });
  }

  /** The line under the field and the words on the button. */
  #describe() {
    const amount = parseAmount(this.amount.value, this.#currency);
    const low =
      amount !== null && this.#minimum !== null &&
      minorUnits(amount, this.#currency) < minorUnits(this.#minimum, this.#currency);
    const unclear = this.#touched && amount === null;
    this.amount.setAttribute("aria-invalid", String(low || unclear));
    const example = inputText(1234 + (decimalsOf(this.#currency) > 0 ? 0.5 : 0), this.#currency);
    const least = `Minimum next bid ${this.#money(this.#minimum)}`;
    const hint = byId("amount-hint");
    setText(hint, unclear ? `Please write the amount like ${example}.` : low ? `Too low. ${least}.` : least);
    hint.classList.toggle("is-bad", low || unclear);
    if (this.#underWay === null) setText(this.button, amount === null ? "Place bid" : `Bid ${this.#money(amount)}`);
  }

  #fitBidder() {
    this.bidder.size = Math.min(28, Math.max(8, this.bidder.value.length));
  }

  #bidderChanged() {
    const valid = isUserId(this.userId);
    this.bidder.setAttribute("aria-invalid", String(!valid));
    setText(byId("user-hint"), valid ? "" : "Use 1 to 64 letters, digits, or . _ - @");
    if (!valid) return;
    rememberUserId(this.userId);
    this.onBidder(this.userId);
  }

  #submit() {
    if (this.#underWay !== null) return;
    this.#bidderChanged();
    if (!isUserId(this.userId)) {
      this.bidder.focus();
      return;
    }
    const amount = parseAmount(this.amount.value, this.#currency);
    if (amount === null) {
      this.#touched = true;
      this.#describe();
      this.amount.focus();
      return;
    }
    if (!this.#touched && performance.now() - this.#movedAtMs < JUST_MOVED_MS) {
      this.#touched = true; // Hold it still: the second press bids exactly what is shown now.
      this.#say("warn", `The price has just moved. Press again to bid ${this.#money(amount)}.`);
      return;
    }
    this.#send({ user_id: this.userId, amount, bid_id: newBidId() });
  }

  /** Sends `bid` until its outcome is known. The same object again, with the same bid id, cannot count twice. */
  async #send(bid) {
    this.#setUnderWay(bid);
    setText(this.button, "Placing your bid…");
    this.#say(null, "");
    this.#setPending(bid);
    rememberOwnBid(bid.bid_id);
    const answer = placeBid(this.itemId, bid, () => {
      if (this.#underWay !== bid) return;
      setText(this.button, "Checking…");
      this.#say("wait", "No answer yet. We are asking again with the same bid, so it cannot count twice.");
    });
    const seen = new Promise((resolve) => {
      this.#seen = ({ highest_bidder_id: leader, seq }) =>
        resolve({ success: true, is_highest: leader === bid.user_id, seq });
    });
    try {
      const verdict = await Promise.race([answer, seen]);
      this.#setUnderWay(null);
      this.#setPending(null);
      this.#settle(verdict, bid);
      answer.catch(() => {}); // The feed was faster; what the answer would have said is known.
    } catch (error) {
      this.#setUnderWay(null);
      this.#failed(error, bid);
    }
    this.#describe();
    this.onSettled();
  }

  #settle(verdict, bid) {
    if (verdict.success) {
      this.#touched = false;
      this.#follow(true);
      const beaten = verdict.is_highest === false;
      const text = beaten
        ? `Your bid of ${this.#money(bid.amount)} was accepted, but another bidder's maximum is higher.`
        : `Your bid of ${this.#money(bid.amount)} was accepted.`;
      this.#acceptedSeq = verdict.seq ?? Infinity;
      this.#say(beaten ? "warn" : "good", text);
      if (!beaten) this.#checkLead();
      return;
    }
    if (verdict.code === "TOO_LOW" && typeof verdict.min_next_bid === "number") {
      const least = verdict.min_next_bid;
      this.#say("bad", `${this.#money(bid.amount)} is too low. The minimum is now ${this.#money(least)}.`, {
        label: `Set ${this.#money(least)}`,
        run: () => this.#choose(least),
      });
      return;
    }
    this.#say("bad", REFUSALS[verdict.code] ?? verdict.message ?? "The bid was refused.");
  }

  #failed(error, bid) {
    if (error.outcomeUnknown) {
      this.#say(
        "bad",
        "We still do not know whether your bid arrived. Trying again sends the same bid; it cannot count twice.",
        { label: "Try again", run: () => this.#underWay === null && this.#send(bid) },
      );
      return;
    }
    this.#setPending(null);
    const wait = error.retryAfterMs > 0 ? ` Please wait ${Math.ceil(error.retryAfterMs / 1000)} s.` : "";
    this.#say("bad", `Your bid was not taken. ${sentence(error.message ?? "")}${wait}`);
  }

  #setUnderWay(bid) {
    this.#underWay = bid;
    // aria-disabled keeps the focus where it is; a disabled button would drop it.
    this.button.setAttribute("aria-disabled", String(bid !== null));
  }

  #say(tone, text, action = null) {
    this.#tone = tone;
    const box = byId("verdict");
    box.className = tone ? `verdict is-${tone}` : "verdict";
    box.replaceChildren(...(text ? [element("p", {}, text)] : []));
    if (!action) return;
    const button = element("button", { type: "button", class: "button-quiet" }, action.label);
    button.addEventListener("click", action.run);
    box.append(button);
  }

  #pending() {
    try {
      const bid = JSON.parse(sessionStorage.getItem(this.pendingKey) ?? "null");
      return bid && typeof bid.bid_id === "string" ? bid : null;
    } catch {
      return null;
    }
  }

  #setPending(bid) {
    try {
      if (bid === null) sessionStorage.removeItem(this.pendingKey);
      else sessionStorage.setItem(this.pendingKey, JSON.stringify(bid));
    } catch {
      // Without storage a reload forgets the bid on its way; the history still shows it.
    }
  }
}
