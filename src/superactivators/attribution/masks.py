"""Which tokens to hide: designs of masks for explainers that only ask for values of changed samples."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.errors import StudyError

GRAIN = 2
"""Patches along the side of a block that is kept or hidden as one."""


@runtime_checkable
class MaskableScene(Protocol):
    """What explainers by masks see of a `superactivators.attribution.scene.Scene`."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens of the sample."""
        ...

    @property
    def n_columns(self) -> int:
        """Number of maps."""
        ...

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patch grid; None for texts."""
        ...

    @property
    def cells(self) -> Int[np.ndarray, " tokens"]:
        """Grid cell (row-major) of every token; for texts the token's own number."""
        ...

    def values(self, keep: Bool[np.ndarray, "m tokens"]) -> Float[np.ndarray, "m columns"]:
        """Objectives of variants with hidden tokens."""
        ...

    def generator(self, purpose: str) -> np.random.Generator:
        """Give random numbers that depend on seed, sample and purpose only."""
        ...


def halves(
    scene: MaskableScene, budget: int, keep_share: float = 0.5, grain: int = GRAIN
) -> Bool[np.ndarray, "budget tokens"]:
    """Keep or hide every block of the sample by chance.

    Equal arguments give the equal array, so that explainers that ask for it share its forward passes.

    Parameters
    ----------
    scene : MaskableScene
    budget : int
        Number of masks.
    keep_share : float
        Probability that a block is kept.
    grain : int
        Images: a block is ``grain`` x ``grain`` patches, and the blocks are shifted at random from mask to mask, so
        that single patches are told apart (as in RISE). With 1, each patch is drawn by itself. Texts: always 1.

    Returns
    -------
    bool array of shape (budget, tokens)
        False where a token is hidden.

    Raises
    ------
    StudyError
        If the budget or the grain is not a whole number above 0, or the share is not between 0 and 1.
    """
    check_whole("budget", budget, 1)
    check_whole("grain", grain, 1)
    if not 0 < keep_share < 1:
        raise StudyError(f"masks: keep_share must be a number between 0 and 1, both excluded; got {keep_share!r}")
    side = grain if scene.grid is not None else 1
    (rows, columns), row, column = _places(scene)
    random = scene.generator("halves")
    shift = random.integers(side, size=(2, budget, 1))
    blocks = random.random((budget, (rows - 1) // side + 2, (columns - 1) // side + 2)) < keep_share
    return np.asarray(blocks[np.arange(budget)[:, None], (row + shift[0]) // side, (column + shift[1]) // side])


def leave_out(scene: MaskableScene, window: int, stride: int) -> Bool[np.ndarray, "windows tokens"]:
    """Hide one window of tokens at a time; each token is in at least one window.

    Parameters
    ----------
    scene : MaskableScene
    window : int
        Images: side of a square window, in patches. Texts: length of a run of tokens. Larger than the sample: all.
    stride : int
        Distance of neighbouring windows. The last window ends where the sample ends, so it may be nearer.

    Returns
    -------
    bool array of shape (windows, tokens)
        False where a token is hidden. Windows without any token are left out.

    Raises
    ------
    StudyError
        If window or stride is not a whole number above 0, or the stride is longer than the window.
    """
    check_whole("window", window, 1)
    check_whole("stride", stride, 1)
    if stride > window:
        raise StudyError(
            f"occlusion: stride {stride} is longer than window {window}, so some tokens would never be hidden; "
            f"choose a stride of at most {window}"
        )
    (rows, columns), row, column = _places(scene)
    down = _inside(row, rows, window, stride)
    across = _inside(column, columns, window, stride)
    hidden = (down[:, None] & across[None]).reshape(-1, scene.n_tokens)
    return np.asarray(~hidden[hidden.any(axis=1)])


def check_whole(name: str, value: object, least: int) -> None:
    """Raise ``StudyError`` unless an option is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StudyError(f"explainer: {name} must be a whole number, at least {least}; got {value!r}")


def check_amount(name: str, value: object) -> None:
    """Raise ``StudyError`` unless an option is a finite number of at least 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:  # type: ignore[arg-type,operator]
        raise StudyError(f"explainer: {name} must be a number of at least 0; got {value!r}")


def _places(
    scene: MaskableScene,
) -> tuple[tuple[int, int], Int[np.ndarray, " tokens"], Int[np.ndarray, " tokens"]]:
    """Size of the grid, and row and column of every token; a text is a grid of one row."""
    rows, columns = scene.grid or (1, scene.n_tokens)
    row, column = np.divmod(scene.cells, columns)
    return (rows, columns), row, column


def _inside(
    place: Int[np.ndarray, " tokens"], length: int, window: int, stride: int
) -> Bool[np.ndarray, "starts tokens"]:
    """For each window along one side: which tokens it covers."""
    last = max(0, length - window)
    start = np.append(np.arange(0, last, stride), last)[:, None]
    return np.asarray((place >= start) & (place < start + window))
