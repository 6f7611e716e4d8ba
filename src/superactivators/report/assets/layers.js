// Layers against methods as a heat map of readable numbers, with the layers that the concepts chose.

import { el } from "superactivators/dom.js";
import { decimal, plural } from "superactivators/format.js";
import { section } from "superactivators/section.js";
import { scrollable } from "superactivators/table.js";

export function layersSection(data, store) {
  const host = el("div");
  store.watch(["kind", "average"], () => host.replaceChildren(heatTable(data, store.get("kind"), store.get("average"))));
  return section(
    "layers",
    "Which layers carry the concepts?",
    "Darker cells are a higher test F1 with that layer alone, and a frame marks each method’s best; bars count the concepts that chose the layer on cal.",
    host,
  );
}

function heatTable(data, kind, average) {
  const byMethod = data.layers[kind];
  const methods = data.methods.map((method) => method.name).filter((name) => byMethod[name]);
  const all = methods.flatMap((name) => byMethod[name][average]).filter(Number.isFinite);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const share = (value) => (Number.isFinite(value) ? (value - low) / (high - low || 1) : 0);
  const best = Object.fromEntries(methods.map((name) => [name, Math.max(...byMethod[name][average].filter(Number.isFinite))]));
  const chosen = data.sites.map((site) => data.rows[kind].filter((row) => row.site === site));
  const most = Math.max(...chosen.map((rows) => rows.length), 1);
  // The deepest layer stands at the top, as in drawings of networks.
  const places = data.sites.map((_, place) => place).reverse();
  return scrollable(
    `F1 of every layer and method with ${kind} vectors`,
    el(
      "table",
      { class: "heat" },
      el("caption", { class: "unseen" }, `Test F1 (${average}) by layer and method, ${kind} vectors`),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", { scope: "col" }, "Layer"),
          methods.map((name) => el("th", { scope: "col", class: name === data.reference ? "reference" : null }, data.label(name))),
          el("th", { scope: "col", class: "left" }, "Chosen by"),
        ),
      ),
      el(
        "tbody",
        {},
        places.map((place) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, data.sites[place]),
            methods.map((name) => {
              const value = byMethod[name][average][place];
              return el(
                "td",
                { class: value === best[name] ? "cell best" : "cell", style: { "--share": share(value).toFixed(3) } },
                decimal(value),
              );
            }),
            el(
              "td",
              { class: "chosen", title: chosen[place].map((row) => row.concept).join(", ") },
              el("span", { class: "chosen-bar", style: { "--share": (chosen[place].length / most).toFixed(3) } }),
              el("span", { class: "chosen-text" }, chosen[place].length ? plural(chosen[place].length, "concept") : ""),
            ),
          ),
        ),
      ),
    ),
  );
}
