"""Calibrate every kind and method on cal, resample, localise: what the result tables are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from jaxtyping import Float, Int

from superactivators.detection.bootstrap import Resamples, bootstrap
from superactivators.detection.localisation import Localisation, TokenScores, localise
from superactivators.detection.methods import Method, methods
from superactivators.detection.results import REFERENCE, DetectionResult, Evaluated
from superactivators.detection.selection import Calibration, choose
from superactivators.detection.tables import tabulate
from superactivators.detection.tail import DELTAS, Tail, check_deltas
from superactivators.errors import StudyError
from superactivators.ragged import segment_ids
from superactivators.scores.pooling import MIN_TOKENS
from superactivators.scores.site_scores import SiteScores
from superactivators.states.labels import Labels
from superactivators.states.states import Level

RESAMPLES = 1000
BEST = "best"
"""The kind that stands for whichever kind is best for a concept on cal."""

YES = 0.5
"""Given threshold of methods that answer 1 or 0."""

ScoreSource: TypeAlias = Callable[[str, Level, str], SiteScores]
"""Loads the scores of a kind, level and site."""

SiteSource: TypeAlias = Callable[[str], Sequence[str]]
"""Sites of a kind, from shallow to deep."""


def evaluate_detection(
    scores: ScoreSource,
    sites: Sequence[str] | SiteSource,
    kinds: Sequence[str],
    labels: Labels,
    *,
    method_names: Sequence[str],
    deltas: Sequence[float] = DELTAS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    min_tokens: int = MIN_TOKENS,
    progress: Callable[[str], None] = lambda message: None,
) -> DetectionResult:
    """Calibrate and evaluate every kind with every method.

    Parameters
    ----------
    scores : callable
        ``scores(kind, level, site)`` loads the scores of one bank.
    sites : sequence of str, or callable
        From shallow to deep; ``sites(kind)`` where they differ (those of methods without vectors are asked for as kinds
        ``"probe"``, ``"input"`` and ``"prompt"``).
    kinds : sequence of str
        Kinds of concept vectors. With several, each concept also takes the one that is best for it on cal, as the kind
        ``"best"``.
    labels : Labels
        Every concept has positives in train, cal and test. Where nobody labelled tokens, those of positive samples
        stand for the concept.
    method_names : sequence of str
        Names in `superactivators.detection.methods.methods`.
    deltas : sequence of float
        Sparsity levels.
    resamples : int
        Bootstrap resamples; 0 for no intervals.
    seed : int
    min_tokens : int
        Tokens that the scores of evidence of several tokens were made for.
    progress : callable
        Told what is being worked on.

    Raises
    ------
    StudyError
        If a method is unknown, or the sparsity levels are wrong.
    """
    levels = check_deltas(deltas)
    chosen_methods = [methods[name] for name in dict.fromkeys(method_names)]
    if not chosen_methods:
        raise StudyError("no detection method given; name at least one")
    if resamples < 0:
        raise StudyError(f"resamples must be 0 or more; got {resamples}")
    sizes = len(labels.in_split("cal")), len(labels.in_split("test"))
    draws = Resamples.draw(*sizes, resamples, seed)
    sites_of: SiteSource = sites if callable(sites) else lambda kind: sites
    evaluator = _Evaluator(scores, sites_of, labels, levels, draws)
    found: list[Evaluated] = []
    located: dict[str, Localisation] = {}
    oracles: list[tuple[str, str, Mapping[str, np.ndarray]]] = []

    def keep(item: Evaluated) -> None:
        found.append(item)
        if item.method.name == REFERENCE and labels.tokens is not None:
            located[item.kind] = evaluator.localise(item)

    of_vectors = [method for method in chosen_methods if method.source == "vectors"]
    mixed: dict[str, list[_Candidates]] = {method.name: [] for method in of_vectors}
    for kind in kinds:
        for method in of_vectors:
            progress(f"{kind} {method.name}")
            item, candidates = evaluator.evaluate(kind, method)
            mixed[method.name].append(candidates)
            keep(item)
        oracles += evaluator.oracles(kind)
        evaluator.forget()
    every_site = deepest_list([sites_of(kind) for kind in kinds])
    for method in of_vectors if len(kinds) > 1 else ():
        progress(f"{BEST} {method.name}")
        keep(evaluator.judge(BEST, method, every_site, _Candidates.together(mixed[method.name], every_site))[0])
    for method in chosen_methods:
        if method.source != "vectors":
            progress(method.name)
            keep(evaluator.evaluate(method.source, method)[0])
    return tabulate(found, located, oracles, labels, levels, seed, min_tokens)


def deepest_list(lists: Sequence[Sequence[str]]) -> list[str]:
    """Sites of several kinds together, from shallow to deep: the longest list, and what it lacks behind it."""
    longest = max((list(sites) for sites in lists), key=len, default=[])
    return longest + list(dict.fromkeys(site for sites in lists for site in sites if site not in longest))


@final
@dataclass(frozen=True, eq=False)
class _Candidates:
    """Ways to score samples that one choice is made among: sites, and units or kinds within them.

    Attributes
    ----------
    scores : float32 array of shape (candidates, samples, concepts)
    tails : list of Tail
        One for each, or none where thresholds are not quantiles.
    site : sequence of str
        Site of each candidate; those of a site follow each other.
    units : int32 array of shape (candidates, concepts)
        -1 where nothing is matched.
    vectors : str array of shape (candidates, concepts)
        Kind of the vector.
    """

    scores: Float[np.ndarray, "k n c"]
    tails: list[Tail]
    site: Sequence[str]
    units: Int[np.ndarray, "k c"]
    vectors: np.ndarray

    @staticmethod
    def together(parts: Sequence[_Candidates], sites: Sequence[str]) -> _Candidates:
        """Put candidates of several kinds together, site by site, in the order of the kinds."""
        site = [name for part in parts for name in part.site]
        order = sorted(range(len(site)), key=lambda place: sites.index(site[place]))
        tails = [tail for part in parts for tail in part.tails]
        return _Candidates(
            np.concatenate([part.scores for part in parts])[order],
            [tails[place] for place in order] if tails else [],
            [site[place] for place in order],
            np.concatenate([part.units for part in parts])[order],
            np.concatenate([part.vectors for part in parts])[order],
        )

    def take(self, best: Int[np.ndarray, "sites c"], sites: Sequence[str]) -> _Candidates:
        """Keep one candidate of each site and concept."""
        concepts = np.arange(best.shape[1])
        tails = [_mixed_tail(self.tails, row) for row in best] if self.tails else []
        return _Candidates(
            np.ascontiguousarray(np.moveaxis(self.scores[best, :, concepts], -1, 1)),
            tails,
            sites,
            self.units[best, concepts],
            self.vectors[best, concepts],
        )


def _mixed_tail(tails: list[Tail], best: Int[np.ndarray, " c"]) -> Tail:
    """Tail whose scores of each concept come from another candidate."""
    if (best == best[0]).all():
        return tails[int(best[0])]
    parts = [tails[place].of_concept(c) for c, place in enumerate(best.tolist())]
    bounds = np.concatenate([[0], np.cumsum([len(part.values) for part in parts])]).astype(np.int64)
    return Tail(np.concatenate([part.values for part in parts]), np.concatenate([p.owners for p in parts]), bounds)


@final
class _Evaluator:
    """Evaluates one kind and method after the other, holding the scores of one kind at a time."""

    def __init__(
        self, scores: ScoreSource, sites_of: SiteSource, labels: Labels, deltas: tuple[float, ...], draws: Resamples
    ) -> None:
        self._scores, self._sites_of = scores, sites_of
        self._labels, self._deltas, self._draws = labels, deltas, draws
        self._held: dict[tuple[str, Level, str], SiteScores] = {}

    def forget(self) -> None:
        """Let go of the scores that are held."""
        self._held.clear()

    def evaluate(self, kind: str, method: Method) -> tuple[Evaluated, _Candidates]:
        """Evaluate one kind and method; also give the best candidate of each site."""
        sites = self._sites_of(kind)
        held = [self._site_scores(kind, method.level, site) for site in sites]
        scores = [part.candidates(method.pool) for part in held]
        counts = [len(part) for part in scores]
        together = np.concatenate(scores)
        candidates = _Candidates(
            together,
            self._tails(method, held, together, counts),
            [site for site, count in zip(sites, counts, strict=True) for _ in range(count)],
            np.concatenate([part.candidate_units(method.pool) for part in held]),
            np.full((len(together), together.shape[2]), kind),
        )
        return self.judge(kind, method, sites, candidates)

    def judge(
        self, kind: str, method: Method, sites: Sequence[str], candidates: _Candidates
    ) -> tuple[Evaluated, _Candidates]:
        """Choose among candidates on cal, and resample; also give the best candidate of each site."""
        labels = self._labels
        cal, test = labels.in_split("cal"), labels.in_split("test")
        truth, cal_scores = labels.samples[cal], list(candidates.scores[:, cal])
        if method.candidates == "given":
            fitted = Calibration.fixed(YES, len(labels.concepts))
        elif method.candidates == "every":
            fitted = Calibration.fit_free(cal_scores, truth)
        else:
            fitted = Calibration.fit(candidates.tails, cal_scores, truth, self._deltas)
        test_scores, test_truth = candidates.scores[:, test], labels.samples[test]
        boot = bootstrap(fitted, cal_scores, truth, test_scores, test_truth, self._draws, self._deltas)
        best = _best_of_site(fitted, candidates.site, sites)
        kept = candidates.take(best, sites)
        item = Evaluated(kind, method, sites, kept.scores, _at_sites(fitted, best), boot, kept.units, kept.vectors)
        return item, kept

    def localise(self, item: Evaluated) -> Localisation:
        """Localise with every concept's activations at its chosen site."""
        labels, place = self._labels, item.calibration.choice.candidate
        kind_of = item.vectors[place, np.arange(len(place))]
        sources = dict.fromkeys((str(kind), int(number)) for kind, number in zip(kind_of, place, strict=True))
        held = {key: self._site_scores(key[0], "token", item.sites[key[1]]) for key in sources}
        chosen, thresholds = item.calibration.chosen(item.pooled), item.calibration.chosen_thresholds()
        parts: dict[str, TokenScores] = {}
        assert labels.tokens is not None  # noqa: S101  # evaluate_detection has checked
        for split in ("cal", "test"):
            activations, rows, offsets = next(iter(held.values())).of_split(labels, split)
            for (kind, number), site_scores in held.items():
                columns = (place == number) & (kind_of == kind)
                activations[:, columns] = site_scores.of_split(labels, split)[0][:, columns]
            detected = chosen[labels.in_split(split)].astype(np.float64) >= thresholds
            parts[split] = TokenScores(activations, labels.tokens[rows], labels.known[rows], offsets, detected)
        tail = Tail.of_tokens(parts["cal"].scores, parts["cal"].labels, segment_ids(parts["cal"].offsets))
        return localise(parts["cal"], parts["test"], tail, item.calibration.choice.level, self._deltas, self._draws)

    def oracles(self, kind: str) -> list[tuple[str, str, Mapping[str, np.ndarray]]]:
        """Kind, site and columns of the matches that test would choose."""
        held = [(site, self._held.get((kind, "token", site))) for site in self._sites_of(kind)]
        return [(kind, site, scores.oracle) for site, scores in held if scores is not None and scores.oracle]

    def _site_scores(self, kind: str, level: Level, site: str) -> SiteScores:
        key = (kind, level, site)
        if key not in self._held:
            self._held[key] = self._scores(kind, level, site)
        return self._held[key]

    def _tails(
        self, method: Method, held: Sequence[SiteScores], scores: Float[np.ndarray, "k n c"], counts: Sequence[int]
    ) -> list[Tail]:
        labels = self._labels
        if method.candidates == "tokens":
            pairs = [part.in_concept(labels) for part in held]
            return [
                Tail.of_pairs(row, where.owners, where.concepts, len(labels.concepts))
                for (values, where), count in zip(pairs, counts, strict=True)
                for row in values[:count]
            ]
        if method.candidates == "samples":
            cal = labels.in_split("cal")
            return [Tail.of_samples(layer[cal], labels.samples[cal]) for layer in scores]
        return []


def _best_of_site(fitted: Calibration, site: Sequence[str], sites: Sequence[str]) -> Int[np.ndarray, "sites c"]:
    """Find the best candidate of each site and concept by F1; ties go to the smallest level, then to the first."""
    rows = []
    for name in sites:
        begin, count = site.index(name), site.count(name)
        rows.append(begin + choose(fitted.f1[begin : begin + count]).candidate)
    return np.stack(rows)


def _at_sites(fitted: Calibration, best: Int[np.ndarray, "sites c"]) -> Calibration:
    """Reduce a calibration to the best candidate of each site; the choice among all of them stays the same."""
    concepts = np.arange(best.shape[1])

    def at_best(values: Float[np.ndarray, "k levels c"]) -> Float[np.ndarray, "sites levels c"]:
        return np.ascontiguousarray(np.moveaxis(values[best, :, concepts], -1, 1))

    f1 = at_best(fitted.f1)
    return Calibration(
        rule=fitted.rule,
        tails=[],
        thresholds=at_best(fitted.thresholds),
        f1=f1,
        deltas=at_best(fitted.deltas),
        counts=fitted.counts[best, concepts],
        choice=choose(f1),
        best_level=f1.argmax(axis=1),
    )
