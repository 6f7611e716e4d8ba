// Puts the page together.

import { analysesSection } from "superactivators/analyses.js";
import { attributionSection } from "superactivators/attribution.js";
import { conceptDetail } from "superactivators/concept.js";
import { conceptsSection } from "superactivators/concepts.js";
import { choice } from "superactivators/controls.js";
import { commonest, createData, embedded } from "superactivators/data.js";
import { deltasSection } from "superactivators/deltas.js";
import { el } from "superactivators/dom.js";
import { checksSection } from "superactivators/checks.js";
import { lengthsSection } from "superactivators/lengths.js";
import { layersSection } from "superactivators/layers.js";
import { methodsSection } from "superactivators/methods.js";
import { notesSection } from "superactivators/notes.js";
import { overview } from "superactivators/overview.js";
import { addressed } from "superactivators/route.js";
import { createStore } from "superactivators/store.js";
import { themeButton } from "superactivators/theme.js";

const CONTENTS = [
  ["methods", "Methods"],
  ["deltas", "Tail"],
  ["layers", "Layers"],
  ["concepts", "Concepts"],
  ["analyses", "Why"],
  ["attribution", "Where"],
  ["lengths", "Lengths"],
  ["checks", "Checks"],
  ["notes", "Notes"],
];
// Sections that a study may lack; their results have the same name.
const OPTIONAL = ["analyses", "attribution"];

function bar(data, store) {
  const kinds = data.kinds.map((kind) => [kind, kind]);
  return el(
    "div",
    { class: "bar" },
    el("nav", { "aria-label": "Contents" }, CONTENTS.filter(([id]) => !OPTIONAL.includes(id) || data[id]).map(([id, text]) => el("a", { href: `#${id}` }, text))),
    el(
      "div",
      { class: "bar-controls" },
      data.kinds.length > 1 && choice("Vectors", kinds, store.get("kind"), (kind) => store.set({ kind })),
      choice("Average", [["weighted", "weighted"], ["macro", "macro"]], store.get("average"), (average) => store.set({ average })),
      themeButton(),
    ),
  );
}

/** Most frequent site among the concepts of the best kind: where the layer slider starts. */
function favourite(data) {
  const counts = new Map();
  for (const row of data.rows[data.best_kind]) counts.set(row.site, (counts.get(row.site) ?? 0) + 1);
  return [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best))[0];
}

function start() {
  const data = createData(embedded());
  const store = createStore({
    kind: data.best_kind,
    average: "weighted",
    site: favourite(data),
    concept: addressed(data.concepts) ?? commonest(data),
  });
  const detail = conceptDetail(data, store);
  document.getElementById("page").replaceChildren(
    overview(data, store),
    bar(data, store),
    el(
      "main",
      { id: "results" },
      methodsSection(data, store),
      deltasSection(data, store),
      layersSection(data, store),
      conceptsSection(data, store),
      detail,
      data.analyses && analysesSection(data, store),
      data.attribution && attributionSection(data.attribution, store),
      lengthsSection(data, store),
      checksSection(data),
      notesSection(data),
    ),
    el("footer", {}, el("p", {}, "Made with superactivators. Method: Goldberg, Kim, Stein and Wong, “SuperActivators: Only the Tail of the Distribution Contains Reliable Concept Signals”, arXiv 2512.05038. The quantile threshold goes back to Network Dissection (Bau et al., 2017).")),
  );
  const open = (move) => {
    const concept = addressed(data.concepts);
    if (!concept) {
      if (move && location.hash.length > 1) document.getElementById(location.hash.slice(1))?.scrollIntoView();
      return;
    }
    store.set({ concept });
    detail.scrollIntoView({ block: "start" });
    detail.focus({ preventScroll: true });
  };
  addEventListener("hashchange", () => open(false));
  requestAnimationFrame(() => open(true));
}

start();
