// The page behind a link with a code that is good once. The code stands behind the #, which browsers do not send, and is
// gone from the address before anything else happens.

import { askToSignIn, mountAccount, sessionOf } from "../account/account.js";
import { tokenFor } from "../lib/api.js";
import { byId, sentence, setText } from "../lib/dom.js";
import { beginSession, onSession, session, signsIn } from "../lib/session.js";

function show(title, words, { button = null, isBad = false } = {}) {
  setText(byId("title"), title);
  setText(byId("words"), words);
  byId("words").classList.toggle("is-bad", isBad);
  byId("go").hidden = button === null;
  if (button === null) return;
  setText(byId("go"), button.label);
  byId("go").onclick = button.run;
  byId("go").focus();
}

function enter(known) {
  beginSession(known);
  location.assign(known.roles.length === 1 && known.roles[0] === "operator" ? "/ops" : "/");
}

async function exchange(code) {
  show("Signing in…", "The page is checking the link.");
  try {
    const known = await sessionOf(await tokenFor(code));
    const roles = known.roles.join(", ") || "none";
    // Somebody else may have sent the link: then its bids would be theirs to see.
    const words = `The link signs this tab in as ${known.user} (${roles}). Go on only if that is you.`;
    show("Is this you?", words, { button: { label: `Sign in as ${known.user}`, run: () => enter(known) } });
  } catch (error) {
    show("This link does not work", sentence(error.message), {
      isBad: true, button: { label: "Sign in with a token", run: askToSignIn },
    });
  }
}

const code = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
mountAccount();
onSession((reason) => {
  if (reason === "in") location.assign("/");
});
if (!signsIn) show("Nobody signs in here", "This house needs no sign-in: choose a lot, and bid.");
else if (code !== "") exchange(code);
else if (session() !== null) show("You are signed in", `As ${session().user}, in this tab.`);
else {
  show("Sign in", "Open the link that your house gave you, or paste a token.", {
    button: { label: "Sign in with a token", run: askToSignIn },
  });
}
