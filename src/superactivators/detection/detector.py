"""The detector: concept vectors and thresholds, ready for new inputs, kept as a folder of arrays and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from torch import Tensor

from superactivators.artefacts import FolderReader, Format, fingerprint, held_format, writing
from superactivators.concepts.bank import ConceptBank
from superactivators.detection.card import render_card
from superactivators.detection.metrics import DetectionMetrics
from superactivators.detection.thresholds import Evidence, Threshold, refuse_own_split
from superactivators.errors import CalibrationError, ModelError, StoreError, StudyError, allowed
from superactivators.scores.layout import Layout
from superactivators.scores.segments import token_evidence, with_evidence
from superactivators.states.states import States
from superactivators.states.store import DTYPES, StateStore

FORMAT = Format("superactivators/detector", 2)
FIRST = Format("superactivators/detector", 1)
"""Still read but no longer written: it knew evidence of a single token only."""


NO_LAYOUT = (
    "evidence within one segment must know the sentences or patch grids, but got no layout; "
    "pass layout=Layout.of(dataset.samples, encoding)"
)


def layout_for(states: States, layout: Layout | None) -> Layout:
    """Take the layout given, or that of the patch grids of stored images.

    Raises
    ------
    StudyError
        If there is none, or it is of other samples.
    """
    if layout is None:
        store = states.values
        if isinstance(store, StateStore) and store.encoding.modality == "image":
            return Layout.of_images(store.encoding)
        raise StudyError(NO_LAYOUT)
    if not np.array_equal(layout.offsets, states.offsets):
        raise StudyError(
            f"the layout is of {len(layout.offsets) - 1} samples with {layout.offsets[-1]} tokens, but the states are "
            f"of {len(states.offsets) - 1} with {states.offsets[-1]}; make it from the encoding of the same samples"
        )
    return layout


@final
@dataclass(frozen=True)
class Finding:
    """One concept in one input.

    Attributes
    ----------
    concept : str
    present : bool
        Whether ``score >= threshold``.
    score : float
        The ``min_tokens``-th highest activation of the input's tokens; within segments, of the segment where it is
        highest. Minus infinity if there are not so many tokens.
    threshold, delta : float
        Decision threshold and the sparsity level that it comes from.
    site : str
    fired : int64 array of shape (k,)
        Token numbers of the SuperActivators: activation at or above the threshold, in a sample or segment that has
        ``min_tokens`` of them. Empty exactly if the concept is not present.
    activations : float32 array of shape (tokens,)
        Of all tokens of the input.
    min_tokens : int
        Tokens that must reach the threshold.
    within : str
        ``"sample"`` or ``"segment"``: where these tokens must be.
    """

    concept: str
    present: bool
    score: float
    threshold: float
    delta: float
    site: str
    fired: Int[np.ndarray, " k"]
    activations: Float[np.ndarray, " tokens"]
    min_tokens: int = 1
    within: Evidence = "sample"


@final
@dataclass(frozen=True, eq=False)
class Detector:
    """SuperActivator detectors of several concepts, each at its own layer.

    Attributes
    ----------
    kind : str
        Kind of the concept vectors.
    banks : tuple of ConceptBank
        Token vectors, a bank for each site that some concept uses.
    thresholds : tuple of Threshold
        One for each concept; their order is the order of the concepts.
    model : mapping
        The backbone's ``name``, ``fingerprint`` and loading ``options``; empty if states came from arrays.
    dtype : str
        How the states were kept that the detector was made from; new states are rounded alike.
    card : mapping
        What the README shows: data, splits, prevalence, test metrics. JSON types.
    """

    kind: str
    banks: tuple[ConceptBank, ...]
    thresholds: tuple[Threshold, ...]
    model: Mapping[str, Any]
    dtype: str
    card: Mapping[str, Any]

    @staticmethod
    def of(
        banks: Mapping[str, ConceptBank],
        thresholds: Sequence[Threshold],
        *,
        model: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        card: Mapping[str, Any] | None = None,
    ) -> Detector:
        """Put a detector together from the banks by site and one threshold for each concept."""
        kept = []
        for site in dict.fromkeys(threshold.site for threshold in thresholds):
            bank = banks[site]
            names = tuple(threshold.concept for threshold in thresholds if threshold.site == site)
            kept.append(bank.subset([bank.concepts.index(name) for name in names]))
        return Detector(kept[0].kind, tuple(kept), tuple(thresholds), model or {}, dtype, card or {})

    @property
    def concepts(self) -> tuple[str, ...]:
        """Concept names."""
        return tuple(threshold.concept for threshold in self.thresholds)

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites whose states are needed."""
        return tuple(bank.site for bank in self.banks)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over model, vectors, thresholds and card."""
        vectors = [bank.fingerprint for bank in self.banks]
        thresholds = [threshold.as_dict() for threshold in self.thresholds]
        return fingerprint([FORMAT.version, dict(self.model), self.dtype, dict(self.card), vectors, thresholds])

    def __repr__(self) -> str:
        return f"Detector({self.kind!r}, {len(self.concepts)} concepts at {', '.join(self.sites)})"

    def activations(self, states: Mapping[str, Float[Tensor, "tokens d"]]) -> Float[np.ndarray, "tokens c"]:
        """Activations of tokens against every concept.

        Parameters
        ----------
        states : mapping of site to float tensor of shape (tokens, width)
            Raw states at `sites`.

        Returns
        -------
        float32 array of shape (tokens, concepts)
        """
        column = {name: number for number, name in enumerate(self.concepts)}
        n_tokens = len(next(iter(states.values())))
        result = np.empty((n_tokens, len(self.concepts)), dtype=np.float32)
        for bank in self.banks:
            rounded = states[bank.site].to(DTYPES[self.dtype])
            result[:, [column[name] for name in bank.concepts]] = bank.activations(rounded).numpy()
        return result

    @property
    def needs_layout(self) -> bool:
        """Whether any concept needs its evidence within one segment."""
        return any(threshold.within == "segment" and threshold.min_tokens > 1 for threshold in self.thresholds)

    def findings(self, activations: Float[np.ndarray, "tokens c"], layout: Layout | None = None) -> list[Finding]:
        """Decide for one input from the activations of its tokens.

        Parameters
        ----------
        activations : float32 array of shape (tokens, concepts)
        layout : Layout, optional
            Of this input; needed if `needs_layout`.

        Raises
        ------
        StudyError
            If the layout is needed and missing.
        """
        offsets = np.array([0, len(activations)], dtype=np.int64)
        values = np.array([threshold.value for threshold in self.thresholds])
        passes = activations.astype(np.float64) >= values
        scores = np.empty(len(values))
        for (number, _), columns, own in self._by_evidence(self.thresholds, layout):
            scores[columns] = token_evidence(activations[:, columns], offsets, number, own)[0]
            if own is not None:
                passes[:, columns] = with_evidence(passes[:, columns], own, number)
        passes &= scores >= values
        return [
            Finding(
                concept=threshold.concept,
                present=bool(scores[c] >= threshold.value),
                score=float(scores[c]),
                threshold=threshold.value,
                delta=threshold.delta,
                site=threshold.site,
                fired=np.flatnonzero(passes[:, c]),
                activations=activations[:, c],
                min_tokens=threshold.min_tokens,
                within=threshold.within,
            )
            for c, threshold in enumerate(self.thresholds)
        ]

    @staticmethod
    def _by_evidence(
        thresholds: Sequence[Threshold], layout: Layout | None
    ) -> list[tuple[tuple[int, Evidence], Int[np.ndarray, " k"], Layout | None]]:
        """Group concepts by the evidence that they ask for, with the layout where that is needed."""
        groups: dict[tuple[int, Evidence], list[int]] = {}
        for c, threshold in enumerate(thresholds):
            groups.setdefault((threshold.min_tokens, threshold.within), []).append(c)
        if layout is None and any(within == "segment" and number > 1 for number, within in groups):
            raise StudyError(NO_LAYOUT)
        # One token is in one segment wherever it is.
        return [
            (key, np.array(columns), layout if key[1] == "segment" and key[0] > 1 else None)
            for key, columns in groups.items()
        ]

    def evaluate(
        self, states: States, split: str = "test", *, in_sample: bool = False, layout: Layout | None = None
    ) -> pa.Table:
        """Measure detection on one split of labelled states.

        Parameters
        ----------
        states : States
            With the detector's concepts and sites.
        split : str
        in_sample : bool
            Allow the splits that vectors (train) and thresholds (cal) were fitted on; the table is marked.
        layout : Layout, optional
            Of all samples of the states; needed if `needs_layout`, unless the states are a folder of images.

        Returns
        -------
        pyarrow Table
            A row for each concept, with the columns of `superactivators.detection.metrics.DetectionMetrics`.

        Raises
        ------
        CalibrationError
            If the split is one of those and ``in_sample`` is false.
        StudyError
            If the layout is needed and missing, or is of other samples.
        """
        refuse_own_split(self.thresholds[0].split, split, in_sample=in_sample)
        chosen = states.with_concepts(self.concepts)
        samples = chosen.labels.in_split(split)
        scores = np.empty((len(samples), len(self.concepts)), dtype=np.float32)
        column = {name: number for number, name in enumerate(self.concepts)}
        places = layout_for(states, layout) if self.needs_layout else None
        for bank in self.banks:
            columns = np.array([column[name] for name in bank.concepts])
            own = [self.thresholds[c] for c in columns]
            for first, block in chosen.values.blocks(bank.site):
                begin, end = (int(np.searchsorted(chosen.offsets, edge)) for edge in (first, first + len(block)))
                inside = (samples >= begin) & (samples < end)
                activations, offsets = bank.activations(block).numpy(), chosen.offsets[begin : end + 1] - first
                held = None if places is None else places.block(begin, end)
                pooled = np.empty((end - begin, len(columns)), dtype=np.float32)
                for (number, _), part, where in self._by_evidence(own, held):
                    pooled[:, part] = token_evidence(activations[:, part], offsets, number, where)
                scores[np.flatnonzero(inside)[:, None], columns] = pooled[samples[inside] - begin]
        values = np.array([threshold.value for threshold in self.thresholds])
        metrics = DetectionMetrics.of(scores, chosen.labels.samples[samples], values)
        return pa.table(
            {
                "concept": list(self.concepts),
                "split": [split] * len(self.concepts),
                "in_sample": [split != "test"] * len(self.concepts),
                "site": [threshold.site for threshold in self.thresholds],
                "delta": [threshold.delta for threshold in self.thresholds],
                "threshold": values,
                "min_tokens": [threshold.min_tokens for threshold in self.thresholds],
                "within": [threshold.within for threshold in self.thresholds],
                **metrics.columns,
            }
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the bundle: ``config.json``, vectors, ``thresholds.parquet`` and a ``README.md`` card."""
        entries: list[dict[str, Any]] = []
        with writing(
            Path(folder), FORMAT, self.fingerprint, {"kind": self.kind, "concepts": list(self.concepts)}
        ) as writer:
            for number, bank in enumerate(self.banks):
                file = f"vectors-{number:02d}.safetensors"
                bank.write(writer, file)
                entries.append(bank.entry(file))
            writer.table("thresholds.parquet", pa.Table.from_pylist([t.as_dict() for t in self.thresholds]))
            config = {"model": dict(self.model), "dtype": self.dtype, "banks": entries, "card": dict(self.card)}
            writer.json("config.json", config)
            writer.bytes(
                "README.md", render_card(self.kind, self.dtype, self.thresholds, self.model, self.card).encode()
            )

    @staticmethod
    def from_pretrained(folder: str | Path) -> Detector:
        """Read what `save_pretrained` wrote.

        Raises
        ------
        StoreError
            If the folder is missing, damaged, foreign or of a version that is neither 1 nor 2.
        """
        reader = FolderReader(Path(folder), held_format(Path(folder), FORMAT, FIRST))
        try:
            config = reader.json("config.json")
            banks = tuple(ConceptBank.read(reader, entry) for entry in config["banks"])
            rows = reader.table("thresholds.parquet").to_pylist()
            thresholds = tuple(Threshold.from_dict(row) for row in rows)
            detector = Detector(banks[0].kind, banks, thresholds, config["model"], config["dtype"], config["card"])
        except (KeyError, TypeError, IndexError, CalibrationError) as error:
            raise StoreError(f"{folder}: its content does not fit the format ({error}); make it again") from None
        if detector.dtype not in DTYPES:
            raise StoreError(f"{folder}: unknown dtype {detector.dtype!r}; {allowed(detector.dtype, DTYPES)}")
        if sorted(name for bank in banks for name in bank.concepts) != sorted(detector.concepts):
            raise StoreError(f"{folder}: vectors and thresholds name different concepts; make it again")
        return detector

    def check_backbone(self, fingerprint_of_backbone: str, name: str) -> None:
        """Refuse a backbone that is not the one the detector was made with; raises ``ModelError``."""
        expected = self.model.get("fingerprint")
        if expected is not None and expected != fingerprint_of_backbone:
            raise ModelError(
                f"the detector was made with {self.model.get('name')!r}, but {name!r} has other weights or settings; "
                "load that model, or calibrate anew"
            )
