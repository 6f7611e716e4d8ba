// A table whose columns sort on a click, inside a box that scrolls sideways by itself.

import { el } from "superactivators/dom.js";

/**
 * @param {string} caption read to screen readers
 * @param {{key: string, title: string, hint: ?string, value: function, cell: ?function, numeric: ?boolean, head: ?boolean}[]} columns
 *   `value(row)` sorts, `cell(row)` shows (a string or nodes)
 * @param {{rows: object[], sort: ?{key: string, down: boolean}, attributes: ?function}} options
 */
export function sortableTable(caption, columns, { rows, sort = null, attributes = () => ({}) }) {
  let order = sort;
  const body = el("tbody");
  const heads = columns.map((column) => {
    const button = el("button", { type: "button", title: column.hint }, column.title);
    const head = el("th", { scope: "col", class: column.numeric ? "number" : null }, button);
    button.addEventListener("click", () => {
      const again = order?.key === column.key;
      order = { key: column.key, down: again ? !order.down : Boolean(column.numeric) };
      fill();
    });
    return head;
  });

  function fill() {
    const column = columns.find((one) => one.key === order?.key);
    const sorted = [...rows];
    if (column) {
      const sign = order.down ? -1 : 1;
      sorted.sort((a, b) => compare(column.value(a), column.value(b), sign));
    }
    heads.forEach((head, number) => {
      const mine = columns[number].key === order?.key;
      if (mine) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    body.replaceChildren(...sorted.map(line));
  }

  function line(row) {
    return el(
      "tr",
      attributes(row),
      columns.map((column) =>
        el(
          column.head ? "th" : "td",
          { scope: column.head ? "row" : null, class: column.numeric ? "number" : null },
          (column.cell ?? column.value)(row),
        ),
      ),
    );
  }

  fill();
  const table = el(
    "table", {},
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, heads)),
    body,
  );
  return scrollable(caption, table);
}

/** Missing values go last, whichever way the column is sorted. */
function compare(a, b, sign) {
  const missing = (value) => value === null || value === undefined;
  if (missing(a) || missing(b)) return Number(missing(a)) - Number(missing(b));
  return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
}

/** Box that scrolls sideways and can be reached by keyboard. */
export function scrollable(label, content) {
  return el("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, content);
}
