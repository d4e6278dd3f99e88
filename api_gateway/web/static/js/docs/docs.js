// The description of the API. The view is Swagger UI, which the page loads before this script as a plain one; what it
// shows is the gateway's /openapi.json.

import { byId } from "../lib/dom.js";

// Swagger UI writes the descriptions, which it has sanitised, as HTML; under our policy the browser asks this one first.
// Text that would become a script has no such way, and stays refused. Browsers without trusted types need nothing.
window.trustedTypes?.createPolicy("default", { createHTML: (html) => html });

// It has a dark scheme, by a class, and a button for it in a bar that we do not show.
const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

const reference = byId("reference");
window.SwaggerUIBundle({
  url: "/openapi.json",
  domNode: reference,
  deepLinking: true,
  // Its validator is another host, which would be told the address.
  validatorUrl: null,
  // A page has one main part, and that is ours.
  onComplete: () => reference.querySelector("main")?.setAttribute("role", "none"),
});
