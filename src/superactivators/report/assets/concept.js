// One concept: its tail, its curve, its metrics against the other methods, its examples.

import { deltaChart } from "superactivators/deltachart.js";
import { el, responsive } from "superactivators/dom.js";
import { exampleGallery } from "superactivators/examples.js";
import { activation, count, decimal, interval, level, percent } from "superactivators/format.js";
import { address } from "superactivators/route.js";
import { panel } from "superactivators/section.js";
import { tailChart } from "superactivators/tails.js";
import { domainOf, whisker } from "superactivators/whisker.js";

/** The concept's part of the page; redrawn when another concept or kind is chosen. */
export function conceptDetail(data, store) {
  const host = el("article", { class: "concept", id: "concept", "aria-labelledby": "concept-title", tabindex: "-1" });
  const settings = { opacity: 0.55, marks: true, truth: true };
  const gallery = el("div", {});
  store.watch(["concept"], () => gallery.replaceChildren(exampleGallery(data, store.get("concept"), settings)));
  store.watch(["concept", "kind"], () => host.replaceChildren(...parts(data, store.get("kind"), store.get("concept"), gallery)));
  return host;
}

function parts(data, kind, concept, gallery) {
  const row = data.row(kind, concept);
  const spread = data.spread(kind, concept);
  return [
    header(data, kind, row),
    el("div", { class: "pair wide-left" }, spread && row.threshold !== null ? tail(data, row, spread) : null, el("div", {}, curve(data, kind, row), rivals(data, row))),
    metrics(row),
    el("figure", { class: "panel examples" }, el("figcaption", {}, el("h3", {}, "Examples"),
      el("p", { class: "see" }, "A good detector tints what people marked and little else; the false alarms and misses show what it takes for the concept.")), gallery),
  ];
}

function header(data, kind, row) {
  const place = data.place(row.concept);
  const step = (offset, text) => {
    const other = data.concepts.at((place + offset) % data.concepts.length);
    return data.concepts.length > 1 && el("a", { href: address(other), rel: offset < 0 ? "prev" : "next", "aria-label": `${text} concept: ${other}` }, offset < 0 ? `← ${other}` : `${other} →`);
  };
  return el(
    "header",
    {},
    el("p", { class: "kicker" }, `Concept ${place + 1} of ${data.concepts.length} · ${kind} vectors · ${row.site}`),
    el("h3", { id: "concept-title", class: "concept-name" }, row.concept),
    el("p", { class: "lead" }, sentence(row)),
    el("nav", { class: "steps", "aria-label": "Concepts" }, step(-1, "Previous"), step(1, "Next")),
  );
}

function sentence(row) {
  const range = interval(row.f1_low, row.f1_high);
  const compared = row.f1 > row.always_yes ? "" : " That is no better than saying yes to every sample.";
  return (
    `Found in ${count(row.tp)} of ${count(row.n_positive)} test samples that carry it, with ${count(row.fp)} false alarms among ` +
    `${count(row.n - row.n_positive)} that do not: F1 ${decimal(row.f1)}${range && ` ${range}`}.${compared}`
  );
}

function tail(data, row, spread) {
  const host = el("div", { class: "chart" });
  responsive(host, (width) => tailChart(spread, row.threshold, width));
  const ratio = spread.above_outside > 0 ? `, ${count(Math.round(spread.above_inside / spread.above_outside))} times as often` : "";
  return panel(
    "The tail",
    `Right of the line, ${percent(spread.above_inside)} of in-concept test tokens are left, and ${percent(spread.above_outside)} of the tokens of samples without the concept${ratio}.`,
    el("p", { class: "keys" }, el("span", { class: "swatch inside" }), "in-concept tokens ", el("span", { class: "swatch outside" }), "tokens of samples without it"),
    host,
  );
}

function curve(data, kind, row) {
  const host = el("div", { class: "chart" });
  const line = (split) => data.curve(kind, split, row.concept, row.site);
  responsive(host, (width) =>
    deltaChart(
      data,
      width,
      [
        { name: "cal", values: line("cal"), style: "plain dashed", dot: row.delta },
        { name: "test", values: line("test"), style: "accent", dot: row.delta },
      ],
      { label: `F1 of ${row.concept} against delta`, floor: row.always_yes, height: 220, top: 1 },
    ),
  );
  return panel("F1 against δ", `At ${row.site}; the dots mark the chosen δ ${level(row.delta)}, the dotted line says yes to every sample.`, host);
}

function rivals(data, row) {
  const entries = Object.entries(row.by_method).map(([name, found]) => [name, { value: found.f1, low: found.f1_low, high: found.f1_high }, found]);
  const domain = domainOf(entries.map(([, estimate]) => estimate), [row.always_yes]);
  return panel(
    "Against other methods",
    null,
    el(
      "table",
      { class: "rivals" },
      el("caption", { class: "unseen" }, `Test F1 of ${row.concept} by method`),
      el("tbody", {}, entries.map(([name, estimate, found]) =>
        el(
          "tr",
          { class: name === data.reference ? "reference" : null, title: `${found.site}, δ ${level(found.delta)}` },
          el("th", { scope: "row" }, data.label(name)),
          el("td", { class: "plot" }, whisker(estimate, domain, { width: 120, height: 18, mark: row.always_yes, strong: name === data.reference })),
          el("td", { class: "number" }, decimal(estimate.value), " ", el("span", { class: "range" }, interval(estimate.low, estimate.high))),
        ),
      )),
    ),
  );
}

function metrics(row) {
  const entry = (term, value, small = "") => el("div", {}, el("dt", {}, term), el("dd", {}, value, small && el("small", {}, small)));
  const local = row.tokens;
  const [low, high] = row.interval;
  return el(
    "dl",
    { class: "facts metrics" },
    entry("Threshold", activation(row.threshold), `${low === null ? "" : `[${activation(low)}, ${activation(high)}], `}from ${count(row.n_tail)} scores`),
    entry("δ", level(row.delta), "chosen on cal"),
    entry("Precision", decimal(row.precision)),
    entry("Recall", decimal(row.recall)),
    entry("False-alarm rate", decimal(row.fpr, 3)),
    entry("AUROC", decimal(row.auroc)),
    entry("Average precision", decimal(row.average_precision)),
    entry("Prevalence", percent(row.prevalence), `${count(row.n_positive)} of ${count(row.n)}`),
    local && [
      entry("Token F1", decimal(local.token_f1), `${interval(local.token_f1_low, local.token_f1_high)} at δ ${level(local.delta)}`),
      entry("IoU", decimal(local.iou)),
      entry("Pointing game", decimal(local.pointing)),
      entry("Token AP", decimal(local.token_average_precision)),
    ],
  );
}
