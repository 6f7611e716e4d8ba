// What the reader has selected; figures subscribe to the parts that they show.

export function createStore(initial) {
  const values = { ...initial };
  const listeners = [];
  return {
    get: (name) => values[name],
    set(patch) {
      const changed = Object.keys(patch).filter((name) => values[name] !== patch[name]);
      Object.assign(values, patch);
      for (const { names, run } of listeners) if (names.some((name) => changed.includes(name))) run();
    },
    /** Run now and whenever one of `names` changes. */
    watch(names, run) {
      listeners.push({ names, run });
      run();
    },
  };
}
