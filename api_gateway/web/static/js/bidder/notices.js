// Notices by the browser itself, while the tab is hidden: only for people who have asked for them, by a button.

import { byId, setText } from "../lib/dom.js";
import { keep, recall } from "../lib/storage.js";

const KEY = "bidding.notices";

const NOTES = {
  on: "While this tab is hidden, your browser tells you when you are outbid, and of bids on lots that you watch.",
  off: "Your browser does not notify you.",
  blocked: "Your browser blocks notices from this site. Allow them in its settings for this site, then press again.",
};

/** "on", "off", "blocked" (by the browser), or "none": this browser has no such notices, or not for this address. */
export function noticesState() {
  if (typeof Notification !== "function" || !isSecureContext) return "none";
  if (Notification.permission === "denied") return "blocked";
  return recall(KEY) === "on" && Notification.permission === "granted" ? "on" : "off";
}

export class BrowserNotices {
  #open = new Map(); // by item id

  constructor() {
    // A person who looks at the page again sees there what the notices tell.
    document.addEventListener("visibilitychange", () => !document.hidden && this.#closeAll());
  }

  /** Whether somebody wants them, now. */
  get areWanted() {
    return document.hidden && noticesState() === "on";
  }

  /** Tells about a lot, in place of what was told about it before. Nothing happens while they are not wanted. */
  tell(itemId, title, body) {
    if (!this.areWanted) return;
    let notice;
    try {
      notice = new Notification(title, { body, tag: `lot-${itemId}`, renotify: true, lang: "en" });
    } catch {
      return; // Some phones know notices of service workers alone.
    }
    this.#open.set(itemId, notice);
    notice.onclick = () => {
      const path = `/items/${encodeURIComponent(itemId)}`;
      window.focus();
      notice.close();
      if (location.pathname !== path) location.assign(path);
    };
  }

  #closeAll() {
    for (const notice of this.#open.values()) notice.close();
    this.#open.clear();
  }
}

/** The button that turns them on, which asks for the browser's permission, and off. `onChange()` runs after a press. */
export class NoticesButton {
  constructor(onChange) {
    this.onChange = onChange;
    this.button = byId("notify");
    this.button.addEventListener("click", () => this.#press());
    this.#draw();
  }

  async #press() {
    if (noticesState() === "on") keep(KEY, "off");
    else if ((await Notification.requestPermission()) === "granted") keep(KEY, "on");
    this.#draw();
    setText(byId("notify-note"), NOTES[noticesState()]);
    this.onChange();
  }

  #draw() {
    const state = noticesState();
    this.button.hidden = state === "none";
    this.button.setAttribute("aria-pressed", String(state === "on"));
  }
}
