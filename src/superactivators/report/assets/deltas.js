// How much of the tail to keep: F1 against δ, for all concepts together and one by one.

import { figure, linear, ticks, xAxis, yAxis } from "superactivators/axes.js";
import { slider } from "superactivators/controls.js";
import { deltaChart } from "superactivators/deltachart.js";
import { el, responsive, svg } from "superactivators/dom.js";
import { level } from "superactivators/format.js";
import { panel, section } from "superactivators/section.js";

export function deltasSection(data, store) {
  return section(
    "deltas",
    "How much of the tail to keep?",
    [
      "A curve peaks at the share of in-concept tokens that is worth keeping; at the far right nearly every sample passes, and F1 falls to that of saying yes to every sample (dotted).",
    ],
    together(data, store),
    el("div", { class: "pair" }, oneByOne(data, store), histogram(data, store)),
  );
}

function watched(store, names, host, draw) {
  const redraw = responsive(host, draw);
  store.watch(names, redraw);
}

function together(data, store) {
  const host = el("div", { class: "chart" });
  watched(store, ["site", "average", "kind"], host, (width) => {
    const average = store.get("average");
    const layer = data.sites.indexOf(store.get("site"));
    const lines = data.kinds.flatMap((kind) => {
      const values = data.curves.together[kind][data.focus][average][layer];
      const best = values.reduce((top, value, place) => (value > values[top] ? place : top), 0);
      return { name: kind, values, style: kind === store.get("kind") ? "accent" : "plain", dot: data.deltas[best] };
    });
    lines.sort((a) => (a.style === "accent" ? 1 : -1));
    return deltaChart(data, width, lines, { label: `Test F1 against delta at ${store.get("site")}`, floor: data.floor[average], height: 300 });
  });
  const control =
    data.sites.length > 1 &&
    slider(
      "Layer",
      { min: 0, max: data.sites.length - 1, step: 1, value: data.sites.indexOf(store.get("site")) },
      (place) => data.sites[place],
      (place) => store.set({ site: data.sites[place] }),
    );
  return panel(
    "One δ for all concepts",
    "Test F1 of all concepts together at one layer; dots mark each kind’s highest point (seen on test, so for reading only).",
    control,
    host,
  );
}

function oneByOne(data, store) {
  const host = el("div", { class: "chart" });
  watched(store, ["kind", "concept"], host, (width) => {
    const kind = store.get("kind");
    const chosen = store.get("concept");
    const lines = data.rows[kind].map((row) => ({
      values: data.curve(kind, "test", row.concept, row.site),
      style: row.concept === chosen ? "accent" : "faint",
      dot: row.delta,
      title: row.concept,
    }));
    lines.sort((a) => (a.style === "accent" ? 1 : -1));
    return deltaChart(data, width, lines, { label: "Test F1 of each concept against delta", height: 270 });
  });
  const sentence = el("p", { class: "see" });
  store.watch(["concept"], () => {
    sentence.textContent = `A line for each concept at its chosen layer; dots mark the δ chosen on cal; “${store.get("concept")}” stands out.`;
  });
  return panel("Each concept", null, sentence, host);
}

function histogram(data, store) {
  const host = el("div", { class: "chart" });
  watched(store, ["kind"], host, (width) => {
    const counts = data.deltas.map((delta) => data.rows[store.get("kind")].filter((row) => row.delta === delta).length);
    return bars(data, counts, width);
  });
  return panel("Chosen δ", "How many concepts chose each δ on cal; bars inside the band agree with the paper’s 5–10 %.", host);
}

function bars(data, counts, width) {
  const height = 270;
  const box = { x0: 34, x1: width - 6, y0: 24, y1: height - 42 };
  const step = (box.x1 - box.x0) / counts.length;
  const middle = (delta) => box.x0 + (data.deltas.indexOf(delta) + 0.5) * step;
  const high = Math.max(...counts, 1);
  const y = linear([0, high], [box.y1, box.y0]);
  const inZone = data.deltas.filter((delta) => delta >= data.paper_zone[0] && delta <= data.paper_zone[1]);
  return figure(
    width,
    height,
    "Histogram of the chosen sparsity levels",
    inZone.length &&
      svg("rect", { class: "zone", x: middle(inZone[0]) - step / 2, width: step * inZone.length, y: box.y0, height: box.y1 - box.y0 }),
    yAxis(y, ticks([0, high], Math.min(4, high)).filter(Number.isInteger), { x0: box.x0, x1: box.x1, text: String, label: "concepts" }),
    counts.map((value, place) =>
      svg("rect", { class: "column", x: middle(data.deltas[place]) - step * 0.36, width: step * 0.72, y: y(value), height: box.y1 - y(value) },
        svg("title", {}, `δ ${level(data.deltas[place])}: ${value}`)),
    ),
    xAxis(middle, data.deltas, { y: box.y1, x0: box.x0, x1: box.x1, text: level, label: "sparsity level δ", gap: 27 }),
  );
}
