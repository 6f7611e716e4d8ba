// What the activations look like: a panel for each analysis, each with a sentence on what to see in this study.

import { confusionPanel } from "superactivators/analysisconfusion.js";
import { conceptPicker } from "superactivators/analysisparts.js";
import { distributionsPanel } from "superactivators/analysisdistributions.js";
import { errorsPanels } from "superactivators/analysiserrors.js";
import { measuresPanel } from "superactivators/analysislayers.js";
import { levelsPanels, sparsityPanel } from "superactivators/analysislevels.js";
import { pairsPanel } from "superactivators/analysispairs.js";
import { el } from "superactivators/dom.js";
import { section } from "superactivators/section.js";

export function analysesSection(data, store) {
  const { kinds, pairs } = data.analyses;
  const all = Object.values(kinds);
  const tokens = all.some((found) => found.sites.length);
  return section(
    "analyses",
    "Why the tail?",
    "Activations of test tokens, layer by layer, and where detection fails. Layers, δ and thresholds are those chosen on cal.",
    data.concepts.length > 1 && el("div", { class: "pickers" }, conceptPicker(data, store)),
    tokens ? distributionsPanel(data, store) : el("p", { class: "note" }, all[0]?.sentences.distributions ?? "Nothing was analysed."),
    tokens && measuresPanel(data, store),
    tokens && sparsityPanel(data, store),
    all.some((found) => found.levels.sites.length) && levelsPanels(data, store),
    all.some((found) => found.errors.length) && errorsPanels(data, store),
    all.some((found) => found.confusion) && confusionPanel(data, store),
    pairs && pairsPanel(data, store),
  );
}
