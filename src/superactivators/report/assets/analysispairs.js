// How alike the tokens of one sample are: cosines of all pairs, with in-concept tokens and SuperActivators marked.

import { key, picker } from "superactivators/analysisparts.js";
import { choice } from "superactivators/controls.js";
import { el } from "superactivators/dom.js";
import { decimal } from "superactivators/format.js";
import { panel } from "superactivators/section.js";

// Cosines are shown by how opaque one colour is, so that the map fits both themes; the marks too.
const HEAT = [226, 98, 47];
const [INSIDE, FIRED] = ["#3b82c4", "#ff5414"];
const STRIP = 10;
const GROUPS = ["in-concept, SuperActivator", "in-concept", "outside, above the threshold", "outside"];

export function pairsPanel(data, store) {
  const { examples, sentence: said, left_out: leftOut } = data.analyses.pairs;
  const host = el("div");
  let order = "groups";
  let number = 0;
  const draw = () => host.replaceChildren(...oneExample(examples[number], order));
  const select = picker("Example", examples.map((one, place) => [String(place), `${one.concept}: ${one.sample}`]), "0", (value) => {
    number = Number(value);
    draw();
  });
  store.watch(["concept"], () => {
    const mine = examples.findIndex((one) => one.concept === store.get("concept"));
    if (mine >= 0) number = mine;
    select.node.value = String(number);
    draw();
  });
  return panel(
    "How alike tokens are",
    said,
    el("div", { class: "pickers" }, select.whole,
      choice("Order", [["groups", "by group"], ["sample", "as in the sample"]], order, (value) => {
        order = value;
        draw();
      })),
    el("div", { class: "legend" }, key("strip-inside", "in-concept"), key("strip-fired", "above the threshold")),
    host,
    leftOut > 0 && el("p", { class: "note" }, `${leftOut} more did not fit into this file.`),
  );
}

function oneExample(example, order) {
  const { groups, tokens, names } = example;
  const places = [...tokens.keys()];
  if (order === "groups") places.sort((a, b) => groups[a] - groups[b] || a - b);
  const cosine = reader(example);
  const values = places.flatMap((a) => places.filter((b) => b > a).map((b) => cosine(a, b))).filter(Number.isFinite);
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const name = (place) => (names ? `“${names[place].trim() || "␣"}”` : `token ${tokens[place] + 1}`);
  const cell = Math.max(3, Math.floor(400 / places.length));
  const size = STRIP * 2 + 2 + cell * places.length;
  const density = Math.min(2, globalThis.devicePixelRatio || 1);
  const canvas = el("canvas", {
    width: size * density, height: size * density, role: "img", tabindex: "0",
    "aria-label": `Cosines of the tokens of ${example.sample}; move through the pairs with the arrow keys`,
  });
  paint(canvas, { places, groups, cosine, low, high, cell, size, density });
  const spot = el("span", { class: "spot", hidden: true, style: { width: `${(100 * cell) / size}%`, height: `${(100 * cell) / size}%` } });
  const summary = `${example.kind} vectors, ${example.site}; ${places.length === example.total ? `${places.length} tokens` : `${places.length} of ${example.total} tokens are shown`}. Point at a pair, or use the arrow keys in the map.`;
  const readout = el("p", { class: "readout", role: "status" });
  let current = null;
  const show = (pair) => {
    current = pair;
    spot.hidden = !pair;
    readout.classList.toggle("active", Boolean(pair));
    if (!pair) {
      readout.textContent = summary;
      return;
    }
    spot.style.left = `${(100 * (STRIP * 2 + 2 + pair[1] * cell)) / size}%`;
    spot.style.top = `${(100 * (STRIP * 2 + 2 + pair[0] * cell)) / size}%`;
    const [a, b] = pair.map((place) => places[place]);
    const told = (place) => `${name(place)} (${GROUPS[groups[place]]})`;
    readout.textContent = a === b ? `${told(a)}: the same token` : `${told(a)} and ${told(b)}: cosine ${decimal(cosine(a, b))}`;
  };
  canvas.addEventListener("pointermove", (event) => {
    const share = size / canvas.clientWidth;
    const pair = [event.offsetY, event.offsetX].map((value) => Math.floor((value * share - STRIP * 2 - 2) / cell));
    const within = pair.every((place) => place >= 0 && place < places.length);
    if (within ? pair.join() !== current?.join() : current) show(within ? pair : null);
  });
  canvas.addEventListener("pointerleave", () => show(null));
  canvas.addEventListener("blur", () => show(null));
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const next = current ? current.map((place, axis) => place + move[axis]) : [0, Math.min(1, places.length - 1)];
    if (next.every((place) => place >= 0 && place < places.length)) show(next);
  });
  show(null);
  const scale = el("div", { class: "legend" }, el("span", { class: "scale" }, el("span", {}, `cosine ${decimal(low)}`), el("span", { class: "ramp plain", "aria-hidden": "true" }), el("span", {}, decimal(high))));
  return [el("div", { class: "spotted pair-map", style: { "max-width": `${size}px` } }, canvas, spot), scale, readout];
}

/** Cosine of two tokens, from signed bytes of the upper triangle. */
function reader({ cosine, tokens }) {
  const bytes = new Int8Array(Uint8Array.from(atob(cosine), (sign) => sign.charCodeAt(0)).buffer);
  const n = tokens.length;
  return (a, b) => {
    if (a === b) return 1;
    const [row, column] = a < b ? [a, b] : [b, a];
    const step = bytes[row * n - (row * (row + 1)) / 2 + column - row - 1];
    return step === -128 ? NaN : step / 127;
  };
}

function paint(canvas, { places, groups, cosine, low, high, cell, size, density }) {
  const context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  const start = STRIP * 2 + 2;
  places.forEach((a, row) => places.forEach((b, column) => {
    const value = cosine(a, b);
    if (!Number.isFinite(value)) return;
    const share = Math.max(0, Math.min(1, (value - low) / (high - low || 1)));
    context.fillStyle = `rgba(${HEAT.join(", ")}, ${share.toFixed(3)})`;
    context.fillRect(start + column * cell, start + row * cell, cell, cell);
  }));
  const strip = (place, track, colour) => {
    context.fillStyle = colour;
    context.fillRect(start + place * cell, track * STRIP, cell, STRIP - 2);
    context.fillRect(track * STRIP, start + place * cell, STRIP - 2, cell);
  };
  places.forEach((token, place) => {
    if (groups[token] < 2) strip(place, 0, INSIDE);
    if (groups[token] === 0 || groups[token] === 2) strip(place, 1, FIRED);
  });
  context.strokeStyle = "rgba(128, 124, 118, .6)";
  context.strokeRect(start - 0.5, start - 0.5, size - start, size - start);
}
