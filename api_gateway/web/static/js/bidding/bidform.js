// The bid form: a bid, a maximum or buy-now; and what became of it.

import { learnAlias, publicSelf } from "../bidder/alias.js";
import { newBidId } from "../bidder/bidder.js";
import { rememberStake, stakeOf } from "../bidder/stakes.js";
import { byId, setText } from "../lib/dom.js";
import { decimalsOf, formatMoney, minorUnits } from "../lib/money.js";
import { signsIn } from "../lib/session.js";
import { buyNowOffered, isFinalStatus } from "../lib/status.js";
import { AmountField } from "./amountfield.js";
import { Attempts } from "./attempts.js";
import { BidderField } from "./bidderfield.js";
import { questionFor } from "./brake.js";
import { ARMED_AFTER_MS, MessageBox } from "./message.js";
import { Offers } from "./offers.js";
import { QuickBids } from "./quickbids.js";
import { JUST_MOVED_MS, SecondPress } from "./secondpress.js";
import { labelFor } from "./wording.js";
import { isMaximum, nameOfBid, wordsForFailure, wordsForVerdict } from "./verdicts.js";

// When bids come no longer fast, the offers go back to the minimum.
const CALM_MS = 1000;

export class BidForm {
  #currency = "USD";
  #minimum = null;
  #shownAtMs = -Infinity; // When the form appeared.
  #isHidden = false;
  #arming = null; // The timer after which controls that have just appeared work.
  #second = new SecondPress();
  #offers = new Offers();
  #offered = []; // The amounts offered now.
  #saysLeader = false; // The message says that the bidder leads.
  #isHeld = false; // It says so in answer to a press that has sent nothing.
  #acceptedAtMs = -Infinity;
  #state = null;
  #known = ""; // Who was signed in last; "" once they have signed out.
  #accepted = null; // The verdict that a good message is about.

