// The bid form: a bid, a maximum or buy-now; and what became of it.

import { isUserId, newBidId, rememberOwnBid, rememberUserId, userId } from "../bidder/bidder.js";
import { rememberStake, stakeOf } from "../bidder/stakes.js";
import { findVerdict, pause, placeBid } from "../lib/api.js";
import { byId, setText } from "../lib/dom.js";
import { decimalsOf, formatMoney, inputText, minorUnits, parseAmount, symbolOf } from "../lib/money.js";
import { buyNowOffered, isFinalStatus } from "../lib/status.js";
import { MessageBox } from "./message.js";
import { Pending } from "./pending.js";
import { QuickBids } from "./quickbids.js";
import { isMaximum, nameOfBid, wordsForFailure, wordsForVerdict } from "./verdicts.js";

// If the page changed an amount less than this ago, the bidder may have meant to press the one before.
const JUST_MOVED_MS = 600;
// How long to wait for the answer after the feed has shown the bid; the feed does not have the whole verdict.
const ANSWER_BEHIND_MS = 1500;
// How long a bid may still be in flight after its page was left.
const ON_ITS_WAY_MS = 2000;
const SUGGESTIONS_MAX = 3;

export class BidForm {
  #currency = "USD";
  #minimum = null;
  #touched = false; // The bidder chose the amount: it no longer follows the price.
  #movedAtMs = -Infinity;
  #acceptedAtMs = -Infinity;
  #underWay = null; // The attempt whose outcome is awaited.
  #seen = () => {}; // Called when the feed shows that attempt.
  #state = null;
  #accepted = null; // The verdict that a good message is about.

