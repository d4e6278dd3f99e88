// An item's terms: from the values of the form to the body for the API, and to sentences. Pure: no page, no network;
// the time is an argument. Amounts are numbers in the currency's major unit.

import { isUserId } from "../bidder/bidder.js";
import { lengthText, momentText } from "../lib/clock.js";
import { formatMoney, inputText, minorUnits, parseAmount } from "../lib/money.js";
import { incrementWords, softCloseWords } from "../lib/termwords.js";

const NAME_MAX = 200;
const DESCRIPTION_MAX = 5000;
const LENGTH_MAX_S = 366 * 86400;
const SOFT_MAX_S = 86400;
const COUNT_MAX = 1_000_000;
const UNIT_S = { minutes: 60, hours: 3600, days: 86400 };
const ITEM_ID = /^[A-Za-z0-9_-]{1,64}$/;

/** Common soft closes; `hardS` counts from the agreed close. */
const SOFT_PRESETS = {
  short: { triggerS: 120, extendS: 300, mode: "from_bid", maxCount: 2, hardS: null },
  long: { triggerS: 900, extendS: 900, mode: "from_end", maxCount: null, hardS: 3600 },
};

/** Reads fields, and notes their errors by the field's name. */
class Reader {
  constructor(values) {
    this.values = values;
    this.errors = new Map();
  }

  text(field) {
    return (this.values[field] ?? "").trim();
  }

  refuse(field, why) {
    if (!this.errors.has(field)) this.errors.set(field, why);
    return null;
  }

  /** An amount, null for an empty field; `zero` allows 0. */
  amount(field, currency, { zero = false, required = false } = {}) {
    const text = this.text(field);
    if (text === "") return required ? this.refuse(field, "Please write an amount.") : null;
    if (zero && /^0+([.,]0*)?$/.test(text)) return 0;
    const amount = parseAmount(text, currency);
    if (amount !== null) return amount;
    return this.refuse(field, `Please write an amount of more than 0, like ${inputText(100, currency)}.`);
  }

  /** A number of at least `least`, null for an empty field. */
  number(field, { least, most = Infinity, whole = false, required = false }) {
    const text = this.text(field).replace(",", ".");
    if (text === "") return required ? this.refuse(field, "Please write a number.") : null;
    const number = /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
    if (number >= least && number <= most && (!whole || Number.isInteger(number))) return number;
    const kind = whole ? "a whole number" : "a number";
    return this.refuse(field, `Please write ${kind} from ${least}${most === Infinity ? " on" : ` to ${most}`}.`);
  }

  moment(field) {
    const ms = Date.parse(this.text(field)); // Without an offset it is in the reader's time zone, like the field.
    return Number.isNaN(ms) ? this.refuse(field, "Please choose a day and a time.") : ms;
  }
}

/**
 * The terms as far as they are valid, and the errors, a Map from a field's name to the message: `{draft, errors}`.
 * `values` has the form's values as text, and `steps` as a list of `{below, increment}`.
 */
export function readDraft(values, nowMs) {
  const reader = new Reader(values);
  const currency = values.currency;
  const draft = {
    name: reader.text("name"),
    description: reader.text("description"),
    id: reader.text("id"),
    seller: reader.text("seller_id"),
    currency,
    startPrice: reader.amount("start_price", currency, { zero: true }) ?? 0,
    reserve: reader.amount("reserve_price", currency),
    buyNow: reader.amount("buy_now_price", currency),
    increment: readIncrement(reader, currency),
    startMs: values.start === "at" ? reader.moment("start_at") : null,
    ...readEnd(reader),
    soft: null,
  };
  draft.soft = readSoftClose(reader, draft);
  checkTexts(reader, draft);
  checkPrices(reader, draft);
  checkTimes(reader, draft, nowMs);
  return { draft, errors: reader.errors };
}

function readIncrement(reader, currency) {
  switch (reader.values.increment) {
    case "flat":
      return { kind: "flat", value: reader.amount("flat_value", currency, { required: true }) };
    case "percent":
      return { kind: "percent", value: readPercent(reader) };
    case "steps":
      return { kind: "ladder", steps: readSteps(reader, currency) };
    default:
      return { kind: "ladder" };
  }
}

function readPercent(reader) {
  const text = reader.text("percent_value").replace(",", ".");
  const value = /^\d{1,3}(\.\d{1,2})?$/.test(text) ? Number(text) : 0;
  if (value > 0 && value <= 100) return value;
  return reader.refuse("percent_value", "Please write a percentage of more than 0 and at most 100, like 2.5.");
}

