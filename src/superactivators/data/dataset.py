"""Labelled texts or images in memory: what every reader and generator makes, and what a backbone reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeAlias, final

import numpy as np
from jaxtyping import Bool, Integer
from PIL import Image

from superactivators.data.pixels import Pixels, content_hash, image_size, open_image, open_mask
from superactivators.errors import DataError, allowed

SPLITS = ("train", "cal", "test")
VOID = 255
"""Mask id of pixels that nobody labelled: they count neither for nor against any concept."""

Modality: TypeAlias = Literal["text", "image"]


@final
@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``text[start:end]`` carry ``concept`` (Python string indices, end exclusive)."""

    start: int
    end: int
    concept: str


@final
@dataclass(frozen=True)
class TextSample:
    """One text with its labels.

    Attributes
    ----------
    id : str
        Unique in its data set.
    text : str
        Not empty.
    spans : tuple of Span
        Where each concept stands; may overlap.
    labels : frozenset of str or None
        Concepts present in the text. None: those that have a token.
    split : str or None
        ``"train"``, ``"cal"`` or ``"test"``; None until splits are made.
    group : str or None
        Samples of one group (document, author) are never in two splits.
    """

    id: str
    text: str
    spans: tuple[Span, ...] = ()
    labels: frozenset[str] | None = None
    split: str | None = None
    group: str | None = None


@final
@dataclass(frozen=True)
class ImageSample:
    """One image with its labels.

    Attributes
    ----------
    id : str
        Unique in its data set.
    image : Path, uint8 array of shape (height, width, 3), or PixelSource
        A file that Pillow reads, RGB pixels, or what makes them when asked.
    mask : Path, integer array, PixelSource, a tuple of these, or None
        Class id of every pixel: a single-channel image file, or an array of shape (height, width), or, where pixels
        have several ids, (planes, height, width). A pixel carries the concepts of its ids in all planes. 0 = none of
        the classes, 255 = unlabelled (in any plane: the pixel counts for nothing).
    labels : frozenset of str or None
        Concepts present in the image. None: those that have a token.
    split, group : str or None
        As for `TextSample`.
    """

    id: str
    image: Pixels
    mask: Pixels | tuple[Pixels, ...] | None = None
    labels: frozenset[str] | None = None
    split: str | None = None
    group: str | None = None

    def load_image(self) -> Image.Image:
        """Open the picture as RGB; raises ``DataError`` if it cannot be read."""
        return open_image(self.image)

    def size(self) -> tuple[int, int]:
        """Width and height, from the header alone; raises ``DataError`` if the file cannot be read."""
        return image_size(self.image)

    def load_mask(self) -> Integer[np.ndarray, "planes h w"] | None:
        """Read the class ids of the pixels, in as many planes as pixels have ids; None without a mask."""
        if self.mask is None:
            return None
        planes = [open_mask(part) for part in (self.mask if isinstance(self.mask, tuple) else (self.mask,))]
        return planes[0] if len(planes) == 1 else np.concatenate(planes)


Sample: TypeAlias = TextSample | ImageSample


