// Elements by plain calls. Text only ever enters as text nodes, so that data can never become markup.

const SVG = "http://www.w3.org/2000/svg";

function build(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, text]) => node.style.setProperty(key, text));
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element: `el("p", { class: "note", onclick: go }, "text", child)`. */
export function el(name, props, ...children) {
  return build(document.createElement(name), props, children);
}

/** An SVG element. */
export function svg(name, props, ...children) {
  return build(document.createElementNS(SVG, name), props, children);
}

/** Redraw `host` with `draw(width)` at once and whenever its width changes. Returns the function that redraws. */
export function responsive(host, draw) {
  let width = 0;
  const redraw = () => {
    const now = Math.floor(host.clientWidth);
    if (now > 0) host.replaceChildren(draw(now));
  };
  new ResizeObserver(() => {
    const now = Math.floor(host.clientWidth);
    if (now !== width) {
      width = now;
      requestAnimationFrame(redraw); // Drawing inside the observer may change the size that it observes.
    }
  }).observe(host);
  return redraw;
}