/** The last step has no bound: it applies from the bound of the one before it. */
function readSteps(reader, currency) {
  const rows = reader.values.steps ?? [];
  const units = (text) => {
    const amount = parseAmount(text ?? "", currency);
    return amount === null ? null : { amount, minor: minorUnits(amount, currency) };
  };
  const read = rows.map(({ below, increment }, index) => {
    const last = index === rows.length - 1;
    return { below: last ? null : units(below), increment: units(increment), last };
  });
  if (read.some(({ below, increment, last }) => increment === null || (!last && below === null))) {
    return reader.refuse("steps", "Every step needs an amount and, except the last, a price below which it holds.");
  }
  const bounds = read.filter(({ last }) => !last).map(({ below }) => below.minor);
  if (bounds.some((bound, index) => index > 0 && bound <= bounds[index - 1])) {
    return reader.refuse("steps", "The prices of the steps must rise from one to the next.");
  }
  return read.map(({ below, increment, last }) =>
    last ? { increment: increment.amount } : { below: below.amount, increment: increment.amount },
  );
}

/** `{endMs, lengthS}`: the end as a moment, or as a length after the start; both null for no end. */
function readEnd(reader) {
  const end = reader.values.end;
  if (end === "none") return { endMs: null, lengthS: null };
  if (end === "at") return { endMs: reader.moment("end_at"), lengthS: null };
  if (end !== "length") return { endMs: null, lengthS: Number(end) };
  const unit = UNIT_S[reader.values.length_unit] ?? UNIT_S.minutes;
  const count = reader.number("length_count", { least: 1, most: LENGTH_MAX_S / unit, whole: true, required: true });
  return { endMs: null, lengthS: count === null ? null : count * unit };
}

function readSoftClose(reader, { endMs, lengthS }) {
  const choice = reader.values.soft;
  if (choice === "none" || choice === undefined) return null;
  if (endMs === null && lengthS === null) {
    return reader.refuse("soft", "A lot without a closing time cannot be extended. Choose one, or none here.");
  }
  if (choice !== "own") return SOFT_PRESETS[choice];
  const minutes = { least: 0.1, most: SOFT_MAX_S / 60, required: true };
  const seconds = (count) => (count === null ? null : Math.max(1, Math.round(count * 60)));
  const hard = reader.number("hard_min", { least: 0 });
  return {
    triggerS: seconds(reader.number("trigger_min", minutes)),
    extendS: seconds(reader.number("extend_min", minutes)),
    mode: reader.values.soft_mode === "from_end" ? "from_end" : "from_bid",
    maxCount: reader.number("max_count", { least: 1, most: COUNT_MAX, whole: true }),
    hardS: hard === null ? null : Math.round(hard * 60),
  };
}

function checkTexts(reader, { name, description, id, seller }) {
  if (name === "") reader.refuse("name", "Please give the lot a name.");
  if (name.length > NAME_MAX) reader.refuse("name", `At most ${NAME_MAX} characters, please.`);
  if (description.length > DESCRIPTION_MAX) {
    reader.refuse("description", `At most ${DESCRIPTION_MAX} characters, please.`);
  }
  if (id !== "" && !ITEM_ID.test(id)) reader.refuse("id", "Use 1 to 64 letters, digits, hyphens or underscores.");
  if (seller !== "" && !isUserId(seller)) reader.refuse("seller_id", "Use 1 to 64 letters, digits, or . _ - @");
}

function checkPrices(reader, { currency, startPrice, reserve, buyNow }) {
  const below = (amount, other) =>
    amount !== null && other !== null && minorUnits(amount, currency) < minorUnits(other, currency);
  if (below(reserve, startPrice)) reader.refuse("reserve_price", "The reserve must be at least the start price.");
  if (below(buyNow, startPrice)) reader.refuse("buy_now_price", "The buy-now price must be at least the start price.");
  if (below(buyNow, reserve)) reader.refuse("buy_now_price", "The buy-now price must be at least the reserve.");
}

function checkTimes(reader, { startMs, endMs }, nowMs) {
  if (endMs === null) return;
  if (startMs !== null && endMs <= startMs) reader.refuse("end_at", "The close must come after the start.");
  else if (endMs <= nowMs) reader.refuse("end_at", "This moment has passed.");
}

