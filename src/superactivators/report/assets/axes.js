// Scales, ticks and axes of SVG charts.

import { svg } from "superactivators/dom.js";

export function linear([d0, d1], [r0, r1]) {
  const span = d1 - d0 || 1;
  return (value) => r0 + ((value - d0) / span) * (r1 - r0);
}

export function logarithmic([d0, d1], range) {
  const place = linear([Math.log(d0), Math.log(d1)], range);
  return (value) => place(Math.log(value));
}

/** Round values within a domain, about `wanted` of them. */
export function ticks([low, high], wanted = 5) {
  const rough = (high - low || 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) {
    found.push(Number(tick.toPrecision(12)));
  }
  return found;
}

/** Least distance for tick texts: drop those that would run into their left neighbour. */
function thinned(values, place, gap) {
  const kept = [];
  for (const value of values) if (!kept.length || Math.abs(place(value) - place(kept.at(-1))) >= gap) kept.push(value);
  return kept;
}

export function xAxis(place, values, { y, x0, x1, text, label, gap = 30 }) {
  return svg(
    "g",
    { class: "axis" },
    svg("line", { x1: x0, x2: x1, y1: y, y2: y }),
    values.map((value) => svg("line", { x1: place(value), x2: place(value), y1: y, y2: y + 4 })),
    thinned(values, place, gap).map((value) =>
      svg("text", { x: place(value), y: y + 17, "text-anchor": "middle" }, text(value)),
    ),
    label && svg("text", { x: (x0 + x1) / 2, y: y + 34, "text-anchor": "middle", class: "axis-label" }, label),
  );
}

export function yAxis(place, values, { x0, x1, text, label }) {
  return svg(
    "g",
    { class: "axis" },
    values.map((value) => svg("line", { class: "grid", x1: x0, x2: x1, y1: place(value), y2: place(value) })),
    values.map((value) =>
      svg("text", { x: x0 - 7, y: place(value) + 4, "text-anchor": "end" }, text(value)),
    ),
    label && svg("text", { x: 0, y: 11, class: "axis-label" }, label),
  );
}

/** Path through [x, y] points; a point without a number breaks the line. */
export function path(points) {
  let pen = "M";
  let d = "";
  for (const [x, y] of points) {
    if (!Number.isFinite(x) || !Number.isFinite(y)) {
      pen = "M";
      continue;
    }
    d += `${pen}${x.toFixed(1)},${y.toFixed(1)}`;
    pen = "L";
  }
  return d;
}

/** Push texts apart that would overlap; returns a y for each entry, in the order given. */
export function apart(wanted, gap, low, high) {
  const order = wanted.map((y, index) => [y, index]).sort((a, b) => a[0] - b[0]);
  let last = -Infinity;
  for (const entry of order) {
    entry[0] = Math.max(entry[0], last + gap, low);
    last = entry[0];
  }
  let next = high + gap;
  for (const entry of order.reverse()) {
    entry[0] = Math.min(entry[0], next - gap);
    next = entry[0];
  }
  const placed = new Array(wanted.length);
  for (const [y, index] of order) placed[index] = y;
  return placed;
}

export function figure(width, height, label, ...children) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label }, ...children);
}
