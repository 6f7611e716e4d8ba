"""The stages after extraction: concepts, scores, detection; each kept as a folder and skipped when nothing changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, final

from superactivators.artefacts import FolderReader, Format, fingerprint, is_current, write_bytes, writing
from superactivators.concepts.bank import ConceptBank
from superactivators.concepts.learning import kind_sites, learn_concepts
from superactivators.concepts.sae import SparseEncoder
from superactivators.concepts.units import kinds
from superactivators.data.dataset import ConceptDataset, TextSample
from superactivators.detection.evaluation import evaluate_detection
from superactivators.detection.matching import VARIANTS, match_samples, match_tokens, matched_bank
from superactivators.detection.methods import methods
from superactivators.detection.results import DetectionResult
from superactivators.detection.store import DETECTION, load_detection, save_detection
from superactivators.errors import StudyError
from superactivators.scores.activations import score_samples, score_tokens
from superactivators.scores.layout import Layout
from superactivators.scores.site_scores import FORMAT as SCORES
from superactivators.scores.site_scores import WHOLE, SiteScores
from superactivators.states.states import Level, States
from superactivators.states.store import StateStore
from superactivators.study.clock import Clock
from superactivators.study.plan import StudyPlan

CONCEPTS = Format("superactivators/concepts", 1)

COUNTS = "counts.json"
HOW_ASKED = ("concurrency", "batch", "retries", "timeout", "price_in", "price_out", "api_key_env")
"""Options of prompts that change no answer."""


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
    dataset : ConceptDataset, optional
        What the states were made from; methods that look at the input itself, or at sentences, need it.
    """

    def __init__(
        self, states: States, plan: StudyPlan, folder: Path | None, clock: Clock, dataset: ConceptDataset | None = None
    ) -> None:
        self._states = states
        self._plan = plan
        self._folder = folder
        self._clock = clock
        self._dataset = dataset
        self._banks: dict[tuple[str, Level, str], ConceptBank] = {}
        self._scores: dict[tuple[str, Level, str], SiteScores] = {}
        for kind in plan.kinds:
            if not self.sites(kind):
                raise StudyError(
                    f"the sparse autoencoder is of {plan.options.sae_site}, but the study has "
                    f"{', '.join(states.sites)}; add that layer to [model] layers"
                )

    def run(self) -> DetectionResult:
        """Do what has not been done yet and return the results."""
        for level in self._plan.levels:
            for site in self._states.sites:
                here = [kind for kind in self._plan.kinds if site in self.sites(kind)]
                self._learn(site, level, here)
                self._score(site, level, here)
        if self._plan.of_source("probe"):
            for site in self._states.sites:
                self._make("probe", "token", site, f"pooled probes at {site}", partial(self._probes, site))
        for name, make in (("input", self._bag_of_words), ("prompt", self._prompt)):
            if self._plan.of_source(name):
                self._make(name, "sample", name, ", ".join(self._plan.of_source(name)), make)
        return self._detect()

    def sites(self, kind: str) -> tuple[str, ...]:
        """Sites at which a kind (or a source of scores that is none) is studied, from shallow to deep."""
        if kind in ("input", "prompt"):
            return (kind,)
        return kind_sites(kind, self._states.sites, self._plan.options)

    def bank(self, kind: str, level: Level, site: str) -> ConceptBank:
        """Give one bank of concepts: for matched kinds, with the unit that fits each concept at this site."""
        bank = self._learned(kind, level, site)
        if not kinds[kind].matched:
            return bank
        scores = self.scores(kind, level, site)
        return matched_bank(bank, scores.units["max" if level == "token" else WHOLE][0], self._states.concepts)

    def scores(self, kind: str, level: Level, site: str) -> SiteScores:
        """Give the scores of one bank, from memory or from the study folder."""
        if self._folder is None:
            return self._scores[kind, level, site]
        return SiteScores.load(self._place("scores", kind, level, site))

    def _learned(self, kind: str, level: Level, site: str) -> ConceptBank:
        if (kind, level, site) in self._banks:
            return self._banks[kind, level, site]
        reader = FolderReader(self._place("concepts", kind, level, site), CONCEPTS)
        return ConceptBank.read(reader, reader.manifest.parameters)

    def _place(self, room: str, kind: str, level: Level, site: str) -> Path:
        if self._folder is None:
            raise StudyError(f"no {kind} {level} vectors were learned at {site}")
        return self._folder / room / f"{kind}-{level}" / site

    def _made_from(self, kind: str, level: Level, site: str) -> str:
        parts = [CONCEPTS.version, self._states.fingerprint, kind, level, site, self._plan.seed]
        options = self._plan.options
        told: dict[str, list[object]] = {
            "kmeans": [options.clusters, options.sample_clusters, options.cluster_metric],
            "kmeans-linear": [
                options.clusters,
                options.sample_clusters,
                options.cluster_metric,
                options.separators_per_concept,
            ],
            "sae": [options.sae.fingerprint if isinstance(options.sae, SparseEncoder) else None],
        }
        return fingerprint([*parts, told.get(kind)])

    def _learn(self, site: str, level: Level, here: Sequence[str]) -> None:
        wanted = [kind for kind in here if not self._is_learned(kind, level, site)]
        if not wanted:
            return
        with self._clock.stage("concepts", f"{' and '.join(wanted)} vectors of {level}s at {site}"):
            learned = learn_concepts(
                self._states,
                site,
                wanted,
                level,
                memory=self._plan.memory,
                seed=self._plan.seed,
                options=self._plan.options,
            )
            for bank in learned:
                if self._folder is None:
                    self._banks[bank.kind, level, site] = bank
                else:
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

    def _score(self, site: str, level: Level, here: Sequence[str]) -> None:
        wanted = [kind for kind in here if not self._is_scored(kind, level, site)]
        if not wanted:
            return
        with self._clock.stage("scores", f"{' and '.join(wanted)} scores of {level}s at {site}"):
            plain = [self._learned(kind, level, site) for kind in wanted if not kinds[kind].matched]
            if level == "token":
                if plain:
                    for scores in score_tokens(self._states, plain, **self._pooling()):
                        self._keep(scores)
            else:
                for bank in plain:
                    self._keep(score_samples(self._states, bank))
            for kind in wanted:
                if not kinds[kind].matched:
                    continue
                bank = self._learned(kind, level, site)
                if level == "token":
                    self._keep(match_tokens(self._states, bank, self._plan.deltas, **self._pooling()))
                else:
                    self._keep(match_samples(self._states, bank, self._plan.deltas))

    def _pooling(self) -> dict[str, Any]:
        return {
            "poolings": self._plan.poolings,
            "seed": self._plan.seed,
            "layout": self._layout if "segment" in self._plan.poolings else None,
            "min_tokens": self._plan.min_tokens,
        }

    @cached_property
    def _layout(self) -> Layout | None:
        values = self._states.values
        if self._dataset is None or not isinstance(values, StateStore):
            raise StudyError(
                "the method 'segment' must know the sentences or patch grids, which arrays of states do not tell; "
                "leave it out, or use 'min-tokens'"
            )
        return Layout.of(self._dataset.samples, values.encoding)

    def _keep(self, scores: SiteScores) -> None:
        if self._folder is None:
            self._scores[scores.kind, scores.level, scores.site] = scores
        else:
            place = self._place("scores", scores.kind, scores.level, scores.site)
            scores.save(place, self._scored_from(scores.kind, scores.level, scores.site))

    def _scored_from(self, kind: str, level: Level, site: str) -> str:
        plan = self._plan
        parts = [SCORES.version, self._made_from(kind, level, site), plan.seed]
        if kind == "prompt":
            asked = {} if plan.prompt is None else plan.prompt.to_json()
            parts.append({name: value for name, value in asked.items() if name not in HOW_ASKED})
        if kind in ("probe", "input", "prompt"):
            return fingerprint(parts)
        parts += [plan.poolings, plan.min_tokens]
        if kinds[kind].matched:
            parts += [plan.deltas, VARIANTS]
        return fingerprint(parts)

    def _is_scored(self, kind: str, level: Level, site: str) -> bool:
        if self._folder is None:
            return (kind, level, site) in self._scores
        return is_current(self._place("scores", kind, level, site), SCORES, self._scored_from(kind, level, site))

    def _make(self, kind: str, level: Level, site: str, message: str, make: Callable[[], SiteScores]) -> None:
        if not self._is_scored(kind, level, site):
            with self._clock.stage("baselines", message):
                self._keep(make())

    def _probes(self, site: str) -> SiteScores:
        from superactivators.baselines.pooled_probes import train_pooled_probes

        trained = train_pooled_probes(self._states, site, seed=self._plan.seed, memory=self._plan.memory)
        return trained.score(self._states)

    def _bag_of_words(self) -> SiteScores:
        from superactivators.baselines.bag_of_words import bag_of_words

        if self._dataset is None:
            raise StudyError(
                "the method 'bag-of-words' needs the texts, which arrays of states do not hold; leave it out"
            )
        texts = [sample.text for sample in self._dataset.samples if isinstance(sample, TextSample)]
        if len(texts) < len(self._dataset.samples):
            raise StudyError("the method 'bag-of-words' is for texts, but these data are images; leave it out")
        return bag_of_words(texts, self._states.labels).scores

    def _prompt(self) -> SiteScores:
        from superactivators.baselines.prompt import ask_prompts

        if self._dataset is None or self._folder is None or self._plan.prompt is None:
            raise StudyError("the method 'prompt' needs the data set and a study folder; use run_study")
        log = self._folder / "prompt" / "answers.jsonl"
        answers = ask_prompts(self._dataset, self._states.labels, self._plan.prompt, log, say=self._clock.say)
        write_bytes(log.with_name(COUNTS), (json.dumps(answers.counts, indent=1) + "\n").encode())
        return answers.scores()

    @property
    def prompt_counts(self) -> dict[str, Any] | None:
        """Questions, unclear answers, tokens and cost of the method ``prompt``; None if nobody was asked."""
        if self._folder is None or not self._plan.of_source("prompt"):
            return None
        content: dict[str, Any] = json.loads((self._folder / "prompt" / COUNTS).read_text(encoding="utf-8"))
        return content

    def _detect(self) -> DetectionResult:
        plan = self._plan
        scored = [
            [self._scored_from(kind, methods[name].level, site) for site in self.sites(kind)]
            for name in plan.methods
            for kind in (plan.kinds if methods[name].source == "vectors" else (methods[name].source,))
        ]
        made_from = fingerprint(
            [DETECTION.version, self._states.fingerprint, plan.kinds, plan.methods, plan.deltas, plan.resamples, scored]
        )
        folder = None if self._folder is None else self._folder / "detection"
        if folder is not None and is_current(folder, DETECTION, made_from):
            return load_detection(folder)
        with self._clock.stage("detection", "thresholds, metrics and intervals"):
            result = evaluate_detection(
                self.scores,
                self.sites,
                plan.kinds,
                self._states.labels,
                method_names=plan.methods,
                deltas=plan.deltas,
                resamples=plan.resamples,
                seed=plan.seed,
                min_tokens=plan.min_tokens,
                progress=self._clock.say,
            )
            if folder is not None:
                save_detection(result, folder, made_from)
        return result
