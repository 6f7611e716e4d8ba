"""Test samples that show a concept at work: hits, false alarms and misses, with the activation of every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.data.dataset import ConceptDataset, ImageSample, TextSample
from superactivators.models.encoding import Encoding
from superactivators.report.inputs import ReportInputs
from superactivators.report.pictures import mask_uri, picture

BUDGET = {"image": 200, "text": 480}
"""Examples in one report; with many concepts each gets fewer, so that the file stays small."""
SHARES = {"hit": 4, "false alarm": 3, "miss": 3}
WINDOW = 320
"""Longest stretch of tokens shown of a text."""
METHODS = ("superactivators", "max")
"""Methods whose score is one token's activation, so that tokens can be shown against the threshold."""


@final
@dataclass(frozen=True, eq=False)
class _Site:
    """Test split at one site: activations, their rows among all tokens, and offsets of the test samples."""

    scores: Float[np.ndarray, "tokens c"]
    rows: Int[np.ndarray, " tokens"]
    offsets: Int[np.ndarray, " n_plus_1"]


def per_concept(n_concepts: int, modality: str) -> dict[str, int]:
    """How many examples of each case a concept gets: 4, 3 and 3, or fewer if there are many concepts (at least 1)."""
    share = min(1.0, BUDGET[modality] / (n_concepts * sum(SHARES.values())))
    return {case: max(1, round(count * share)) for case, count in SHARES.items()}


