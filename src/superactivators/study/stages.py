"""The stages after extraction: concepts, scores, detection; each kept as a folder and skipped when nothing changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pyarrow as pa

from superactivators.artefacts import FolderReader, Format, fingerprint, is_current, writing
from superactivators.concepts.bank import ConceptBank
from superactivators.concepts.learning import MEMORY, kinds, learn_concepts
from superactivators.detection.evaluation import RESAMPLES, evaluate_detection
from superactivators.detection.methods import methods
from superactivators.detection.results import DetectionResult
from superactivators.detection.tail import DELTAS, check_deltas
from superactivators.detection.thresholds import Threshold
from superactivators.errors import StudyError
from superactivators.scores.activations import POOLS, score_samples, score_tokens
from superactivators.scores.site_scores import FORMAT as SCORES
from superactivators.scores.site_scores import SiteScores
from superactivators.states.states import Level, States
from superactivators.study.clock import Clock

CONCEPTS = Format("superactivators/concepts", 1)
DETECTION = Format("superactivators/detection", 1)
TABLES = ("metrics", "curves", "aggregates", "localisation")


@final
@dataclass(frozen=True)
class StudyPlan:
    """What to learn and compare.

    Attributes
    ----------
    kinds, methods : tuple of str
        Names in `superactivators.concepts.learning.kinds` and `superactivators.detection.methods.methods`.
    deltas : tuple of float
        Sparsity levels.
    resamples : int
        Bootstrap resamples.
    seed : int
    memory : int
        Bytes of train rows held in memory while learning.

    Raises
    ------
    StudyError
        If a name is unknown or comes twice, none is given, or the sparsity levels are wrong.
    """

    kinds: tuple[str, ...] = ("mean", "linear")
    methods: tuple[str, ...] = ("superactivators", "max", "mean", "last", "random", "cls")
    deltas: tuple[float, ...] = DELTAS
    resamples: int = RESAMPLES
    seed: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if not self.kinds or not self.methods:
            raise StudyError("name at least one concept kind and one detection method")
        for names in (self.kinds, self.methods):
            for name in names:
                if names.count(name) > 1:
                    raise StudyError(f"{name!r} is named twice; name each concept kind and detection method once")
        for name in self.kinds:
            kinds[name]
        for name in self.methods:
            methods[name]
        check_deltas(self.deltas)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Which states the methods need."""
        needed = {methods[name].level for name in self.methods}
        return tuple(level for level in LEVELS if level in needed)


LEVELS: tuple[Level, ...] = ("token", "sample")


