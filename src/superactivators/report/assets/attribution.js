// Where the concepts are: explainers with either objective, in numbers, curves and maps.

import { hybridPanel, curvesPanel } from "superactivators/attributioncharts.js";
import { check, choice } from "superactivators/controls.js";
import { el } from "superactivators/dom.js";
import { decimal, interval } from "superactivators/format.js";
import { mapGallery } from "superactivators/mapgallery.js";
import { panel, section } from "superactivators/section.js";
import { scrollable, sortableTable } from "superactivators/table.js";
import { domainOf, whisker } from "superactivators/whisker.js";

const VERDICTS = {
  better: ["better", "SuperActivators better"],
  worse: ["worse", "SuperActivators worse"],
  unclear: ["", "not told apart"],
  unknown: ["", "not tested"],
};

export function attributionSection(found, store) {
  const names = {
    explainer: new Map(found.explainers.map((one) => [one.name, one])),
    objective: new Map(found.objectives.map((one) => [one.name, one.label])),
  };
  return section(
    "attribution",
    "Where is it: attribution",
    [found.headline, found.note],
    measuresPanel(found, names),
    found.comparisons.length > 0 && comparisonPanel(found, names),
    found.curves && curvesPanel(found, names),
    found.gallery && mapGallery(found, names, store),
    found.hybrid && hybridPanel(found.hybrid),
    found.sanity && sanityPanel(found, names),
  );
}

const label = (names, explainer) => names.explainer.get(explainer)?.label ?? explainer;
const objectiveLabel = (names, objective) => names.objective.get(objective) ?? "–";

function measuresPanel(found, names) {
  const host = el("div");
  const more = found.measures.some((measure) => !measure.first);
  const draw = (all) => host.replaceChildren(measuresTable(found, names, all));
  draw(false);
  const rule = "Higher is better, but for deletion lower is; sparseness has no better side.";
  return panel(
    "How good the maps are",
    `On test, averaged over concepts by their cases, with 95 % intervals by sample. ${rule} Shaded rows need no explainer: every token marked, or a map of random numbers. A map should have a higher token F1 than both.`,
    more && el("p", { class: "keys" }, check("All measures", false, draw)),
    host,
  );
}

function measuresTable(found, names, all) {
  const text = (key, title, value) => ({ key, title, hint: null, value, head: key === "explainer" });
  const columns = [
    text("explainer", "Explainer", (row) => label(names, row.explainer)),
    {
      ...text("objective", "Objective", (row) => objectiveLabel(names, row.objective)),
      cell: (row) => el("span", { class: row.objective === "superactivators" ? "own" : null }, objectiveLabel(names, row.objective)),
    },
    ...found.measures.filter((measure) => all || measure.first).map((measure) => ({
      key: measure.name,
      title: measure.label,
      hint: measure.hint || null,
      numeric: true,
      value: (row) => row.values[measure.name]?.value ?? null,
      cell: (row) => estimate(row.values[measure.name]),
    })),
  ];
  return sortableTable("Measures of maps by explainer and objective", columns, {
    rows: found.rows,
    attributes: (row) => ({
      class: names.explainer.get(row.explainer)?.reference ? "floor-row" : null,
    }),
  });
}

function estimate(cell, signed = false) {
  if (!cell) return decimal(null);
  return [el("b", {}, decimal(cell.value, 2, signed)), " ", el("span", { class: "range" }, interval(cell.low, cell.high, 2, signed))];
}

function comparisonPanel(found, names) {
  const measures = found.measures.filter((measure) => found.comparisons.some((row) => row.measure === measure.name));
  const host = el("div");
  const draw = (name) => host.replaceChildren(comparisonTable(found, names, measures.find((one) => one.name === name)));
  draw(measures[0].name);
  return panel(
    "SuperActivators objective minus concept objective",
    "Paired differences on the same cases. p values are Holm-adjusted; the verdict asks for p < .05.",
    measures.length > 1 && el("p", { class: "keys" }, choice("Measure", measures.map((one) => [one.name, one.label]), measures[0].name, draw)),
    host,
  );
}

function comparisonTable(found, names, measure) {
  const rows = found.comparisons
    .filter((row) => row.measure === measure.name)
    .map((row) => ({ ...row, value: row.difference }));
  const domain = domainOf(rows, [0]);
  return sortableTable(
    `Differences in ${measure.label}`,
    [
      { key: "explainer", title: "Explainer", value: (row) => label(names, row.explainer), head: true },
      { key: "plot", title: `Difference in ${measure.label}`, numeric: true, value: (row) => row.difference, cell: (row) => whisker(row, domain, { mark: 0, strong: row.verdict === "better" || row.verdict === "worse" }) },
      { key: "difference", title: "95 % interval", numeric: true, value: (row) => row.difference, cell: (row) => estimate(row, true) },
      { key: "p", title: "p (Holm)", numeric: true, value: (row) => row.p_holm, cell: (row) => probability(row.p_holm) },
      { key: "verdict", title: "Verdict", value: (row) => VERDICTS[row.verdict][1], cell: (row) => el("span", { class: `verdict ${VERDICTS[row.verdict][0]}` }, VERDICTS[row.verdict][1]) },
    ],
    { rows, sort: { key: "difference", down: measure.better >= 0 } },
  );
}

function probability(value) {
  return Number.isFinite(value) && value < 0.001 ? "< .001" : decimal(value, 3);
}

function sanityPanel(found, names) {
  const { randomised, rows } = found.sanity;
  const head = (text) => el("th", { scope: "col" }, text);
  const cell = (value) =>
    value
      ? el("td", { class: "cell", style: { "--share": Math.min(1, Math.abs(value.value ?? 0)).toFixed(3) }, title: `95 % interval ${interval(value.low, value.high)}, ${value.cases} cases` }, decimal(value.value))
      : el("td", { class: "cell", style: { "--share": "0" } }, decimal(null));
  return panel(
    "Do the maps depend on the concept?",
    "Rank correlation of each map with the map made after the concept vector (or the model) was replaced by a random one: near 0 is good; near 1 means that the map does not depend on what was replaced, so it cannot show where the concept is.",
    scrollable(
      "Sanity checks",
      el(
        "table",
        { class: "heat" },
        el("caption", { class: "unseen" }, "Rank correlation with maps of a randomised concept vector or model"),
        el("thead", {}, el("tr", {}, head("Explainer"), randomised.flatMap((one) => found.objectives.map((objective) => head([one.label, el("br"), objective.label]))))),
        el(
          "tbody",
          {},
          [...new Set(rows.map((row) => row.explainer))].map((explainer) =>
            el(
              "tr",
              {},
              el("th", { scope: "row" }, label(names, explainer)),
              randomised.flatMap((one) =>
                found.objectives.map((objective) =>
                  cell(rows.find((row) => row.explainer === explainer && row.objective === objective.name)?.values[one.name]),
                ),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}
