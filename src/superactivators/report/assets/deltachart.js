// F1 against the sparsity level, on a logarithmic axis, because the tail is where δ is small.

import { apart, figure, linear, logarithmic, path, ticks, xAxis, yAxis } from "superactivators/axes.js";
import { svg } from "superactivators/dom.js";
import { decimal, level } from "superactivators/format.js";

/**
 * @param {object} data
 * @param {number} width
 * @param {{name: ?string, values: number[], style: string, dot: ?number}[]} lines
 *   one F1 per sparsity level; `dot` is the level to mark; lines with a name are labelled at their end
 * @param {{label: string, floor: ?number, height: ?number, top: ?number}} options
 */
export function deltaChart(data, width, lines, { label, floor = null, height = 270, top = null }) {
  const named = lines.filter((line) => line.name);
  const wide = named.length ? Math.min(118, 16 + 7 * Math.max(...named.map((line) => line.name.length))) : 10;
  const box = { x0: 34, x1: width - wide, y0: 24, y1: height - 42 };
  const all = lines.flatMap((line) => line.values).filter(Number.isFinite);
  const high = top ?? Math.min(1, Math.ceil((Math.max(...all, 0.1) + 0.02) * 10) / 10);
  const x = logarithmic([data.deltas[0], data.deltas.at(-1)], [box.x0 + 6, box.x1 - 6]);
  const y = linear([0, high], [box.y1, box.y0]);
  const [low, up] = data.paper_zone;
  const zone = inDomain(data, low) && inDomain(data, up);
  const ends = named.map((line) => y(line.values.findLast(Number.isFinite) ?? 0));
  const placed = apart(ends, 14, box.y0 + 4, box.y1);
  return figure(
    width,
    height,
    label,
    zone && [
      svg("rect", { class: "zone", x: x(low), width: x(up) - x(low), y: box.y0, height: box.y1 - box.y0 }),
      svg("text", { class: "zone-label", x: (x(low) + x(up)) / 2, y: box.y0 - 4, "text-anchor": "middle" }, "paper’s best"),
    ],
    yAxis(y, ticks([0, high], 5), { x0: box.x0, x1: box.x1, text: (value) => decimal(value, 1), label: "F1" }),
    xAxis(x, data.deltas, { y: box.y1, x0: box.x0, x1: box.x1, text: level, label: width < 440 ? "sparsity level δ" : "sparsity level δ (share of in-concept tokens above the threshold)", gap: 27 }),
    floor !== null && svg("line", { class: "floor", x1: box.x0, x2: box.x1, y1: y(floor), y2: y(floor) }),
    lines.map((line) => svg("path", { class: `line ${line.style}`, d: path(line.values.map((value, place) => [x(data.deltas[place]), y(value ?? NaN)])) })),
    lines.filter((line) => Number.isFinite(line.dot)).map((line) => dot(data, line, x, y)),
    named.map((line, number) => svg("text", { class: `end ${line.style}`, x: box.x1 + 6, y: placed[number] + 4 }, line.name)),
  );
}

function inDomain(data, delta) {
  return delta >= data.deltas[0] && delta <= data.deltas.at(-1);
}

function dot(data, line, x, y) {
  const value = line.values[data.deltas.indexOf(line.dot)];
  if (!Number.isFinite(value)) return null;
  return svg("circle", { class: `dot ${line.style}`, cx: x(line.dot), cy: y(value), r: line.style.includes("faint") ? 2.5 : 4.5 },
    svg("title", {}, `${line.title ?? line.name ?? ""}: F1 ${decimal(value)} at δ ${level(line.dot)}`));
}
