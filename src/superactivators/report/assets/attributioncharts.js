// Charts of attribution: insertion and deletion curves of every explainer, and the sweep between the objectives.

import { figure, linear, path, ticks, xAxis, yAxis } from "superactivators/axes.js";
import { el, responsive, svg } from "superactivators/dom.js";
import { decimal, interval, tickText } from "superactivators/format.js";
import { panel } from "superactivators/section.js";

const styleOf = (objective) => (objective === "superactivators" ? "accent" : "");

export function curvesPanel(found, names) {
  const explainers = found.explainers.filter(({ name }) => found.curves.some((curve) => curve.explainer === name));
  const values = found.curves.flatMap((curve) => [...curve.insertion, ...curve.deletion]).filter(Number.isFinite);
  const domain = [Math.min(0, ...values), Math.max(1, ...values)];
  return panel(
    "Showing and hiding tokens in the map’s order",
    "Agreement with the concept, from the empty input (0) to the full input (1), as tokens are inserted (solid; a good map rises early) or deleted (dashed; a good map falls early).",
    el(
      "p",
      { class: "keys" },
      found.objectives.map(({ name, label }) => el("span", { class: "key-line" }, svg("svg", { width: 26, height: 8, "aria-hidden": "true" }, svg("path", { class: `line ${styleOf(name)}`, d: "M1,4L25,4" })), ` ${label}`)),
    ),
    el(
      "div",
      { class: "small-charts" },
      explainers.map(({ name, label }) => {
        const mine = found.curves.filter((curve) => curve.explainer === name);
        const host = el("div", { class: "small-chart" });
        responsive(host, (width) => curveChart(width, mine, domain, label, names));
        return el("figure", {}, el("figcaption", {}, label), host);
      }),
    ),
  );
}

function curveChart(width, curves, domain, label, names) {
  const height = 132;
  const box = { x0: 30, x1: width - 18, y0: 8, y1: height - 24 };
  const x = linear([0, 1], [box.x0, box.x1]);
  const y = linear(domain, [box.y1, box.y0]);
  const line = (curve, part) =>
    svg(
      "path",
      { class: `line ${styleOf(curve.objective)}${part === "deletion" ? " dashed" : ""}`, d: path(curve.share.map((share, place) => [x(share), y(curve[part][place] ?? NaN)])) },
      svg("title", {}, `${names.objective.get(curve.objective) ?? curve.objective}, ${part}`),
    );
  return figure(
    width,
    height,
    `Insertion and deletion curves of ${label}`,
    yAxis(y, [0, 1], { x0: box.x0, x1: box.x1, text: String }),
    xAxis(x, [0, 0.5, 1], { y: box.y1, x0: box.x0, x1: box.x1, text: (value) => `${100 * value} %` }),
    // The accent is drawn last, so that it is seen where both objectives agree.
    [...curves].sort((a, b) => styleOf(a.objective).length - styleOf(b.objective).length).flatMap((curve) => [line(curve, "deletion"), line(curve, "insertion")]),
  );
}

export function hybridPanel(hybrid) {
  const host = el("div", { class: "chart hybrid" });
  responsive(host, (width) => hybridChart(Math.min(width, 640), hybrid));
  return panel("Between the two objectives", hybrid.sentence, host);
}

function hybridChart(width, { rows, best }) {
  const height = 230;
  const box = { x0: 38, x1: width - 12, y0: 22, y1: height - 44 };
  const values = rows.flatMap((row) => [row.token_f1, row.low, row.high]).filter(Number.isFinite);
  const air = (Math.max(...values) - Math.min(...values) || 0.1) * 0.1;
  const domain = [Math.max(0, Math.min(...values) - air), Math.min(1, Math.max(...values) + air)];
  const x = linear([0, 1], [box.x0 + 4, box.x1 - 4]);
  const y = linear(domain, [box.y1, box.y0]);
  const marks = ticks(domain, 4);
  const banded = rows.filter((row) => Number.isFinite(row.low) && Number.isFinite(row.high));
  const edge = [...banded.map((row) => [x(row.alpha), y(row.high)]), ...[...banded].reverse().map((row) => [x(row.alpha), y(row.low)])];
  return figure(
    width,
    height,
    "Token F1 against alpha",
    yAxis(y, marks, { x0: box.x0, x1: box.x1, text: tickText(marks), label: "token F1, test" }),
    xAxis(x, [0, 0.25, 0.5, 0.75, 1], {
      y: box.y1, x0: box.x0, x1: box.x1, text: (value) => decimal(value, value % 1 ? 2 : 0),
      label: width < 440 ? "α: 0 SuperActivators, 1 concept vector" : "α: 0 = SuperActivators of the sample, 1 = concept vector",
    }),
    banded.length > 1 && svg("path", { class: "band", d: `${path(edge)}Z` }),
    svg("path", { class: "line accent", d: path(rows.map((row) => [x(row.alpha), y(row.token_f1)])) }),
    rows.map((row) =>
      svg("circle", { class: "dot accent", cx: x(row.alpha), cy: y(row.token_f1), r: row.alpha === best ? 5 : 3 },
        svg("title", {}, `α ${decimal(row.alpha)}: token F1 ${decimal(row.token_f1)} ${interval(row.low, row.high)}`)),
    ),
  );
}
