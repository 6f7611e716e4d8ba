// D_in and D_out of one concept, layer by layer.

import { figure, linear, ticks, xAxis } from "superactivators/axes.js";
import { analysed, chart, key, sentence } from "superactivators/analysisparts.js";
import { slider } from "superactivators/controls.js";
import { el, svg } from "superactivators/dom.js";
import { activation, count, decimal, percent, tickText } from "superactivators/format.js";
import { panel } from "superactivators/section.js";

const MARK = "98 %";

export function distributionsPanel(data, store) {
  const control = el("div", { class: "pickers" });
  const numbers = el("dl", { class: "facts tail-facts" });
  const start = () => {
    const sites = analysed(data, store)?.sites ?? [];
    // Another concept opens at the layer that was chosen for it.
    const chosen = data.row(store.get("kind"), store.get("concept")).site;
    store.set({ layer: sites.includes(chosen) ? chosen : (sites.at(-1) ?? null) });
    const say = (place) => (sites[place] === chosen ? `${sites[place]} (chosen on cal)` : sites[place]);
    control.replaceChildren(
      sites.length > 1
        ? slider("Layer", { min: 0, max: sites.length - 1, step: 1, value: sites.indexOf(store.get("layer")) }, say, (place) => store.set({ layer: sites[place] }))
        : el("span", { class: "faint" }, sites[0] ?? ""),
    );
  };
  store.watch(["kind", "concept"], start);
  const now = (found) => ({ layer: Math.max(0, found.sites.indexOf(store.get("layer"))), concept: data.place(store.get("concept")) });
  store.watch(["kind", "concept", "layer"], () => {
    const found = analysed(data, store);
    numbers.replaceChildren(...(found ? facts(found, now(found)) : []));
  });
  return panel(
    "Inside and outside a concept",
    null,
    sentence(data, store, (say) => say.distributions),
    control,
    el("p", { class: "keys" }, key("inside", "in-concept tokens"), key("outside", "tokens of samples without it"), key("far", `above the ${MARK} quantile of these`)),
    chart(data, store, ["concept", "layer"], (found, width) => histogram(data, store, found, now(found), width)),
    numbers,
  );
}

function facts(found, { layer, concept }) {
  const value = (name) => found.separation[name][layer]?.[concept];
  const entry = (term, text, small) => el("div", {}, el("dt", {}, term), el("dd", {}, text, small && el("small", {}, small)));
  return [
    entry("Tail mass", percent(value("tail_mass")), `of ${count(value("n_in"))} in-concept tokens`),
    entry("Coverage", percent(value("coverage")), "of positive samples"),
    entry("AUROC", decimal(value("auroc"))),
    entry("Cohen’s d", decimal(value("cohens_d"))),
    entry("Overlap", percent(value("overlap"))),
    entry("Skewness", `${decimal(value("skewness_in"))} / ${decimal(value("skewness_out"))}`, "inside / outside"),
  ];
}

/** Whole numbers from unsigned LEB128: seven bits a byte, lowest first. */
export function unpackedCounts(text) {
  const counts = [];
  let value = 0;
  let scale = 1;
  for (const sign of atob(text)) {
    const byte = sign.charCodeAt(0);
    value += (byte & 127) * scale;
    scale *= 128;
    if (byte < 128) {
      counts.push(value);
      value = 0;
      scale = 1;
    }
  }
  return counts;
}

const opened = new WeakMap();

/** Bins inside and outside a concept at a layer; a layer is unpacked once. */
function bins(histograms, layer, concept) {
  if (!opened.has(histograms)) opened.set(histograms, []);
  const layers = opened.get(histograms);
  layers[layer] ??= unpackedCounts(histograms.counts[layer]);
  const from = 2 * histograms.bins * concept;
  return [0, 1].map((side) => layers[layer].slice(from + side * histograms.bins, from + (side + 1) * histograms.bins));
}

function histogram(data, store, found, { layer, concept }, width) {
  const site = found.sites[layer];
  const { histograms } = found;
  const [low, high] = [histograms?.low[layer][concept], histograms?.high[layer][concept]];
  if (!Number.isFinite(low) || !Number.isFinite(high)) return el("p", { class: "note" }, "This concept has no tokens to compare on test.");
  const height = 244;
  const box = { x0: 8, x1: width - 8, y0: 40, y1: height - 42 };
  const x = linear([low, high], [box.x0, box.x1]);
  const shares = bins(histograms, layer, concept).map(normalised);
  const y = linear([0, Math.max(...shares[0], ...shares[1], 1e-9)], [box.y1, box.y0]);
  const edge = (bin) => x(low + ((high - low) * bin) / histograms.bins);
  const row = data.row(store.get("kind"), store.get("concept"));
  const threshold = row.site === site && row.threshold !== null ? x(row.threshold) : null;
  const far = found.separation.far[layer][concept];
  const at = Number.isFinite(far) ? x(far) : null;
  const axis = ticks([low, high], width < 460 ? 4 : 7);
  const label = (place, line, style, text, left) => svg("text", { class: style, x: place + (left ? -5 : 5), y: box.y0 - 26 + 14 * line, "text-anchor": left ? "end" : "start" }, text);
  return figure(
    width,
    height,
    `Activations of ${row.concept} at ${site}: ${percent(found.separation.tail_mass[layer][concept])} of in-concept tokens above the ${MARK} quantile of tokens of other samples`,
    at !== null && svg("rect", { class: "tail-zone", x: at, width: Math.max(0, box.x1 - at), y: box.y0 - 8, height: box.y1 - box.y0 + 8 }),
    ["inside", "outside"].map((part, side) => svg("path", { class: `area ${part}`, d: `${stairs(shares[side], edge, y, box.y1)}Z` })).reverse(),
    ["inside", "outside"].map((part, side) => svg("path", { class: `outline ${part}`, d: stairs(shares[side], edge, y, box.y1) })).reverse(),
    svg("line", { class: "base", x1: box.x0, x2: box.x1, y1: box.y1, y2: box.y1 }),
    at !== null && [
      svg("line", { class: "far-line", x1: at, x2: at, y1: box.y0 - 8, y2: box.y1 }),
      label(at, 1, "far-label", `${MARK} of outside: ${activation(far)}`, at > 134),
    ],
    threshold !== null && [
      svg("line", { class: "threshold", x1: threshold, x2: threshold, y1: box.y0 - 22, y2: box.y1 }),
      label(threshold, 0, "threshold-label", `threshold ${activation(row.threshold)}`, threshold > width * 0.6),
    ],
    xAxis(x, axis, { y: box.y1, x0: box.x0, x1: box.x1, text: tickText(axis), label: `activation at ${site}; heights are shares of tokens per bin` }),
  );
}

function normalised(counts) {
  const total = counts.reduce((sum, value) => sum + value, 0) || 1;
  return counts.map((value) => value / total);
}

function stairs(values, edge, height, base) {
  const tops = values.map((value, bin) => `V${height(value).toFixed(1)}H${edge(bin + 1).toFixed(1)}`);
  return `M${edge(0).toFixed(1)},${base}${tops.join("")}V${base}`;
}
