// What this browser keeps between visits. Private windows may refuse storage; then it is kept as long as the page.

const memory = new Map();
const unstored = new Set(); // Keys whose newest value is in `memory` alone: the storage is full, and has an older one.

const PREFIX = "bidding.";

/** Forgets everything that pages keep: for whoever uses this browser next. */
export function forgetAll() {
  memory.clear();
  unstored.clear();
  try {
    for (const storage of [localStorage, sessionStorage]) {
      for (const key of Object.keys(storage)) if (key.startsWith(PREFIX)) storage.removeItem(key);
    }
  } catch {
    // Storage is refused, so there is nothing but `memory`.
  }
}

/** The text under `key`, or null. */
export function recall(key) {
  if (unstored.has(key)) return memory.get(key);
  try {
    return localStorage.getItem(key) ?? memory.get(key) ?? null;
  } catch {
    return memory.get(key) ?? null;
  }
}

export function keep(key, value) {
  memory.set(key, value);
  try {
    localStorage.setItem(key, value);
    unstored.delete(key);
  } catch {
    unstored.add(key);
  }
}
