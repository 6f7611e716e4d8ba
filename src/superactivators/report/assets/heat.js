// How hot a token is: nothing at the activation typical of other samples, two thirds at the threshold, full at the top.

const AT_THRESHOLD = 0.66;

export function createHeat({ typical, threshold, highest }) {
  const bottom = Number.isFinite(typical) ? Math.min(typical, threshold) : threshold - 1;
  const top = Math.max(highest, threshold);
  return (value) => {
    if (!Number.isFinite(value)) return 0;
    if (value <= threshold) return AT_THRESHOLD * Math.max(0, (value - bottom) / (threshold - bottom || 1)) ** 1.5;
    return AT_THRESHOLD + (1 - AT_THRESHOLD) * Math.min(1, (value - threshold) / (top - threshold || 1));
  };
}

/** What one token's activation means, in words. */
export function describe(example, number) {
  const inside = example.insideSet.has(number) ? "inside the labelled region" : example.unlabelledSet.has(number) ? "not labelled" : "outside the labelled region";
  const fires = example.firesSet.has(number) ? "SuperActivator" : "below the threshold";
  return { inside, fires };
}

/** Sets of token numbers are asked for often, and lists are slow at that. */
export function prepared(example) {
  return {
    ...example,
    firesSet: new Set(example.fires),
    locatedSet: new Set(example.located),
    insideSet: new Set(example.inside),
    unlabelledSet: new Set(example.unlabelled),
  };
}
