"""Example maps of attribution in few bytes: signed bytes with a scale, and one bit for what reaches the threshold."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from superactivators.attribution.results import ExampleMaps
from superactivators.data.dataset import TextSample
from superactivators.report.inputs import ReportInputs
from superactivators.report.pictures import picture

EXAMPLES = 24
"""Most examples in one report."""
VALUES = EXAMPLES * 13 * 2 * 256
"""Most values of all maps in one report."""
WINDOW = 256
"""Longest stretch of tokens shown of a text."""
STEPS = 127
MISSING = -128


def packed_map(values: Float[np.ndarray, " tokens"], threshold: float) -> dict[str, Any]:
    """Encode one map.

    Parameters
    ----------
    values : float array of shape (tokens,)
    threshold : float

    Returns
    -------
    dict
        ``steps``: base64 of signed bytes, value = byte * ``scale`` / 127, where -128 is a value that is not finite;
        ``scale``: the largest absolute value; ``above``: base64 of bits, first token in the highest bit, of the
        exact values at or above the ``threshold``.
    """
    finite = np.isfinite(values)
    wide = np.where(finite, values, 0.0).astype(np.float64)
    scale = float(np.abs(wide).max(initial=0.0))
    steps = np.rint(wide / (scale or 1.0) * STEPS).astype(np.int8)
    steps[~finite] = MISSING
    return {
        "steps": _base64(steps.tobytes()),
        "scale": scale,
        "above": _base64(np.packbits(finite & (wide >= threshold)).tobytes()),
        "threshold": threshold,
    }


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def gallery(inputs: ReportInputs, examples: tuple[ExampleMaps, ...]) -> dict[str, Any] | None:
    """Lay out the examples whose maps can be looked at.

    Parameters
    ----------
    inputs : ReportInputs
    examples : tuple of ExampleMaps

    Returns
    -------
    dict or None
        ``modality``, ``pictures`` (by sample id), ``left_out`` (examples over the budget) and ``examples``, one dict
        each: ``concept``, ``sample``, ``fallback``, token numbers ``inside``, ``unlabelled`` and ``fires``, ``text``,
        ``chars`` and ``window`` of texts, and ``maps``: by explainer and objective, see `packed_map`. None without
        examples, or without the data set they came from.
    """
    dataset, encoding = inputs.dataset, inputs.encoding
    if dataset is None or encoding is None or not examples:
        return None
    pictures: dict[str, Any] = {}
    shown = []
    for example in within_budget(examples):
        sample = dataset.samples[example.sample]
        start, end = int(encoding.offsets[example.sample]), int(encoding.offsets[example.sample + 1])
        if isinstance(sample, TextSample):
            assert encoding.chars is not None  # noqa: S101  # text encodings always have character ranges
            place = window(example.truth | example.fired)
            content = _text(sample.text, encoding.chars[start:end].astype(np.int64), place)
        else:
            assert encoding.views is not None and encoding.grids is not None and encoding.cells is not None  # noqa: S101, PT018
            place, content = slice(0, end - start), {}
            if sample.id not in pictures:
                view, grid = encoding.views[example.sample], encoding.grids[example.sample]
                pictures[sample.id] = picture(sample.load_image(), view, grid, encoding.cells[start:end])
        shown.append({"sample": sample.id} | _entry(example, place) | content)
    return {
        "modality": dataset.modality,
        "pictures": pictures,
        "left_out": len(examples) - len(shown),
        "examples": shown,
    }


def within_budget(examples: tuple[ExampleMaps, ...]) -> list[ExampleMaps]:
    """Take the first example of each concept, then the second, and so on, as far as the budget goes (at least one)."""
    by_concept: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        by_concept.setdefault(example.concept, []).append(number)
    turns = max(map(len, by_concept.values()))
    ordered = [mine[turn] for turn in range(turns) for mine in by_concept.values() if turn < len(mine)]
    spent = np.cumsum([len(examples[number].maps) * min(len(examples[number].truth), WINDOW) for number in ordered])
    kept = set(ordered[: min(EXAMPLES, max(1, int((spent <= VALUES).sum())))])
    return [examples[number] for mine in by_concept.values() for number in mine if number in kept]


def window(wanted: Bool[np.ndarray, " tokens"]) -> slice:
    """Stretch of a long text that begins a little before the first wanted token."""
    count = len(wanted)
    if count <= WINDOW:
        return slice(0, count)
    first = int(wanted.argmax()) if wanted.any() else 0
    start = int(np.clip(first - WINDOW // 8, 0, count - WINDOW))
    return slice(start, start + WINDOW)


def _entry(example: ExampleMaps, place: slice) -> dict[str, Any]:
    maps: dict[str, dict[str, Any]] = {}
    for (explainer, objective), values in example.maps.items():
        threshold = float(example.thresholds.get((explainer, objective), np.nan))
        maps.setdefault(explainer, {})[objective] = packed_map(values[place], threshold)
    return {
        "concept": example.concept,
        "fallback": example.fallback,
        "inside": np.flatnonzero((example.truth & example.known)[place]),
        "unlabelled": np.flatnonzero(~example.known[place]),
        "fires": np.flatnonzero(example.fired[place]),
        "maps": maps,
    }


def _text(text: str, chars: np.ndarray, place: slice) -> dict[str, Any]:
    """Text of the shown tokens, their characters counted from its first one, and what was left out around it."""
    count, shown = len(chars), chars[place]
    first = 0 if place.start == 0 else int(shown[:, 0].min())
    last = len(text) if place.stop == count else int(shown[:, 1].max())
    return {
        "text": text[first:last],
        "chars": shown - first,
        "window": None if (place.start, place.stop) == (0, count) else [place.start, place.stop, count],
    }