/** The body for the API. The server computes the end from a length, unless a hard end needs the moment here. */
export function bodyOf(draft, id, nowMs) {
  const { currency, increment, soft } = draft;
  const body = { id, name: draft.name, currency, start_price: draft.startPrice, increment };
  if (draft.description) body.description = draft.description;
  if (draft.seller) body.seller_id = draft.seller;
  if (draft.reserve !== null) body.reserve_price = draft.reserve;
  if (draft.buyNow !== null) body.buy_now_price = draft.buyNow;
  if (draft.startMs !== null) body.start_time = new Date(draft.startMs).toISOString();
  const needsMoment = soft !== null && soft.hardS !== null;
  if (draft.lengthS !== null && !needsMoment) body.duration_s = draft.lengthS;
  const endMs = endOf(draft, nowMs);
  if (endMs !== null && (needsMoment || draft.lengthS === null)) body.end_time = new Date(endMs).toISOString();
  if (soft !== null) body.soft_close = softBody(soft, endMs);
  return body;
}

function endOf({ startMs, endMs, lengthS }, nowMs) {
  return lengthS === null ? endMs : (startMs ?? nowMs) + lengthS * 1000;
}

function softBody({ triggerS, extendS, mode, maxCount, hardS }, endMs) {
  const body = { trigger_s: triggerS, extend_s: extendS, mode };
  if (maxCount !== null) body.max_count = maxCount;
  if (hardS !== null) body.hard_end = new Date(endMs + hardS * 1000).toISOString();
  return body;
}

/** The terms as sentences, for the seller to check. Invalid terms are left out. */
export function wordsOf(draft, nowMs) {
  const money = (amount) => formatMoney(amount, draft.currency);
  return [
    openingWords(draft, money),
    closingWords(draft, nowMs),
    softWords(draft.soft, endOf(draft, nowMs)),
    draft.increment.value === null || draft.increment.steps === null ? null : incrementWords(draft.increment, money),
    draft.reserve === null
      ? null
      : `It is sold only from ${money(draft.reserve)} on. Bidders are not told this amount, only whether it is met.`,
    buyNowWords(draft, money),
    draft.seller ? `${draft.seller} is the seller, and cannot bid.` : null,
  ].filter((words) => words !== null);
}

function openingWords({ startMs, startPrice }, money) {
  const when = startMs === null ? "The bidding opens at once" : `The bidding opens on ${momentText(startMs)}`;
  return startPrice > 0 ? `${when}, at ${money(startPrice)}.` : `${when}, and any amount may start it.`;
}

function closingWords(draft, nowMs) {
  const endMs = endOf(draft, nowMs);
  if (endMs === null) return "It has no closing time.";
  const length = draft.lengthS === null ? "" : `, after ${lengthText(draft.lengthS * 1000)}`;
  return `It closes on ${momentText(endMs)}${length}.`;
}

function softWords(soft, endMs) {
  if (soft === null || soft.triggerS === null || soft.extendS === null || endMs === null) return null;
  return softCloseWords(softBody(soft, endMs));
}

function buyNowWords({ buyNow, reserve }, money) {
  if (buyNow === null) return null;
  const until = reserve === null ? "Until the first bid" : "Until the reserve is met";
  return `${until}, it can be bought at once for ${money(buyNow)}.`;
}

/** A readable id: the name, and some random letters so that two lots never share one. */
export function idFor(name) {
  const plain = name.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
  const slug = plain.replace(/[^a-z0-9]+/g, "-").slice(0, 40).replace(/^-+|-+$/g, "");
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  const chance = Array.from(bytes, (byte) => "abcdefghijkmnpqrstuvwxyz23456789"[byte % 32]).join("");
  return `${slug || "lot"}-${chance}`;
}

// The form's field for each field of the API.
const FIELDS = {
  id: "id", "item id": "id", name: "name", description: "description", currency: "currency", seller_id: "seller_id",
  start_price: "start_price", reserve_price: "reserve_price", buy_now_price: "buy_now_price",
  image_urls: "photos", start_time: "start_at", end_time: "end_at", duration_s: "length_count",
};

/** The form's field that a refusal is about, null for none, and the message: `{field, text}`. */
export function placeOfError(error) {
  const named = /^([a-z_]+(?:[. ][a-z_]+)*): (.+)$/s.exec(error.message);
  const atPath = /`\$\.([a-z_]+)/.exec(error.message);
  const told = error.field || named?.[1] || atPath?.[1] || "";
  const text = named ? named[2] : error.message;
  if (told.startsWith("soft_close")) return { field: "soft", text };
  if (told.startsWith("increment")) return { field: "increment", text };
  return { field: FIELDS[told] ?? null, text: FIELDS[told] ? text : error.message };
}