  /** `onSettled()` runs after each attempt, `onBidder(userId)` when the bidder changes. */
  constructor(itemId, { onSettled, onBidder }) {
    this.itemId = itemId;
    this.onSettled = onSettled;
    this.onBidder = onBidder;
    this.pending = new Pending(itemId);
    this.form = byId("bid-form");
    this.amount = byId("amount");
    this.bidder = byId("user-id");
    this.button = byId("bid-button");
    this.buyButton = byId("buy-now");
    this.message = new MessageBox(this.button);
    this.quick = new QuickBids(this.button, (amount) => this.#quickBid(amount));
    this.bidder.value = userId();
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    for (const choice of this.form.elements.mode) choice.addEventListener("change", () => this.#modeChanged());
    this.amount.addEventListener("input", () => {
      this.#touched = this.amount.value.trim() !== "";
      this.#describe();
    });
    this.amount.addEventListener("blur", () => {
      if (!this.#touched) this.#follow();
    });
    this.buyButton.addEventListener("click", () => this.#confirmBuying(this.#state.buy_now_price));
    // A key that is held down presses once: a repetition would be another bid.
    byId("panel").addEventListener("keydown", (event) => event.repeat && event.key === "Enter" && event.preventDefault());
    this.bidder.addEventListener("change", () => this.#bidderChanged());
    this.bidder.addEventListener("input", () => this.#fitBidder());
    this.#fitBidder();
  }

  get userId() {
    return this.bidder.value.trim();
  }

  /** Shows the newest state of the item. */
  update(state, currency) {
    const first = this.#state === null;
    this.#state = state;
    this.#currency = currency;
    this.#minimum = typeof state.min_next_bid === "number" ? state.min_next_bid : null;
    setText(byId("symbol"), symbolOf(currency));
    this.amount.inputMode = decimalsOf(currency) === 0 ? "numeric" : "decimal";
    if (!this.#touched) this.#follow(first);
    this.#suggest();
    this.#describe();
    const offered = buyNowOffered(state) && state.status === "open";
    if (!offered && document.activeElement === this.buyButton) this.button.focus();
    this.buyButton.hidden = !offered;
    if (offered) setText(this.buyButton, `Buy now for ${this.#money(state.buy_now_price)}`);
    if (this.message.tone === "good" && this.#isOutdated()) this.message.clear();
  }

  /** Takes a bid from the feed: if it is ours and still unanswered, it was accepted. */
  heard(frame) {
    if (this.#underWay !== null && frame.bid_id === this.#underWay.bid.bid_id) this.#seen(frame);
  }

  /** At the end, the result replaces a message about an accepted bid; a refusal stays. */
  ended() {
    if (this.message.tone === "good" || this.message.tone === "warn") this.message.clear();
  }

  /** Looks up what became of a bid that was unanswered when the page was left. */
  async resume() {
    const attempt = this.pending.get();
    if (attempt === null) return;
    const named = nameOfBid(attempt.bid, (amount) => this.#money(amount));
    let verdict = null;
    try {
      verdict = await findVerdict(this.itemId, attempt.bid);
      if (verdict === null && this.pending.holds(attempt)) {
        this.message.say("wait", `${named} was on its way when you left the page. We are looking up what became of it.`);
        await pause(ON_ITS_WAY_MS);
        verdict = await findVerdict(this.itemId, attempt.bid);
      }
    } catch {
      const again = { label: "Look again", run: () => this.resume() };
      const text = `${named} was sent before you left the page. We could not look it up yet.`;
      if (this.pending.holds(attempt)) this.message.say("warn", text, [again]);
      return;
    }
    // The message of a bid that was placed meanwhile stays.
    if (!this.pending.holds(attempt)) return;
    this.pending.clear(attempt);
    if (verdict !== null) this.#settle(verdict, attempt);
    else this.message.say("warn", `${named} did not arrive before you left the page.`);
    this.onSettled();
  }

  get #leads() {
    return this.#state !== null && this.#state.highest_bidder_id === this.userId;
  }

  get #mode() {
    return this.form.elements.mode.value;
  }

  #money(amount) {
    return formatMoney(amount, this.#currency);
  }

  /**
   * Whether an "accepted" message is out of date: the price has moved, somebody else leads, or the auction is over. The
   * panel tells all of that.
   */
  #isOutdated() {
    const { highest_bidder_id: leader, seq, current_bid: price, status } = this.#state;
    if (isFinalStatus(status)) return true;
    if (this.#accepted === null || !(seq > this.#accepted.seq)) return false;
    return leader !== this.userId || price !== this.#accepted.current_bid;
  }

  /** Clears the amount: a maximum that was typed must never be sent as a bid. */
  #modeChanged() {
    this.#touched = false;
    const leaves = this.#mode === "max";
    byId("mode-note").hidden = !leaves;
    setText(byId("amount-label"), leaves ? "Your maximum" : "Your bid");
    if (leaves) this.amount.value = "";
    this.#follow(true);
    this.#suggest();
    this.#describe();
  }

  /** Puts the minimum into the field, unless the bidder has typed there or leaves a maximum. */
  #follow(first = false) {
    if (this.#minimum === null || this.#mode === "max") return;
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
  #offers() {
    const { suggested_bids: suggested, current_bid: current, highest_bidder_id: leader } = this.#state;
    // Leaders would bid against themselves: that needs more than one press.
    if (this.#minimum === null || this.#mode === "max" || this.#leads) return [];
    if (Array.isArray(suggested) && suggested.length > 0) return suggested.slice(0, SUGGESTIONS_MAX);
    const least = minorUnits(this.#minimum, this.#currency);
    const step = leader ? least - minorUnits(current, this.#currency) : 0;
    if (step <= 0) return [this.#minimum];
    const scale = 10 ** decimalsOf(this.#currency);
    return Array.from({ length: SUGGESTIONS_MAX }, (_unused, index) => (least + index * step) / scale);
  }

  #suggest() {
    this.quick.draw(this.#offers(), (amount) => this.#money(amount));
  }

  /** One press bids, unless the amounts have just moved. */
  #quickBid(amount) {
    if (this.#underWay !== null || !this.#bidderChanged()) return;
    if (performance.now() - this.quick.movedAtMs < JUST_MOVED_MS) {
      this.message.say("warn", `The price has just moved. Press again to bid ${this.#money(amount)}.`);
    } else if (this.#buys(amount)) {
      this.#confirmBuying(amount);
    } else {
      this.#send({ amount });
    }
  }

  /** The least valid amount: `{amount, above}`; `above`: it must be more than `amount`. */
  #least() {
    if (this.#mode === "bid" || !this.#leads) return { amount: this.#minimum, above: false };
    // Leaders raise their own maximum, which is never below the price.
    const known = stakeOf(this.itemId, this.userId)?.max ?? null;
    return { amount: Math.max(known ?? 0, this.#state.current_bid), above: true, own: known !== null };
  }

  #leastText({ amount, above, own }) {
    if (amount === null) return "";
    const said = this.#money(amount);
    if (this.#mode === "bid") {
      return this.#leads ? `You lead. Bidding against yourself takes ${said}` : `Minimum next bid ${said}`;
    }
    if (!above) return `At least ${said}`;
    return own ? `More than ${said}, your maximum so far` : `More than ${said}`;
  }

  /** The line under the field and the words on the button. */
  #describe() {
    const amount = parseAmount(this.amount.value, this.#currency);
    const least = this.#least();
    const units = (value) => minorUnits(value, this.#currency);
    const from = least.amount === null ? 0 : units(least.amount) + (least.above ? 1 : 0);
    const low = amount !== null && units(amount) < from;
    const unclear = this.#touched && amount === null;
    this.amount.setAttribute("aria-invalid", String(low || unclear));
    const example = inputText(1234 + (decimalsOf(this.#currency) > 0 ? 0.5 : 0), this.#currency);
    const hint = byId("amount-hint");
    const buys = !low && this.#buys(amount);
    if (unclear) setText(hint, `Please write the amount like ${example}.`);
    else if (low) setText(hint, `Too low. ${this.#leastText(least)}.`);
    else if (buys) setText(hint, "This reaches the buy-now price: the lot would be yours at once.");
    else setText(hint, this.#leastText(least));
    hint.classList.toggle("is-bad", low || unclear);
    if (this.#underWay === null) setText(this.button, this.#label(amount, buys));
  }

  #label(amount, buys) {
    if (buys) return `Buy now for ${this.#money(this.#state.buy_now_price)}`;
    if (this.#mode === "bid") return amount === null ? "Place bid" : `Bid ${this.#money(amount)}`;
    const words = this.#leads ? "Raise your maximum" : "Leave a maximum";
    if (amount === null) return words;
    return `${words} ${this.#leads ? "to" : "of"} ${this.#money(amount)}`;
  }

  /** Whether a bid of `amount` would buy the lot at once. A maximum never does. */
  #buys(amount) {
    return this.#mode === "bid" && amount !== null && buyNowOffered(this.#state) && amount >= this.#state.buy_now_price;
  }

  #fitBidder() {
    this.bidder.size = Math.min(28, Math.max(8, this.bidder.value.length));
  }

  #bidderChanged() {
    const valid = isUserId(this.userId);
    this.bidder.setAttribute("aria-invalid", String(!valid));
    setText(byId("user-hint"), valid ? "" : "Use 1 to 64 letters, digits, or . _ - @");
    if (!valid) return false;
    rememberUserId(this.userId);
    this.onBidder(this.userId);
    return true;
  }

  #submit() {
    if (this.#underWay !== null) return;
    if (!this.#bidderChanged()) {
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
    // The second click of a double click; the first has placed the bid.
    if (!this.#touched && performance.now() - this.#acceptedAtMs < JUST_MOVED_MS) return;
    if (!this.#touched && performance.now() - this.#movedAtMs < JUST_MOVED_MS) {
      this.#touched = true; // Keep the amount: the second press bids exactly what is shown now.
      this.message.say("warn", `The price has just moved. Press again to bid ${this.#money(amount)}.`);
      return;
    }
    if (this.#buys(amount)) this.#confirmBuying(amount);
    else this.#send(this.#mode === "max" ? { max_amount: amount } : { amount });
  }

  /** Asks first: buying ends the auction. */
  #confirmBuying(amount) {
    if (this.#underWay !== null || !this.#bidderChanged()) return;
    const price = this.#money(this.#state.buy_now_price);
    const buy = () => {
      // If somebody has bid meanwhile, this amount would be an ordinary bid, far above the minimum.
      if (buyNowOffered(this.#state)) this.#send({ amount });
      else this.message.say("warn", "Somebody has bid, so buy-now is no longer on offer. Nothing was sent.");
    };
    const text = `The lot would be yours for ${price}, and the auction over.`;
    const no = { label: "Not now", run: () => this.message.clear() };
    this.message.ask(text, { label: `Yes, buy for ${price}`, run: buy }, no);
  }

  #send(amounts) {
    const bid = { user_id: this.userId, ...amounts, bid_id: newBidId() };
    return this.#attempt({ bid, led: this.#leads, price: this.#state.current_bid });
  }

  /** Sends the bid until its outcome is known. Repeated with the same bid id, it cannot count twice. */
  async #attempt(attempt) {
    const { bid } = attempt;
    this.#setUnderWay(attempt);
    setText(this.button, isMaximum(bid) ? "Leaving your maximum…" : "Placing your bid…");
    this.message.clear();
    this.pending.set(attempt);
    rememberOwnBid(bid.bid_id, bid.user_id);
    const answer = placeBid(this.itemId, bid, (error) => {
      if (this.#underWay !== attempt) return;
      setText(this.button, "Checking…");
      const why = error.outcomeUnknown ? "No answer yet." : "The house is busy.";
      this.message.say("wait", `${why} We are asking again with the same bid, so it cannot count twice.`);
    });
    const seen = new Promise((resolve) => {
      this.#seen = (frame) => pause(ANSWER_BEHIND_MS).then(() => resolve(this.#verdictOf(frame, bid)));
    });
    answer.catch(() => {}); // Handled in the race; if the feed was faster, the answer is not needed.
    try {
      const verdict = await Promise.race([answer, seen]);
      this.#setUnderWay(null);
      this.pending.clear(attempt);
      this.#settle(verdict, attempt);
    } catch (error) {
      this.#setUnderWay(null);
      this.#failed(error, attempt);
    }
    this.#describe();
    this.onSettled();
  }

  /** The part of the verdict that the feed tells. */
  #verdictOf({ highest_bidder_id: leader, seq }, bid) {
    return { success: true, is_highest: leader === bid.user_id, seq, current_bid: this.#state.current_bid };
  }

  #settle(verdict, attempt) {
    const { bid } = attempt;
    if (verdict.success) {
      this.#touched = false;
      if (isMaximum(bid)) this.amount.value = "";
      this.#follow(true);
      this.#accepted = verdict;
      this.#acceptedAtMs = performance.now();
      rememberStake(this.itemId, bid.user_id, bid.max_amount ?? null);
    }
    const words = wordsForVerdict(verdict, attempt, (amount) => this.#money(amount));
    if (words.tone === "good" && this.#isOutdated()) return;
    const { choose } = words;
    const action = { label: `Set ${this.#money(choose)}`, run: () => this.#choose(choose) };
    this.message.say(words.tone, words.text, choose === undefined ? [] : [action]);
  }

  #failed(error, attempt) {
    const words = wordsForFailure(error, attempt, (amount) => this.#money(amount));
    if (!words.unsettled) this.pending.clear(attempt);
    const again = { label: "Ask again", run: () => this.#underWay === null && this.#attempt(attempt) };
    this.message.say(words.tone, words.text, words.unsettled ? [again] : []);
  }

  #setUnderWay(attempt) {
    this.#underWay = attempt;
    // aria-disabled keeps the focus where it is; a disabled button would drop it.
    for (const button of [this.button, this.buyButton, ...this.quick.buttons]) {
      button.setAttribute("aria-disabled", String(attempt !== null));
    }
  }
}
