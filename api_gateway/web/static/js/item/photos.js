// The photographs in the room: a large one, and small ones to choose it by.

import { byId, element } from "../lib/dom.js";
import { photo, photosOf, pictureFor } from "../lib/photos.js";

/** Shows the photographs of the lot, where it has any. Its terms never change, so this is called once. */
export function showPhotos(item) {
  let urls = photosOf(item);
  if (urls.length === 0) return;
  const name = item.name || item.id;
  const box = byId("photos");
  const frame = element("div", { class: "photo-frame" });
  const choices = element("div", { class: "photo-choices", role: "group", "aria-label": "Photographs of the lot" });
  byId("plate").replaceChildren(pictureFor(item));

  const altOf = (number) => (urls.length === 1 ? name : `${name}, photograph ${number + 1} of ${urls.length}`);
  const show = (number) => {
    const url = urls[number];
    const link = element("a", { href: url, target: "_blank", rel: "noopener noreferrer" });
    link.append(photo(url, altOf(number), () => drop(url), { lazy: false }));
    frame.replaceChildren(link);
    for (const [index, button] of [...choices.children].entries()) {
      button.setAttribute("aria-pressed", String(index === number));
    }
  };
  const draw = () => {
    box.hidden = urls.length === 0;
    choices.hidden = urls.length < 2;
    choices.replaceChildren(
      ...urls.map((url, number) => {
        const label = `Show photograph ${number + 1} of ${urls.length}`;
        const button = element("button", { type: "button", class: "photo-choice", "aria-label": label });
        button.append(photo(url, "", () => drop(url)));
        button.addEventListener("click", () => show(number));
        return button;
      }),
    );
    if (urls.length > 0) show(0);
  };
  /** One that does not load is shown nowhere. */
  const drop = (url) => {
    if (!urls.includes(url)) return;
    urls = urls.filter((each) => each !== url);
    draw();
  };
  box.replaceChildren(frame, choices);
  draw();
}