@final
@dataclass(frozen=True, eq=False)
class ConceptDataset:
    """Samples of one modality with concept labels and splits.

    Attributes
    ----------
    name : str
        How reports call it.
    concepts : tuple of str
        Concept names; their order is the column order of every table and matrix made from this data set.
    samples : tuple of TextSample or of ImageSample
        At least one, all of one type; ids are unique.
    classes : mapping of int to tuple of str
        Images only: which concepts a pixel of each mask id carries (one id may carry several, such as red and cube).

    Raises
    ------
    DataError
        If samples are missing or of mixed modality, an id comes twice, a split is none of the three, or a span is
        outside its text or on blanks only.
    """

    name: str
    concepts: tuple[str, ...]
    samples: tuple[Sample, ...]
    classes: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.samples:
            raise DataError(f"data set {self.name!r} has no samples; give at least one")
        if not self.concepts:
            raise DataError(f"data set {self.name!r} names no concept; label at least one span, mask or sample")
        if len({type(sample) for sample in self.samples}) > 1:
            raise DataError(f"data set {self.name!r} mixes texts and images; make one data set of each")
        seen: set[str] = set()
        for sample in self.samples:
            if sample.id in seen:
                raise DataError(f"data set {self.name!r}: sample id {sample.id!r} comes twice; ids must be unique")
            seen.add(sample.id)
            if sample.split is not None and sample.split not in SPLITS:
                raise DataError(
                    f"data set {self.name!r}: sample {sample.id!r} is in split {sample.split!r}; "
                    f"{allowed(sample.split, SPLITS)}"
                )
            if isinstance(sample, TextSample):
                for span in sample.spans:
                    self._check_span(sample, span)

    def _check_span(self, sample: TextSample, span: Span) -> None:
        place = f"data set {self.name!r}: sample {sample.id!r}: span of {span.concept!r}"
        if not 0 <= span.start < span.end <= len(sample.text):
            raise DataError(
                f"{place} is [{span.start}, {span.end}), but 0 <= start < end <= {len(sample.text)} "
                "(the text's length) must hold"
            )
        if not sample.text[span.start : span.end].strip():
            raise DataError(f"{place} [{span.start}, {span.end}) holds only blanks")

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {int((self.splits == split).sum())}" for split in SPLITS)
        held = f"{len(self)} samples ({sizes}), {len(self.concepts)} concepts"
        return f"ConceptDataset({self.name!r}, {self.modality}, {held})"

    @property
    def modality(self) -> Modality:
        """``"text"`` or ``"image"``."""
        return "text" if isinstance(self.samples[0], TextSample) else "image"

    @property
    def ids(self) -> list[str]:
        """Sample ids, in order."""
        return [sample.id for sample in self.samples]

    @property
    def splits(self) -> np.ndarray:
        """Split of every sample as a string array of shape (samples,); ``""`` where none is set."""
        return np.array([sample.split or "" for sample in self.samples])

    @property
    def has_token_labels(self) -> bool:
        """Whether any sample says where its concepts are (spans or a mask)."""
        return any(
            bool(sample.spans) if isinstance(sample, TextSample) else sample.mask is not None for sample in self.samples
        )

    def given_labels(self) -> tuple[Bool[np.ndarray, "n c"], Bool[np.ndarray, " n"]]:
        """Sample labels as they were given.

        Returns
        -------
        labels : bool array of shape (samples, concepts)
        known : bool array of shape (samples,)
            False where a sample's labels are to be derived from its tokens.
        """
        column = {concept: number for number, concept in enumerate(self.concepts)}
        labels = np.zeros((len(self), len(self.concepts)), dtype=bool)
        known = np.array([sample.labels is not None for sample in self.samples])
        for row, sample in enumerate(self.samples):
            for name in sample.labels or ():
                if name in column:
                    labels[row, column[name]] = True
        return labels, known

    def with_concepts(self, concepts: Iterable[str]) -> ConceptDataset:
        """Keep only the named concepts, in the given order; unknown names raise ``DataError``."""
        chosen = tuple(dict.fromkeys(concepts))
        for name in chosen:
            if name not in self.concepts:
                raise DataError(f"data set {self.name!r} has no concept {name!r}; {allowed(name, self.concepts)}")
        return replace(self, concepts=chosen)

    def subset(self, rows: Iterable[int]) -> ConceptDataset:
        """Keep only the samples with the given numbers, in the given order."""
        return replace(self, samples=tuple(self.samples[int(row)] for row in rows))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything that a study reads: ids, texts or pixels, labels, masks, splits, concepts."""
        digest = hashlib.sha256()
        digest.update(json.dumps([self.modality, self.concepts, sorted(self.classes.items())]).encode())
        for sample in self.samples:
            labels = None if sample.labels is None else sorted(sample.labels)
            record: list[object] = [sample.id, labels, sample.split, sample.group]
            if isinstance(sample, TextSample):
                record += [sample.text, [(span.start, span.end, span.concept) for span in sample.spans]]
                digest.update(json.dumps(record).encode())
            else:
                digest.update(json.dumps(record).encode())
                digest.update(content_hash(sample.image))
                for part in sample.mask if isinstance(sample.mask, tuple) else (sample.mask,):
                    digest.update(content_hash(part))
        return digest.hexdigest()
