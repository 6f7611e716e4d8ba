// Deep links: `#concept=<name>` opens a concept.

const PREFIX = "#concept=";

export function address(concept) {
  return PREFIX + encodeURIComponent(concept);
}

/** Concept that the page's address names, if it is one of them. */
export function addressed(concepts) {
  if (!location.hash.startsWith(PREFIX)) return null;
  try {
    const name = decodeURIComponent(location.hash.slice(PREFIX.length));
    return concepts.includes(name) ? name : null;
  } catch {
    return null; // A broken percent sign.
  }
}
