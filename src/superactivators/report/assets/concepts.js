// All concepts in one sortable table; the names open them.

import { csvLink } from "superactivators/controls.js";
import { el } from "superactivators/dom.js";
import { activation, count, decimal, interval, level, percent, site } from "superactivators/format.js";
import { address } from "superactivators/route.js";
import { section } from "superactivators/section.js";
import { sortableTable } from "superactivators/table.js";
import { whisker } from "superactivators/whisker.js";

const SEARCH_FROM = 25;

export function conceptsSection(data, store) {
  const host = el("div");
  let words = "";
  const draw = () => {
    const rows = data.rows[store.get("kind")].filter((row) => row.concept.toLowerCase().includes(words));
    host.replaceChildren(conceptTable(data, rows, store));
  };
  store.watch(["kind"], draw);
  store.watch(["concept"], () => mark(host, store.get("concept")));
  const search =
    data.concepts.length >= SEARCH_FROM &&
    el("label", { class: "search" }, "Find a concept ", el("input", {
      type: "search",
      oninput: (event) => {
        words = event.target.value.toLowerCase();
        draw();
      },
    }));
  return section(
    "concepts",
    "Concept by concept",
    [
      "Each row is a concept on the test split at the layer, δ and threshold that cal chose for it; choose a name to see its tail, its examples and its errors.",
    ],
    search,
    host,
    el("p", { class: "note" }, "F1 with 95 % interval; the tick is the F1 of saying yes to every sample. † some ratio was 0/0 and reads 0. ",
      csvLink("Save as CSV", "concepts.csv", () => csv(data, store.get("kind")))),
  );
}

function columns(data, store) {
  const number = (key, title, hint, value, show) => ({ key, title, hint, value, cell: (row) => show(value(row)), numeric: true });
  const direct = (key, title, hint) => number(key, title, hint, (row) => row.tokens?.[key] ?? null, (value) => decimal(value));
  const places = new Map(data.sites.map((name, place) => [name, place]));
  const threshold = (row) => [activation(row.threshold), " ", el("span", { class: "range" }, bounds(row.interval))];
  const f1 = (row) => [
    el("b", {}, decimal(row.f1)), " ", el("span", { class: "range" }, interval(row.f1_low, row.f1_high)),
    whisker({ value: row.f1, low: row.f1_low, high: row.f1_high }, [0, 1], { width: 84, height: 16, mark: row.always_yes, strong: true }),
  ];
  const name = (row) => el("a", { href: address(row.concept) }, row.concept, row.undefined && el("abbr", { title: "a ratio was undefined and reads 0" }, " †"));
  return [
    { key: "concept", title: "Concept", head: true, value: (row) => row.concept, cell: name },
    { key: "f1", title: "F1", hint: "Harmonic mean of precision and recall", numeric: true, value: (row) => row.f1, cell: f1 },
    number("prevalence", "Prevalence", "Share of test samples with the concept", (row) => row.prevalence, percent),
    number("n_positive", "n", "Test samples with the concept", (row) => row.n_positive, count),
    { ...number("site", "Layer", "Chosen on cal", (row) => places.get(row.site), (place) => site(data.sites[place])) },
    number("delta", "δ", "Chosen on cal", (row) => row.delta, level),
    { key: "threshold", title: "Threshold", hint: "With 95 % interval", numeric: true, value: (row) => row.threshold, cell: threshold },
    number("precision", "Precision", "Share of detections that are right", (row) => row.precision, (v) => decimal(v)),
    number("recall", "Recall", "Share of positives that are found", (row) => row.recall, (v) => decimal(v)),
    number("fpr", "FPR", "Share of negatives with a false alarm", (row) => row.fpr, (v) => decimal(v, 3)),
    number("auroc", "AUROC", "Ranking of samples by score, no threshold", (row) => row.auroc, (v) => decimal(v)),
    number("average_precision", "AP", "Average precision over all thresholds", (row) => row.average_precision, (v) => decimal(v)),
    direct("token_f1", "Token F1", "F1 over tokens, direct localisation"),
    direct("iou", "IoU", "Overlap of firing and labelled tokens"),
    direct("pointing", "Pointing", "Positive samples whose highest token lies inside the concept"),
  ].filter((column) => data.data.token_labels || !["token_f1", "iou", "pointing"].includes(column.key));
}

function bounds([low, high]) {
  return low === null || high === null ? "" : `[${activation(low)}, ${activation(high)}]`;
}

function conceptTable(data, rows, store) {
  return sortableTable("Metrics of every concept", columns(data, store), {
    rows,
    sort: { key: "f1", down: true },
    attributes: (row) => ({ "data-concept": row.concept, class: row.concept === store.get("concept") ? "selected" : null }),
  });
}

function mark(host, concept) {
  for (const row of host.querySelectorAll("tbody tr")) row.classList.toggle("selected", row.dataset.concept === concept);
}

const PLAIN = [
  "concept", "site", "delta", "threshold", "n_tail", "precision", "recall", "f1", "f1_low", "f1_high", "accuracy", "fpr",
  "auroc", "average_precision", "prevalence", "n_positive", "n", "always_yes", "undefined",
];
const LOCAL = ["token_f1", "token_f1_low", "token_f1_high", "token_precision", "token_recall", "iou", "token_average_precision", "pointing"];

function csv(data, kind) {
  const head = ["kind", "method", ...PLAIN, "threshold_low", "threshold_high", ...LOCAL];
  const rows = data.rows[kind].map((row) => [kind, data.focus, ...PLAIN.map((name) => row[name]), ...row.interval, ...LOCAL.map((name) => row.tokens?.[name])]);
  return [head, ...rows];
}
