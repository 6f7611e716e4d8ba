"""Token states with their labels, wherever they are kept: what concept learning and scoring read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, final, runtime_checkable

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from superactivators.artefacts import array_fingerprint, fingerprint
from superactivators.data.dataset import SPLITS
from superactivators.errors import DataError, StudyError, allowed
from superactivators.ragged import rows_of, segment_ids
from superactivators.states.labels import Labels
from superactivators.states.scaling import Scaling

Level: TypeAlias = Literal["token", "sample", "mean"]
"""Which states: of tokens, of whole samples (CLS, or what the model gives), or the means of the tokens' states."""


@runtime_checkable
class StateValues(Protocol):
    """Numbers without labels: states of tokens and samples at some sites."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Site names, in depth order."""
        ...

    @property
    def width(self) -> int:
        """Number of columns of every state."""
        ...

    @property
    def offsets(self) -> Int[np.ndarray, " n_plus_1"]:
        """Token offsets of the samples."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the numbers were made from."""
        ...

    @property
    def has_sample_states(self) -> bool:
        """Whether `samples` can be called."""
        ...

    def blocks(self, site: str) -> Iterator[tuple[int, Tensor]]:
        """Yield the first token number and the states, as stored, of consecutive blocks of whole samples."""
        ...

    def samples(self, site: str) -> Float[Tensor, "n d"]:
        """Sample states, float32."""
        ...


