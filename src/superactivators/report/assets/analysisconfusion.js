// Which absent concepts are taken for present, and together with which present ones.

import { figure } from "superactivators/axes.js";
import { analysed, key, sentence, shorten } from "superactivators/analysisparts.js";
import { el, svg } from "superactivators/dom.js";
import { count, decimal, percent } from "superactivators/format.js";
import { panel } from "superactivators/section.js";
import { scrollable } from "superactivators/table.js";

export function confusionPanel(data, store) {
  const map = el("div");
  const list = el("div");
  const readout = el("p", { class: "readout", role: "status" });
  store.watch(["kind"], () => {
    const confusion = analysed(data, store)?.confusion;
    map.replaceChildren(...(confusion ? [heatMap(data, confusion, readout)] : []));
    list.replaceChildren(...(confusion ? [topPairs(data, confusion)] : []));
    readout.textContent = confusion ? "Point at a cell, or use the arrow keys in the map." : "";
  });
  return panel(
    "Taken for present",
    null,
    sentence(data, store, (say) => say.confusion),
    el("p", { class: "keys" }, key("over", "fires more often than in all samples without it"), key("under", "less often"), "Rows are present, columns absent."),
    el("div", { class: "confusion" }, el("div", {}, map, readout), list),
  );
}

const rateOf = ({ n, fired }, row, column) => (n[row][column] > 0 ? fired[row][column] / n[row][column] : NaN);

function liftOf(confusion, row, column) {
  const base = confusion.base[column];
  return base > 0 ? rateOf(confusion, row, column) / base : NaN;
}

function heatMap(data, confusion, readout) {
  const names = data.concepts;
  const size = Math.max(14, Math.min(46, Math.floor(420 / names.length)));
  const side = Math.min(130, 12 + 6.6 * Math.max(...names.map((name) => [...shorten(name, 18)].length)));
  const excess = (row, column) => rateOf(confusion, row, column) - confusion.base[column];
  const cells = [];
  for (let row = 0; row < names.length; row += 1) {
    for (let column = 0; column < names.length; column += 1) if (row !== column) cells.push([row, column]);
  }
  const most = Math.max(0.02, ...cells.map(([row, column]) => Math.abs(excess(row, column))).filter(Number.isFinite));
  const at = (place) => side + place * size;
  const spot = svg("rect", { class: "map-spot", width: size, height: size, visibility: "hidden" });
  let current = null;
  const show = (cell) => {
    current = cell;
    spot.setAttribute("visibility", cell ? "visible" : "hidden");
    readout.classList.toggle("active", Boolean(cell));
    if (!cell) {
      readout.textContent = "Point at a cell, or use the arrow keys in the map.";
      return;
    }
    spot.setAttribute("x", at(cell[1]));
    spot.setAttribute("y", at(cell[0]));
    readout.textContent = told(names, confusion, ...cell);
  };
  const drawing = figure(
    side + size * names.length + 2,
    side + size * names.length + 2,
    "How often absent concepts fire, by present concept; move through the cells with the arrow keys",
    names.map((name, place) => [
      svg("text", { class: "map-name", x: side - 6, y: at(place) + size / 2 + 4, "text-anchor": "end" }, shorten(name, 18), svg("title", {}, name)),
      svg("text", { class: "map-name", transform: `translate(${at(place) + size / 2 + 4},${side - 6}) rotate(-90)` }, shorten(name, 18), svg("title", {}, name)),
      svg("rect", { class: "map-same", x: at(place), y: at(place), width: size, height: size }),
    ]),
    cells.map(([row, column]) => {
      const value = excess(row, column);
      const style = !Number.isFinite(value) ? "map-none" : value >= 0 ? "map-over" : "map-under";
      return svg("rect", { class: `map-cell ${style}`, x: at(column), y: at(row), width: size, height: size, style: { "--share": Number.isFinite(value) ? (Math.abs(value) / most).toFixed(3) : "0" } });
    }),
    size >= 34 && cells.map(([row, column]) => svg("text", { class: "map-value", x: at(column) + size / 2, y: at(row) + size / 2 + 4, "text-anchor": "middle" }, decimal(rateOf(confusion, row, column)))),
    spot,
  );
  /** Show a cell that the keyboard reached, scrolling a wide map to it. */
  const reveal = (cell) => {
    show(cell);
    spot.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  drawing.setAttribute("tabindex", "0");
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const zoom = drawing.viewBox.baseVal.width / box.width;
    const [column, row] = [event.clientX - box.left, event.clientY - box.top].map((value) => Math.floor((value * zoom - side) / size));
    const within = row >= 0 && column >= 0 && row < names.length && column < names.length && row !== column;
    if (within ? row !== current?.[0] || column !== current?.[1] : current) show(within ? [row, column] : null);
  });
  drawing.addEventListener("pointerleave", () => show(null));
  drawing.addEventListener("blur", () => show(null));
  drawing.addEventListener("keydown", (event) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    if (!current) {
      reveal(confusion.pairs[0] ?? cells[0]);
      return;
    }
    const step = (place, by) => Math.max(0, Math.min(names.length - 1, place + by));
    let next = [step(current[0], move[0]), step(current[1], move[1])];
    // The diagonal holds nothing: step over it.
    if (next[0] === next[1]) next = [step(next[0], move[0]), step(next[1], move[1])];
    if (next[0] !== next[1]) reveal(next);
  });
  const box = scrollable("Map of confusions", drawing);
  box.removeAttribute("tabindex"); // The drawing itself takes the focus.
  return box;
}

function told(names, confusion, row, column) {
  const [n, fired] = [confusion.n[row][column], confusion.fired[row][column]];
  if (!n) return `${names[row]} never comes without ${names[column]} on test.`;
  const lift = liftOf(confusion, row, column);
  const times = Number.isFinite(lift) ? `, ${decimal(lift, 1)} times as often` : "";
  return `${names[column]} fires in ${count(fired)} of ${count(n)} samples with ${names[row]} and without it: ${percent(fired / n)} against ${percent(confusion.base[column])} of all without it${times}.`;
}

function topPairs(data, confusion) {
  if (!confusion.pairs.length) return el("p", { class: "note" }, `No pair with ${confusion.least} or more samples lies above its base rate.`);
  const head = (text, number = true) => el("th", { scope: "col", class: number ? "number" : null }, text);
  return scrollable(
    "Pairs that go together most",
    el(
      "table",
      { class: "pairs" },
      el("caption", { class: "unseen" }, "Absent concepts that fire most beyond their base rate"),
      el("thead", {}, el("tr", {}, head("Fires without being there", false), head("Where there is", false), head("Rate"), head("Base"), head("Lift"), head("n"))),
      el("tbody", {}, confusion.pairs.map(([row, column]) => {
        const lift = liftOf(confusion, row, column);
        return el("tr", {}, el("th", { scope: "row" }, data.concepts[column]), el("td", {}, data.concepts[row]),
          el("td", { class: "number" }, el("b", {}, percent(rateOf(confusion, row, column)))),
          el("td", { class: "number" }, percent(confusion.base[column])),
          el("td", { class: "number" }, Number.isFinite(lift) ? `× ${decimal(lift, 1)}` : decimal(null)),
          el("td", { class: "number" }, count(confusion.n[row][column])));
      })),
    ),
  );
}
