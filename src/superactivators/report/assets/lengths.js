// False alarms against the length of samples: more tokens are more chances for one to pass by accident.

import { el } from "superactivators/dom.js";
import { count, decimal, interval } from "superactivators/format.js";
import { section } from "superactivators/section.js";
import { scrollable } from "superactivators/table.js";

export function lengthsSection(data, store) {
  const host = el("div");
  store.watch(["kind"], () => host.replaceChildren(table(data, store.get("kind"))));
  return section(
    "lengths",
    "Do long samples raise false alarms?",
    "False-positive rate on test by number of tokens, all concepts together; an AUROC above .5 means that false alarms are longer than samples that stay quiet.",
    host,
  );
}

function table(data, kind) {
  const methods = Object.entries(data.lengths[kind] ?? {});
  if (!methods.length) return el("p", {}, "Not measured.");
  const bins = methods[0][1];
  if (bins.length === 1) return el("p", {}, `All samples have ${count(bins[0].high)} tokens, so length cannot matter.`);
  const head = (text) => el("th", { scope: "col", class: "number" }, text);
  return scrollable(
    `False alarms against length with ${kind} vectors`,
    el(
      "table",
      { class: "lengths" },
      el("caption", { class: "unseen" }, `False-positive rate by number of tokens, ${kind} vectors`),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Method"), bins.map((bin) => head(`${count(bin.low)} to ${count(bin.high)}`)), head("AUROC"))),
      el(
        "tbody",
        {},
        methods.map(([name, rows]) =>
          el(
            "tr",
            { class: name === data.reference ? "reference" : null },
            el("th", { scope: "row" }, data.label(name)),
            rows.map((row) => el("td", { class: "number", title: interval(row.fpr_low, row.fpr_high, 3) }, decimal(row.fpr))),
            el("td", { class: "number" }, decimal(rows[0].length_auroc)),
          ),
        ),
      ),
    ),
  );
}
