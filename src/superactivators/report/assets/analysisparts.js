// Pieces that the analyses share: what is shown, sentences that follow it, pickers and charts over layers.

import { el, responsive } from "superactivators/dom.js";

let counter = 0;

/** Analyses of the chosen kind of vectors, or null. */
export function analysed(data, store) {
  return data.analyses.kinds[store.get("kind")] ?? null;
}

/** The generated sentence of an analysis, for the chosen kind. */
export function sentence(data, store, pick, style = "see") {
  const node = el("p", { class: style });
  store.watch(["kind"], () => {
    const found = analysed(data, store);
    node.textContent = found ? pick(found.sentences) : `Not analysed with ${store.get("kind")} vectors.`;
  });
  return node;
}

/** A chart that is drawn again when one of `names` or its width changes; `draw(found, width)`. */
export function chart(data, store, names, draw, style = "chart") {
  const host = el("div", { class: style });
  store.watch(["kind", ...names], responsive(host, (width) => {
    const found = analysed(data, store);
    return (found && draw(found, width)) || "";
  }));
  return host;
}

/** A colour and what it stands for. */
export function key(style, text) {
  return el("span", { class: "key-line" }, el("span", { class: `swatch ${style}` }), text);
}

/** A select with its label. */
export function picker(text, entries, value, changed) {
  const id = `analysis-${(counter += 1)}`;
  const node = el("select", { id, onchange: () => changed(node.value) },
    entries.map(([option, shown]) => el("option", { value: option, selected: option === value }, shown)));
  return { node, whole: el("span", { class: "picker" }, el("label", { for: id }, text), node) };
}

export function conceptPicker(data, store) {
  const { node, whole } = picker("Concept", data.concepts.map((name) => [name, name]), store.get("concept"), (concept) => store.set({ concept }));
  store.watch(["concept"], () => {
    node.value = store.get("concept");
  });
  return whole;
}

/** Place of each layer on an x axis; one layer stands in the middle. */
export function layerScale(sites, [low, high]) {
  if (sites.length === 1) return () => (low + high) / 2;
  return (place) => low + ((high - low) * place) / (sites.length - 1);
}

/** Cut a name to at most so many characters. */
export function shorten(text, most) {
  const points = [...text];
  return points.length > most ? `${points.slice(0, most - 1).join("")}…` : text;
}
