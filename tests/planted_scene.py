"""A scene without a model: the objectives are functions of the mask that tests choose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class PlantedScene:
    """Counts what it is asked for; like a real scene, it runs an array of masks once."""

    game: Callable[[np.ndarray], np.ndarray]
    n_tokens: int
    n_columns: int = 1
    grid: tuple[int, int] | None = None
    name: str = "a sample"
    places: np.ndarray | None = None
    forwards: int = 0
    asked: list[np.ndarray] = field(default_factory=list)
    _cache: dict[bytes, np.ndarray] = field(default_factory=dict)

    @property
    def cells(self) -> np.ndarray:
        return np.arange(self.n_tokens) if self.places is None else self.places

    def values(self, keep: np.ndarray) -> np.ndarray:
        assert keep.dtype == bool
        assert keep.shape[1] == self.n_tokens
        self.asked.append(keep.copy())
        key = keep.tobytes()
        if key not in self._cache:
            self.forwards += len(keep)
            self._cache[key] = self.game(keep.astype(np.float64)).astype(np.float32).reshape(len(keep), self.n_columns)
        return self._cache[key].copy()

    def generator(self, purpose: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.name}:{purpose}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def linear_scene(
    n_tokens: int, n_columns: int = 3, grid: tuple[int, int] | None = None, **options: str
) -> tuple[PlantedScene, np.ndarray]:
    """Objectives that are sums over kept tokens, and what each token adds (tokens, columns)."""
    weights = np.random.default_rng(n_tokens).standard_normal((n_tokens, n_columns)).round(3)
    return PlantedScene(lambda keep: keep @ weights + 2.5, n_tokens, n_columns, grid, **options), weights


def crooked_scene(
    n_tokens: int,
    n_columns: int = 3,
    columns: list[int] | None = None,
    grid: tuple[int, int] | None = None,
    **options: str,
) -> PlantedScene:
    """Objectives in which tokens act together, also in threes and more; ``columns`` takes some of them."""
    chosen = list(range(n_columns)) if columns is None else columns
    random = np.random.default_rng(n_tokens)
    first, second = random.standard_normal((2, n_tokens, n_columns))[:, :, chosen]

    def game(keep: np.ndarray) -> np.ndarray:
        return np.tanh(keep @ first) + (keep @ second) ** 2 / n_tokens + 0.5

    return PlantedScene(game, n_tokens, len(chosen), grid, **options)