@final
@dataclass(frozen=True, eq=False)
class States:
    """States of tokens and samples at one or more sites, with labels and splits.

    Attributes
    ----------
    values : StateValues
        The numbers, on disk or in memory.
    labels : Labels
        Labels and splits of the same samples and tokens.
    """

    values: StateValues
    labels: Labels

    def __post_init__(self) -> None:
        if not np.array_equal(self.labels.offsets, self.values.offsets):
            raise DataError(
                f"labels of {len(self.labels.ids)} samples and {self.labels.offsets[-1]} tokens do not fit "
                f"states of {len(self.values.offsets) - 1} samples and {self.values.offsets[-1]} tokens"
            )

    def __repr__(self) -> str:
        return (
            f"States({len(self.labels.ids)} samples, {self.values.offsets[-1]} tokens, {len(self.values.sites)} sites "
            f"x {self.values.width}, {len(self.labels.concepts)} concepts)"
        )

    @property
    def sites(self) -> tuple[str, ...]:
        """Site names, in depth order."""
        return self.values.sites

    @property
    def offsets(self) -> Int[np.ndarray, " n_plus_1"]:
        """Token offsets of the samples."""
        return self.values.offsets

    @property
    def concepts(self) -> tuple[str, ...]:
        """Concept names."""
        return self.labels.concepts

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over numbers and labels."""
        labels = self.labels
        tokens = [] if labels.tokens is None else [labels.tokens.indptr, labels.tokens.indices]
        arrays = [array_fingerprint(array) for array in (labels.samples, labels.known, *tokens)]
        return fingerprint([self.values.fingerprint, labels.ids, labels.splits.tolist(), labels.concepts, arrays])

    def of_samples(self, site: str, level: Level) -> Float[Tensor, "n d"]:
        """One state for each sample.

        Parameters
        ----------
        site : str
            One of `sites`.
        level : str
            ``"sample"``: as the backbone gives them; ``"mean"``: the mean of the sample's token states (zero for a
            sample without tokens).

        Returns
        -------
        float32 tensor of shape (samples, width)

        Raises
        ------
        StudyError
            If there are no sample states.
        """
        if level == "sample":
            self._need_sample_states()
            return self.values.samples(site)
        if site not in self._means:
            self._means[site] = mean_states(self.values, site)
        return self._means[site]

    @cached_property
    def _means(self) -> dict[str, Float[Tensor, "n d"]]:
        return {}

    def _need_sample_states(self) -> None:
        if not self.values.has_sample_states:
            raise StudyError("these states have no sample states; pass sample_values, or leave out the method 'cls'")

    def with_concepts(self, concepts: Sequence[str]) -> States:
        """Keep only the named concepts; unknown names raise ``DataError``."""
        for name in concepts:
            if name not in self.concepts:
                raise DataError(f"no concept {name!r} in these states; {allowed(name, self.concepts)}")
        return replace(self, labels=self.labels.with_concepts(list(concepts)))

    def rows(self, site: str, split: str, level: Level = "token") -> StateRows:
        """States of one split at one site, as a matrix that is read block by block.

        Parameters
        ----------
        site : str
            One of `sites`.
        split : str
            ``"train"``, ``"cal"`` or ``"test"``.
        level : str
            ``"token"``, or ``"sample"`` and ``"mean"`` with one row for each sample (see `of_samples`).
        """
        if site not in self.sites:
            raise StudyError(f"no states at {site!r}; {allowed(site, self.sites)}")
        if split not in SPLITS:
            raise StudyError(f"unknown split {split!r}; {allowed(split, SPLITS)}")
        if level == "sample":
            self._need_sample_states()
        return StateRows(self, site, self.labels.in_split(split), level)


@final
class StateRows:
    """States of some samples at one site; see `States.rows` and `superactivators.states.scaling.Rows`.

    Attributes
    ----------
    samples : int64 array of shape (k,)
        Which samples, in order.
    offsets : int64 array of shape (k + 1,)
        Rows of each of them.
    labels : CSR bool matrix of shape (rows, concepts)
    known : bool array of shape (rows,)
        False for rows that nobody labelled.
    """

    def __init__(
        self,
        states: States,
        site: str,
        samples: Int[np.ndarray, " k"],
        level: Level,
        scaling: Scaling | None = None,
    ) -> None:
        self._states = states
        self._site = site
        self._level = level
        self._scaling = scaling
        self.samples = samples
        labels = states.labels
        if level != "token":
            self.offsets = np.arange(len(samples) + 1, dtype=np.int64)
            self.labels = sp.csr_matrix(labels.samples[samples])
            self.known = np.ones(len(samples), dtype=bool)
            return
        lengths = np.diff(states.offsets)[samples]
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = rows_of(states.offsets, samples)
        self.labels, self.known = labels.carried[rows], labels.counted[rows]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.offsets[-1])

    @property
    def width(self) -> int:
        """Number of columns."""
        return self._states.values.width

    def scaled(self, scaling: Scaling) -> StateRows:
        """Give the same rows, scaled as they are read."""
        return StateRows(self._states, self._site, self.samples, self._level, scaling)

    def blocks(self) -> Iterator[tuple[int, Float[Tensor, "rows d"]]]:
        """Yield the first row number and the float32 rows of each block."""
        values = self._states.values
        if self._level != "token":
            of_samples = self._states.of_samples(self._site, self._level)
            yield 0, self._finished(of_samples[torch.from_numpy(self.samples)])
            return
        wanted = np.zeros(len(self._states.offsets) - 1, dtype=bool)
        wanted[self.samples] = True
        token_wanted = wanted[segment_ids(self._states.offsets)]
        start = 0
        for first, block in values.blocks(self._site):
            chosen = torch.from_numpy(np.flatnonzero(token_wanted[first : first + len(block)]))
            if len(chosen):
                yield start, self._finished(block if len(chosen) == len(block) else block[chosen])
                start += len(chosen)

    def _finished(self, block: Tensor) -> Float[Tensor, "rows d"]:
        return block.float() if self._scaling is None else self._scaling.apply(block)


def mean_states(values: StateValues, site: str) -> Float[Tensor, "n d"]:
    """Mean of each sample's token states, in one streamed pass, summed in float64; zero for a sample without tokens.

    Returns
    -------
    float32 tensor of shape (samples, width)
    """
    lengths = torch.from_numpy(np.diff(values.offsets))
    means = torch.zeros(len(lengths), values.width)
    for first, block in values.blocks(site):
        begin, end = (int(np.searchsorted(values.offsets, edge)) for edge in (first, first + len(block)))
        sums = torch.segment_reduce(block.double(), "sum", lengths=lengths[begin:end], axis=0)
        means[begin:end] = (sums / lengths[begin:end, None].clamp_min(1)).float()
    return means
