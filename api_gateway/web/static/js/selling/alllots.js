// Whom a seller blocks on all lots. Sellers see their own; operators, and everybody where nobody signs in, say whose.

import { byId, setText } from "../lib/dom.js";
import { Bidders } from "../rulings/bidders.js";
import { SellerPlace } from "../rulings/places.js";

const SELLER = /^(?!\.+$)[A-Za-z0-9_.@-]{1,64}$/;

export class AllLots {
  #place = new SellerPlace();

  /**
   * `mayRuleFor(seller)`: not only look. `onTold(houseAsks)` runs after the list was read: whether all lots ask for
   * approval. `onSeller(id)` runs when a seller is shown.
   */
  constructor({ confirmation, mayRuleFor, onTold, onSeller }) {
    this.onSeller = onSeller;
    this.bidders = new Bidders(byId("seller-bidders"), {
      name: "seller-bidder",
      where: "on all lots of the seller",
      level: "h3",
      place: this.#place,
      confirmation,
      mayRule: () => mayRuleFor(this.#place.seller),
      onTold: (page) => onTold(page.approval_required),
    });
    byId("seller-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const seller = byId("seller").value.trim();
      const isId = SELLER.test(seller);
      setText(byId("seller-error"), isId ? "" : "An id has 1 to 64 letters, digits, dots, hyphens, underscores or at signs.");
      byId("seller").setAttribute("aria-invalid", String(!isId));
      if (isId) this.open(seller);
      else byId("seller").focus();
    });
  }

  /** Somebody may look from now on: at lots of `own` alone, or of whomever they name. */
  admit(own) {
    byId("seller-form").hidden = own !== null;
    setText(byId("all-title"), own === null ? "Blocked on all lots of a seller" : "Blocked on all of your lots");
    setText(byId("all-words"), own === null ? "Name a seller, or open one of the seller's lots." : "");
    if (own !== null) this.#show(own, "your lots");
  }

  /** Shows a seller's blocks, unless they are shown already. */
  open(seller) {
    if (seller === this.#place.seller) return;
    byId("seller").value = seller;
    this.#show(seller, `the lots of ${seller}`);
  }

  /** Shows nobody any more. */
  close() {
    this.#place.seller = null;
    byId("seller").value = "";
    setText(byId("seller-error"), "");
    byId("seller-bidders").hidden = true;
    this.bidders.forget();
  }

  #show(seller, lots) {
    this.#place.seller = seller;
    this.#place.lots = lots;
    byId("seller-bidders").hidden = false;
    setText(byId("all-words"), `Bidders who are blocked here may not bid on any of ${lots}, nor on later lots.`);
    setText(byId("seller-error"), "");
    this.bidders.restart();
    this.onSeller(seller);
  }
}
