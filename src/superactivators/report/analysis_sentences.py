"""One plain sentence for each analysis: what there is to see in this study, said from its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from superactivators.analysis.separation import FAR
from superactivators.report.verdicts import listed, percent, short

CLEAR = 0.2
"""Rank correlation from which a trend is called one."""
FEW = 5
"""Fewer concepts show no trend, and pairs with fewer samples are not named."""
NO_TOKENS = "Tokens have no labels here, so those inside a concept cannot be told from those outside."
NOTHING = "No concept has both in-concept tokens and samples without it on test, so there is nothing to compare."


def of_concepts(count: int) -> str:
    """Write how many concepts a mean or median is taken over."""
    return f"{count} concept{'' if count == 1 else 's'}"


def some(part: int, total: int) -> str:
    """Write ``9 of 12``, ``all 12`` or ``both``."""
    if part != total or total == 1:
        return f"{part} of {total}"
    return "both" if total == 2 else f"all {total}"


def tail_sentence(tail_mass: Float[np.ndarray, "sites c"], sites: Sequence[str], concepts: Sequence[str]) -> str:
    """Say whether the tail grows with depth: from the first to the last site, concept by concept."""
    if not sites:
        return NO_TOKENS
    both = np.flatnonzero(np.isfinite(tail_mass[[0, -1]]).all(axis=0))
    if not len(both):
        return NOTHING
    first, last = tail_mass[0, both], tail_mass[-1, both]
    begin, end = percent(float(np.median(first))), percent(float(np.median(last)))
    share = f"the share of in-concept tokens above the {percent(FAR)} quantile of other samples’ tokens"
    one = len(both) == 1
    if len(sites) == 1:
        whose = f"for {concepts[both[0]]}" if one else f"in the median of {len(both)} concepts"
        return f"At {sites[0]}, {share} is {begin} {whose}."
    grown, shrunk = int((last > first).sum()), int((last < first).sum())
    verb = "grows" if grown >= shrunk and grown else "shrinks" if shrunk else "is the same"
    changed = {"grows": grown, "shrinks": shrunk, "is the same": len(both)}[verb]
    whose = f"For {concepts[both[0]]}" if one else f"In {some(changed, len(both))} concepts"
    if verb == "is the same":
        return f"{whose}, {share} is the same at {sites[0]} and {sites[-1]} ({'' if one else 'median '}{begin})."
    middle = f"{begin} → {end}" if one else f"median of all {len(both)}: {begin} → {end}"
    return f"{whose}, {share} {verb} from {sites[0]} to {sites[-1]} ({middle})."


def separation_sentence(means: Mapping[str, Float[np.ndarray, " sites"]], sites: Sequence[str], concepts: int) -> str:
    """Say where the mean AUROC is highest, and what reaches the tail there.

    Parameters
    ----------
    means : mapping of str to float64 array of shape (sites,)
        ``auroc``, ``tail_mass`` and ``coverage``, averaged over concepts.
    sites : sequence of str
    concepts : int
        How many concepts were averaged.
    """
    if not sites:
        return NO_TOKENS
    if not np.isfinite(means["auroc"]).any():
        return NOTHING
    place = int(np.nanargmax(means["auroc"]))
    tail, coverage = float(means["tail_mass"][place]), float(means["coverage"][place])
    height = short(float(means["auroc"][place]))
    where = f"is {height} at {sites[0]}" if len(sites) == 1 else f"is highest at {sites[place]} ({height})"
    reach = (
        f"there {_share(tail)} of in-concept tokens {'but' if coverage > tail else 'and'} {_share(coverage)} of "
        f"positive samples reach above the {percent(FAR)} quantile of other samples’ tokens"
    )
    return f"AUROC {where}; {reach} (mean of {of_concepts(concepts)})."


def measure_sentence(values: Float[np.ndarray, " sites"], sites: Sequence[str], *, share: bool = False) -> str:
    """Say where a mean over concepts is highest and lowest."""
    known = np.flatnonzero(np.isfinite(values))

    def told(place: int) -> str:
        return percent(float(values[place])) if share else short(float(values[place]))

    if not len(known):
        return "Not defined here."
    low, high = (int(known[pick(values[known])]) for pick in (np.argmin, np.argmax))
    if values[low] == values[high]:
        return f"{told(high)} at {sites[high]}." if len(known) == 1 else f"{told(high)} at every layer."
    return f"Highest at {sites[high]} ({told(high)}), lowest at {sites[low]} ({told(low)})."


def sparsity_sentence(
    cumulative: Float[np.ndarray, "c shares"], shares: Float[np.ndarray, " shares"], concepts: Sequence[str]
) -> str:
    """Say in how many samples no in-concept token is a SuperActivator, and in how many at most half are."""
    known = np.flatnonzero(np.isfinite(cumulative).all(axis=1)) if cumulative.size else np.empty(0, np.int64)
    if not len(known):
        return NO_TOKENS if not cumulative.size else "No test sample has in-concept tokens, so there are no shares."
    parts: list[tuple[str, str]] = []
    for share, text in ((0.0, "none of these is a SuperActivator"), (0.5, "at most half are")):
        column = np.flatnonzero(np.isclose(shares, share))
        if len(column):
            value = percent(float(np.median(cumulative[known, column[0]])))
            parts.append((value, text))
    if len(known) == 1:
        whose, over = concepts[known[0]], ""
    else:
        whose, over = "a concept", f" (medians of {len(known)} concepts)"
    if not parts:
        return f"Shares of SuperActivators among the in-concept tokens of {whose}{over}."
    (value, text), *further = parts
    sentence = f"In {value} of the test samples with labelled tokens of {whose} {text}"
    return "".join([sentence, *(f", and in {more} {said}" for more, said in further), over, "."])


def levels_sentence(
    cal: Float[np.ndarray, "sites deltas"],
    test: Float[np.ndarray, "sites deltas"],
    sites: Sequence[str],
    deltas: Sequence[float],
) -> str:
    """Say what one layer and one level for all concepts reach on test, both chosen on cal."""
    if not np.isfinite(cal).any():
        return "F1 was not measured for one δ for all concepts."
    site, level = (int(part) for part in np.unravel_index(np.nanargmax(cal), cal.shape))
    value = short(_number(test[site, level]))
    where = f"{sites[site]} and δ = {_level(deltas[level])}"
    opening = f"With one layer and one δ for all concepts, cal chooses {where}: weighted test F1 {value}"
    if len(deltas) == 1:
        return f"{opening}."
    other = len(deltas) - 1 if level < len(deltas) - 1 else 0
    end = "largest" if other else "smallest"
    beside = f"at that layer the {end} δ, {_level(deltas[other])}, has {short(_number(test[site, other]))}"
    return f"{opening}; {beside}."


def best_levels_sentence(counts: Mapping[float, int]) -> str:
    """Say which level most concepts choose, and how many choose a small one."""
    total = sum(counts.values())
    if not total:
        return "No concept chose a δ."
    ordered = sorted(counts)
    if total == 1:
        return f"The one concept chooses δ = {_level(next(level for level in ordered if counts[level]))} on cal."
    each = np.repeat(ordered, [counts[level] for level in ordered])
    half = _level(float(each[(total - 1) // 2]))
    tail = f"at least half of the concepts choose δ = {half} or less"
    return f"{_commonest([(f'δ = {_level(level)}', counts[level]) for level in ordered], total, 'levels')}; {tail}."


def best_layers_sentence(counts: Mapping[str, int], sites: Sequence[str]) -> str:
    """Say which layer most concepts choose, and over how many layers they spread."""
    total = sum(counts.values())
    if not total:
        return "No concept chose a layer."
    if len(sites) == 1:
        return f"{sites[0]} is the only layer, so there was nothing to choose."
    if total == 1:
        chosen = next(site for site, count in counts.items() if count)
        return f"The one concept chooses {chosen} on cal, one of {len(sites)} layers."
    used = sum(count > 0 for count in counts.values())
    spread = f"{used} of the {len(sites)} layers {'is' if used == 1 else 'are'} chosen by any concept"
    return f"{_commonest([(site, counts.get(site, 0)) for site in sites], total, 'layers')}; {spread}."


def _commonest(entries: Sequence[tuple[str, int]], total: int, things: str) -> str:
    most = max(count for _, count in entries)
    names = [name for name, count in entries if count == most]
    if len(names) > 3:
        return f"On cal, {len(names)} {things} are chosen most often, by {most} of {total} concepts each"
    each = " each" if len(names) > 1 else ""
    return f"On cal, {listed(names)} {'are' if each else 'is'} chosen most often, by {most} of {total} concepts{each}"


def prevalence_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how F1 goes with prevalence and with the size of a concept: rank correlations over concepts.

    Parameters
    ----------
    rows : sequence of mappings
        ``concept``, ``prevalence``, ``size`` and ``f1`` of each concept; None or NaN where unknown.
    """
    known = [row for row in rows if finite(row["prevalence"]) and finite(row["f1"])]
    if not known:
        return "No concept has a prevalence and an F1 on test."
    rarest, commonest = (pick(known, key=lambda row: float(row["prevalence"])) for pick in (min, max))
    if len(known) == 1:
        only = known[0]
        common, f1 = percent(only["prevalence"]), short(only["f1"])
        return f"{only['concept']} is in {common} of the test samples and has F1 {f1}."
    if len(known) < FEW:
        if rarest["prevalence"] == commonest["prevalence"]:
            return f"All {len(known)} concepts are in {percent(rarest['prevalence'])} of the test samples."
        return (
            f"F1 is {short(rarest['f1'])} for the rarest concept ({rarest['concept']}, in "
            f"{percent(rarest['prevalence'])} of the test samples) and {short(commonest['f1'])} for the most common "
            f"({commonest['concept']}, {percent(commonest['prevalence'])}); {len(known)} concepts show no trend."
        )
    sized = [row for row in known if finite(row["size"])]
    parts = [_trend(known, "prevalence", "prevalence")]
    if len(sized) >= FEW:
        over = "" if len(sized) == len(known) else f", {len(sized)} concepts"
        parts.append(_trend(sized, "size", "the share of a sample’s tokens that a concept takes", over))
    return f"Over {len(known)} concepts, F1 {' and '.join(parts)}."


