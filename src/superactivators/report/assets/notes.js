// What the words mean, how the study was made, and what was left out.

import { el } from "superactivators/dom.js";
import { seconds } from "superactivators/format.js";
import { section } from "superactivators/section.js";
import { scrollable } from "superactivators/table.js";

const WORDS = [
  ["Activation", "How strongly one token (a piece of text or a patch of an image) agrees with a concept’s vector: a cosine, or the logit of a linear separator."],
  ["Tail", "The highest activations of the tokens that carry a concept. Most in-concept tokens look like any other token; the tail does not."],
  ["Sparsity level δ", "Share of in-concept tokens of the cal split that lie above the threshold. δ = .05 keeps the top 5 %."],
  ["SuperActivator", "A token whose activation reaches the threshold of its concept. A sample holds the concept if it has at least one."],
  ["Splits", "Vectors are learned on train; layer, δ, threshold and kind are chosen on cal; test is only reported, never chosen on."],
  ["F1", "Harmonic mean of precision and recall over samples. Weighted: concepts count by their positive test samples. Macro: all concepts count the same."],
  ["Interval", "95 % bootstrap over samples, the tokens of a sample staying together. The choice of layer, δ and threshold is repeated inside every resample; the learning of the vectors is not."],
  ["Saying yes to every sample", "F1 = 2p / (1 + p) at prevalence p: what a detector must beat to be of any use."],
  ["Localisation", "In a sample that was detected, the tokens above a second, lower threshold (chosen by token F1 on cal) are taken for the concept. Pointing: the sample’s highest token lies inside it."],
];

export function notesSection(data) {
  const { about } = data;
  return section(
    "notes",
    "How to read this",
    "The words used above, how the study was made, and what it left out.",
    el("dl", { class: "words" }, WORDS.map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, text)))),
    el("div", { class: "blocks" },
      block("Methods", el("dl", { class: "small" }, data.methods.map((method) => el("div", {}, el("dt", {}, method.label), el("dd", {}, method.summary))))),
      excluded(about.excluded),
      remarks(about.notes),
      timing(about.seconds),
      versions(about.versions),
    ),
    about.command && block("Command", scrollable("Command", el("pre", {}, about.command))),
    settings(about.settings),
  );
}

function block(title, ...content) {
  return el("div", { class: "block" }, el("h3", {}, title), content);
}

function excluded(reasons) {
  const names = Object.entries(reasons);
  if (!names.length) return block("Concepts left out", el("p", {}, "None."));
  return block("Concepts left out", el("dl", { class: "small" }, names.map(([name, reason]) => el("div", {}, el("dt", {}, name), el("dd", {}, reason)))));
}

function remarks(notes) {
  return notes.length ? block("Remarks", el("ul", {}, notes.map((note) => el("li", {}, note)))) : null;
}

function timing(stages) {
  const entries = Object.entries(stages).filter(([, value]) => typeof value === "number");
  if (!entries.length) return null;
  const longest = Math.max(...entries.map(([, value]) => value), 1e-9);
  return block("Time", el("table", { class: "timing" }, el("caption", { class: "unseen" }, "Seconds by stage"), el("tbody", {}, entries.map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, el("span", { class: "chosen-bar", style: { "--share": (value / longest).toFixed(3) } })), el("td", { class: "number" }, seconds(value))),
  ))));
}

function versions(packages) {
  const entries = Object.entries(packages);
  return entries.length ? block("Versions", el("p", { class: "versions" }, entries.map(([name, version]) => el("span", {}, `${name} ${version}`)))) : null;
}

function settings(value) {
  if (!Object.keys(value).length) return null;
  const text = JSON.stringify(value, null, 2);
  return el("details", { class: "block" }, el("summary", {}, "Settings of the study"), scrollable("Settings", el("pre", {}, text)));
}
