// The operators' console: how the house is, one lot, and who may bid.

import { mountAccount } from "../account/account.js";
import { backoffMs } from "../feed/connection.js";
import { Feed } from "../feed/feed.js";
import { LinkMark } from "../feed/link.js";
import { feedBase, pause } from "../lib/api.js";
import { byId, setText } from "../lib/dom.js";
import { mayBe, onSession, session, signsIn } from "../lib/session.js";
import { Confirmation } from "../rulings/confirm.js";
import { House } from "./house.js";
import { HouseBidders } from "./housebidders.js";
import { Lot } from "./lot.js";

const mayLook = () => mayBe("operator", "auditor");
const mayOperate = () => mayBe("operator");

let feed = null;
let watched = null; // The id of the lot that is shown.
const link = new LinkMark();
const confirmation = new Confirmation();
const bidders = new HouseBidders({ confirmation, mayRule: mayOperate, onRules: () => lot.asked() });
const lot = new Lot({
  confirmation,
  mayOperate,
  houseAsks: () => bidders.asksApproval,
  onWatch: (id, former) => {
    if (former !== null && former !== id) feed?.unwatch(former);
    watched = id;
    feed?.watch(id);
    byId("connection").hidden = false;
  },
});
const house = new House({ mayLook, onItem: (id) => lot.open(id) });

async function follow() {
  let base = null;
  for (let attempt = 0; base === null; attempt += 1) {
    base = await feedBase().catch(() => null);
    if (base === null) await pause(backoffMs(attempt));
  }
  feed = new Feed(base, {
    onFrame: (frame) => lot.take(frame),
    onState: (state) => {
      link.state = state;
    },
    onStale: (isStale) => {
      link.isStale = isStale;
    },
    userId: "",
  });
  if (watched !== null) feed.watch(watched);
}

/** Shows what the person who is signed in may look at, and nothing of what somebody else was shown. */
function admit() {
  byId("confirm").close();
  house.forget();
  lot.close();
  if (watched !== null) feed?.unwatch(watched);
  watched = null;
  byId("connection").hidden = true;
  byId("console").hidden = !mayLook();
  byId("barred").hidden = mayLook();
  const isOut = signsIn && session() === null;
  setText(byId("barred"), isOut ? "Sign in as an operator or an auditor." : "Your account may not look at this.");
  house.look();
  if (mayLook()) bidders.restart();
  else bidders.forget();
  const asked = new URLSearchParams(location.search).get("lot");
  if (asked && mayLook()) lot.open(asked);
}

mountAccount();
onSession(admit);
admit();
follow();
