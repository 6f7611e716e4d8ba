"""States made elsewhere: arrays in memory, checked and labelled, studied like states of our own."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, final

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from superactivators.artefacts import array_fingerprint, fingerprint
from superactivators.data.dataset import SPLITS
from superactivators.errors import DataError
from superactivators.ragged import check_offsets, cut_into_runs, segment_any
from superactivators.states.labels import Labels
from superactivators.states.states import States

BLOCK = 16_384
"""Rows handed out at a time."""


@final
@dataclass(frozen=True, eq=False)
class ArrayValues:
    """States held in memory.

    Attributes
    ----------
    tokens : mapping of str to tensor of shape (tokens, width)
        By site, in depth order.
    token_offsets : int64 array of shape (samples + 1,)
    sample_states : mapping of str to tensor of shape (samples, width), or None
    """

    tokens: Mapping[str, Tensor]
    token_offsets: Int[np.ndarray, " n_plus_1"]
    sample_states: Mapping[str, Tensor] | None

    @property
    def sites(self) -> tuple[str, ...]:
        """Site names, in depth order."""
        return tuple(self.tokens)

    @property
    def width(self) -> int:
        """Number of columns of every state."""
        return int(next(iter(self.tokens.values())).shape[1])

    @property
    def offsets(self) -> Int[np.ndarray, " n_plus_1"]:
        """Token offsets of the samples."""
        return self.token_offsets

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all numbers."""
        parts = [self.tokens, self.sample_states or {}]
        return fingerprint([[[site, _hash(tensor)] for site, tensor in part.items()] for part in parts])

    @property
    def has_sample_states(self) -> bool:
        """Whether `samples` can be called."""
        return self.sample_states is not None

    def blocks(self, site: str) -> Iterator[tuple[int, Tensor]]:
        """Yield the first token number and the states of consecutive blocks of whole samples."""
        bounds = cut_into_runs(self.token_offsets, BLOCK)
        for begin, end in itertools.pairwise(self.token_offsets[bounds].tolist()):
            yield begin, self.tokens[site][begin:end]

    def samples(self, site: str) -> Float[Tensor, "n d"]:
        """Sample states, float32."""
        assert self.sample_states is not None  # noqa: S101  # callers ask has_sample_states first
        return self.sample_states[site].float()


ArrayLike: TypeAlias = np.ndarray | Tensor
"""A NumPy array or a torch tensor; half, single or double precision."""


