"""How alike the states of a sample's tokens are: cosines of a few examples, by a fixed rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superactivators.analysis.errors import token_shares
from superactivators.analysis.tokens import carried_tokens
from superactivators.models.encoding import Encoding
from superactivators.scores.site_scores import SiteScores
from superactivators.states.scaling import Scaling
from superactivators.states.states import States, StateValues
from superactivators.states.store import StateStore

EXAMPLES = 4
MOST_TOKENS = {"text": 64, "image": 256}
"""Most tokens of an example: those nearest to the one that fires most."""


@final
@dataclass(frozen=True, eq=False)
class PairPlan:
    """Which concepts are looked at, all at one layer.

    Attributes
    ----------
    kind, site : str
    columns : sequence of int
        Concepts whose chosen layer this is, the best on cal first.
    thresholds : float64 array of shape (concepts,)
        Of all concepts.
    """

    kind: str
    site: str
    columns: Sequence[int]
    thresholds: Float[np.ndarray, " c"]


def typical_hits(
    scores: Float[np.ndarray, "n c"],
    hits: Bool[np.ndarray, "n c"],
    ids: Sequence[str],
    columns: Sequence[int],
    most: int = EXAMPLES,
) -> list[tuple[int, int]]:
    """Choose samples to show: in turn a hit of each concept, the one in the middle of its scores first.

    Parameters
    ----------
    scores : float array of shape (samples, concepts)
    hits : bool array of shape (samples, concepts)
        Samples that may stand for a concept.
    ids : sequence of str
        Of the samples; they settle ties, so that the order of samples does not matter.
    columns : sequence of int
        Concepts, in turn.
    most : int

    Returns
    -------
    list of (sample, concept)
        No sample twice.
    """
    queues = []
    for column in columns:
        rows = sorted(np.flatnonzero(hits[:, column]).tolist(), key=lambda row: (float(scores[row, column]), ids[row]))
        middle = (len(rows) - 1) // 2
        queues.append([rows[place] for place in sorted(range(len(rows)), key=lambda place: abs(place - middle))[:most]])
    found: dict[int, int] = {}
    for turn in range(most):
        for column, queue in zip(columns, queues, strict=True):
            # a sample that stands for an earlier concept already is passed over
            if turn < len(queue) and len(found) < most:
                found.setdefault(queue[turn], column)
    return list(found.items())


def nearest(places: Int[np.ndarray, "tokens axes"], centre: int, most: int) -> Int[np.ndarray, " some"]:
    """Give the tokens nearest to one of them.

    Parameters
    ----------
    places : int array of shape (tokens, axes)
        Number in the text, or row and column on the patch grid.
    centre : int
        Number of the token in the middle.
    most : int

    Returns
    -------
    int64 array of shape (some,)
        Their numbers, going up; of equally near ones the earlier.
    """
    distance = ((places - places[centre]) ** 2).sum(axis=1)
    return np.sort(np.argsort(distance, kind="stable")[:most])


def cosines(rows: Float[Tensor, "tokens d"]) -> Float[np.ndarray, "tokens tokens"]:
    """Cosine of every pair of rows, float32; 0 for a row of zeros."""
    wide = rows.double()
    unit = torch.nn.functional.normalize(wide, dim=1, eps=torch.finfo(torch.float64).tiny)
    found = (unit @ unit.T).clamp(-1, 1).float().numpy()
    return np.asarray(found)


def pair_examples(
    states: States, scores: SiteScores, scaling: Scaling, plan: PairPlan, most: int = EXAMPLES
) -> dict[str, dict[str, Any]]:
    """Compare the scaled states of the tokens of a few test samples.

    Samples hold the concept, have a SuperActivator and a labelled in-concept token; see `typical_hits`. Only the tokens
    nearest to the highest one are compared (`MOST_TOKENS`).

    Parameters
    ----------
    states : States
    scores : SiteScores
        Of the plan's kind and layer.
    scaling : Scaling
        Of the vectors of this kind and layer.
    plan : PairPlan
    most : int

    Returns
    -------
    dict of str to dict
        By sample id, see `superactivators.analysis.results.AnalysisResult`; empty where nobody labelled tokens.
    """
    labels = states.labels
    if labels.tokens is None:
        return {}
    activations, rows, offsets = scores.of_split(labels, "test")
    test = labels.in_split("test")
    inside = carried_tokens(labels, rows)
    pooled = scores.pooled["max"][test]
    sized = ~np.isnan(token_shares(inside, offsets, labels.samples[test]))
    hits = sized & (pooled.astype(np.float64) >= plan.thresholds)
    encoding = states.values.encoding if isinstance(states.values, StateStore) else None
    found = {}
    for row, column in typical_hits(pooled, hits, [labels.ids[i] for i in test], plan.columns, most):
        begin, end = int(offsets[row]), int(offsets[row + 1])
        own = activations[begin:end, column]
        chosen = nearest(_places(encoding, int(test[row]), end - begin), int(own.argmax()), _most(encoding))
        found[labels.ids[test[row]]] = {
            "concept": labels.concepts[column],
            "kind": plan.kind,
            "site": plan.site,
            "rows": rows[begin:end][chosen],
            "tokens": chosen,
            "inside": inside[begin:end, [column]].toarray()[chosen, 0],
            "fired": own[chosen].astype(np.float64) >= plan.thresholds[column],
        }
    held = read_rows(states.values, plan.site, [example.pop("rows") for example in found.values()])
    for example, block in zip(found.values(), held, strict=True):
        example["cosine"] = cosines(scaling.apply(block))
    return found


def read_rows(values: StateValues, site: str, wanted: Sequence[Int[np.ndarray, " _"]]) -> list[Float[Tensor, "_ d"]]:
    """Read groups of states in one streamed pass, which ends with the last of them.

    Parameters
    ----------
    values : StateValues
    site : str
    wanted : sequence of int64 arrays
        Token numbers of each group.

    Returns
    -------
    list of float32 tensors of shape (some, width)
    """
    groups = [torch.empty(len(rows), values.width) for rows in wanted]
    missing = sum(len(rows) for rows in wanted)
    if not missing:
        return groups
    for first, block in values.blocks(site):
        for rows, group in zip(wanted, groups, strict=True):
            here = np.flatnonzero((rows >= first) & (rows < first + len(block)))
            group[torch.from_numpy(here)] = block[torch.from_numpy(rows[here] - first)].float()
            missing -= len(here)
        if not missing:
            break
    return groups


def _places(encoding: Encoding | None, sample: int, n_tokens: int) -> Int[np.ndarray, "tokens axes"]:
    """Row and column of each patch; numbers of text tokens, and where nothing else is known."""
    if encoding is None or encoding.grids is None or encoding.cells is None:
        return np.arange(n_tokens, dtype=np.int64)[:, None]
    start = int(encoding.offsets[sample])
    cells = encoding.cells[start : start + n_tokens].astype(np.int64)
    return np.stack(np.divmod(cells, int(encoding.grids[sample, 1])), axis=1)


def _most(encoding: Encoding | None) -> int:
    return MOST_TOKENS["text" if encoding is None else encoding.modality]
