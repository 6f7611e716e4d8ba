// A text with its tokens tinted by activation; SuperActivators are boxed, the labelled span stands in brackets.

import { el } from "superactivators/dom.js";
import { activation } from "superactivators/format.js";
import { describe } from "superactivators/heat.js";

/**
 * @param {object} example prepared, with text, chars [start, end] in code points, scores and sets
 * @param {function} heat activation to 0..1
 * @param {number} threshold
 * @param {function} say called with the sentence about a token
 */
export function heatText(example, heat, threshold, say) {
  // Python counts code points, JavaScript counts UTF-16 units.
  const points = Array.from(example.text);
  const groups = grouped(example.chars);
  const block = el("p", {
    class: "heat-text", tabindex: "0", role: "group",
    "aria-label": "Text with activations; move through the tokens with the arrow keys",
  });
  const spots = [];
  let at = 0;
  let holder = block;
  groups.forEach((group) => {
    const labelled = group.tokens.some((token) => example.insideSet.has(token));
    if (!labelled && holder !== block) holder = block;
    if (group.start > at) holder.append(points.slice(at, group.start).join(""));
    if (labelled && holder === block) {
      holder = el("span", { class: "truth" });
      block.append(holder);
    }
    const spot = token(example, group, points, heat);
    spots.push({ spot, group });
    holder.append(spot);
    at = Math.max(at, group.end);
  });
  if (at < points.length) block.append(points.slice(at).join(""));
  follow(block, spots, points, example, threshold, say);
  return block;
}

/** Tokens that share characters (byte-level tokenizers give one character several) are shown as one. */
export function grouped(chars) {
  const groups = [];
  chars.forEach(([start, end], token) => {
    const last = groups.at(-1);
    if (last && start < last.end) {
      last.end = Math.max(last.end, end);
      last.tokens.push(token);
    } else groups.push({ start, end, tokens: [token] });
  });
  return groups;
}

function token(example, group, points, heat) {
  const hottest = strongest(example, group);
  const fires = group.tokens.some((one) => example.firesSet.has(one));
  const located = group.tokens.some((one) => example.locatedSet.has(one));
  return el(
    "span",
    { class: `token${fires ? " fires" : located ? " located" : ""}`, style: { "--amount": heat(example.scores[hottest]).toFixed(3) } },
    points.slice(group.start, group.end).join(""),
  );
}

function strongest(example, group) {
  return group.tokens.reduce((best, one) => (example.scores[one] > example.scores[best] ? one : best), group.tokens[0]);
}

function follow(block, spots, points, example, threshold, say) {
  let current = -1;
  const show = (number) => {
    spots[current]?.spot.classList.remove("current");
    current = number;
    const entry = spots[number];
    if (!entry) return say("");
    entry.spot.classList.add("current");
    const best = strongest(example, entry.group);
    const { inside, fires } = describe(example, best);
    const text = points.slice(entry.group.start, entry.group.end).join("").trim();
    return say(`“${text}”: activation ${activation(example.scores[best])}, threshold ${activation(threshold)}; ${fires}; ${inside}`);
  };
  block.addEventListener("pointerover", (event) => {
    const number = spots.findIndex(({ spot }) => spot === event.target);
    if (number >= 0) show(number);
  });
  block.addEventListener("pointerleave", () => show(-1));
  block.addEventListener("blur", () => show(-1));
  block.addEventListener("focus", () => {
    if (current < 0 && block.matches(":focus-visible")) show(spots.findIndex(({ spot }) => spot.classList.contains("fires")) >= 0 ? spots.findIndex(({ spot }) => spot.classList.contains("fires")) : 0);
  });
  block.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move || !spots.length) return;
    event.preventDefault();
    show(Math.min(spots.length - 1, Math.max(0, current + move)));
  });
}
