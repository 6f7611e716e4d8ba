// How far a concept stands apart, measure by measure, over layers.

import { figure, linear, path, ticks, xAxis, yAxis } from "superactivators/axes.js";
import { chart, layerScale, sentence } from "superactivators/analysisparts.js";
import { el, svg } from "superactivators/dom.js";
import { decimal, percent, site, tickText } from "superactivators/format.js";
import { panel } from "superactivators/section.js";

const MEASURES = [
  { name: "auroc", title: "AUROC", hint: "Chance that an in-concept token lies above another; .5 is none.", from: 0.5, to: 1 },
  { name: "cohens_d", title: "Cohen’s d", hint: "Distance of the means in standard deviations.", from: 0 },
  { name: "overlap", title: "Overlap", hint: "Common area of the two histograms.", share: true, from: 0, to: 1 },
  { name: "tail_mass", title: "Tail mass", hint: "In-concept tokens above the 98 % quantile of the others.", share: true, from: 0 },
  { name: "coverage", title: "Coverage", hint: "Positive samples with a token up there.", share: true, from: 0, to: 1 },
  { name: "skewness_in", title: "Skewness", hint: "A long upper tail is above 0; dotted: outside.", beside: "skewness_out", from: 0 },
];

export function measuresPanel(data, store) {
  const stroke = (style) => svg("svg", { width: 26, height: 8, "aria-hidden": "true" }, svg("path", { class: `line ${style}`, d: "M1,4L25,4" }));
  const name = el("span", {});
  store.watch(["concept"], () => {
    name.textContent = ` ${store.get("concept")}`;
  });
  return panel(
    "Layer by layer",
    null,
    sentence(data, store, (say) => say.separation),
    el("p", { class: "keys" },
      data.concepts.length > 1 && el("span", { class: "key-line" }, stroke(""), " mean over concepts"),
      el("span", { class: "key-line" }, stroke("accent"), name)),
    el("div", { class: "measures" }, MEASURES.map((measure) =>
      el(
        "figure",
        {},
        el("figcaption", {}, el("h4", {}, measure.title), el("p", { class: "hint" }, measure.hint)),
        chart(data, store, ["concept"], (found, width) => lines(data, store, found, measure, width), "small-chart"),
        sentence(data, store, (say) => say.measures[measure.name]),
      ))),
  );
}

function lines(data, store, found, measure, width) {
  const place = data.place(store.get("concept"));
  const series = (name, style) => [
    data.concepts.length > 1 && { values: found.means[name], style },
    { values: found.separation[name].map((row) => row[place]), style: `accent ${style}` },
  ].filter(Boolean);
  const shown = [...(measure.beside ? series(measure.beside, "dotted") : []), ...series(measure.name, "")];
  const numbers = shown.flatMap((one) => one.values).filter(Number.isFinite);
  if (!numbers.length) return el("p", { class: "note" }, "Not defined.");
  const low = Math.min(measure.from, ...numbers);
  const high = measure.to ?? (Math.max(measure.from, ...numbers) || 1);
  const height = 150;
  const box = { x0: 40, x1: width - 10, y0: 10, y1: height - 26 };
  const x = layerScale(found.sites, [box.x0 + 6, box.x1 - 4]);
  const marks = ticks([low, high], 4);
  const y = linear([low, high], [box.y1, box.y0]);
  const told = measure.share ? percent : (value) => decimal(value);
  return figure(
    width,
    height,
    `${measure.title} of ${store.get("concept")} over layers`,
    yAxis(y, marks, { x0: box.x0, x1: box.x1, text: measure.share ? (value) => `${Math.round(100 * value)} %` : tickText(marks) }),
    xAxis(x, [...found.sites.keys()], { y: box.y1, x0: box.x0, x1: box.x1, text: (one) => site(found.sites[one]), gap: 34 }),
    shown.map(({ values, style }) => svg("path", { class: `line ${style}`, d: path(values.map((value, one) => [x(one), y(value ?? NaN)])) })),
    shown.flatMap(({ values, style }) => values.map((value, one) => Number.isFinite(value) &&
      svg("circle", { class: `dot ${style}`, cx: x(one), cy: y(value), r: style.includes("dotted") ? 2 : 3 },
        svg("title", {}, `${found.sites[one]}: ${told(value)}`)))),
  );
}
