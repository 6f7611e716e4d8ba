// How few tokens are SuperActivators, one δ for all concepts layer by layer, and what the concepts choose.

import { figure, linear, logarithmic, path, ticks, xAxis, yAxis } from "superactivators/axes.js";
import { analysed, chart, sentence } from "superactivators/analysisparts.js";
import { el, svg } from "superactivators/dom.js";
import { decimal, level, plural } from "superactivators/format.js";
import { panel } from "superactivators/section.js";

export function sparsityPanel(data, store) {
  return panel(
    "How few tokens are SuperActivators",
    null,
    sentence(data, store, (say) => say.sparsity),
    el("p", { class: "keys" }, "A line for each concept; the chosen one stands out, the median is dashed."),
    chart(data, store, ["concept"], (found, width) => cumulative(data, store, found.sparsity, width), "chart narrow"),
  );
}

function cumulative(data, store, { shares, concepts, median }, width) {
  const height = 250;
  const box = { x0: 46, x1: width - 12, y0: 24, y1: height - 42 };
  const x = linear([0, 1], [box.x0, box.x1]);
  const y = linear([0, 1], [box.y1, box.y0]);
  const chosen = data.place(store.get("concept"));
  const all = concepts.map((values, place) => ({ values, style: place === chosen ? "accent" : "faint", title: data.concepts[place] }));
  const line = ({ values, style, title }) => svg("path", { class: `line ${style}`, d: path(values.map((value, place) => [x(shares[place]), y(value ?? NaN)])) }, svg("title", {}, title));
  return figure(
    width,
    height,
    `Distribution of the share of SuperActivators among in-concept tokens, ${store.get("concept")} beside the other concepts`,
    yAxis(y, [0, 0.25, 0.5, 0.75, 1], { x0: box.x0, x1: box.x1, text: asPercent, label: "positive samples with at most this share" }),
    xAxis(x, [0, 0.25, 0.5, 0.75, 1], { y: box.y1, x0: box.x0, x1: box.x1, text: asPercent, label: width < 440 ? "SuperActivators among in-concept tokens" : "share of SuperActivators among a sample’s in-concept tokens", gap: 36 }),
    all.filter((one) => one.style === "faint").map(line),
    data.concepts.length > 1 && line({ values: median, style: "dashed", title: "median" }),
    line(all[chosen]),
  );
}

const asPercent = (value) => `${Math.round(100 * value)} %`;

export function levelsPanels(data, store) {
  return el(
    "div",
    {},
    panel(
      "One δ for all concepts, by layer",
      null,
      sentence(data, store, (say) => say.levels),
      el("p", { class: "keys" }, "Weighted test F1, a line for each layer, darker the deeper; the layer that is best on cal stands out."),
      chart(data, store, [], levelChart, "chart narrow"),
    ),
    el(
      "div",
      { class: "pair" },
      panel("Chosen δ", null, sentence(data, store, (say) => say.best_deltas), bars(data, store, (found) => found.best_deltas.map(([delta, count]) => [`δ ${level(delta)}`, count]), "Concepts by chosen δ")),
      panel("Chosen layer", null, sentence(data, store, (say) => say.best_layers), bars(data, store, (found) => found.best_layers.map(([name, count]) => [name, count]), "Concepts by chosen layer")),
    ),
  );
}

function levelChart({ levels: { sites, deltas, cal, test } }, width) {
  const height = 280;
  const box = { x0: 38, x1: width - 70, y0: 24, y1: height - 42 };
  const numbers = test.flat().filter(Number.isFinite);
  if (!numbers.length) return null;
  const best = bestPlace(cal);
  const high = Math.min(1, Math.ceil((Math.max(...numbers) + 0.02) * 10) / 10);
  const x = deltas.length > 1 ? logarithmic([deltas[0], deltas.at(-1)], [box.x0 + 8, box.x1 - 6]) : () => (box.x0 + box.x1) / 2;
  const y = linear([0, high], [box.y1, box.y0]);
  const line = (place, style, opacity) =>
    svg("path", { class: `line ${style}`, style: { opacity }, d: path(deltas.map((delta, one) => [x(delta), y(test[place][one] ?? NaN)])) }, svg("title", {}, sites[place]));
  const last = best && test[best.site].findLast(Number.isFinite);
  const mark = best && test[best.site][best.delta];
  return figure(
    width,
    height,
    "Weighted test F1 against delta, a line for each layer",
    yAxis(y, ticks([0, high], 5), { x0: box.x0, x1: box.x1, text: (value) => decimal(value, 1), label: "F1" }),
    xAxis(x, deltas, { y: box.y1, x0: box.x0, x1: box.x1, text: level, label: "sparsity level δ", gap: 30 }),
    sites.map((_, place) => place !== best?.site && line(place, "layer", (0.2 + (0.6 * (place + 1)) / sites.length).toFixed(2))),
    best && line(best.site, "accent", "1"),
    best && Number.isFinite(mark) && svg("circle", { class: "dot accent", cx: x(deltas[best.delta]), cy: y(mark), r: 4.5 }, svg("title", {}, `best on cal: ${sites[best.site]}, δ ${level(deltas[best.delta])}, test F1 ${decimal(mark)}`)),
    best && Number.isFinite(last) && svg("text", { class: "end accent", x: box.x1 + 6, y: y(last) + 4 }, sites[best.site]),
  );
}

function bestPlace(cal) {
  let best = null;
  cal.forEach((row, place) => row.forEach((value, delta) => {
    if (Number.isFinite(value) && (!best || value > best.value)) best = { site: place, delta, value };
  }));
  return best;
}

/** Counts of concepts as a small table of bars. */
function bars(data, store, entries, caption) {
  const host = el("div");
  store.watch(["kind"], () => {
    const found = analysed(data, store);
    const rows = found ? entries(found) : [];
    const most = Math.max(1, ...rows.map(([, count]) => count));
    host.replaceChildren(
      el(
        "table",
        { class: "count-bars" },
        el("caption", { class: "unseen" }, caption),
        el("tbody", {}, rows.map(([name, count]) =>
          el("tr", {}, el("th", { scope: "row" }, name),
            el("td", {}, el("span", { class: "chosen-bar", style: { "--share": (count / most).toFixed(3) } }), el("span", { class: "chosen-text" }, count ? plural(count, "concept") : "none"))))),
      ),
    );
  });
  return host;
}

