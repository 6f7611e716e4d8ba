// Maps of one sample side by side: the input with its label, then both objectives for every explainer.

import { el } from "superactivators/dom.js";
import { mapValue, plural } from "superactivators/format.js";
import { mapImage } from "superactivators/mapimage.js";
import { mapText } from "superactivators/maptext.js";
import { panel } from "superactivators/section.js";

let counter = 0;

export function mapGallery(found, names, store) {
  const { examples } = found.gallery;
  const concepts = [...new Set(examples.map((example) => example.concept))];
  const of = (concept) => examples.filter((example) => example.concept === concept);
  const host = el("div", { class: "maps" });
  const concept = picker("Concept", () => fill());
  const sample = picker("Example", () => draw());
  const draw = () => host.replaceChildren(...oneExample(found, names, of(concept.node.value)[Number(sample.node.value)]));
  const fill = () => {
    const mine = of(concept.node.value);
    sample.options(mine.map((example, number) => [String(number), `${number + 1} of ${mine.length}: ${example.sample}`]));
    draw();
  };
  concept.options(concepts.map((name) => [name, name]));
  store.watch(["concept"], () => {
    if (concepts.includes(store.get("concept"))) concept.node.value = store.get("concept");
    fill();
  });
  return panel(
    "Look at maps",
    "Orange speaks for the concept, violet against it; each map is scaled by its own largest value. Frames: tokens at or above the threshold that was chosen on cal.",
    el("div", { class: "pickers" }, concept.whole, sample.whole),
    found.gallery.modality === "image" ? imageKeys() : textKeys(),
    host,
    found.gallery.left_out > 0 && el("p", { class: "note" }, `${plural(found.gallery.left_out, "more example")} did not fit into this file.`),
  );
}

/** A select with its label. */
function picker(text, changed) {
  const id = `picker-${(counter += 1)}`;
  const node = el("select", { id, onchange: changed });
  const options = (entries) => node.replaceChildren(...entries.map(([value, shown]) => el("option", { value }, shown)));
  return { node, options, whole: el("span", { class: "picker" }, el("label", { for: id }, text), node) };
}

const scale = () =>
  el("span", { class: "scale" }, el("span", {}, "− largest"), el("span", { class: "ramp both", "aria-hidden": "true" }), el("span", {}, "+ largest"));

function imageKeys() {
  const key = (name, text) => el("span", {}, el("span", { class: `swatch ${name}` }), text);
  return el("div", { class: "legend" }, scale(), key("mask", "labelled patches"), key("fires", "SuperActivators"), key("above", "at or above the threshold"));
}

function textKeys() {
  const key = (name, text) => el("span", { class: "heat-text key" }, el("span", { class: name }, "token"), ` ${text}`);
  return el("div", { class: "legend" }, scale(), key("truth", "labelled by people"), key("token fires", "SuperActivator"), key("token above", "at or above the threshold"));
}

function oneExample(found, names, example) {
  const readout = el("p", { class: "readout", role: "status" });
  const parts = [];
  const inside = new Set(example.inside);
  const unlabelled = new Set(example.unlabelled);
  const fires = new Set(example.fires);
  /** The same token is marked in every map, and each says its value there. */
  const point = (token) => {
    parts.forEach((part) => part.show(token));
    const label = inside.has(token) ? "labelled" : unlabelled.has(token) ? "not known whether labelled" : "not labelled";
    readout.textContent = token < 0 ? summary : `${parts[0].name(token)}: ${label}${fires.has(token) ? `, ${mark}` : ""}; its value stands above each map.`;
    readout.classList.toggle("active", token >= 0);
  };
  const mark = example.fallback ? "highest token (there is no SuperActivator)" : "SuperActivator";
  const summary = example.fallback
    ? "No token of this sample is a SuperActivator; its highest token stands in. Point at a token, or use the arrow keys in the input."
    : `${plural(fires.size, "SuperActivator")}. Point at a token, or use the arrow keys in the input, to read its value in every map.`;
  const place = (map, label) => {
    const shared = { example, inside, fires, map, label, point };
    const part = found.gallery.modality === "image" ? mapImage(found.gallery.pictures[example.sample], shared) : mapText(shared);
    parts.push(part);
    return part;
  };
  const input = el(
    "figure",
    { class: "map-input" },
    el("figcaption", {}, el("b", {}, "Input"), " ", el("span", { class: "faint id" }, example.sample)),
    place(null, `Input with the labels of ${example.concept}`).node,
    readout,
    example.window && el("p", { class: "note" }, `Tokens ${example.window[0] + 1} to ${example.window[1]} of ${example.window[2]} are shown.`),
  );
  const explained = found.explainers
    .filter(({ name }) => example.maps[name])
    .map(({ name, label }) =>
      el(
        "section",
        { class: "explained" },
        el("h4", {}, label),
        el("div", { class: "both" }, found.objectives.filter((objective) => example.maps[name][objective.name]).map((objective) => oneMap(example, name, label, objective, place))),
      ),
    );
  point(-1);
  return [input, el("div", { class: `explainers ${found.gallery.modality}` }, explained)];
}

function oneMap(example, explainer, label, objective, place) {
  const map = unpacked(example.maps[explainer][objective.name]);
  const value = el("span", { class: "map-value" });
  const part = place(map, `${label}, ${objective.label}`);
  const { show } = part;
  part.show = (token) => {
    show(token);
    value.textContent = token < 0 ? `largest ${mapValue(map.scale)}` : map.above.has(token) ? `${mapValue(map.values[token])} ▣` : mapValue(map.values[token]);
    value.title = `threshold ${mapValue(map.threshold)}`;
  };
  return el("figure", { class: "map" }, el("figcaption", {}, el("span", { class: objective.name === "superactivators" ? "own" : null }, objective.label), value), part.node);
}

/** Bytes to values, NaN where there is none, and the tokens at or above the threshold. */
function unpacked({ steps, scale: largest, above, threshold }) {
  const bytes = new Int8Array(Uint8Array.from(atob(steps), (sign) => sign.charCodeAt(0)).buffer);
  const bits = Uint8Array.from(atob(above), (sign) => sign.charCodeAt(0));
  const values = Array.from(bytes, (step) => (step === -128 ? NaN : (step * largest) / 127));
  const members = new Set([...values.keys()].filter((token) => (bits[token >> 3] >> (7 - (token & 7))) & 1));
  return { values, scale: largest, threshold, above: members, amount: (token) => (largest > 0 ? values[token] / largest || 0 : 0) };
}
