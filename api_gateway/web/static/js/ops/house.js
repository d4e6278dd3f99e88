// How the parts of the platform are, which lots are busy, what could not be archived, and what operators did to the
// platform: asked again and again while somebody looks.

import { actsDone, deadLetters, overview } from "../lib/api.js";
import { timeText } from "../lib/clock.js";
import { byId, element, sentence, setText } from "../lib/dom.js";

const EVERY_MS = 2000;
const LETTERS_EVERY_MS = 15_000;
const LETTERS_MAX = 50;
const ACTS_MAX = 20;
const DETAILS_MAX = 12;
const DONE = {
  revoke_tokens: "Revoked all tokens of",
  revoke_token: "Revoked the token",
  create_api_key: "Made the API key",
  revoke_api_key: "Revoked the API key",
  retry_dead_letter: "Retried dead letter",
  recover_shard: "Rebuilt shard",
};
const WORDS = { ready: "Ready", degraded: "Degraded", unavailable: "Unavailable", unreachable: "Does not answer" };

export class House {
  #before = null; // {atMs, decided}
  #lettersMs = -Infinity;
  #isAsking = false;

  /** `onItem(id)` runs when a busy lot is chosen; `mayLook()` says whether to ask at all. */
  constructor({ onItem, mayLook }) {
    this.onItem = onItem;
    this.mayLook = mayLook;
    setInterval(() => this.look(), EVERY_MS);
    document.addEventListener("visibilitychange", () => this.look());
  }

  async look() {
    if (this.#isAsking || document.hidden || !this.mayLook()) return;
    this.#isAsking = true;
    try {
      this.#draw(await overview());
      if (performance.now() - this.#lettersMs > LETTERS_EVERY_MS) {
        this.#lettersMs = performance.now();
        const [letters, acts] = await Promise.all([deadLetters(LETTERS_MAX), actsDone(ACTS_MAX)]);
        if (!this.mayLook()) return;
        this.#drawLetters(letters);
        this.#drawActs(acts);
      }
    } catch (error) {
      setText(byId("overview-note"), `Not up to date. ${sentence(error.message)}`);
    } finally {
      this.#isAsking = false;
    }
  }

  /** Forgets what could not be archived, and what was done: it may name bidders. */
  forget() {
    this.#lettersMs = -Infinity;
    this.#drawLetters({ count: 0, dead_letters: [] });
    this.#drawActs({ acts: [] });
  }

  #draw({ time, parts, hot_items: hot }) {
    setText(byId("overview-note"), `As of ${timeText(Date.parse(time))}`);
    const sum = (name) => {
      const known = parts.map(({ figures }) => figures[name]).filter((value) => value !== undefined);
      return known.length > 0 ? known.reduce((all, value) => all + value, 0) : null;
    };
    this.#drawRate(Date.parse(time), sum("bids_decided"));
    for (const [id, name] of [["waiting", "bids_waiting"], ["viewers", "viewers"]]) setText(byId(id), countText(sum(name)));
    // Each gateway sees the outboxes of all.
    const outbox = parts.map(({ figures }) => figures.outbox_entries).find((value) => value !== undefined);
    setText(byId("outbox"), countText(outbox ?? null));
    byId("parts").replaceChildren(...parts.map(partNode));
    byId("hot").hidden = hot.length === 0;
    byId("hot-empty").hidden = hot.length > 0;
    this.#drawHot(hot);
  }

  /** Bids a second between two answers; a smaller number than before is that of another process. */
  #drawRate(atMs, decided) {
    const before = this.#before;
    this.#before = decided === null ? null : { atMs, decided };
    if (decided === null || before === null || decided < before.decided || atMs <= before.atMs) return;
    const rate = ((decided - before.decided) * 1000) / (atMs - before.atMs);
    setText(byId("rate"), rate.toLocaleString(undefined, { maximumFractionDigits: 1 }));
  }

  /** Rows stay where they are as long as they can: one of them may have the focus. */
  #drawHot(hot) {
    const rows = byId("hot-rows");
    const known = new Map(Array.from(rows.children, (row) => [row.dataset.id, row]));
    const wanted = hot.map(({ item_id: id, bids_per_s: rate }) => {
      const row = known.get(id) ?? this.#hotRow(id);
      setText(row.lastElementChild, rate.toLocaleString());
      return row;
    });
    if (wanted.some((row, index) => rows.children[index] !== row) || rows.children.length !== wanted.length) {
      const focused = document.activeElement;
      rows.replaceChildren(...wanted);
      if (rows.contains(focused)) focused.focus();
    }
  }

  #hotRow(id) {
    const button = element("button", { type: "button", class: "as-link" }, id);
    button.addEventListener("click", () => this.onItem(id));
    return element("tr", { "data-id": id }, element("td", {}, button), element("td", { class: "amount" }));
  }

  #drawLetters({ count, dead_letters: letters }) {
    setText(byId("letters-count"), count === 0 ? "" : `${count.toLocaleString()} in all`);
    byId("letters").hidden = letters.length === 0;
    byId("letters-empty").hidden = letters.length > 0;
    byId("letters-rows").replaceChildren(
      ...letters.map(({ id, reason, detail, at }) =>
        element(
          "tr",
          {},
          element("td", {}, String(id)),
          element("td", {}, reason),
          element("td", { class: "detail" }, detail),
          element("td", { class: "when" }, element("time", { datetime: at }, timeText(Date.parse(at)))),
        ),
      ),
    );
  }

  #drawActs({ acts }) {
    byId("acts").hidden = acts.length === 0;
    byId("acts-empty").hidden = acts.length > 0;
    byId("acts-rows").replaceChildren(
      ...acts.map(({ act, target, by, reason, at }) =>
        element(
          "tr",
          {},
          element("td", {}, DONE[act] ?? act.replaceAll("_", " "), element("span", { class: "lot-id" }, ` ${target}`)),
          element("td", {}, by),
          element("td", { class: "detail", dir: "auto" }, reason),
          element("td", { class: "when" }, element("time", { datetime: at }, timeText(Date.parse(at)))),
        ),
      ),
    );
  }
}

function countText(value) {
  return value === null ? "—" : value.toLocaleString();
}

function partNode({ name, status, details, figures }) {
  const facts = [...Object.entries(details), ...Object.entries(figures).map(([fact, value]) => [fact, value.toLocaleString()])];
  const rows = facts.slice(0, DETAILS_MAX).map(([fact, value]) =>
    element("div", {}, element("dt", {}, fact.replaceAll("_", " ")), element("dd", {}, value)),
  );
  return element(
    "li",
    { class: "part", "data-status": status },
    element("div", { class: "part-head" }, element("span", { class: "part-name" }, name.replaceAll("_", " ")), element("span", { class: "part-status" }, WORDS[status] ?? status)),
    element("dl", {}, ...rows),
  );
}