def pick(
    scores: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"], threshold: float, wanted: dict[str, int]
) -> list[tuple[str, int, int, int]]:
    """Choose examples by a fixed rule.

    Hits: the highest scores, the last of them replaced by the middle one as a typical hit. False alarms: the highest
    scores. Misses: the lowest scores.

    Returns
    -------
    list of (case, sample number, rank within the case from 1, samples of the case)
    """
    fires = scores.astype(np.float64) >= threshold
    ranked = np.argsort(-scores, kind="stable")
    ordered = {
        "hit": ranked[(fires & truth)[ranked]],
        "false alarm": ranked[(fires & ~truth)[ranked]],
        "miss": ranked[(~fires & truth)[ranked]][::-1],
    }
    chosen = []
    for case, samples in ordered.items():
        places = list(range(min(wanted[case], len(samples))))
        if case == "hit" and 1 < len(places) < len(samples):
            places[-1] = max(places[-1], len(samples) // 2)
        chosen += [(case, int(samples[place]), place + 1, len(samples)) for place in places]
    return chosen


def examples(inputs: ReportInputs) -> dict[str, Any] | None:
    """Examples of every concept, of the best kind on cal, on the test split.

    Returns
    -------
    dict or None
        ``kind``, ``modality``, ``pictures`` (by sample id) and ``concepts`` (a list of examples each). None where
        there is no data set, or the method in focus does not compare single tokens with its threshold.
    """
    dataset, encoding = inputs.dataset, inputs.encoding
    if dataset is None or encoding is None or inputs.focus not in METHODS:
        return None
    kind = inputs.result.summary["best_kind_on_cal"]
    names, labels = inputs.result.summary["concepts"], inputs.labels
    chosen = inputs.result.summary["chosen"][kind][inputs.focus]
    located = {
        row["concept"]: row["threshold"] for row in inputs.result.localisation.to_pylist() if row["kind"] == kind
    }
    test = labels.in_split("test")
    wanted = per_concept(len(names), dataset.modality)
    content: list[list[dict[str, Any]]] = [[] for _ in names]
    pictures: dict[str, Any] = {}
    for site in dict.fromkeys(chosen[name]["site"] for name in names):
        held = inputs.scores(kind, "token", site)
        tokens = _Site(*held.of_split(labels, "test"))
        for number, name in enumerate(names):
            threshold = chosen[name]["threshold"]
            if chosen[name]["site"] != site or threshold is None or not np.isfinite(threshold):
                continue
            scores = held.pooled["max"][test, number]
            for case, sample, rank, count in pick(scores, labels.samples[test, number], threshold, wanted):
                place = slice(int(tokens.offsets[sample]), int(tokens.offsets[sample + 1]))
                example = {"case": case, "rank": rank, "of": count, "score": scores[sample]}
                example["present"] = [names[c] for c in np.flatnonzero(labels.samples[test[sample]])]
                example |= _tokens(inputs, tokens, place, number, threshold, located.get(name))
                example |= _content(dataset, encoding, int(test[sample]), name, example, pictures)
                content[number].append(example)
    return {"kind": kind, "modality": dataset.modality, "pictures": pictures, "concepts": content}


def _tokens(
    inputs: ReportInputs, site: _Site, place: slice, concept: int, threshold: float, locating: float | None
) -> dict[str, Any]:
    """Activations of one sample's tokens, and which of them fire, locate the concept, and carry it."""
    labels, rows = inputs.labels, site.rows[place]
    scores = site.scores[place, concept]
    wide = scores.astype(np.float64)
    inside = np.zeros(len(rows), dtype=bool)
    unlabelled = np.zeros(len(rows), dtype=bool)
    if labels.tokens is not None:
        inside = labels.tokens[rows][:, [concept]].toarray()[:, 0]
        unlabelled = ~labels.known[rows]
    fires = wide >= threshold
    located = (wide >= locating) & fires.any() if locating is not None else fires
    return {"scores": scores, "fires": fires, "located": located, "inside": inside, "unlabelled": unlabelled}


def _content(
    dataset: ConceptDataset,
    encoding: Encoding,
    number: int,
    concept: str,
    example: dict[str, Any],
    pictures: dict[str, Any],
) -> dict[str, Any]:
    """Text or picture of one example; flags become lists of token numbers."""
    sample = dataset.samples[number]
    start, end = int(encoding.offsets[number]), int(encoding.offsets[number + 1])
    flags = ("fires", "located", "inside", "unlabelled")
    if isinstance(sample, TextSample):
        shown = _window(example["scores"])
        cut = {name: np.flatnonzero(example[name][shown]) for name in flags}
        return cut | {"scores": example["scores"][shown]} | _text(sample, encoding, start, end, shown, number)
    if sample.id not in pictures:
        assert encoding.views is not None and encoding.grids is not None and encoding.cells is not None  # noqa: S101, PT018
        pictures[sample.id] = picture(
            sample.load_image(), encoding.views[number], encoding.grids[number], encoding.cells[start:end]
        )
    whole = {name: np.flatnonzero(example[name]) for name in flags}
    return whole | {"sample": sample.id, "mask": _mask(dataset, sample, concept)}


def _window(scores: Float[np.ndarray, " tokens"]) -> slice:
    """Stretch of a long text around its highest token."""
    if len(scores) <= WINDOW:
        return slice(0, len(scores))
    start = int(np.clip(int(scores.argmax()) - WINDOW // 2, 0, len(scores) - WINDOW))
    return slice(start, start + WINDOW)


def _text(sample: TextSample, encoding: Encoding, start: int, end: int, shown: slice, number: int) -> dict[str, Any]:
    """Text of the shown tokens, their characters counted from its first one, and what was left out around it."""
    assert encoding.chars is not None  # noqa: S101  # text encodings always have character ranges
    chars = encoding.chars[start:end][shown].astype(np.int64)
    whole = shown.start == 0 and shown.stop == end - start
    first = 0 if shown.start == 0 or not len(chars) else int(chars[:, 0].min())
    last = len(sample.text) if shown.stop == end - start or not len(chars) else int(chars[:, 1].max())
    return {
        "sample": sample.id,
        "text": sample.text[first:last],
        "chars": chars - first,
        "window": None if whole else [shown.start, shown.stop, end - start],
        "cut": int(encoding.cut[number]),
    }


def _mask(dataset: ConceptDataset, sample: ImageSample, concept: str) -> str | None:
    mask = sample.load_mask()
    if mask is None:
        return None
    classes = [identity for identity, names in dataset.classes.items() if concept in names]
    inside = np.asarray(np.isin(mask, classes).any(axis=0))
    return mask_uri(inside) if inside.any() else None
