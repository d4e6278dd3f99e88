// The user id of this browser's bidder. Where people sign in, it is that of the person who is signed in; elsewhere it
// is made up once, kept, and may be changed.

import { session, signsIn } from "../lib/session.js";
import { keep, recall } from "../lib/storage.js";

const NAME_KEY = "bidding.user_id";
const OWN_BIDS_KEY = "bidding.own_bids";
const OWN_BIDS_MAX = 200;
const USER_ID = /^[A-Za-z0-9_.@-]{1,64}$/;

const MOODS = "amber brisk calm clever copper gentle keen lucky quiet silver steady velvet".split(" ");
const BIRDS = "curlew egret finch heron jackdaw kestrel lark merlin osprey plover swift wren".split(" ");

export function isUserId(text) {
  return USER_ID.test(text);
}

/** Who is signed in, "" for nobody; elsewhere the remembered name, or a new friendly one such as "quiet-heron-42". */
export function userId() {
  if (signsIn) return session()?.user ?? "";
  const known = recall(NAME_KEY);
  if (known && isUserId(known)) return known;
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const fresh = `${pick(MOODS)}-${pick(BIRDS)}-${10 + Math.floor(Math.random() * 90)}`;
  keep(NAME_KEY, fresh);
  return fresh;
}

export function rememberUserId(text) {
  if (!signsIn) keep(NAME_KEY, text);
}

function ownList() {
  try {
    const list = JSON.parse(recall(OWN_BIDS_KEY) ?? "[]");
    return Array.isArray(list) ? list.filter((entry) => typeof entry?.bid === "string") : [];
  } catch {
    return [];
  }
}

/** The ids of the bids that `user` placed here. The history shows aliases; these tell which rows are ours. */
export function ownBids(user) {
  return new Set(ownList().filter((entry) => entry.user === user).map((entry) => entry.bid));
}

export function rememberOwnBid(bid, user) {
  keep(OWN_BIDS_KEY, JSON.stringify([...ownList(), { bid, user }].slice(-OWN_BIDS_MAX)));
}

/** A new bid id. randomUUID exists only on https and localhost; a page on a plain LAN address needs the second way. */
export function newBidId() {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
