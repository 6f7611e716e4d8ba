// Methods against each other: F1 with intervals, and the paired difference to the SuperActivators.

import { csvLink } from "superactivators/controls.js";
import { el } from "superactivators/dom.js";
import { decimal, interval } from "superactivators/format.js";
import { section } from "superactivators/section.js";
import { scrollable } from "superactivators/table.js";
import { domainOf, whisker } from "superactivators/whisker.js";

const WORDS = { better: "better", worse: "worse", unclear: "no clear difference", unknown: "no interval" };

export function methodsSection(data, store) {
  const host = el("div");
  store.watch(["average", "kind"], () => host.replaceChildren(table(data, store.get("average"), store.get("kind"))));
  const note = data.hasReference
    ? "Difference: SuperActivators minus the method, paired on the same resamples. “Better” and “worse” mean that its " +
      "95 % interval excludes 0; p is that of the same bootstrap with Holm’s correction for the number of comparisons. Methods " +
      `without vectors are compared with the ${data.best_kind} vectors’ SuperActivators.`
    : "SuperActivators were not evaluated in this study.";
  return section(
    "methods",
    "Which method detects best?",
    "Dots further right are better; whiskers are 95 % intervals, and the dotted line is the F1 of saying yes to every sample.",
    host,
    el("p", { class: "note" }, note, " ", csvLink("Save as CSV", "methods.csv", () => csv(data))),
  );
}

function table(data, average, selected) {
  const rows = data.method_rows;
  const floor = data.floor[average];
  const domain = domainOf(rows.map((row) => row[average].f1), [floor]);
  const gains = rows.map((row) => row[average].gain).filter(Boolean);
  const gainDomain = domainOf(gains, [0]);
  const other = average === "weighted" ? "macro" : "weighted";
  const head = (text, props = {}) => el("th", { scope: "col", ...props }, text);
  return scrollable(
    "F1 of every method",
    el(
      "table",
      { class: "methods" },
      el("caption", { class: "unseen" }, `Test F1 (${average}) of every kind and method`),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head("Method"),
          head(`${capital(average)} F1`, { class: "number" }),
          head(""),
          head(`${capital(other)}`, { class: "number" }),
          data.hasReference && head("SuperActivators’ lead", { class: "number" }),
          data.hasReference && head(""),
          data.hasReference && head("SuperActivators are …"),
        ),
      ),
      data.groups.map((group) =>
        el(
          "tbody",
          { class: group.name === selected ? "selected" : null },
          data.groups.length > 1 && el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: 7 }, group.label)),
          data.methodsOf(group.name).map((row) => line(data, row, average, other, { domain, gainDomain, floor })),
          data.oracle[group.name] && oracleLine(data.oracle[group.name], average, other),
        ),
      ),
    ),
  );
}

function line(data, row, average, other, { domain, gainDomain, floor }) {
  const { f1, gain, p_holm: p } = row[average];
  const strong = row.method === data.reference;
  const verdict = gain && judge(gain);
  return el(
    "tr",
    { class: strong ? "reference" : null },
    el("th", { scope: "row" }, el("span", { class: "method" }, data.label(row.method)), el("small", {}, data.method(row.method).summary)),
    el("td", { class: "number" }, el("b", {}, decimal(f1.value)), " ", el("span", { class: "range" }, interval(f1.low, f1.high))),
    el("td", { class: "plot" }, whisker(f1, domain, { width: 156, mark: floor, strong })),
    el("td", { class: "number faint" }, decimal(row[other].f1.value)),
    data.hasReference &&
      el(
        "td",
        { class: "number" },
        gain && [decimal(gain.value, 3, true), " ", el("span", { class: "range" }, interval(gain.low, gain.high, 3, true))],
      ),
    data.hasReference && el("td", { class: "plot" }, gain && whisker(gain, gainDomain, { width: 100, mark: 0 })),
    data.hasReference &&
      el(
        "td",
        { class: `verdict ${verdict ?? ""}` },
        verdict ? `${WORDS[verdict]} ` : "",
        Number.isFinite(p) && el("small", {}, `p ${p < 0.001 ? "< .001" : `= ${decimal(p, 3)}`}`),
      ),
  );
}

function judge({ low, high }) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return "unknown";
  return low > 0 ? "better" : high < 0 ? "worse" : "unclear";
}

/** What a matched kind would reach if test chose its units: never to be compared with the rows above. */
function oracleLine(value, average, other) {
  return el(
    "tr",
    { class: "oracle faint" },
    el("th", { scope: "row" }, el("span", { class: "method" }, "SuperActivators, oracle match"), el("small", {}, "units chosen on test: an upper bound, not a result")),
    el("td", { class: "number" }, decimal(value[average])),
    el("td", {}),
    el("td", { class: "number" }, decimal(value[other])),
    el("td", { colspan: 3 }),
  );
}

function csv(data) {
  const parts = ["value", "low", "high"];
  const ends = ["low", "high"];
  const averages = ["weighted", "macro"];
  const head = ["kind", "method"];
  for (const average of averages) {
    head.push(...parts.map((part) => `${average}_f1_${part}`), ...ends.map((end) => `${average}_f1_fixed_${end}`), ...parts.map((part) => `${average}_superactivators_minus_method_${part}`));
  }
  const rows = data.method_rows.map((row) => [
    row.kind,
    row.method,
    ...averages.flatMap((average) => [
      ...parts.map((part) => row[average].f1[part]),
      ...ends.map((end) => row[average].fixed[end]),
      ...parts.map((part) => row[average].gain?.[part]),
    ]),
  ]);
  return [head, ...rows];
}

function capital(word) {
  return word[0].toUpperCase() + word.slice(1);
}
