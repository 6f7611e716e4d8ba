// A picture with its patches tinted by activation; SuperActivators and the labelled mask are outlined.

import { el } from "superactivators/dom.js";
import { activation } from "superactivators/format.js";
import { describe } from "superactivators/heat.js";

// Pictures have colours of their own, so the marks do not follow the page's theme.
const HEAT = "255, 84, 20";
const FIRES = "#ff5414";
const TRUTH = "#5cc8ff";
const HALO = "rgba(0, 0, 0, .75)";

const decoded = new Map();

export function load(uri) {
  if (!decoded.has(uri)) {
    decoded.set(uri, new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error("an embedded picture cannot be decoded"));
      image.src = uri;
    }));
  }
  return decoded.get(uri);
}

/**
 * @param {object} picture src, width, height, view, grid, cells (null: all, in order)
 * @param {object} example prepared, with scores, sets and mask
 * @param {function} heat activation to 0..1
 * @param {number} threshold
 * @param {function} say called with the sentence about a patch
 * @returns {{node: HTMLElement, draw: function({opacity: number, marks: boolean, truth: boolean})}}
 */
export function heatImage(picture, example, heat, threshold, label, say) {
  const zoom = Math.max(1, Math.min(2, 288 / Math.max(picture.width, picture.height)));
  const size = { width: picture.width * zoom, height: picture.height * zoom };
  const density = Math.min(3, globalThis.devicePixelRatio || 1);
  const canvas = el("canvas", {
    width: Math.round(size.width * density), height: Math.round(size.height * density), tabindex: "0", role: "img",
    "aria-label": `${label}; move through the patches with the arrow keys`,
    style: { width: `${size.width}px`, "aspect-ratio": `${size.width} / ${size.height}` },
  });
  const geometry = patchGeometry(picture, zoom);
  const state = { opacity: 0.55, marks: true, truth: true, current: -1 };
  let outline = null;
  let base = null;

  const draw = (patch = {}) => {
    Object.assign(state, patch);
    if (base) paint(canvas, { picture, base, size, density, geometry, example, heat, outline, zoom, state });
  };
  const ready = async () => {
    base = await load(picture.src);
    draw();
    if (example.mask) outline = maskOutline(await load(example.mask), picture);
    draw();
  };
  ready().catch((error) => say(error.message));
  follow(canvas, geometry, example, threshold, size, say, (current) => draw({ current }));
  return { node: canvas, draw };
}

/** Boxes of the patches in pixels of the shown picture, and which token each cell is. */
export function patchGeometry(picture, zoom) {
  const [left, top, right, bottom] = picture.view.map((value) => value * zoom);
  const [rows, columns] = picture.grid;
  const wide = (right - left) / columns;
  const high = (bottom - top) / rows;
  const cells = picture.cells ?? Array.from({ length: rows * columns }, (_, cell) => cell);
  const token = new Map(cells.map((cell, number) => [cell, number]));
  return { left, top, right, bottom, rows, columns, wide, high, token, cells };
}

function paint(canvas, { base, size, density, geometry, example, heat, outline, zoom, state }) {
  const context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, size.width, size.height);
  // Less colour in the picture makes the heat readable; at opacity 0 it is the picture itself.
  context.filter = `saturate(${(1 - 0.85 * state.opacity).toFixed(2)}) brightness(${(1 - 0.12 * state.opacity).toFixed(2)})`;
  context.imageSmoothingEnabled = zoom === 1 || density > 1;
  context.drawImage(base, 0, 0, size.width, size.height);
  context.filter = "none";
  geometry.cells.forEach((cell, token) => {
    const [x, y] = corner(geometry, cell);
    context.fillStyle = `rgba(${HEAT}, ${(state.opacity * heat(example.scores[token])).toFixed(3)})`;
    // Whole device pixels, so that no seams show between patches.
    const x0 = Math.round(x * density) / density;
    const y0 = Math.round(y * density) / density;
    const x1 = Math.round((x + geometry.wide) * density) / density;
    const y1 = Math.round((y + geometry.high) * density) / density;
    context.fillRect(x0, y0, x1 - x0, y1 - y0);
  });
  dimCropped(context, geometry, size);
  if (state.truth && outline) stroke(context, scaledPath(outline, zoom), TRUTH, 1.6);
  if (state.marks) stroke(context, cellOutline(geometry, example.firesSet), FIRES, 1.8);
  if (state.current >= 0) {
    const [x, y] = corner(geometry, geometry.cells[state.current]);
    const box = new Path2D();
    box.rect(x, y, geometry.wide, geometry.high);
    stroke(context, box, "#ffffff", 1.5);
  }
}

