"""What is explained in one sample: how much its token states agree with a direction (METHOD section 7).

There are two objectives for every concept. ``"concept"``: agreement with the concept vector. ``"superactivators"``:
agreement with the mean state of that sample's own SuperActivators. Agreement is the cosine for kinds that are scored
by cosine, the projection for kinds that are scored by logits, and for latents of an autoencoder the latent itself
(``"concept"``) or the cosine (``"superactivators"``). All states are scaled first, and the objective is the mean over
the sample's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superactivators.concepts.bank import Activation, ConceptBank
from superactivators.detection.detector import Detector
from superactivators.errors import StudyError, allowed
from superactivators.states.scaling import Scaling

Objective: TypeAlias = Literal["concept", "superactivators"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

TINY = torch.finfo(torch.float32).tiny


@final
@dataclass(frozen=True, eq=False)
class Readout:
    """Columns that are read at one site.

    Attributes
    ----------
    bank : ConceptBank
        Vectors of the objective ``"concept"``.
    local : float32 tensor of shape (n, width)
        Unit vectors of the objective ``"superactivators"``, one for each concept that asks for it.
    concepts : int64 array of shape (c,)
        Columns of the bank's concepts.
    locals : int64 array of shape (n,)
        Columns of the local vectors.
    """

    bank: ConceptBank
    local: Float[Tensor, "n d"]
    concepts: Int[np.ndarray, " c"]
    locals: Int[np.ndarray, " n"]

    @property
    def scaling(self) -> Scaling:
        """Scaling of the site's token states."""
        return self.bank.scaling


@final
@dataclass(frozen=True, eq=False)
class Objectives:
    """The columns of one sample's maps: every wanted concept under every wanted objective.

    Attributes
    ----------
    concepts : tuple of str
        Concept of each column.
    objectives : tuple of str
        Objective of each column.
    sites : tuple of str
        Site of each column.
    readouts : mapping of str to Readout
        By site.
    fired : bool array of shape (tokens, columns)
        The tokens whose mean state is the local vector: the sample's SuperActivators, or its highest token.
    fallback : bool array of shape (columns,)
        Whether the sample has no SuperActivator, so that the token of the highest activation stands in for them.
    """

    concepts: tuple[str, ...]
    objectives: tuple[Objective, ...]
    sites: tuple[str, ...]
    readouts: Mapping[str, Readout]
    fired: Bool[np.ndarray, "tokens columns"]
    fallback: Bool[np.ndarray, " columns"]

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return len(self.concepts)

    @staticmethod
    def of(
        detector: Detector,
        states: Mapping[str, Float[Tensor, "tokens d"]],
        concepts: Sequence[str] | None = None,
        objectives: Sequence[str] = OBJECTIVES,
    ) -> Objectives:
        """Find the SuperActivators of one sample and the directions to explain.

        Parameters
        ----------
        detector : Detector
            Gives concept vectors, sites and thresholds.
        states : mapping of site to float tensor of shape (tokens, width)
            Raw states of the sample's tokens, of which there is at least one, at the detector's sites.
        concepts : sequence of str, optional
            Default: all of the detector's.
        objectives : sequence of str

        Returns
        -------
        Objectives
            Columns in the order of the concepts, the objectives of a concept beside each other.

        Raises
        ------
        StudyError
            If a concept or objective is unknown.
        """
        wanted = detector.concepts if concepts is None else tuple(concepts)
        for name in wanted:
            if name not in detector.concepts:
                raise StudyError(f"unknown concept {name!r}; {allowed(name, detector.concepts)}")
        chosen: list[Objective] = [_objective(name) for name in objectives]
        if not wanted or not chosen or len(set(wanted)) < len(wanted) or len(set(chosen)) < len(chosen):
            raise StudyError(f"concepts {list(wanted)} under objectives {list(chosen)}; name at least one, each once")
        activations = detector.activations(states)
        place = [detector.concepts.index(name) for name in wanted]
        thresholds = np.array([detector.thresholds[c].value for c in place])
        scores = activations[:, place].astype(np.float64)
        fired = scores >= thresholds
        fallback = ~fired.any(axis=0)
        fired[scores.argmax(axis=0)[fallback], np.flatnonzero(fallback)] = True
        site_of = {name: bank.site for bank in detector.banks for name in bank.concepts}
        return Objectives(
            concepts=tuple(name for name in wanted for _ in chosen),
            objectives=tuple(chosen) * len(wanted),
            sites=tuple(site_of[name] for name in wanted for _ in chosen),
            readouts=_readouts(detector, states, wanted, chosen, fired),
            fired=np.repeat(fired, len(chosen), axis=1),
            fallback=np.repeat(fallback, len(chosen)),
        )

    def agreement(self, states: Mapping[str, Float[Tensor, "*batch d"]]) -> Float[Tensor, "*batch columns"]:
        """Agreement of every token with every column; can be differentiated.

        Parameters
        ----------
        states : mapping of site to float tensor of shape (..., width)
            Raw states.

        Returns
        -------
        float32 tensor of shape (..., columns)
        """
        parts: list[Tensor] = []
        columns: list[Int[np.ndarray, " some"]] = []
        shape = next(iter(states.values())).shape[:-1]
        for site, readout in self.readouts.items():
            scaled = readout.scaling.apply(states[site].reshape(-1, states[site].shape[-1]))
            if len(readout.concepts):
                parts.append(readout.bank.score(scaled))
                columns.append(readout.concepts)
            if len(readout.locals):
                parts.append(_along(scaled, readout.local, readout.bank.activation))
                columns.append(readout.locals)
        order = torch.from_numpy(np.argsort(np.concatenate(columns)))
        return torch.cat(parts, dim=-1)[:, order].reshape(*shape, self.n_columns)


def _objective(name: str) -> Objective:
    for known in OBJECTIVES:
        if name == known:
            return known
    raise StudyError(f"unknown objective {name!r}; {allowed(name, OBJECTIVES)}")


def _along(
    scaled: Float[Tensor, "rows d"], directions: Float[Tensor, "n d"], activation: Activation
) -> Float[Tensor, "rows n"]:
    """Projection on unit vectors, or the cosine."""
    along: Tensor = scaled @ directions.T
    if activation == "logit":
        return along
    return torch.div(along, torch.linalg.vector_norm(scaled, dim=1, keepdim=True).clamp_min(TINY))


def _readouts(
    detector: Detector,
    states: Mapping[str, Float[Tensor, "tokens d"]],
    wanted: Sequence[str],
    chosen: Sequence[Objective],
    fired: Bool[np.ndarray, "tokens c"],
) -> dict[str, Readout]:
    step, result = len(chosen), {}
    for bank in detector.banks:
        names = [name for name in wanted if name in bank.concepts]
        if not names:
            continue
        numbers = np.array([wanted.index(name) for name in names], dtype=np.int64)
        weights = torch.from_numpy(fired[:, numbers].astype(np.float32))
        means = (weights / weights.sum(dim=0)).T @ bank.scaling.apply(states[bank.site])
        with_concept = numbers * step + chosen.index("concept") if "concept" in chosen else numbers[:0]
        with_local = numbers * step + chosen.index("superactivators") if "superactivators" in chosen else numbers[:0]
        result[bank.site] = Readout(
            bank=bank.subset([bank.concepts.index(name) for name in names]),
            local=torch.nn.functional.normalize(means, dim=1)[: len(with_local)],
            concepts=with_concept,
            locals=with_local,
        )
    return result
