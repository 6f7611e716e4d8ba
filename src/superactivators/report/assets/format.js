// Numbers as in a printed table: no zero before the point, a true minus sign, a dash for what is missing.

export const MISSING = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

export function decimal(value, places = 2, signed = false) {
  if (!known(value)) return MISSING;
  const digits = Math.abs(value).toFixed(places).replace(/^0\./, ".");
  const zero = Number(value.toFixed(places)) === 0;
  return (value < 0 && !zero ? "−" : signed && !zero ? "+" : "") + digits;
}

/** `[.59, .63]`, or nothing where there is no interval. */
export function interval(low, high, places = 2, signed = false) {
  if (!known(low) || !known(high)) return "";
  return `[${decimal(low, places, signed)}, ${decimal(high, places, signed)}]`;
}

export function percent(share) {
  if (!known(share)) return MISSING;
  const value = share * 100;
  if (value === 0) return "0 %";
  if (value < 0.01) return "< .01 %";
  return `${value >= 10 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toFixed(2).replace(/^0/, "")} %`;
}

export function count(value) {
  return known(value) ? value.toLocaleString("en-US").replaceAll(",", "\u202f") : MISSING;
}

export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** Texts for the ticks of one axis, all with as many decimals as the finest needs. */
export function tickText(values) {
  const decimals = (value) => (String(Number(value.toPrecision(6))).split(".")[1] ?? "").length;
  const places = Math.max(0, ...values.map(decimals));
  return (value) => (value === 0 ? "0" : decimal(value, places));
}

/** A sparsity level: `.005`, `.10`. */
export function level(delta) {
  if (!known(delta)) return MISSING;
  const digits = String(delta).replace(/^0\./, ".");
  return digits.length === 2 ? `${digits}0` : digits;
}

/** An activation, which may be a cosine or a logit. */
export function activation(value) {
  if (!known(value)) return MISSING;
  return decimal(value, Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3);
}

/** A value of a map, which may be of any size: `.123`, `4.1e−6`. */
export function mapValue(value) {
  const small = known(value) && value !== 0 && Math.abs(value) < 0.001;
  return small ? value.toExponential(1).replaceAll("-", "−") : activation(value);
}

export function seconds(value) {
  if (!known(value)) return MISSING;
  if (value < 1) return `${decimal(value, 2)} s`;
  if (value < 90) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

/** `block[3]` is short enough for axes as `3`; other sites keep their names. */
export function site(name) {
  const block = /^block\[(\d+)\]$/.exec(name ?? "");
  return block ? block[1] : (name ?? MISSING);
}
