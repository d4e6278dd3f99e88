// How pages name bidders: by their alias on the item, and "You" for oneself. User ids are only compared.

/** The public name, or null where there is nobody. A user id is never shown, not even where an alias is missing. */
export function publicName(alias, userId) {
  if (typeof alias === "string" && alias !== "") return alias;
  return userId ? "Another bidder" : null;
}

/** "You" where `userId` is `me` (see alias.js), else the public name. */
export function nameFor(me, alias, userId) {
  return userId && userId === me ? "You" : publicName(alias, userId);
}

const TONES = 8;
const NAMES_MAX = 500;

/**
 * Gives each name a tone from 0 to 7, in the order in which they are met, so that the eye finds a bidder again. In a
 * long auction the names that were met first are forgotten.
 */
export class Tones {
  #byName = new Map();
  #next = 0;

  of(name) {
    if (!this.#byName.has(name)) {
      this.#byName.set(name, this.#next);
      this.#next = (this.#next + 1) % TONES;
      if (this.#byName.size > NAMES_MAX) this.#byName.delete(this.#byName.keys().next().value);
    }
    return this.#byName.get(name);
  }
}
