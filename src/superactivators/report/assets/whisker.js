// A value with its interval as dot and whisker, for table cells that share one scale.

import { linear } from "superactivators/axes.js";
import { svg } from "superactivators/dom.js";

/**
 * @param {{value: number, low: ?number, high: ?number}} estimate
 * @param {[number, number]} domain shared by the column
 * @param {{width: number, mark: ?number, strong: boolean}} options `mark` draws a vertical reference line
 */
export function whisker(estimate, domain, { width = 180, height = 22, mark = null, strong = false } = {}) {
  const place = linear(domain, [5, width - 5]);
  const inside = (value) => Math.min(width - 2, Math.max(2, place(value)));
  const middle = height / 2;
  const bounded = Number.isFinite(estimate?.low) && Number.isFinite(estimate?.high);
  return svg(
    "svg",
    { class: strong ? "whisker strong" : "whisker", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
    mark !== null && svg("line", { class: "mark", x1: place(mark), x2: place(mark), y1: 0, y2: height }),
    bounded && svg("line", { class: "bar", x1: inside(estimate.low), x2: inside(estimate.high), y1: middle, y2: middle }),
    Number.isFinite(estimate?.value) && svg("circle", { cx: inside(estimate.value), cy: middle, r: strong ? 4.5 : 3.5 }),
  );
}

/** Domain that holds all estimates and extra values, with a little air. */
export function domainOf(estimates, extra = []) {
  const values = estimates.flatMap((e) => [e?.value, e?.low, e?.high]).concat(extra).filter(Number.isFinite);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const air = (high - low || 0.1) * 0.06;
  return [low - air, high + air];
}
