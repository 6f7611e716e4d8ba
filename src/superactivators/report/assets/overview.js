// Title, finding and facts of the run.

import { el } from "superactivators/dom.js";
import { count, level, plural } from "superactivators/format.js";

export function overview(data, store) {
  const headline = el("p", { class: "finding", "aria-live": "polite" });
  const further = el("ul", { class: "further" });
  store.watch(["kind", "average"], () => {
    const kind = store.get("kind");
    headline.textContent = data.finding[store.get("average")][kind].headline;
    further.replaceChildren(...data.further[kind].map((sentence) => el("li", {}, sentence)));
  });
  return el(
    "header",
    { class: "overview", id: "top" },
    el("p", { class: "kicker" }, "SuperActivators: a study of concept detection"),
    el("h1", {}, data.title),
    headline,
    further,
    facts(data),
  );
}

function facts(data) {
  const { about } = data;
  const entries = [];
  const add = (term, ...value) => entries.push(el("div", {}, el("dt", {}, term), el("dd", {}, ...value)));
  const { name, blocks, width } = about.model;
  if (name) {
    const size = [blocks && plural(blocks, "block"), width && `width ${count(width)}`];
    // A local folder is named by its last part; a hub id stays whole.
    add("Model", /^[./~\\]|^[A-Za-z]:[/\\]/.test(name) ? name.split(/[/\\]/).at(-1) : name, el("small", {}, size.filter(Boolean).join(", ")));
  }
  const of = { text: "texts", image: "images" }[data.data.modality] ?? "samples";
  add("Data", data.data.name ?? "given as arrays", el("small", {}, `${plural(data.concepts.length, "concept")}, ${of}`));
  add(
    "Splits",
    data.data.splits.map(({ split, samples }) => `${split} ${count(samples)}`).join(" · "),
    el("small", {}, "train learns vectors; cal makes every choice; test only reports"),
  );
  const tokens = data.data.splits.reduce((sum, { tokens: some }) => sum + some, 0);
  add("Tokens", count(tokens), el("small", {}, data.data.token_labels ? "with labels" : "without labels of their own"));
  const [first, last] = [data.sites[0], data.sites.at(-1)];
  add("Layers", plural(data.sites.length, "layer"), el("small", {}, first === last ? first : `${first} to ${last}`));
  add("Concept vectors", data.kinds.join(", "), el("small", {}, `best on cal: ${data.best_kind}`));
  add("Sparsity levels δ", String(data.deltas.length), el("small", {}, `${level(data.deltas[0])} to ${level(data.deltas.at(-1))}`));
  const seed = about.seed === null ? "" : `seed ${about.seed}`;
  add("Intervals", about.resamples ? "95 %, bootstrap" : "none computed", el("small", {}, [about.resamples && plural(about.resamples, "resample"), seed].filter(Boolean).join(", ")));
  return el("dl", { class: "facts" }, entries);
}