@final
class Stages:
    """Learns, scores and evaluates some states, keeping every result in a folder or, without one, in memory.

    Parameters
    ----------
    states : States
    plan : StudyPlan
    folder : Path or None
        Study folder; its subfolders ``concepts``, ``scores`` and ``detection`` are used.
    clock : Clock
    """

    def __init__(self, states: States, plan: StudyPlan, folder: Path | None, clock: Clock) -> None:
        self._states = states
        self._plan = plan
        self._folder = folder
        self._clock = clock
        self._banks: dict[tuple[str, Level, str], ConceptBank] = {}
        self._scores: dict[tuple[str, Level, str], SiteScores] = {}

    def run(self) -> DetectionResult:
        """Do what has not been done yet and return the results."""
        for level in self._plan.levels:
            for site in self._states.sites:
                self._learn(site, level)
                self._score(site, level)
        return self._detect()

    def bank(self, kind: str, level: Level, site: str) -> ConceptBank:
        """Give one bank, from memory or from the study folder."""
        if (kind, level, site) not in self._banks:
            reader = FolderReader(self._place("concepts", kind, level, site), CONCEPTS)
            self._banks[kind, level, site] = ConceptBank.read(reader, reader.manifest.parameters)
        return self._banks[kind, level, site]

    def scores(self, kind: str, level: Level, site: str) -> SiteScores:
        """Give the scores of one bank, from memory or from the study folder."""
        if self._folder is None:
            return self._scores[kind, level, site]
        return SiteScores.load(self._place("scores", kind, level, site))

    def _place(self, room: str, kind: str, level: Level, site: str) -> Path:
        if self._folder is None:
            raise StudyError(f"no {kind} {level} vectors were learned at {site}")
        return self._folder / room / f"{kind}-{level}" / site

    def _made_from(self, kind: str, level: Level, site: str) -> str:
        return fingerprint([CONCEPTS.version, self._states.fingerprint, kind, level, site, self._plan.seed])

    def _learn(self, site: str, level: Level) -> None:
        wanted = [kind for kind in self._plan.kinds if not self._is_learned(kind, level, site)]
        if not wanted:
            return
        with self._clock.stage("concepts", f"{' and '.join(wanted)} vectors of {level}s at {site}"):
            learned = learn_concepts(self._states, site, wanted, level, memory=self._plan.memory, seed=self._plan.seed)
            for bank in learned:
                self._banks[bank.kind, level, site] = bank
                if self._folder is not None:
                    self._save_bank(bank)

    def _is_learned(self, kind: str, level: Level, site: str) -> bool:
        if self._folder is None:
            return (kind, level, site) in self._banks
        return is_current(self._place("concepts", kind, level, site), CONCEPTS, self._made_from(kind, level, site))

    def _save_bank(self, bank: ConceptBank) -> None:
        made_from = self._made_from(bank.kind, bank.level, bank.site)
        entry = bank.entry("vectors.safetensors")
        with writing(self._place("concepts", bank.kind, bank.level, bank.site), CONCEPTS, made_from, entry) as writer:
            bank.write(writer, "vectors.safetensors")

    def _score(self, site: str, level: Level) -> None:
        wanted = [kind for kind in self._plan.kinds if not self._is_scored(kind, level, site)]
        if not wanted:
            return
        with self._clock.stage("scores", f"{' and '.join(wanted)} scores of {level}s at {site}"):
            banks = [self.bank(kind, level, site) for kind in wanted]
            if level == "token":
                found = score_tokens(self._states, banks, seed=self._plan.seed)
            else:
                found = [score_samples(self._states, bank) for bank in banks]
            for scored in found:
                if self._folder is None:
                    self._scores[scored.kind, level, site] = scored
                else:
                    scored.save(
                        self._place("scores", scored.kind, level, site), self._scored_from(scored.kind, level, site)
                    )

    def _scored_from(self, kind: str, level: Level, site: str) -> str:
        return fingerprint([SCORES.version, self._made_from(kind, level, site), POOLS, self._plan.seed])

    def _is_scored(self, kind: str, level: Level, site: str) -> bool:
        if self._folder is None:
            return (kind, level, site) in self._scores
        return is_current(self._place("scores", kind, level, site), SCORES, self._scored_from(kind, level, site))

    def _detect(self) -> DetectionResult:
        plan, sites = self._plan, self._states.sites
        made_from = fingerprint(
            [
                DETECTION.version,
                self._states.fingerprint,
                plan.kinds,
                plan.methods,
                plan.deltas,
                plan.resamples,
                plan.seed,
            ]
        )
        folder = None if self._folder is None else self._folder / "detection"
        if folder is not None and is_current(folder, DETECTION, made_from):
            return load_detection(folder)
        with self._clock.stage("detection", "thresholds, metrics and intervals"):
            result = evaluate_detection(
                self.scores,
                sites,
                plan.kinds,
                self._states.labels,
                method_names=plan.methods,
                deltas=plan.deltas,
                resamples=plan.resamples,
                seed=plan.seed,
                progress=self._clock.say,
            )
            if folder is not None:
                save_detection(result, folder, made_from)
        return result


def save_detection(result: DetectionResult, folder: Path, made_from: str) -> None:
    """Write all tables of a detection result as a folder of format ``superactivators/detection``."""
    with writing(folder, DETECTION, made_from, {"concepts": result.summary["concepts"]}) as writer:
        for name in TABLES:
            writer.table(f"{name}.parquet", getattr(result, name))
        writer.table("thresholds.parquet", pa.Table.from_pylist([item.as_dict() for item in result.thresholds]))
        writer.json("summary.json", result.summary)


def load_detection(folder: Path) -> DetectionResult:
    """Read what `save_detection` wrote; raises ``StoreError`` if it is missing, damaged or foreign."""
    reader = FolderReader(folder, DETECTION)
    tables = {name: reader.table(f"{name}.parquet") for name in TABLES}
    rows: Sequence[dict[str, object]] = reader.table("thresholds.parquet").to_pylist()
    thresholds = [Threshold.from_dict(row) for row in rows]
    return DetectionResult(**tables, thresholds=thresholds, summary=reader.json("summary.json"))
