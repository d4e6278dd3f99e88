// The sellers' page: what they sell, who may bid on one of their lots, and whom they block on all of them.

import { mountAccount } from "../account/account.js";
import { byId, setText } from "../lib/dom.js";
import { mayBe, onSession, session, signsIn } from "../lib/session.js";
import { Confirmation } from "../rulings/confirm.js";
import { AllLots } from "./alllots.js";
import { OneLot } from "./onelot.js";
import { OwnLots } from "./ownlots.js";

/** Whose lots alone this person sees; null where it may be anybody's. The server decides. */
function ownId() {
  return !signsIn || mayBe("operator", "auditor") ? null : session().user;
}

const mayLook = () => mayBe("seller", "operator", "auditor");
/** Whether this person may rule for this seller. Auditors only look; only operators rule for another seller. */
const mayRuleFor = (seller) => mayBe("operator") || (mayBe("seller") && session().user === seller);

const confirmation = new Confirmation();
const lots = new OwnLots({ mayLook, onChosen: (id) => lot.choose(id) });
const all = new AllLots({
  confirmation,
  mayRuleFor,
  onTold: (asksApproval) => lot.asked(asksApproval),
  onSeller: (seller) => lots.open(seller, seller === ownId() || (signsIn && seller === session()?.user)),
});
const lot = new OneLot({
  confirmation,
  mayLook,
  mayRuleFor,
  ownId,
  // For a viewer of anybody's lots, the list beside the lot shows the same seller.
  onSeller: (seller) => ownId() === null && all.open(seller),
});

/** Shows what the person who is signed in may look at, and nothing of what somebody else was shown. */
function admit() {
  byId("confirm").close();
  lot.close();
  all.close();
  lots.close();
  const isIn = mayLook();
  byId("selling").hidden = !isIn;
  byId("barred").hidden = isIn;
  const isOut = signsIn && session() === null;
  setText(byId("barred"), isOut ? "Sign in as a seller." : "Your account may not sell. Please ask the house.");
  if (!isIn) return;
  all.admit(ownId());
  // Operators may sell too.
  if (signsIn && ownId() === null && mayBe("seller")) all.open(session().user);
  const asked = new URLSearchParams(location.search).get("lot");
  if (asked) lot.open(asked);
}

mountAccount();
onSession(admit);
admit();