def _trend(rows: Sequence[Mapping[str, Any]], name: str, text: str, over: str = "") -> str:
    rho = rank_correlation(
        np.array([row[name] for row in rows], dtype=np.float64), np.array([row["f1"] for row in rows], dtype=np.float64)
    )
    if not np.isfinite(rho):
        return f"cannot be set against {text}, as one of them does not vary{f' ({over[2:]})' if over else ''}"
    verb = "hardly changes with" if abs(rho) < CLEAR else "rises with" if rho > 0 else "falls with"
    return f"{verb} {text} (rank correlation {short(rho, signed=True)}{over})"


def rank_correlation(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Spearman's rank correlation; NaN where one of them does not vary."""
    from scipy.stats import rankdata

    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def sizes_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how many of the smallest and of the largest instances of concepts are found."""
    bins = sorted((row for row in rows if row["n"] and finite(row["recall"])), key=lambda row: float(row["low"]))
    if not bins:
        return NO_TOKENS
    small, large = bins[0], bins[-1]
    if len(bins) == 1:
        size, found = _range(small, percent), percent(small["recall"])
        return f"Every concept takes {size} of the tokens of its samples; {found} of these are found."
    return (
        f"Found are {percent(small['recall'])} of the concepts that take the smallest share of their sample (up to "
        f"{percent(small['high'])} of its tokens) and {percent(large['recall'])} of those that take the largest (from "
        f"{percent(large['low'])})."
    )


def lengths_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how recall and false alarms differ between the shortest and the longest samples."""
    bins = sorted((row for row in rows if row["n"]), key=lambda row: float(row["low"]))
    if not bins:
        return "Lengths were not compared."
    small, large = bins[0], bins[-1]
    if small["low"] == large["high"]:
        return f"All samples have {_count(small['low'])} tokens, so length cannot matter."
    if len(bins) == 1:
        return f"All samples have {_range(small, _count)} tokens and are not told apart by length."
    ends = [
        f"{text}, {_share(row['recall'])} of the concepts are found and {_share(row['fpr'])} of the absent ones raise "
        "a false alarm"
        for row, text in (
            (small, f"In the shortest samples (up to {_count(small['high'])} tokens)"),
            (large, f"in the longest (from {_count(large['low'])})"),
        )
    ]
    return "; ".join(ends) + "."


def confusion_sentence(pairs: Sequence[Mapping[str, Any]], compared: int) -> str:
    """Say which absent concept fires most beyond its base rate, and with which present one.

    Parameters
    ----------
    pairs : sequence of mappings
        ``present, absent, n, fired, rate, base``, those that go together most first.
    compared : int
        How many pairs have enough samples to be compared.
    """
    if not compared:
        return f"No two concepts have {FEW} test samples with the one and without the other, so none can be confused."
    if not pairs:
        return f"In none of {compared} pairs does an absent concept fire more often where the other is present."
    top = pairs[0]
    present, absent = top["present"], top["absent"]
    rate, base = percent(top["rate"]), percent(top["base"])
    return (
        f"{absent} is most often taken for present where {present} is: it fires in {rate} of the {top['n']} test "
        f"samples with {present} and without {absent}, against {base} of all samples without {absent}."
    )


def pairs_sentence(examples: Sequence[Mapping[str, float]]) -> str:
    """Say whether in-concept tokens resemble each other more than the rest of their samples.

    Parameters
    ----------
    examples : sequence of mappings
        Mean cosines of each example, NaN where undefined: ``within`` (pairs of in-concept tokens), ``across``
        (in-concept and other tokens) and ``fired`` (pairs of in-concept tokens that fire).
    """
    known = [example for example in examples if finite(example["within"]) and finite(example["across"])]
    if not known:
        return "No example has two in-concept tokens and others beside them."
    closer = sum(example["within"] > example["across"] for example in known)
    within, across = (float(np.mean([example[name] for example in known])) for name in ("within", "across"))
    examples_ = f"{some(closer, len(known))} examples" if len(known) > 1 else "the one example"
    verb = "are" if len(known) > 1 or closer else "are not"
    text = (
        f"In {examples_}, in-concept tokens {verb} closer to each other than to the rest of the sample (mean cosine "
        f"{short(within)} against {short(across)})"
    )
    fired = [example["fired"] for example in known if finite(example["fired"])]
    if fired:
        over = (
            "" if len(fired) == len(known) else f" in the {'one' if len(fired) == 1 else len(fired)} with two or more"
        )
        text += f"; SuperActivators among them reach {short(float(np.mean(fired)))}{over}"
    return text + "."


def finite(value: Any) -> bool:
    """Tell whether a cell of a table holds a finite number."""
    return value is not None and bool(np.isfinite(value))


def counted(table: Sequence[Mapping[str, Any]], name: str) -> dict[Any, int]:
    """Numbers of concepts by one column."""
    counts: dict[Any, int] = {}
    for row in table:
        counts[row[name]] = counts.get(row[name], 0) + int(row["concepts"])
    return counts


def mean_over_concepts(values: Float[np.ndarray, "sites c"]) -> Float[np.ndarray, " sites"]:
    """Mean of the finite numbers of each site; NaN without any."""
    known = np.isfinite(values)
    count: Int[np.ndarray, " sites"] = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _number(value: Any) -> float | None:
    return float(value) if finite(value) else None


def _level(delta: float) -> str:
    text = f"{delta:g}"
    text = text.removeprefix("0") if text.startswith("0.") else text
    return f"{text}0" if len(text) == 2 and text.startswith(".") else text


def _count(value: float) -> str:
    return f"{value:.0f}"


def _share(value: Any) -> str:
    return percent(float(value)) if finite(value) else "?"


def _range(row: Mapping[str, Any], told: Any) -> str:
    low, high = told(row["low"]), told(row["high"])
    return str(low) if low == high else f"{low} to {high}"