def states_from_arrays(
    values: ArrayLike | Mapping[str, ArrayLike],
    offsets: ArrayLike | Sequence[int],
    token_labels: ArrayLike | sp.spmatrix | sp.sparray | None,
    sample_labels: ArrayLike | None,
    splits: Sequence[str] | np.ndarray,
    concepts: Sequence[str],
    sample_values: ArrayLike | Mapping[str, ArrayLike] | None = None,
    *,
    ids: Sequence[str] | None = None,
    known: ArrayLike | None = None,
) -> States:
    """Take in states that were made elsewhere.

    Parameters
    ----------
    values : array of shape (tokens, width), or mapping of site name to such arrays in depth order
        Token states without padding and without special tokens; NumPy or torch, float16/bfloat16/float32/float64.
    offsets : int array of shape (samples + 1,)
        Tokens of sample ``i`` are the rows ``offsets[i]:offsets[i + 1]``.
    token_labels : bool array or sparse matrix of shape (tokens, concepts), or None
        None if only samples are labelled.
    sample_labels : bool array of shape (samples, concepts), or None
        None: a sample is positive if any of its tokens is.
    splits : sequence of str of length samples
        ``"train"``, ``"cal"`` or ``"test"``.
    concepts : sequence of str
        Column names.
    sample_values : as ``values`` but of shape (samples, width), or None
        Sample states (CLS, say); without them the method ``cls`` is not available.
    ids : sequence of str, optional
        Sample ids; numbers by default.
    known : bool array of shape (tokens,), optional
        False for tokens that nobody labelled.

    Returns
    -------
    States
        Kept in memory; arrays are not copied where that is possible.

    Raises
    ------
    DataError
        If shapes, splits or values do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> states = states_from_arrays(
    ...     values=np.eye(4, dtype=np.float32),
    ...     offsets=[0, 2, 3, 4],
    ...     token_labels=np.eye(4, 1, dtype=bool),
    ...     sample_labels=None,
    ...     splits=["train", "cal", "test"],
    ...     concepts=["first"],
    ... )
    >>> states
    States(3 samples, 4 tokens, 1 sites x 4, 1 concepts)
    """
    tokens = _sites(values, "values")
    n_tokens = len(next(iter(tokens.values())))
    rows = np.asarray(offsets)
    if not np.array_equal(rows, rows.astype(np.int64)):
        raise DataError("offsets must be whole numbers")
    bounds = check_offsets(rows.astype(np.int64), n_tokens)
    n, names = len(bounds) - 1, tuple(str(name) for name in concepts)
    if n == 0 or (np.diff(bounds) == 0).any():
        raise DataError("every sample needs at least one token; leave out samples without tokens")
    if not names or len(set(names)) != len(names):
        raise DataError(f"concepts must be distinct names, at least one; got {list(concepts)}")
    samples = None if sample_values is None else _sites(sample_values, "sample_values")
    if samples is not None and list(samples) != list(tokens):
        raise DataError(f"sample_values are for sites {list(samples)}, but values are for {list(tokens)}")
    if samples is not None and any(len(part) != n for part in samples.values()):
        raise DataError(f"sample_values must have {n} rows, one for each sample")
    width, sample_width = (next(iter(part.values())).shape[1] for part in (tokens, samples or tokens))
    if sample_width != width:
        raise DataError(f"sample_values are {sample_width} wide, but values are {width} wide")
    token_matrix = None if token_labels is None else _labels(token_labels, (n_tokens, len(names)), "token_labels")
    if sample_labels is not None:
        sample_matrix = _labels(sample_labels, (n, len(names)), "sample_labels").toarray()
    elif token_matrix is not None:
        sample_matrix = segment_any(token_matrix.toarray(), bounds)
    else:
        raise DataError("give token_labels, sample_labels or both")
    split_names = np.array([str(split) for split in splits])
    wrong = sorted(set(split_names.tolist()) - set(SPLITS))
    if len(split_names) != n or wrong:
        raise DataError(f"splits must be {n} of {', '.join(SPLITS)}; got {len(split_names)}, unknown: {wrong}")
    names_of_samples = [str(number) for number in range(n)] if ids is None else [str(name) for name in ids]
    if len(names_of_samples) != n or len(set(names_of_samples)) != n:
        raise DataError(f"ids must be {n} distinct names")
    labelled = np.ones(n_tokens, dtype=bool) if known is None else np.asarray(known, dtype=bool)
    if labelled.shape != (n_tokens,):
        raise DataError(f"known must have shape ({n_tokens},); got {labelled.shape}")
    labels = Labels(names_of_samples, bounds, split_names, names, sample_matrix, token_matrix, labelled, {})
    return States(ArrayValues(tokens, bounds, samples), labels)


def _sites(values: ArrayLike | Mapping[str, ArrayLike], what: str) -> dict[str, Tensor]:
    given = values if isinstance(values, Mapping) else {"given": values}
    if not given:
        raise DataError(f"{what} holds no site")
    tensors = {str(site): _tensor(array, f"{what} at {str(site)!r}") for site, array in given.items()}
    shapes = {tuple(tensor.shape) for tensor in tensors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2 or 0 in next(iter(shapes)):
        raise DataError(f"{what} must be matrices of one shape (rows, width), none of them empty; got {sorted(shapes)}")
    for site, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise DataError(f"{what} at {site!r} must be floating point; got {tensor.dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{what} at {site!r} hold numbers that are not finite; remove or mend those rows")
    return tensors


def _tensor(array: ArrayLike, what: str) -> Tensor:
    try:
        with warnings.catch_warnings():
            # torch warns of arrays that are read-only, memory-mapped ones for example; nothing is written to them
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            return torch.as_tensor(array).detach().cpu()
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} is no array of numbers that torch reads ({error})") from None


def _labels(labels: ArrayLike | sp.spmatrix | sp.sparray, shape: tuple[int, int], what: str) -> sp.csr_matrix:
    if tuple(labels.shape) != shape:
        raise DataError(f"{what} must have shape {shape}; got {tuple(labels.shape)}")
    matrix = sp.csr_matrix(labels if sp.issparse(labels) else np.asarray(labels))
    if not np.isin(matrix.data, [0, 1]).all():
        raise DataError(f"{what} must hold only 0 and 1 (or false and true)")
    matrix = matrix.astype(bool)
    matrix.eliminate_zeros()
    matrix.sum_duplicates()
    return matrix


def _hash(tensor: Tensor) -> str:
    return array_fingerprint(tensor.contiguous().view(torch.uint8).numpy())
