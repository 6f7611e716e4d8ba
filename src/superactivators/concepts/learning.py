"""Learn concept vectors at one site from labelled states: every kind from the same scaled rows (METHOD section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from superactivators.concepts.bank import ConceptBank
from superactivators.concepts.kinds import MEMORY, KindOptions, Task
from superactivators.concepts.units import kinds
from superactivators.errors import StudyError
from superactivators.states.scaling import Scaling
from superactivators.states.states import Level, States


def learn_concepts(
    states: States,
    site: str,
    kind_names: Sequence[str] = ("mean", "linear"),
    level: Level = "token",
    *,
    memory: int = MEMORY,
    seed: int = 0,
    options: KindOptions | None = None,
) -> list[ConceptBank]:
    """Learn one bank of each kind at one site, from the train split; cal is used to choose the L2 strength only.

    Parameters
    ----------
    states : States
    site : str
        One of ``states.sites``.
    kind_names : sequence of str
        Names in `superactivators.concepts.kinds.kinds`.
    level : str
        ``"token"``: from tokens that carry the concept; ``"sample"``: from sample states (the method ``cls``);
        ``"mean"``: from the means of the samples' token states (the method ``mean-probe``).
    memory : int
        Bytes that learning may take.
    seed : int
    options : KindOptions, optional
        For kinds that can be told something.

    Returns
    -------
    list of ConceptBank
        In the order of ``kind_names``. A matched kind (clusters, latents) gives a bank of units, named by their
        numbers; `superactivators.detection.matching` finds the unit that fits each concept.

    Raises
    ------
    StudyError
        If a kind or the site is unknown, or a kind lacks something that ``options`` must hold.
    """
    learners = [kinds[name] for name in kind_names]
    given = KindOptions() if options is None else options
    for name in kind_names:
        if site not in kind_sites(name, (site,), given):
            raise StudyError(f"the sparse autoencoder is of {given.sae_site}, not of {site}; learn 'sae' there")
    raw, raw_cal = states.rows(site, "train", level), states.rows(site, "cal", level)
    scaling = Scaling.fit(raw)
    task = Task(
        site=site,
        level=level,
        concepts=states.concepts,
        scaling=scaling,
        train=raw.scaled(scaling),
        cal=raw_cal.scaled(scaling),
        raw_cal=raw_cal,
        cal_samples=states.labels.samples[raw_cal.samples],
        memory=memory,
        seed=seed,
        options=given,
    )
    return [kind.learn(task) for kind in learners]


def kind_sites(kind: str, sites: Sequence[str], options: KindOptions) -> tuple[str, ...]:
    """Sites, of those given, at which a kind can be learned: a sparse autoencoder belongs to one site."""
    if kind == "sae" and options.sae_site is not None:
        return tuple(site for site in sites if site == options.sae_site)
    return tuple(sites)