  /**
   * `onSettled()` runs after each attempt, `onLed(version)` when the answer to one says that this bidder leads at that
   * version, `onBidder(userId)` when the bidder changes.
   */
  constructor(itemId, { onSettled, onLed, onBidder }) {
    this.itemId = itemId;
    this.onSettled = onSettled;
    this.onLed = onLed;
    this.attempts = new Attempts(itemId, {
      began: (attempt) => this.#began(attempt),
      repeats: (error) => this.#repeats(error),
      settled: (verdict, attempt) => this.#settle(verdict, attempt),
      failed: (error, attempt) => this.#failed(error, attempt),
      over: () => this.#over(),
      verdictOf: (frame) => this.#verdictOf(frame),
    });
    this.form = byId("bid-form");
    this.amount = new AmountField({ onTyped: () => this.#describe(), onLeft: () => this.#follow() });
    this.bidder = new BidderField(onBidder);
    this.button = byId("bid-button");
    this.buyButton = byId("buy-now");
    this.message = new MessageBox(this.button);
    this.quick = new QuickBids(this.button, (amount) => this.#quickBid(amount));
    this.#known = this.userId;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    for (const choice of this.form.elements.mode) choice.addEventListener("change", () => this.#modeChanged());
    this.buyButton.addEventListener("click", () => this.#isArmed && this.#confirmBuying());
    setInterval(() => this.#offers.areMaxima && this.#offer(), CALM_MS);
    // A key that is held down presses once: a repetition would be another bid.
    byId("panel").addEventListener("keydown", (event) => event.repeat && event.key === "Enter" && event.preventDefault());
  }

  get userId() {
    return this.bidder.userId;
  }

  /**
   * Somebody else is signed in now, or nobody; `reason` as in session.js. What was typed, asked and answered stays for
   * who comes back after their sign-in ended. It is gone when they sign out, or when somebody else comes.
   */
  identify(reason) {
    this.bidder.show();
    const isOther = this.userId !== "" && this.#known !== "" && this.userId !== this.#known;
    if (reason === "out" || isOther) this.#startAfresh();
    if (reason === "out" || this.userId !== "") this.#known = this.userId;
    this.bidder.onBidder(this.userId);
  }

  /** Forgets what concerned the bidder before: the next one must not read it, and their "yes" must not answer it. */
  #startAfresh() {
    this.message.clear();
    this.#second.forget();
    this.#accepted = null;
    this.#saysLeader = this.#isHeld = this.#second.replaces = this.amount.isTouched = false;
    this.amount.clear();
    this.attempts.forget();
    this.#enable();
    if (this.#state !== null) this.#offer(true);
  }

  /** Who the bidder is in the public state: "" while that is not known. */
  get #self() {
    return publicSelf(this.itemId, this.userId);
  }

  /** Shows the newest state of the item. */
  update(state, currency) {
    const first = this.#state === null;
    this.#state = state;
    this.#currency = currency;
    this.#minimum = typeof state.min_next_bid === "number" ? state.min_next_bid : null;
    this.amount.useCurrency(currency);
    this.#offers.note(state, currency);
    if (this.#isHidden && !this.form.hidden) this.#shownAtMs = performance.now();
    this.#isHidden = this.form.hidden;
    byId("reserve-note").hidden = state.reserve_met !== false;
    this.#offer(first);
    const offered = buyNowOffered(state) && state.status === "open";
    if (!offered && document.activeElement === this.buyButton) this.button.focus();
    if (offered && this.buyButton.hidden && !first) this.#shownAtMs = performance.now();
    this.buyButton.hidden = !offered;
    if (offered) setText(this.buyButton, `Buy now for ${this.#money(state.buy_now_price)}`);
    if (this.message.tone === "good" && this.#isOutdated()) this.message.clear();
    // "You lead already" must not stand below "You were outbid".
    if (this.#saysLeader && !this.#leads) this.#leadsNoLonger();
  }

  /** What the message says is over; but whoever has pressed must not be left without a word. */
  #leadsNoLonger() {
    this.#saysLeader = false;
    this.message.clear();
    if (!this.#isHeld) return;
    this.#isHeld = false;
    if (this.#mode === "bid" && !this.amount.isTouched && this.#offered.length > 0) {
      this.#promiseTo(this.#offered[0], this.#bidsUpTo, "You have been outbid since.");
    } else {
      this.message.say("warn", "You were outbid after you pressed. Nothing was sent: press again to bid.");
    }
  }

  /** Takes a bid from the feed: if it is ours and still unanswered, it was accepted. */
  heard(frame) {
    if (!this.attempts.isOf(frame)) return;
    if (frame.kind !== "proxy") learnAlias(this.itemId, this.userId, frame.bidder);
    this.attempts.heard(frame);
  }

  /** At the end, the result replaces a message about an accepted bid; a refusal stays. */
  ended() {
    if (this.message.tone === "good" || this.message.tone === "warn") this.message.clear();
  }

  /** Looks up what became of a bid that was unanswered when the page was left. */
  async resume() {
    const name = ({ bid }) => nameOfBid(bid, (amount) => this.#money(amount));
    await this.attempts.resume((bid) => !signsIn || bid.user_id === this.userId, {
      looks: (attempt) =>
        this.message.say(
          "wait",
          `${name(attempt)} was on its way when you left the page. We are looking up what became of it.`,
        ),
      cannotLook: (attempt) =>
        this.message.say("warn", `${name(attempt)} was sent before you left the page. We could not look it up yet.`, [
          { label: "Look again", run: () => this.resume() },
        ]),
      found: (verdict, attempt) => {
        if (verdict !== null) this.#settle(verdict, attempt);
        else this.message.say("warn", `${name(attempt)} did not arrive before you left the page.`);
        this.onSettled();
      },
    });
  }

  get #leads() {
    return this.#state !== null && this.#state.highest_bidder_id === this.#self;
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
    return (this.#self !== "" && leader !== this.#self) || price !== this.#accepted.current_bid;
  }

  /** Clears the amount: a maximum that was typed must never be sent as a bid. */
  #modeChanged() {
    this.amount.isTouched = false;
    const leaves = this.#mode === "max";
    byId("mode-note").hidden = !leaves;
    setText(byId("amount-label"), leaves ? "Your maximum" : "Your bid");
    if (leaves) this.amount.clear();
    this.#offer(true);
  }

  /** Draws the offers, and what depends on them. */
  #offer(first = false) {
    // What "press again" has named is out of date.
    if (this.#second.expire(this.#minimum) && this.message.tone === "warn") this.message.clear();
    const under = this.form.querySelector("#bid-button:hover, #suggestions:hover");
    this.#offered = this.#offers.draw(this.#state, {
      currency: this.#currency,
      minimum: this.#minimum,
      isHeld: this.#second.isAwaited || under !== null,
    });
    if (!this.amount.isTouched) this.#follow(first);
    // Leaders would bid against themselves: that needs more than one press. A maximum only costs what is needed.
    const isIdle = this.#minimum === null || this.#mode === "max" || (this.#leads && !this.#bidsUpTo);
    byId("quick").hidden = this.#mode === "max";
    this.quick.draw(isIdle ? [] : this.#offered, (amount) => this.#money(amount), { areMaxima: this.#bidsUpTo });
    this.#enable();
    this.#describe();
  }

  /** Whether what is offered is sent as a maximum. Below a reserve the whole maximum would be the price at once. */
  get #bidsUpTo() {
    return this.#offers.areMaxima && this.#state.reserve_met !== false;
  }

  /** Puts the first offer into the field, unless the bidder has typed there or leaves a maximum. */
  #follow(first = false) {
    if (this.#minimum === null || this.#mode === "max") return;
    const offer = this.#offers.areMaxima ? this.#offered[0] : this.#minimum;
    this.amount.follow(offer, first);
  }

  #choose(amount) {
    this.amount.choose(amount);
    this.#describe();
    this.button.focus();
  }

  /** One press bids, unless the amounts have just moved. */
  #quickBid(amount) {
    if (!this.attempts.isIdle || !this.bidder.check()) return;
    if (!this.#isArmed) return;
    if (this.#second.isNeeded(amount, this.quick.movedAtMs)) this.#promiseTo(amount, this.#bidsUpTo);
    else if (this.#bidsUpTo) this.#sendOrAsk({ max_amount: amount });
    else if (this.#buys(amount)) this.#confirmBuying();
    else this.#sendOrAsk({ amount });
  }

  /** Asks for a second press; until then the amount stands still, as long as it is valid. */
  #promiseTo(amount, isMax, why = "The price has just moved.") {
    this.#saysLeader = false;
    this.#second.ask(amount);
    const what = isMax ? `bid up to ${this.#money(amount)}` : `bid ${this.#money(amount)}`;
    this.message.say("warn", `${why} Press again to ${what}.`);
  }

  get #isArmed() {
    return performance.now() - this.#shownAtMs >= ARMED_AFTER_MS;
  }

  #units(amount) {
    return minorUnits(amount ?? 0, this.#currency);
  }

  /** The least valid amount, as in wording.js. */
  #least() {
    if (this.#mode === "bid" || !this.#leads) return { amount: this.#minimum, above: false };
    // Leaders raise their own maximum, which is never below the price.
    const known = stakeOf(this.itemId, this.userId)?.max ?? null;
    return { amount: Math.max(known ?? 0, this.#state.current_bid), above: true, own: known !== null };
  }

  /** The line under the field and the words on the button. */
  #describe() {
    const { amount } = this.amount;
    const least = this.#least();
    const units = (value) => this.#units(value);
    const from = least.amount === null ? 0 : units(least.amount) + (least.above ? 1 : 0);
    const low = amount !== null && units(amount) < from;
    const buys = !low && this.#buys(amount);
    const view = {
      mode: this.#mode,
      leads: this.#leads,
      isUpTo: this.#bidsUpTo && !this.amount.isTouched,
      buyNow: buys ? this.#state.buy_now_price : null,
      money: (value) => this.#money(value),
    };
    this.amount.describe(least, low, view);
    if (this.attempts.isIdle) setText(this.button, labelFor(amount, view));
  }

  /** Whether a bid of `amount` would buy the lot at once. A maximum never does. */
  #buys(amount) {
    if (this.#mode === "max" || (this.#bidsUpTo && !this.amount.isTouched)) return false;
    return amount !== null && buyNowOffered(this.#state) && amount >= this.#state.buy_now_price;
  }

  #submit() {
    if (!this.attempts.isIdle || !this.#isArmed) return;
    if (!this.bidder.check()) {
      this.bidder.input.focus();
      return;
    }
    const { amount } = this.amount;
    if (amount === null) {
      this.amount.isTouched = true;
      this.#describe();
      this.amount.focus();
      return;
    }
    // The second click of a double click; the first has placed the bid.
    if (!this.amount.isTouched && performance.now() - this.#acceptedAtMs < JUST_MOVED_MS) return;
    const isMax = this.#mode === "max" || (this.#bidsUpTo && !this.amount.isTouched);
    if (!this.amount.isTouched && this.#second.isNeeded(amount, this.amount.movedAtMs)) this.#promiseTo(amount, isMax);
    else if (this.#buys(amount)) this.#confirmBuying();
    else this.#sendOrAsk(isMax ? { max_amount: amount } : { amount });
  }

  /** Sends the bid; asks first if it is far above the minimum, or against the bidder's own. */
  #sendOrAsk(amounts) {
    const isMax = amounts.amount === undefined;
    const amount = isMax ? amounts.max_amount : amounts.amount;
    const said = this.#money(amount);
    const least = this.#minimum === null ? null : this.#units(this.#minimum);
    const own = stakeOf(this.itemId, this.userId)?.max ?? 0;
    // In the mode "bid" nobody has asked for a higher maximum.
    const isOffered = isMax && this.#mode === "bid";
    if (isOffered && this.#leads && own >= amount) {
      this.#saysLeader = this.#isHeld = true;
      this.message.say("warn", `You lead already, and your maximum of ${this.#money(own)} holds. Nothing was sent.`);
      return;
    }
    const decimals = decimalsOf(this.#currency);
    const asked = { units: this.#units(amount), least, leads: this.#leads, isMax, isOffered, decimals };
    const question = questionFor(asked, said, this.#money(this.#minimum));
    if (question === null) {
      this.#send(amounts);
      return;
    }
    this.#saysLeader = this.#isHeld = this.#leads;
    const no = { label: "Do not bid", run: () => this.#dismiss() };
    const yes = { label: isMax ? `Yes, up to ${said}` : `Yes, bid ${said}`, run: () => this.#send(amounts) };
    this.message.ask(question, yes, no);
  }

  #dismiss() {
    this.#saysLeader = false;
    this.message.clear();
  }

  /** Asks first: buying ends the auction. It takes the buy-now price, however much more was typed. */
  #confirmBuying() {
    if (!this.attempts.isIdle || !this.bidder.check()) return;
    // The question stands also when somebody else leads meanwhile.
    this.#saysLeader = this.#isHeld = false;
    const { buy_now_price: amount } = this.#state;
    const price = this.#money(amount);
    const buy = () => {
      // If somebody has bid meanwhile, this amount would be an ordinary bid, far above the minimum. Where the page has
      // not heard of that bid yet it is sent as one: never for more than was agreed to.
      if (buyNowOffered(this.#state)) this.#send({ amount });
      else this.message.say("warn", "Somebody has bid, so buy-now is no longer on offer. Nothing was sent.");
    };
    const text = `The lot would be yours for ${price}, and the auction over.`;
    const no = { label: "Not now", run: () => this.message.clear() };
    this.message.ask(text, { label: `Yes, buy for ${price}`, run: buy }, no);
  }

  #send(amounts) {
    const bid = { user_id: this.userId, ...amounts, bid_id: newBidId() };
    return this.attempts.send({ bid, led: this.#leads, price: this.#state.current_bid });
  }

  #began({ bid }) {
    this.#second.forget();
    this.#saysLeader = this.#isHeld = false;
    this.#enable();
    setText(this.button, isMaximum(bid) ? "Leaving your maximum…" : "Placing your bid…");
    this.message.clear();
  }

  #repeats(error) {
    setText(this.button, "Checking…");
    const why = error.outcomeUnknown ? "No answer yet." : "The house is busy.";
    this.message.say("wait", `${why} We are asking again with the same bid, so it cannot count twice.`);
  }

  #over() {
    this.#enable();
    this.#describe();
    this.onSettled();
  }

  /** The part of the verdict that the feed tells. */
  #verdictOf({ highest_bidder_id: leader, seq }) {
    return { success: true, is_highest: leader === this.#self, seq, current_bid: this.#state.current_bid };
  }

  #settle(verdict, attempt) {
    const { bid } = attempt;
    this.#second.replaces = false;
    if (verdict.success) {
      this.amount.isTouched = false;
      if (isMaximum(bid) && this.#mode === "max") this.amount.clear();
      this.#accepted = verdict;
      this.#acceptedAtMs = performance.now();
      rememberStake(this.itemId, bid.user_id, bid.max_amount ?? null);
      const leads = verdict.is_highest === true && bid.user_id === this.userId && Number.isInteger(verdict.seq);
      if (leads) this.onLed({ epoch: this.#state.epoch, seq: verdict.seq });
    } else if (verdict.code === "TOO_LOW") {
      // What the feed has told meanwhile is newer than this verdict.
      if (this.#minimum > verdict.min_next_bid) {
        verdict = { ...verdict, you_lead: this.#leads, min_next_bid: this.#minimum };
      }
      // The amount is out of date: the field follows the price again. What somebody has typed may have been their
      // limit, so the page's amount is not sent in its place by a mere repetition of the key.
      if (this.amount.isTouched && this.#mode === "bid") this.#second.replaces = true;
      if (typeof verdict.min_next_bid === "number") this.#minimum = Math.max(this.#minimum ?? 0, verdict.min_next_bid);
      this.amount.isTouched = this.#mode === "max" && this.amount.isTouched;
    }
    this.#offer(verdict.success);
    const words = wordsForVerdict(verdict, attempt, (amount) => this.#money(amount));
    if (words.tone === "good" && this.#isOutdated()) return;
    this.#isHeld = false;
    this.#saysLeader = !verdict.success && (verdict.you_lead || verdict.code === "MAX_NOT_RAISED");
    const choose = this.#mode === "max" ? words.choose : undefined;
    const action = { label: `Set ${this.#money(choose)}`, run: () => this.#choose(choose) };
    this.message.say(words.tone, words.text, choose === undefined ? [] : [action]);
  }

  /** Returns whether the outcome is still unknown. */
  #failed(error, attempt) {
    const words = wordsForFailure(error, attempt, (amount) => this.#money(amount));
    const ask = () => this.attempts.isIdle && this.attempts.send(attempt, { mayHaveArrived: true });
    this.message.say(words.tone, words.text, words.unsettled ? [{ label: "Ask again", run: ask }] : []);
    return words.unsettled;
  }

  /** Marks the buttons that do nothing now: a bid is under way, or they have just appeared. */
  #enable() {
    const isIdle = this.attempts.isIdle && this.#isArmed;
    // aria-disabled keeps the focus where it is; a disabled button would drop it.
    for (const button of [this.button, this.buyButton]) button.setAttribute("aria-disabled", String(!isIdle));
    const isQuick = isIdle && this.quick.isArmed;
    for (const button of this.quick.buttons) button.setAttribute("aria-disabled", String(!isQuick));
    if (!this.attempts.isIdle || isQuick || this.#arming !== null) return;
    this.#arming = setTimeout(() => {
      this.#arming = null;
      this.#enable();
    }, ARMED_AFTER_MS);
  }
}
