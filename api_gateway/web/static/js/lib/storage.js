// What this browser keeps between visits. Private windows may refuse storage; then it is kept as long as the page.

const memory = new Map();

/** The text under `key`, or null. */
export function recall(key) {
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
  } catch {
    // `memory` has it.
  }
}
