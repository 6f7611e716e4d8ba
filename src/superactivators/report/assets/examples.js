// Hits, false alarms and misses of one concept on the test split.

import { check, slider } from "superactivators/controls.js";
import { el } from "superactivators/dom.js";
import { activation, count, percent, plural } from "superactivators/format.js";
import { createHeat, prepared } from "superactivators/heat.js";
import { heatImage } from "superactivators/heatimage.js";
import { heatText } from "superactivators/heattext.js";

const CASES = [
  ["hit", "Hits", "present and found; the highest scores, and one from the middle"],
  ["false alarm", "False alarms", "found but not present; the highest scores"],
  ["miss", "Misses", "present but not found; the lowest scores"],
];

/** All examples of a concept, or a sentence that says why there are none. */
export function exampleGallery(data, concept, settings) {
  const { examples } = data;
  if (!examples) return el("p", { class: "note" }, "No examples: the study was made from states without their texts or images, or its methods do not compare single tokens with a threshold.");
  const row = data.row(examples.kind, concept);
  const spread = data.spread(examples.kind, concept);
  const samples = data.samples(concept).map(prepared);
  const highest = Math.max(row.threshold, spread?.edges[1] ?? -Infinity, ...samples.map((example) => example.score));
  const heat = createHeat({ typical: spread?.typical, threshold: row.threshold, highest });
  const pictures = [];
  const shared = { data, concept, row, heat, settings, pictures };
  const counts = { hit: row.tp, "false alarm": row.fp, miss: row.fn };
  const groups = CASES.map(([name, title, rule]) => {
    const mine = samples.filter((example) => example.case === name);
    return el(
      "section",
      { class: `case ${name.replace(" ", "-")}` },
      el("h4", {}, title, " ", el("span", { class: "faint" }, count(counts[name])), el("small", {}, counts[name] ? rule : "none on test")),
      el("div", { class: `cards ${examples.modality}` }, mine.map((example) => card(example, shared))),
    );
  });
  const kindNote = data.kinds.length > 1 ? ` Shown for ${examples.kind} vectors, the best kind on cal.` : "";
  return el(
    "div",
    { class: "gallery" },
    examples.modality === "image" ? imageControls(settings, pictures) : null,
    legend(examples.modality, row.threshold, spread?.typical, highest),
    el("p", { class: "note" }, `Test samples at ${row.site}, threshold ${activation(row.threshold)}.${kindNote}`),
    groups,
  );
}

function imageControls(settings, pictures) {
  const change = (patch) => {
    Object.assign(settings, patch);
    pictures.forEach((picture) => picture.draw(settings));
  };
  return el(
    "div",
    { class: "image-controls", role: "group", "aria-label": "What the pictures show" },
    slider("Heat", { min: 0, max: 1, step: 0.05, value: settings.opacity }, percent, (opacity) => change({ opacity })),
    check("SuperActivators", settings.marks, (marks) => change({ marks }), "fires"),
    check("Labelled mask", settings.truth, (truth) => change({ truth }), "mask"),
  );
}

function legend(modality, threshold, typical, highest) {
  return el(
    "div",
    { class: "legend" },
    el(
      "span",
      { class: "scale" },
      el("span", {}, `typical without the concept ${activation(typical)}`),
      el("span", { class: "ramp", "aria-hidden": "true" }),
      el("span", {}, `highest ${activation(highest)}`),
      el("span", { class: "faint" }, `(line: threshold ${activation(threshold)})`),
    ),
    modality === "text" && [
      el("span", { class: "heat-text key" }, el("span", { class: "token fires", style: { "--amount": ".8" } }, "token"), " SuperActivator"),
      el("span", { class: "heat-text key" }, el("span", { class: "token located", style: { "--amount": ".4" } }, "token"), " above the lower threshold of localisation"),
      el("span", { class: "heat-text key" }, el("span", { class: "truth" }, "span"), " labelled by people"),
    ],
    modality === "image" && el("span", { class: "faint" }, "Greyed out: cropped away before the model saw it."),
  );
}

function card(example, { data, concept, row, heat, settings, pictures }) {
  const readout = el("p", { class: "readout", role: "status" });
  const fired = example.fires.length;
  const summary = `score ${activation(example.score)}, ${plural(fired, "SuperActivator")}`;
  const say = (text) => {
    readout.textContent = text || summary;
    readout.classList.toggle("active", Boolean(text));
  };
  say("");
  const top = el("p", { class: "card-head" }, el("span", {}, `${example.rank} of ${count(example.of)}`), el("span", { class: "faint id" }, example.sample));
  const people = el("p", { class: "people" }, "labelled: ", example.present.length ? example.present.map((name, place) => [place > 0 && ", ", name === concept ? el("b", {}, name) : name]) : "none of the concepts");
  if ("text" in example) {
    const text = heatText(example, heat, row.threshold, say);
    return el("article", { class: "card" }, top, people, text, cutNote(example), readout);
  }
  const picture = heatImage(data.examples.pictures[example.sample], example, heat, row.threshold, `${example.case} for ${concept}, ${summary}`, say);
  picture.draw(settings);
  pictures.push(picture);
  return el("article", { class: "card" }, top, people, el("div", { class: "canvas" }, picture.node), cutNote(example), readout);
}

function cutNote(example) {
  const notes = [];
  if (example.mask && !example.inside.length) notes.push("The crop removed all that people labelled; the model saw none of it.");
  if (example.window) notes.push(`Tokens ${example.window[0] + 1} to ${example.window[1]} of ${example.window[2]} are shown.`);
  if (example.cut) notes.push(`${plural(example.cut, "token")} at the end did not fit into the model.`);
  return notes.length ? el("p", { class: "note" }, notes.join(" ")) : null;
}
