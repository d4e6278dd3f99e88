// Who is signed in, where the house asks for that. The token stays in this tab: it is in no address and in no cookie.

import { serverNow } from "./clock.js";

const KEY = "bidding.session";
const TIMER_MAX_MS = 2 ** 31 - 1;

const listeners = new Set();
let timer = null;
let current = null; // {token, user, roles, expiresMs, aheadMs: by how much the server's clock was ahead of this one's}

/** Whether people sign in at this house. Elsewhere everybody says themselves who they are. */
export const signsIn = document.getElementById("account") !== null;

/** `{user, roles, expiresMs, token}`; null for nobody. */
export function session() {
  if (current !== null && leftMs() <= 0) endSession("expired");
  return current;
}

/** Whether the page may offer this; the server decides. Without sign-in, everybody may do everything. */
export function mayBe(...roles) {
  return !signsIn || (session()?.roles.some((role) => roles.includes(role)) ?? false);
}

/** The token to send, or null. */
export function bearer() {
  return session()?.token ?? null;
}

/** `reason` is "in", "out" (asked for), "expired" or "refused" (by the server). */
export function onSession(listener) {
  listeners.add(listener);
}

export function beginSession(next) {
  current = { ...next, aheadMs: serverNow() - Date.now() };
  try {
    sessionStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // Private windows may refuse storage: then it lasts as long as the page.
  }
  watch();
  tell("in");
}

/** Forgets the token. `token`: only if it is still this one, for an answer that comes late. */
export function endSession(reason, token = current?.token) {
  if (current === null || current.token !== token) return;
  current = null;
  clearTimeout(timer);
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Storage is refused, so nothing was kept.
  }
  tell(reason);
}

function tell(reason) {
  for (const listener of listeners) listener(reason);
}

/** Until the token ends. A page that has just begun does not know the server's clock yet, and this one may be wrong. */
function leftMs() {
  return current.expiresMs - Math.min(serverNow(), Date.now() + current.aheadMs);
}

/** Ends the session on its time, however long that is. */
function watch() {
  clearTimeout(timer);
  const waitMs = Math.min(Math.max(leftMs(), 0) + 50, TIMER_MAX_MS);
  timer = setTimeout(() => session() !== null && watch(), waitMs);
}

function recalled() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    const isWhole = typeof kept?.token === "string" && typeof kept.user === "string" && kept.expiresMs > 0;
    return isWhole && Array.isArray(kept.roles) && Number.isFinite(kept.aheadMs) ? kept : null;
  } catch {
    return null;
  }
}

if (signsIn) {
  current = recalled();
  if (current !== null) watch();
}
