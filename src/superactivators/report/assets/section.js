// A numbered section: heading and the one sentence that says what to see on the left, figures on the right.

import { el } from "superactivators/dom.js";

export function section(id, title, sentence, ...content) {
  return el(
    "section",
    { id, "aria-labelledby": `${id}-title` },
    el(
      "header",
      {},
      el("h2", { id: `${id}-title` }, title),
      ...[sentence].flat().map((text) => el("p", { class: "see" }, text)),
    ),
    el("div", { class: "body" }, content),
  );
}

/** A figure with a heading and one plain sentence. */
export function panel(title, sentence, ...content) {
  return el(
    "figure",
    { class: "panel" },
    el("figcaption", {}, el("h3", {}, title), sentence && el("p", { class: "see" }, sentence)),
    content,
  );
}
