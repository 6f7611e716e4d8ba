"""What a study learns and compares, as checked names and numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

from superactivators.baselines.prompt_options import PromptOptions
from superactivators.concepts.kinds import MEMORY, KindOptions
from superactivators.concepts.sae_files import read_sae
from superactivators.concepts.units import kinds
from superactivators.data.dataset import Modality
from superactivators.detection.evaluation import RESAMPLES
from superactivators.detection.methods import methods
from superactivators.detection.tail import DELTAS, check_deltas
from superactivators.errors import StudyError
from superactivators.scores.pooling import MIN_TOKENS
from superactivators.states.states import Level
from superactivators.study.settings import StudySettings

METHODS = ("superactivators", "max", "mean", "last", "random", "top-k-mean", "cls", "mean-probe")
"""Methods of a study unless others are named; texts are also judged by ``bag-of-words``."""

EVERY_KIND = ("mean", "linear", "kmeans", "kmeans-linear", "sae")
"""Kinds of ``kinds = "all"``: those of the paper."""

PREPARED = ("max", "mean", "last", "random", "top-k-mean")
"""Poolings that are always computed: adding one of their methods later needs no new scores."""


@final
@dataclass(frozen=True)
class StudyPlan:
    """What to learn and compare.

    Attributes
    ----------
    kinds, methods : tuple of str
        Names in `superactivators.concepts.kinds.kinds` and `superactivators.detection.methods.methods`.
    deltas : tuple of float
        Sparsity levels.
    resamples : int
        Bootstrap resamples.
    seed : int
    memory : int
        Bytes of train rows held in memory while learning.
    options : KindOptions
        For kinds that can be told something.
    min_tokens : int
        Tokens that the methods ``min-tokens`` and ``segment`` ask for.
    prompt : PromptOptions or None
        Who is asked by the method ``prompt``.

    Raises
    ------
    StudyError
        If a name is unknown or comes twice, none is given, or the sparsity levels are wrong.
    """

    kinds: tuple[str, ...] = ("mean", "linear")
    methods: tuple[str, ...] = METHODS
    deltas: tuple[float, ...] = DELTAS
    resamples: int = RESAMPLES
    seed: int = 0
    memory: int = MEMORY
    options: KindOptions = field(default_factory=KindOptions)
    min_tokens: int = MIN_TOKENS
    prompt: PromptOptions | None = None

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
        if "prompt" in self.methods and self.prompt is None:
            raise StudyError("the method 'prompt' needs to know whom to ask; give a [prompt] section with a model")
        if "sae" in self.kinds and self.options.sae is None:
            raise StudyError("the kind 'sae' needs a sparse autoencoder; give [concepts.sae] path = \"…\"")

    @property
    def levels(self) -> tuple[Level, ...]:
        """Which states the methods on concept vectors need."""
        needed = {methods[name].level for name in self.of_source("vectors")}
        return tuple(level for level in LEVELS if level in needed)

    @property
    def poolings(self) -> tuple[str, ...]:
        """Poolings of token activations that are needed."""
        pools = {methods[name].pool for name in self.of_source("vectors") if methods[name].level == "token"}
        return (*PREPARED, *sorted(pools - set(PREPARED)))

    def of_source(self, source: str) -> tuple[str, ...]:
        """Methods that look at the scores of one source."""
        return tuple(name for name in self.methods if methods[name].source == source)


LEVELS: tuple[Level, ...] = ("token", "sample", "mean")


def default_methods(modality: Modality | None, *, has_sample_states: bool = True) -> list[str]:
    """Methods of a study that names none."""
    named = [name for name in METHODS if name != "cls" or has_sample_states]
    return [*named, "bag-of-words"] if modality == "text" else named


def every_method(modality: Modality, *, prompted: bool) -> list[str]:
    """Give all methods that can be used with some data, the default ones first."""
    usable = [name for name in methods if methods[name].modality in (None, modality)]
    usable = [name for name in usable if prompted or methods[name].source != "prompt"]
    return [*(name for name in METHODS if name in usable), *(name for name in usable if name not in METHODS)]


def plan_of(settings: StudySettings, modality: Modality) -> StudyPlan:
    """Turn the settings of a study into names and numbers.

    Raises
    ------
    StudyError
        If a name is unknown, a method does not fit the data, or the sparse autoencoder cannot be read.
    """
    options, prompt = _options(settings), None if settings.prompt is None else settings.prompt.options()
    named, chosen = settings.concepts.kinds, settings.detection.methods
    if named == "all":
        named = [name for name in EVERY_KIND if name != "sae" or options.sae is not None]
    if chosen == "all":
        chosen = every_method(modality, prompted=prompt is not None)
    elif chosen == "default":
        chosen = default_methods(modality)
    for name in chosen:
        only = methods[name].modality
        if only not in (None, modality):
            raise StudyError(f"the method {name!r} is for {only} data, but these are {modality} data; leave it out")
    return StudyPlan(
        kinds=tuple(named),
        methods=tuple(chosen),
        deltas=tuple(settings.detection.deltas),
        resamples=settings.detection.resamples,
        seed=settings.run.seed,
        memory=settings.concepts.memory_mib * 2**20,
        options=options,
        min_tokens=settings.detection.min_tokens,
        prompt=prompt,
    )


def _options(settings: StudySettings) -> KindOptions:
    concepts = settings.concepts
    plain = KindOptions(
        clusters=concepts.clusters,
        sample_clusters=concepts.sample_clusters,
        separators_per_concept=concepts.separators_per_concept,
        cluster_metric=concepts.cluster_metric,
    )
    if concepts.sae is None:
        return plain
    sae = concepts.sae
    encoder = read_sae(
        sae.path,
        revision=sae.revision,
        k=sae.k,
        threshold=sae.threshold,
        input_scale=sae.input_scale,
        centred=sae.centred,
    )
    site = sae.site or encoder.notes.get("site")
    if site is None:
        raise StudyError(
            f"{concepts.sae.path}: its files do not say which layer it was trained on; "
            'give [concepts.sae] site, such as "block[8]"'
        )
    return replace(plain, sae=encoder, sae_site=site)
