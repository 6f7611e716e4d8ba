"""Attribute concepts to the tokens of single inputs: maps by explainer, concept and objective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float

from superactivators.artefacts import array_fingerprint
from superactivators.attribution.catalogue import build_explainers, usable
from superactivators.attribution.display import render_maps
from superactivators.attribution.objectives import OBJECTIVES
from superactivators.attribution.scene import Scene
from superactivators.data.dataset import Sample, TextSample
from superactivators.detection.detector import Detector
from superactivators.detection.inference import Input, load_backbone, refuse_single, sample_of
from superactivators.errors import StudyError
from superactivators.models.backbone import MAX_BATCH_TOKENS, Backbone
from superactivators.models.encoding import Encoding


@final
@dataclass(frozen=True, eq=False)
class Attribution:
    """Maps of one input.

    Attributes
    ----------
    input : str
        The text, the image's path, or ``"image 0"`` and so on for pixels.
    sample : Sample
    encoding : Encoding
        Of this input alone: characters or boxes of its tokens.
    concepts, objectives, sites : tuple of str
        Of each column.
    fired : bool array of shape (tokens, columns)
        SuperActivators of the column's concept; its highest token where there is none.
    fallback : bool array of shape (columns,)
        Where there is none.
    maps : mapping of str to float32 array of shape (tokens, columns)
        By explainer; higher speaks more for the concept. Their units differ between explainers.
    """

    input: str
    sample: Sample
    encoding: Encoding
    concepts: tuple[str, ...]
    objectives: tuple[str, ...]
    sites: tuple[str, ...]
    fired: Bool[np.ndarray, "tokens columns"]
    fallback: Bool[np.ndarray, " columns"]
    maps: Mapping[str, Float[np.ndarray, "tokens columns"]]

    def __repr__(self) -> str:
        concepts = ", ".join(dict.fromkeys(self.concepts))
        return f"Attribution({self.input[:40]!r}: {concepts} by {', '.join(self.maps)})"

    def _repr_html_(self) -> str:
        """Show the maps in a notebook; self-contained, no script."""
        return render_maps(self.sample, self.encoding, self.concepts, self.objectives, self.fired, self.maps)

    def map(
        self, method: str, concept: str | None = None, objective: str = "superactivators"
    ) -> Float[np.ndarray, " tokens"]:
        """Give one map.

        Parameters
        ----------
        method : str
            Name of the explainer.
        concept : str, optional
            May be left out if only one was explained.
        objective : str

        Raises
        ------
        StudyError
            If there is no such map.
        """
        name = concept if concept is not None or len(set(self.concepts)) > 1 else self.concepts[0]
        pairs = list(zip(self.concepts, self.objectives, strict=True))
        if method not in self.maps or (name, objective) not in pairs:
            raise StudyError(
                f"no map of {name!r} by {method!r} for the objective {objective!r}; there are maps of "
                f"{sorted(set(self.concepts))} by {sorted(self.maps)} for {sorted(set(self.objectives))}"
            )
        return self.maps[method][:, pairs.index((str(name), objective))]

    def as_dict(self) -> dict[str, Any]:
        """Give JSON types: places of the tokens, and for every explainer, concept and objective a list of values."""
        maps = [
            {
                "method": method,
                "concept": concept,
                "objective": objective,
                "site": self.sites[column],
                "values": [float(value) for value in values[:, column]],
            }
            for method, values in self.maps.items()
            for column, (concept, objective) in enumerate(zip(self.concepts, self.objectives, strict=True))
        ]
        fired = {
            concept: {
                "tokens": np.flatnonzero(self.fired[:, column]).tolist(),
                "fallback": bool(self.fallback[column]),
            }
            for column, concept in enumerate(self.concepts)
        }
        return {"input": self.input, "tokens": self.places(), "superactivators": fired, "maps": maps}

    def places(self) -> list[dict[str, Any]]:
        """Where each token is: ``start``, ``end`` and ``text``, or ``row``, ``column`` and ``box`` in pixels."""
        if self.encoding.chars is not None:
            edges = self.encoding.chars.tolist()
            return [{"start": start, "end": end, "text": self.input[start:end]} for start, end in edges]
        assert self.encoding.cells is not None and self.encoding.grids is not None  # noqa: S101, PT018
        rows, columns = np.divmod(self.encoding.cells, self.encoding.grids[0, 1])
        boxes = self.encoding.boxes().round(2).tolist()
        return [
            {"row": row, "column": column, "box": box}
            for row, column, box in zip(rows.tolist(), columns.tolist(), boxes, strict=True)
        ]


def attribute(
    detector: Detector,
    inputs: Sequence[Input],
    backbone: Backbone | None = None,
    *,
    concepts: Sequence[str] | None = None,
    methods: Sequence[str] | str = ("rise",),
    objectives: Sequence[str] = OBJECTIVES,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    budget: int | None = None,
    hiding: str | None = None,
    seed: int = 0,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
) -> Iterator[Attribution]:
    """Find which tokens of new inputs speak for a concept (METHOD section 7).

    All concepts and objectives of an input share the forward passes of its hidden variants.

    Parameters
    ----------
    detector : Detector
    inputs : sequence of texts or images
        See `superactivators.detection.inference.Input`.
    backbone : Backbone, optional
        The detector's own is loaded by default.
    concepts : sequence of str, optional
        Default: all of the detector's.
    methods : sequence of str or str
        Explainers; ``"all"`` for all that suit the model. See `superactivators.attribution.catalogue`.
    objectives : sequence of str
        ``"concept"``, ``"superactivators"`` or both.
    options : mapping of str to mapping, optional
        Options by explainer.
    budget : int, optional
        Hidden variants for every explainer that samples them.
    hiding : str, optional
        How hidden tokens look: ``"mask"``, ``"pad"`` or ``"remove"``; ``"mean"``, ``"blur"`` or ``"noise"``.
    seed : int
        The same input and seed give the same maps, up to rounding, whatever else is in the list and however passes are
        batched.
    max_batch_tokens : int
        Most places of the input in one forward pass; bounds the memory.

    Yields
    ------
    Attribution
        In the order of the inputs.

    Raises
    ------
    DataError
        If an input is blank, unreadable or not of the backbone's modality.
    StudyError
        If a name or an option is unknown.
    ModelError
        If the backbone is not the detector's, or an explainer needs a package that is not installed.
    """
    refuse_single(inputs)
    common = {} if budget is None else {"budget": budget}
    built = build_explainers(methods, options, **common)
    model = load_backbone(detector) if backbone is None else backbone
    detector.check_backbone(model.fingerprint, model.name)
    for number, item in enumerate(inputs):
        sample = _named(sample_of(item, number, model.modality))
        scene = Scene.of(
            model,
            detector,
            sample,
            concepts,
            objectives,
            hiding=hiding,
            seed=seed,
            max_batch_tokens=max_batch_tokens,
        )
        if number == 0 and methods == "all":
            built = usable(built, scene)
        yield Attribution(
            input=str(item) if isinstance(item, str | Path) else f"image {number}",
            sample=sample,
            encoding=scene.encoding,
            concepts=scene.objectives.concepts,
            objectives=scene.objectives.objectives,
            sites=scene.objectives.sites,
            fired=scene.objectives.fired,
            fallback=scene.objectives.fallback,
            maps={name: explainer.maps(scene) for name, explainer in built.items()},
        )


def _named(sample: Sample) -> Sample:
    """Name a sample by its content: random numbers depend on the name, and must not on the place in a list."""
    if isinstance(sample, TextSample):
        return replace(sample, id=sample.text)
    return replace(sample, id=array_fingerprint(np.asarray(sample.load_image())))
