"""What was measured in one sample: kept as a file of its own, so that a long survey goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from superactivators.artefacts import array_fingerprint, fingerprint, write_bytes


@final
@dataclass(frozen=True, eq=False)
class Record:
    """Maps of one sample, of every concept that it holds, and how they fare.

    Columns are as in a scene: the concepts in order, the objectives of a concept beside each other.

    Attributes
    ----------
    concepts : tuple of str
    maps : float32 array of shape (explainers, tokens, columns)
    fired : bool array of shape (tokens, concepts)
        SuperActivators, or the highest token where there is none.
    fallback : bool array of shape (concepts,)
    hybrid : float32 array of shape (alphas, tokens, concepts)
        No rows where mixtures are not defined or not wanted.
    insertion, deletion : float64 arrays of shape (explainers, columns, steps + 1)
        No rows for samples of cal.
    sanity : mapping of str to float64 array of shape (explainers, columns)
        Rank correlations by what was randomised; empty for samples that are not checked.
    seconds : float64 array of shape (explainers + 1,)
        By explainer; the last entry is for insertion and deletion.
    forwards : int64 array of shape (explainers + 1,)
        Variants run, likewise. What explainers share counts for the first of them.
    """

    concepts: tuple[str, ...]
    maps: Float[np.ndarray, "e tokens columns"]
    fired: Bool[np.ndarray, "tokens c"]
    fallback: Bool[np.ndarray, " c"]
    hybrid: Float[np.ndarray, "alphas tokens c"]
    insertion: Float[np.ndarray, "some columns points"]
    deletion: Float[np.ndarray, "some columns points"]
    sanity: Mapping[str, Float[np.ndarray, "e columns"]]
    seconds: Float[np.ndarray, " e_plus_1"]
    forwards: Int[np.ndarray, " e_plus_1"]

    def save(self, path: Path, made_from: str) -> None:
        """Write one file, in one step; raises ``StoreError`` if the file system refuses it."""
        arrays = {
            "maps": self.maps,
            "fired": self.fired.astype(np.uint8),
            "fallback": self.fallback.astype(np.uint8),
            "hybrid": self.hybrid,
            "insertion": self.insertion,
            "deletion": self.deletion,
            "seconds": self.seconds,
            "forwards": self.forwards,
            **{f"sanity.{name}": values for name, values in self.sanity.items()},
        }
        held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        concepts = json.dumps(self.concepts)
        told = {"made_from": made_from, "concepts": concepts, "content": _content(concepts, held)}
        write_bytes(path, save(held, told))

    @staticmethod
    def load(path: Path, made_from: str) -> Record | None:
        """Read what `save` wrote; None if it is not there, damaged, or made from something else."""
        try:
            with safe_open(path, framework="numpy") as file:
                told = file.metadata() or {}
                if told.get("made_from") != made_from:
                    return None
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            if told["content"] != _content(told["concepts"], arrays):
                return None
            return Record(
                concepts=tuple(json.loads(told["concepts"])),
                maps=arrays["maps"],
                fired=arrays["fired"].astype(bool),
                fallback=arrays["fallback"].astype(bool),
                hybrid=arrays["hybrid"],
                insertion=arrays["insertion"],
                deletion=arrays["deletion"],
                sanity={
                    name.removeprefix("sanity."): array for name, array in arrays.items() if name.startswith("sanity.")
                },
                seconds=arrays["seconds"],
                forwards=arrays["forwards"],
            )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None


def _content(concepts: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Fingerprint that tells flipped bits; the file's format has none."""
    return fingerprint([concepts, {name: array_fingerprint(array) for name, array in arrays.items()}])
