// Activations inside and outside a concept: where most tokens are, and the tail that the threshold cuts.

import { figure, linear, logarithmic, ticks, xAxis, yAxis } from "superactivators/axes.js";
import { svg } from "superactivators/dom.js";
import { activation, percent, tickText } from "superactivators/format.js";

const FEW = 400;

/**
 * Two charts over one axis: density, and the share of tokens at or above each activation on a logarithmic scale.
 *
 * @param {object} spread of one concept: edges, inside, outside, above_inside, above_outside
 * @param {number} threshold
 * @param {number} width
 */
export function tailChart(spread, threshold, width) {
  const height = 424;
  const narrow = width < 460;
  const box = { x0: 46, x1: width - 12 };
  const upper = { y0: 46, y1: 168 };
  const lower = { y0: 214, y1: height - 42 };
  const [low, high] = spread.edges;
  const x = linear([low, high], [box.x0, box.x1]);
  const bins = spread.inside.length;
  const edge = (bin) => x(low + ((high - low) * bin) / bins);
  const shares = { inside: normalised(spread.inside), outside: normalised(spread.outside) };
  // A histogram of few tokens in many bins is all spikes.
  const few = spread.inside.reduce((sum, value) => sum + value, 0) < FEW;
  const coarse = { inside: joined(shares.inside, few ? 4 : 2), outside: joined(shares.outside, few ? 4 : 2) };
  const coarseEdge = (bin) => edge(bin * (few ? 4 : 2));
  const top = Math.max(...coarse.inside, ...coarse.outside);
  const density = linear([0, top], [upper.y1, upper.y0]);
  const survival = { inside: above(shares.inside), outside: above(shares.outside) };
  const least = Math.max(1e-6, Math.min(...survival.inside.concat(survival.outside).filter((value) => value > 0)));
  const floor = 10 ** Math.floor(Math.log10(least));
  const log = logarithmic([floor, 1], [lower.y1, lower.y0]);
  const powers = [];
  for (let power = floor; power <= 1.0001; power *= 10) powers.push(Number(power.toPrecision(3)));
  const shown = powers.length > 5 ? powers.filter((_, place) => (powers.length - 1 - place) % 2 === 0) : powers;
  const at = x(threshold);
  const axis = ticks([low, high], narrow ? 4 : 7);
  return figure(
    width,
    height,
    `Distribution of activations: ${percent(spread.above_inside)} of in-concept tokens and ${percent(spread.above_outside)} of tokens of other samples reach the threshold`,
    svg("rect", { class: "tail-zone", x: at, width: Math.max(0, box.x1 - at), y: upper.y0, height: lower.y1 - upper.y0 }),
    svg("text", { class: "axis-label", x: 0, y: 11 }, "where the tokens are (share per bin)"),
    ["outside", "inside"].map((part) => svg("path", { class: `area ${part}`, d: steps(coarse[part], coarseEdge, density, upper.y1, true) })),
    ["outside", "inside"].map((part) => svg("path", { class: `outline ${part}`, d: steps(coarse[part], coarseEdge, density, upper.y1, false) })),
    svg("line", { class: "base", x1: box.x0, x2: box.x1, y1: upper.y1, y2: upper.y1 }),
    svg("text", { class: "axis-label", x: 0, y: lower.y0 - 22 }, narrow ? "share at or above (log scale)" : "share of tokens at or above each activation (log scale)"),
    yAxis(log, shown, { x0: box.x0, x1: box.x1, text: percentTick }),
    ["outside", "inside"].map((part) => svg("path", { class: `curve ${part}`, d: falling(survival[part], edge, log, floor) })),
    svg("line", { class: "threshold", x1: at, x2: at, y1: upper.y0 - 8, y2: lower.y1 }),
    svg("text", { class: "threshold-label", x: at, y: upper.y0 - 13, "text-anchor": at > width * 0.6 ? "end" : "start" }, `threshold ${activation(threshold)}`),
    ["inside", "outside"].map((part) => crossing(spread[`above_${part}`], part, at, log, floor, at > width * 0.72)),
    xAxis(x, axis, { y: lower.y1, x0: box.x0, x1: box.x1, text: tickText(axis), label: "activation" }),
  );
}

function percentTick(value) {
  return `${Number((value * 100).toPrecision(2))} %`.replace(/^0\./, ".");
}

function joined(values, size) {
  const found = [];
  values.forEach((value, bin) => {
    found[Math.floor(bin / size)] = (found[Math.floor(bin / size)] ?? 0) + value;
  });
  return found;
}

function normalised(counts) {
  const total = counts.reduce((sum, value) => sum + value, 0) || 1;
  return counts.map((value) => value / total);
}

/** Share at or above the left edge of each bin. */
function above(shares) {
  const found = [];
  let sum = 0;
  for (let bin = shares.length - 1; bin >= 0; bin -= 1) {
    sum += shares[bin];
    found[bin] = sum;
  }
  return found;
}

function steps(values, edge, height, base, closed) {
  let d = `M${edge(0).toFixed(1)},${base}`;
  values.forEach((value, bin) => {
    d += `V${height(value).toFixed(1)}H${edge(bin + 1).toFixed(1)}`;
  });
  return `${d}V${base}${closed ? "Z" : ""}`;
}

/** Survival curve through the left edges; it ends where no token is left. */
function falling(values, edge, place, floor) {
  let d = "";
  values.forEach((value, bin) => {
    if (value > 0) d += `${d ? "L" : "M"}${edge(bin).toFixed(1)},${place(Math.max(value, floor)).toFixed(1)}`;
  });
  return d;
}

function crossing(share, part, at, log, floor, left) {
  if (!(share > 0)) {
    return svg("text", { class: `crossing ${part}`, x: at + (left ? -8 : 8), y: log(floor) - 8, "text-anchor": left ? "end" : "start" }, "none");
  }
  const y = log(Math.max(share, floor));
  return svg(
    "g", {},
    svg("circle", { class: `dot ${part}`, cx: at, cy: y, r: 4 }),
    svg("text", { class: `crossing ${part}`, x: at + (left ? -8 : 8), y: y + (part === "inside" ? -6 : 15), "text-anchor": left ? "end" : "start" }, percent(share)),
  );
}
