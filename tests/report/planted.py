"""Studies with planted concepts, small enough to make in a second: scores, labels, texts or pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from superactivators.data.dataset import ConceptDataset, ImageSample, Span, TextSample
from superactivators.detection.evaluation import evaluate_detection
from superactivators.models.encoding import Encoding
from superactivators.ragged import offsets_of, segment_ids
from superactivators.report.inputs import ReportInputs
from superactivators.scores.activations import POOLS
from superactivators.scores.pooling import PoolBlock, pools
from superactivators.scores.site_scores import WHOLE, SiteScores
from superactivators.states.labels import Labels, label
from superactivators.states.states import Level

SITES = ("embed", "block[0]", "block[1]", "block[2]")
KINDS = ("mean", "linear")
METHODS = ("superactivators", "max", "mean", "last", "random", "cls")
WORDS = [
    "the",
    "of",
    "river",
    "and",
    "light",
    "a",
    "stone",
    "morning",
    "quiet",
    "😀",
    "garden",
    "late",
    "Grüße",
    "naïve",
]


def texts(concepts: Sequence[str], n: int = 240, seed: int = 0) -> tuple[ConceptDataset, Encoding]:
    """Sentences of one-word tokens; each concept puts a run of marked words into a third of them."""
    random = np.random.default_rng(seed)
    samples, chars, lengths = [], [], []
    for number in range(n):
        words = [str(word) for word in random.choice(WORDS, size=random.integers(8, 30))]
        spans: list[tuple[int, int, str]] = []
        for concept in concepts:
            if random.random() < 0.33:
                at = int(random.integers(0, len(words) - 3))
                spans.append((at, at + int(random.integers(1, 4)), concept))
        starts = np.cumsum([0] + [len(word) + 1 for word in words])[:-1]
        ranges = [(int(s), int(s) + len(w)) for s, w in zip(starts, words, strict=True)]
        split = ("train", "cal", "test")[number % 3]
        marked = tuple(Span(ranges[a][0], ranges[b - 1][1], concept) for a, b, concept in spans)
        samples.append(TextSample(f"text-{number}", " ".join(words), marked, split=split))
        chars += ranges
        lengths.append(len(words))
    dataset = ConceptDataset("planted texts", tuple(concepts), tuple(samples))
    offsets = offsets_of(np.array(lengths))
    total = int(offsets[-1])
    encoding = Encoding(
        modality="text",
        offsets=offsets,
        token_ids=np.zeros(total, dtype=np.int32),
        chars=np.array(chars, dtype=np.int32),
        grids=None,
        cells=None,
        views=None,
        cut=np.zeros(n, dtype=np.int32),
    )
    return dataset, encoding


def pictures(concepts: Sequence[str], n: int = 90, grid: int = 8, seed: int = 0) -> tuple[ConceptDataset, Encoding]:
    """Wide pictures with one disc per concept; the model sees only the square in the middle."""
    random = np.random.default_rng(seed)
    high, wide = 90, 140
    y, x = np.mgrid[:high, :wide]
    samples = []
    for number in range(n):
        image = np.clip(random.normal(140, 12, (high, wide, 3)), 0, 255)
        mask = np.zeros((high, wide), dtype=np.uint8)
        for identity in range(1, len(concepts) + 1):
            if random.random() < 0.4:
                cy, cx, radius = random.uniform(15, 75), random.uniform(30, 110), random.uniform(8, 20)
                inside = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
                image[inside] = np.array([40 + 60 * identity, 200 - 50 * identity, 90])
                mask[inside] = identity
        split = ("train", "cal", "test")[number % 3]
        samples.append(ImageSample(f"picture-{number}", image.astype(np.uint8), mask, split=split))
    classes = {identity: (concept,) for identity, concept in enumerate(concepts, start=1)}
    dataset = ConceptDataset("planted pictures", tuple(concepts), tuple(samples), classes)
    left = (wide - high) / 2
    encoding = Encoding(
        modality="image",
        offsets=offsets_of(np.full(n, grid**2)),
        token_ids=None,
        chars=None,
        grids=np.full((n, 2), grid, dtype=np.int32),
        cells=np.tile(np.arange(grid**2, dtype=np.int32), n),
        views=np.tile(np.array([left, 0.0, left + high, high]), (n, 1)),
        cut=np.zeros(n, dtype=np.int32),
    )
    return dataset, encoding


class PlantedScores:
    """Activations whose in-concept tail grows with depth; ``scores(kind, level, site)`` as a study gives them."""

    def __init__(self, labels: Labels, seed: int = 0) -> None:
        self._labels = labels
        self._seed = seed

    def __call__(self, kind: str, level: Level, site: str) -> SiteScores:
        labels, depth = self._labels, SITES.index(site)
        random = np.random.default_rng([self._seed, KINDS.index(kind), depth, int(level == "sample")])
        n, c = labels.samples.shape
        if level == "sample":
            whole = (random.normal(size=(n, c)) + 0.9 * labels.samples).astype(np.float32)
            return SiteScores(kind, level, site, {WHOLE: whole}, np.empty(0, np.int64), np.empty((0, c), np.float32))
        tokens = sp.csr_matrix(labels.tokens).toarray()
        strength = (0.4 + 0.5 * depth) * (1.2 if kind == "linear" else 0.8)
        boost = strength * random.gamma(1.0, 1.6, size=tokens.shape) * tokens
        scores = (random.normal(size=tokens.shape) + boost).astype(np.float32)
        pooled = {name: pools[name](PoolBlock(scores, labels.offsets, labels.ids)) for name in POOLS}
        kept = labels.splits != "train"
        rows = kept[segment_ids(labels.offsets)]
        return SiteScores(kind, level, site, pooled, np.flatnonzero(kept), scores[rows])


def planted(
    modality: str = "text",
    concepts: Sequence[str] = ("joy", "fear", "a dry wit"),
    methods: Sequence[str] = METHODS,
    resamples: int = 40,
    title: str = "A planted study",
) -> ReportInputs:
    """Make everything a report needs."""
    dataset, encoding = (texts if modality == "text" else pictures)(concepts)
    labels = label(dataset, encoding)
    scores = PlantedScores(labels)
    result = evaluate_detection(scores, SITES, KINDS, labels, method_names=methods, resamples=resamples, seed=0)
    about = {
        "model": {"name": "planted/model", "blocks": 3, "width": 32, "sites": list(SITES)},
        "data": {"excluded": {"rare thing": "fewer than 5 positive samples (1 in cal)"}},
        "seed": 0,
        "notes": ["3 texts were truncated by 12 tokens."],
        "seconds": {"states": 12.5, "concepts": 3.25, "scores": 0.5},
        "command": "superactivators run study.toml",
        "packages": {"numpy": "2.4", "torch": "2.13"},
        "settings": {"data": {"name": "planted"}, "run": {"seed": 0}},
    }
    return ReportInputs(title, dataset, labels, encoding, result, scores, about)