export function corner(geometry, cell) {
  return [
    geometry.left + (cell % geometry.columns) * geometry.wide,
    geometry.top + Math.floor(cell / geometry.columns) * geometry.high,
  ];
}

/** What the model never saw is greyed out. */
export function dimCropped(context, { left, top, right, bottom }, { width, height }) {
  if (left < 0.5 && top < 0.5 && right > width - 0.5 && bottom > height - 0.5) return;
  const outside = new Path2D();
  outside.rect(0, 0, width, height);
  outside.rect(left, top, right - left, bottom - top);
  context.fillStyle = "rgba(128, 124, 118, .82)";
  context.fill(outside, "evenodd");
}

export function stroke(context, path, colour, width) {
  context.lineJoin = "round";
  context.lineCap = "round";
  context.strokeStyle = HALO;
  context.lineWidth = width + 1.4;
  context.stroke(path);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke(path);
}

/** Edges between chosen patches and the others. */
export function cellOutline(geometry, chosen) {
  const path = new Path2D();
  const on = (row, column) => {
    if (row < 0 || column < 0 || row >= geometry.rows || column >= geometry.columns) return false;
    const token = geometry.token.get(row * geometry.columns + column);
    return token !== undefined && chosen.has(token);
  };
  for (const token of chosen) {
    const cell = geometry.cells[token];
    const [row, column] = [Math.floor(cell / geometry.columns), cell % geometry.columns];
    const [x, y] = corner(geometry, cell);
    const edge = (x0, y0, x1, y1) => {
      path.moveTo(x0, y0);
      path.lineTo(x1, y1);
    };
    if (!on(row - 1, column)) edge(x, y, x + geometry.wide, y);
    if (!on(row + 1, column)) edge(x, y + geometry.high, x + geometry.wide, y + geometry.high);
    if (!on(row, column - 1)) edge(x, y, x, y + geometry.high);
    if (!on(row, column + 1)) edge(x + geometry.wide, y, x + geometry.wide, y + geometry.high);
  }
  return path;
}

/** Edges of a one-bit mask, joined along rows and columns. */
function maskOutline(image, { width, height }) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const on = (x, y) => x >= 0 && y >= 0 && x < width && y < height && data[(y * width + x) * 4] > 127;
  const path = new Path2D();
  const runs = (lines, length, differs, add) => {
    for (let line = 0; line <= lines; line += 1) {
      let start = -1;
      for (let place = 0; place <= length; place += 1) {
        const edge = place < length && differs(line, place);
        if (edge && start < 0) start = place;
        if (!edge && start >= 0) {
          add(line, start, place);
          start = -1;
        }
      }
    }
  };
  runs(height, width, (y, x) => on(x, y) !== on(x, y - 1), (y, from, to) => { path.moveTo(from, y); path.lineTo(to, y); });
  runs(width, height, (x, y) => on(x, y) !== on(x - 1, y), (x, from, to) => { path.moveTo(x, from); path.lineTo(x, to); });
  return path;
}

function scaledPath(path, zoom) {
  if (zoom === 1) return path;
  const larger = new Path2D();
  larger.addPath(path, new DOMMatrix([zoom, 0, 0, zoom, 0, 0]));
  return larger;
}

function follow(canvas, geometry, example, threshold, size, say, show) {
  let cell = -1;
  const point = (next) => {
    cell = next;
    const token = geometry.token.get(cell);
    show(token ?? -1);
    if (token === undefined) return say("");
    const { inside, fires } = describe(example, token);
    const place = `row ${Math.floor(cell / geometry.columns) + 1}, column ${(cell % geometry.columns) + 1}`;
    return say(`Patch in ${place}: activation ${activation(example.scores[token])}, threshold ${activation(threshold)}; ${fires}; ${inside}`);
  };
  canvas.addEventListener("pointermove", (event) => {
    const share = size.width / canvas.clientWidth;
    const column = Math.floor((event.offsetX * share - geometry.left) / geometry.wide);
    const row = Math.floor((event.offsetY * share - geometry.top) / geometry.high);
    const within = row >= 0 && column >= 0 && row < geometry.rows && column < geometry.columns;
    const next = within ? row * geometry.columns + column : -1;
    if (next !== cell) point(next);
  });
  canvas.addEventListener("pointerleave", () => point(-1));
  canvas.addEventListener("blur", () => point(-1));
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: geometry.columns, ArrowUp: -geometry.columns }[event.key];
    if (!move) return;
    event.preventDefault();
    const highest = example.scores.reduce((best, value, token) => (value > example.scores[best] ? token : best), 0);
    const next = cell < 0 ? geometry.cells[highest] : cell + move;
    if (next >= 0 && next < geometry.rows * geometry.columns) point(next);
  });
}
