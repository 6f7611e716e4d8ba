// Where detection fails: rare concepts, small ones, long samples.

import { figure, linear, path, ticks, xAxis, yAxis } from "superactivators/axes.js";
import { chart, key, sentence } from "superactivators/analysisparts.js";
import { el, svg } from "superactivators/dom.js";
import { count, decimal, percent } from "superactivators/format.js";
import { panel } from "superactivators/section.js";

export function errorsPanels(data, store) {
  const all = Object.values(data.analyses.kinds);
  const has = (test) => all.some(test);
  const scatterOf = (name, label) =>
    chart(data, store, ["concept"], (found, width) => scatter(store, found.errors, name, label, width));
  const sized = has((found) => found.errors.some((row) => row.size !== null));
  return el(
    "div",
    {},
    panel(
      "Rare and small concepts",
      null,
      sentence(data, store, (say) => say.errors),
      el("p", { class: "keys" }, "A dot for each concept. The dotted line says yes to every sample: that alone makes F1 rise with prevalence."),
      el("div", { class: sized ? "pair" : null }, scatterOf("prevalence", "prevalence on test"), sized && scatterOf("size", "median share of a sample’s tokens")),
    ),
    el(
      "div",
      { class: "pair" },
      has((found) => found.sizes.length) &&
        panel("Size in the sample", null, sentence(data, store, (say) => say.sizes),
          chart(data, store, [], (found, width) => binned(found.sizes, { text: percent, label: "share of the sample’s tokens", lines: [["recall", "recall", "accent"]] }, width))),
      has((found) => found.lengths.length) &&
        panel("Length of the sample", null, sentence(data, store, (say) => say.lengths),
          chart(data, store, [], (found, width) => binned(found.lengths, { text: count, label: "tokens", lines: [["recall", "recall", "accent"], ["fpr", "false alarms", ""]] }, width))),
    ),
  );
}

function scatter(store, rows, name, label, width) {
  const known = rows.filter((row) => Number.isFinite(row[name]) && Number.isFinite(row.f1));
  if (!known.length) return el("p", { class: "note" }, "Not measured.");
  const height = 250;
  const box = { x0: 36, x1: width - 14, y0: 24, y1: height - 42 };
  const high = Math.min(1, Math.max(...known.map((row) => row[name])) * 1.08 || 1);
  const x = linear([0, high], [box.x0, box.x1]);
  const y = linear([0, 1], [box.y1, box.y0]);
  const marks = ticks([0, high], width < 420 ? 4 : 5);
  const steps = [...Array(41).keys()].map((step) => (high * step) / 40);
  const told = (row) => `${row.concept}: F1 ${decimal(row.f1)}, precision ${decimal(row.precision)}, recall ${decimal(row.recall)}, ${percent(row[name])}`;
  const dot = (row) => {
    const mine = row.concept === store.get("concept");
    return svg("circle", { class: mine ? "dot accent" : "dot open", cx: x(row[name]), cy: y(row.f1), r: mine ? 6 : 4.5, onclick: () => store.set({ concept: row.concept }) },
      svg("title", {}, told(row)));
  };
  const ordered = [...known].sort((a, b) => Number(a.concept === store.get("concept")) - Number(b.concept === store.get("concept")));
  return figure(
    width,
    height,
    `F1 of each concept against ${label}. ${known.filter((row) => row.concept === store.get("concept")).map(told).join("")}`,
    yAxis(y, [0, 0.2, 0.4, 0.6, 0.8, 1], { x0: box.x0, x1: box.x1, text: (value) => decimal(value, 1), label: "test F1" }),
    xAxis(x, marks, { y: box.y1, x0: box.x0, x1: box.x1, text: (value) => `${Number((100 * value).toPrecision(3))} %`, label, gap: 36 }),
    name === "prevalence" && svg("path", { class: "line floor", d: path(steps.map((share) => [x(share), y((2 * share) / (1 + share))])) }),
    ordered.map(dot),
  );
}

function binned(bins, { text, label, lines }, width) {
  const shown = bins.filter((bin) => bin.n > 0 && Number.isFinite(bin.low) && Number.isFinite(bin.high));
  if (!shown.length) return el("p", { class: "note" }, "Not measured.");
  const height = 224;
  const box = { x0: 40, x1: width - 8, y0: 26, y1: height - 42 };
  const y = linear([0, 1], [box.y1, box.y0]);
  const step = (box.x1 - box.x0) / shown.length;
  const wide = (step * 0.74) / lines.length;
  const middle = (place) => box.x0 + (place + 0.5) * step;
  const range = ({ low, high }) => (low === high ? text(low) : `${text(low).replace(/ %$/, "")}–${text(high)}`);
  return el(
    "div",
    {},
    lines.length > 1 && el("p", { class: "keys" }, lines.map(([, title, style]) => key(style || "ink", title))),
    figure(
      width,
      height,
      `${lines.map(([, title]) => title).join(" and ")} by ${label}`,
      yAxis(y, [0, 0.25, 0.5, 0.75, 1], { x0: box.x0, x1: box.x1, text: (value) => `${100 * value} %`, label: lines.length > 1 ? "share of pairs" : lines[0][1] }),
      xAxis(middle, [...shown.keys()], { y: box.y1, x0: box.x0, x1: box.x1, text: (place) => range(shown[place]), label, gap: 44 }),
      shown.flatMap((bin, place) => lines.map(([name, title, style], number) => Number.isFinite(bin[name]) && [
        svg("rect", { class: `column ${style}`, x: middle(place) + (number - lines.length / 2) * wide + 1, width: Math.max(1, wide - 2), y: y(bin[name]), height: box.y1 - y(bin[name]) },
          svg("title", {}, `${range(bin)}: ${title} ${percent(bin[name])}, ${count(bin.n)} cases`)),
        wide > 26 && svg("text", { x: middle(place) + (number - lines.length / 2 + 0.5) * wide, y: y(bin[name]) - 4, "text-anchor": "middle" }, `${Math.round(100 * bin[name])} %`),
      ])),
    ),
  );
}

