// A lot's photographs. Where it has none, or one does not load, its engraving takes the place.

import { element } from "./dom.js";
import { plateFor } from "./plate.js";

/** The addresses of a lot's photographs; those that no page may load are left out. */
export function photosOf(item) {
  const urls = Array.isArray(item.image_urls) ? item.image_urls : [];
  return urls.filter((url) => /^(\/images\/|https:\/\/)/.test(url));
}

/** An image of the lot that fills its frame. `onError` is told if it does not load. */
export function photo(url, alt, onError, { lazy = true } = {}) {
  const node = element("img", { class: "photo", src: url, alt, loading: lazy ? "lazy" : "eager", decoding: "async" });
  node.addEventListener("error", () => onError(node), { once: true });
  return node;
}

/** What stands for a lot: its first photograph, or its engraving. */
export function pictureFor(item) {
  const [url] = photosOf(item);
  if (url === undefined) return plateFor(item.id);
  return photo(url, item.name || item.id, (node) => node.replaceWith(plateFor(item.id)));
}
