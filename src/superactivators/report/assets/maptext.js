// A text with one signed map over its tokens.

import { el } from "superactivators/dom.js";
import { mapValue } from "superactivators/format.js";
import { grouped } from "superactivators/heattext.js";

/**
 * @param {{example: object, inside: Set, fires: Set, map: ?object, label: string, point: function}} shared
 *   without a map it is the input
 * @returns {{node: HTMLElement, show: function(number), name: function(number): string}}
 */
export function mapText({ example, inside, fires, map, label, point }) {
  // Python counts code points, JavaScript counts UTF-16 units.
  const points = Array.from(example.text);
  const block = el("p", {
    class: map ? "heat-text small" : "heat-text", role: "group", tabindex: "0",
    "aria-label": map ? label : `${label}; move through the tokens with the arrow keys`,
  });
  const groups = grouped(example.chars).filter((group) => group.end > group.start);
  const spots = groups.map((group) => token(group, points, fires, map));
  const of = new Map(groups.flatMap((group, number) => group.tokens.map((one) => [one, number])));
  let at = 0;
  let holder = block;
  groups.forEach((group, number) => {
    const labelled = group.tokens.some((one) => inside.has(one));
    if (!labelled) holder = block;
    if (group.start > at) holder.append(points.slice(at, group.start).join(""));
    if (labelled && holder === block) {
      holder = el("span", { class: "truth" });
      block.append(holder);
    }
    holder.append(spots[number]);
    at = Math.max(at, group.end);
  });
  if (at < points.length) block.append(points.slice(at).join(""));

  let current = -1;
  const show = (one) => {
    spots[current]?.classList.remove("current");
    current = of.get(one) ?? -1;
    spots[current]?.classList.add("current");
  };
  const name = (one) => {
    const group = groups[of.get(one)];
    return group ? `“${points.slice(group.start, group.end).join("").trim()}”` : "A token without characters";
  };
  block.addEventListener("pointerover", (event) => {
    const number = spots.indexOf(event.target);
    if (number >= 0) point(strongest(groups[number], map));
  });
  block.addEventListener("pointerleave", () => point(-1));
  block.addEventListener("blur", () => point(-1));
  block.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move || !groups.length) return;
    event.preventDefault();
    const start = spots.findIndex((spot) => spot.classList.contains(map ? "above" : "fires"));
    const next = current < 0 ? Math.max(0, start) : current + move;
    if (next >= 0 && next < groups.length) point(strongest(groups[next], map));
  });
  return { node: block, show, name };
}

/** The token of a group that its colour stands for. */
function strongest(group, map) {
  if (!map) return group.tokens[0];
  return group.tokens.reduce((best, one) => (Math.abs(map.amount(one)) > Math.abs(map.amount(best)) ? one : best), group.tokens[0]);
}

function token(group, points, fires, map) {
  const shown = points.slice(group.start, group.end).join("");
  if (!map) return el("span", { class: group.tokens.some((one) => fires.has(one)) ? "token fires" : "token" }, shown);
  const best = strongest(group, map);
  const amount = map.amount(best);
  const classes = ["token", amount < 0 && "against", group.tokens.some((one) => map.above.has(one)) && "above"];
  return el(
    "span",
    { class: classes.filter(Boolean).join(" "), style: { "--amount": Math.abs(amount).toFixed(3) }, title: `${mapValue(map.values[best])}, threshold ${mapValue(map.threshold)}` },
    shown,
  );
}
