// What may mislead in these results, with the codes that docs/checks.md explains.

import { el } from "superactivators/dom.js";
import { section } from "superactivators/section.js";

export function checksSection(data) {
  const found = data.about.checks;
  const lines = found.map((check) =>
    el(
      "li",
      { id: check.code },
      el("b", {}, check.code),
      " ",
      el("span", { class: "method" }, check.title),
      el("p", {}, check.message),
    ),
  );
  return section(
    "checks",
    "What may mislead here?",
    "Each line is a warning with a stable code; docs/checks.md says how it is measured and what to do.",
    found.length ? el("ul", { class: "checks" }, lines) : el("p", {}, "No check found anything, or none was run."),
  );
}
