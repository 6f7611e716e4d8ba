// Access to a study's results. The static report embeds them; a viewer may hand over the same JSON.

export function embedded() {
  return JSON.parse(document.getElementById("payload").textContent);
}

/** Look-ups over the payload, so that sections need not know its layout. */
export function createData(payload) {
  const place = new Map(payload.concepts.map((name, number) => [name, number]));
  const methods = new Map(payload.methods.map((method) => [method.name, method]));
  return {
    ...payload,
    place: (concept) => place.get(concept),
    method: (name) => methods.get(name),
    label: (name) => methods.get(name)?.label ?? name,
    row: (kind, concept) => payload.rows[kind][place.get(concept)],
    spread: (kind, concept) => payload.distributions[kind]?.[place.get(concept)] ?? null,
    curve: (kind, split, concept, site) => payload.curves.concepts[kind]?.[split]?.[place.get(concept)]?.[payload.sites.indexOf(site)] ?? [],
    samples: (concept) => payload.examples?.concepts[place.get(concept)] ?? [],
    methodsOf: (kind) => payload.method_rows.filter((row) => row.kind === kind),
    hasReference: payload.methods.some((method) => method.name === payload.reference),
  };
}

/** The concept with most positive test samples: what the page opens with. */
export function commonest(data) {
  const rows = data.rows[data.best_kind];
  return rows.reduce((best, row) => (row.n_positive > best.n_positive ? row : best), rows[0]).concept;
}
