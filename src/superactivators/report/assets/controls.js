// Small form controls with labels.

import { el } from "superactivators/dom.js";

let counter = 0;
const fresh = () => `control-${(counter += 1)}`;

/** A row of radio buttons that reads as one switch. `options` is a list of [value, text]. */
export function choice(label, options, value, changed) {
  const name = fresh();
  return el(
    "fieldset",
    { class: "choice" },
    el("legend", {}, label),
    el(
      "span",
      { class: "choice-row" },
      options.map(([option, text]) =>
        el(
          "label",
          {},
          el("input", { type: "radio", name, value: option, checked: option === value, onchange: () => changed(option) }),
          el("span", {}, text),
        ),
      ),
    ),
  );
}

export function check(label, value, changed, swatch = null) {
  const box = el("input", { type: "checkbox", checked: value, onchange: () => changed(box.checked) });
  return el("label", { class: "check" }, box, swatch && el("span", { class: `swatch ${swatch}` }), el("span", {}, label));
}

export function slider(label, { min, max, step, value }, say, changed) {
  const id = fresh();
  const output = el("output", { for: id }, say(value));
  const range = el("input", {
    id, type: "range", min, max, step, value, "aria-valuetext": say(value),
    oninput: () => {
      output.textContent = say(Number(range.value));
      range.setAttribute("aria-valuetext", output.textContent);
      changed(Number(range.value));
    },
  });
  return el("span", { class: "slider" }, el("label", { for: id }, label), range, output);
}

/** A link that saves rows as a CSV file, made on the click. */
export function csvLink(text, filename, rows) {
  const quoted = (cell) => {
    const plain = cell === null || cell === undefined ? "" : String(cell);
    // A leading sign would make a spreadsheet run a name as a formula.
    const safe = typeof cell === "string" && /^[=+\-@\t\r]/.test(plain) ? `'${plain}` : plain;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const link = el("a", { class: "quiet", download: filename, href: "data:text/csv," }, text);
  link.addEventListener("click", () => {
    const lines = rows().map((row) => row.map(quoted).join(","));
    link.href = `data:text/csv;charset=utf-8,${encodeURIComponent(`${lines.join("\n")}\n`)}`;
  });
  return link;
}
