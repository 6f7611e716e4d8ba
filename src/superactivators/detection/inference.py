"""Run a detector on new texts and images: what is present, how surely, and which tokens fired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
from PIL import Image

from superactivators.data.dataset import ImageSample, Sample, TextSample
from superactivators.detection.detector import Detector, Finding
from superactivators.errors import DataError, ModelError
from superactivators.models.backbone import Backbone
from superactivators.models.encoding import Encoding
from superactivators.scores.layout import Layout

Input: TypeAlias = str | Path | np.ndarray | Image.Image
"""A text for a text model; for an image model the path of an image, RGB pixels, or a Pillow image."""

BATCH = 64


@final
@dataclass(frozen=True, eq=False)
class Detection:
    """All concepts in one input.

    Attributes
    ----------
    input : str
        The text, the image's path, or ``"image 0"`` and so on for pixels.
    findings : list of Finding
        One for each concept of the detector.
    encoding : Encoding
        Of this input alone: characters or boxes of its tokens.
    """

    input: str
    findings: list[Finding]
    encoding: Encoding

    @property
    def present(self) -> list[str]:
        """Concepts found, the surest first (by how far the score passes the threshold)."""
        found = [finding for finding in self.findings if finding.present]
        return [finding.concept for finding in sorted(found, key=lambda item: item.threshold - item.score)]

    def __repr__(self) -> str:
        return f"Detection({self.input[:40]!r}: {', '.join(self.present) or 'nothing'})"

    def as_dict(self, *, everything: bool = False) -> dict[str, Any]:
        """Give JSON types.

        Parameters
        ----------
        everything : bool
            Also list concepts that are not present.

        Returns
        -------
        dict
            ``input``, ``present`` (names) and ``concepts``: score, threshold, delta, site, the evidence asked for
            (``min_tokens``, ``within``) and the tokens that fired,
            with ``start``, ``end`` and ``text``, or with ``row``, ``column`` and ``box`` (left, top, right, bottom in
            pixels of the image).
        """
        shown = sorted(self.findings, key=lambda finding: finding.threshold - finding.score)
        concepts = [
            {
                "concept": finding.concept,
                "present": finding.present,
                "score": finding.score if np.isfinite(finding.score) else None,
                "threshold": finding.threshold if np.isfinite(finding.threshold) else None,
                "delta": finding.delta,
                "site": finding.site,
                "min_tokens": finding.min_tokens,
                "within": finding.within,
                "tokens": [self._token(int(token), finding) for token in finding.fired],
            }
            for finding in shown
            if finding.present or everything
        ]
        return {"input": self.input, "present": self.present, "concepts": concepts}

    def _token(self, token: int, finding: Finding) -> dict[str, Any]:
        place: dict[str, Any] = {"index": token, "activation": float(finding.activations[token])}
        if self.encoding.chars is not None:
            start, end = (int(edge) for edge in self.encoding.chars[token])
            return {**place, "start": start, "end": end, "text": self.input[start:end]}
        assert self.encoding.cells is not None and self.encoding.grids is not None  # noqa: S101, PT018
        row, column = divmod(int(self.encoding.cells[token]), int(self.encoding.grids[0, 1]))
        box = [round(float(edge), 2) for edge in self.encoding.boxes()[token]]
        return {**place, "row": row, "column": column, "box": box}


def load_backbone(detector: Detector, name: str | None = None) -> Backbone:
    """Load the backbone that a detector was made with.

    Parameters
    ----------
    detector : Detector
    name : str, optional
        Where the model is now, if not where it was.

    Raises
    ------
    ModelError
        If it cannot be loaded, or has other weights or settings than the detector's.
    """
    model: Mapping[str, Any] = detector.model
    if not model:
        raise ModelError("this detector was made from arrays and names no model; score your own states with it instead")
    backbone = Backbone.from_pretrained(name or model["name"], **model.get("options", {}))
    detector.check_backbone(backbone.fingerprint, backbone.name)
    return backbone


def detect(detector: Detector, inputs: Sequence[Input], backbone: Backbone | None = None) -> Iterator[Detection]:
    """Detect concepts in new inputs.

    Parameters
    ----------
    detector : Detector
    inputs : sequence of texts or images
        See `Input`. They are run through the model in batches.
    backbone : Backbone, optional
        The detector's own is loaded by default.

    Yields
    ------
    Detection
        In the order of the inputs.

    Raises
    ------
    DataError
        If an input is blank, unreadable or not of the backbone's modality.
    ModelError
        If the backbone is not the detector's.
    """
    refuse_single(inputs)
    model = load_backbone(detector) if backbone is None else backbone
    detector.check_backbone(model.fingerprint, model.name)
    for start in range(0, len(inputs), BATCH):
        part = inputs[start : start + BATCH]
        samples = [sample_of(item, start + number, model.modality) for number, item in enumerate(part)]
        yield from _detect_batch(detector, samples, part, model)


def refuse_single(inputs: Sequence[Input]) -> None:
    """Raise ``DataError`` if one input was given where a list of them is needed."""
    if isinstance(inputs, str | Path):
        raise DataError(
            f"inputs must be a list of texts or images, but one was given ({str(inputs)!r:.60}); wrap it in []"
        )


def sample_of(item: Input, number: int, modality: str) -> Sample:
    """Make a sample of an input, named by its number; raises ``DataError`` if it is not of the modality."""
    if modality == "text":
        if not isinstance(item, str) or not item.strip():
            raise DataError(f"input {number} must be a text that is not blank; got {item!r:.60}")
        return TextSample(str(number), item)
    if isinstance(item, Image.Image):
        return ImageSample(str(number), np.asarray(item.convert("RGB")))
    if isinstance(item, np.ndarray):
        if item.ndim != 3 or item.shape[2] != 3 or item.dtype != np.uint8:
            raise DataError(
                f"input {number} must be RGB pixels, uint8 [height, width, 3]; got {item.dtype} {item.shape}"
            )
        return ImageSample(str(number), item)
    return ImageSample(str(number), Path(item))


def _detect_batch(
    detector: Detector, samples: list[Sample], inputs: Sequence[Input], backbone: Backbone
) -> list[Detection]:
    encoding = backbone.encode(samples)
    empty = np.flatnonzero(np.diff(encoding.offsets) == 0)
    if len(empty):
        raise DataError(f"input {samples[int(empty[0])].id} has no tokens for {backbone.name}")
    activations = np.empty((encoding.n_tokens, len(detector.concepts)), dtype=np.float32)
    for batch in backbone.capture(samples, encoding, detector.sites):
        lengths = np.diff(batch.offsets)
        starts = np.repeat(encoding.offsets[batch.rows] - batch.offsets[:-1], lengths)
        activations[starts + np.arange(batch.offsets[-1])] = detector.activations(batch.tokens)
    layout = Layout.of(samples, encoding) if detector.needs_layout else None
    found = []
    for number, item in enumerate(inputs):
        own = activations[encoding.offsets[number] : encoding.offsets[number + 1]]
        name = str(item) if isinstance(item, str | Path) else f"image {samples[number].id}"
        place = None if layout is None else layout.block(number, number + 1)
        found.append(Detection(name, detector.findings(own, place), encoding.subset(np.array([number]))))
    return found
