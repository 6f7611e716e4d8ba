// A picture with one signed map over its patches.

import { el } from "superactivators/dom.js";
import { mapValue } from "superactivators/format.js";
import { cellOutline, corner, dimCropped, load, patchGeometry, stroke } from "superactivators/heatimage.js";

// Pictures have colours of their own, so the marks do not follow the page's theme.
const FOR = "255, 84, 20";
const AGAINST = "112, 56, 226";
const OPACITY = 0.72;
const [FIRES, TRUTH, ABOVE] = ["#ff5414", "#5cc8ff", "#ffffff"];

/**
 * @param {object} picture src, width, height, view, grid, cells (null: all, in order)
 * @param {{inside: Set, fires: Set, map: ?object, label: string, point: function}} shared without a map it is the input
 * @returns {{node: HTMLElement, show: function(number), name: function(number): string}}
 */
export function mapImage(picture, { inside, fires, map, label, point }) {
  const zoom = Math.max(1, Math.min(2, 288 / Math.max(picture.width, picture.height)));
  const size = { width: picture.width * zoom, height: picture.height * zoom };
  const density = Math.min(2, globalThis.devicePixelRatio || 1);
  const geometry = patchGeometry(picture, zoom);
  const canvas = el("canvas", {
    width: Math.round(size.width * density), height: Math.round(size.height * density), role: "img",
    "aria-label": map ? label : `${label}; move through the patches with the arrow keys`, tabindex: map ? null : "0",
  });
  const spot = el("span", { class: "spot", hidden: true, style: {
    width: `${(100 * geometry.wide) / size.width}%`, height: `${(100 * geometry.high) / size.height}%`,
  } });
  load(picture.src).then(
    (base) => paint(canvas, { base, size, density, zoom, geometry, map, inside, fires }),
    (error) => canvas.setAttribute("aria-label", error.message),
  );
  let current = -1;
  const show = (token) => {
    current = token;
    spot.hidden = token < 0;
    if (token < 0) return;
    const [x, y] = corner(geometry, geometry.cells[token]);
    spot.style.left = `${(100 * x) / size.width}%`;
    spot.style.top = `${(100 * y) / size.height}%`;
    if (map) canvas.title = `${mapValue(map.values[token])}, threshold ${mapValue(map.threshold)}`;
  };
  const name = (token) => {
    const cell = geometry.cells[token];
    return `Patch in row ${Math.floor(cell / geometry.columns) + 1}, column ${(cell % geometry.columns) + 1}`;
  };
  follow(canvas, geometry, size, () => current, fires, point);
  return { node: el("div", { class: "spotted" }, canvas, spot), show, name };
}

function paint(canvas, { base, size, density, zoom, geometry, map, inside, fires }) {
  const context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  // Less colour in the picture makes the heat readable.
  if (map) context.filter = "saturate(.25) brightness(.92)";
  context.imageSmoothingEnabled = zoom === 1 || density > 1;
  context.drawImage(base, 0, 0, size.width, size.height);
  context.filter = "none";
  if (map) {
    geometry.cells.forEach((cell, token) => {
      const amount = map.amount(token);
      const [x, y] = corner(geometry, cell);
      // Whole device pixels, so that no seams show between patches.
      const at = (value) => Math.round(value * density) / density;
      context.fillStyle = `rgba(${amount < 0 ? AGAINST : FOR}, ${(OPACITY * Math.abs(amount)).toFixed(3)})`;
      context.fillRect(at(x), at(y), at(x + geometry.wide) - at(x), at(y + geometry.high) - at(y));
    });
  }
  dimCropped(context, geometry, size);
  stroke(context, cellOutline(geometry, inside), TRUTH, map ? 1.6 : 2);
  if (map) stroke(context, cellOutline(geometry, map.above), ABOVE, 1.8);
  else stroke(context, cellOutline(geometry, fires), FIRES, 2);
}

function follow(canvas, geometry, size, current, fires, point) {
  canvas.addEventListener("pointermove", (event) => {
    const share = size.width / canvas.clientWidth;
    const column = Math.floor((event.offsetX * share - geometry.left) / geometry.wide);
    const row = Math.floor((event.offsetY * share - geometry.top) / geometry.high);
    const within = row >= 0 && column >= 0 && row < geometry.rows && column < geometry.columns;
    const token = within ? (geometry.token.get(row * geometry.columns + column) ?? -1) : -1;
    if (token !== current()) point(token);
  });
  canvas.addEventListener("pointerleave", () => point(-1));
  canvas.addEventListener("blur", () => point(-1));
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: geometry.columns, ArrowUp: -geometry.columns }[event.key];
    if (!move) return;
    event.preventDefault();
    const [first = 0] = fires;
    const next = current() < 0 ? first : geometry.token.get(geometry.cells[current()] + move);
    if (next !== undefined) point(next);
  });
}
