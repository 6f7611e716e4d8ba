"""Checks of errors: which samples are missed, and which raise false alarms."""

from __future__ import annotations

import numpy as np

from superactivators.detection.lengths import ALL
from superactivators.ragged import offsets_of, rows_of
from superactivators.study.checks.check import Finding, check, named, percent
from superactivators.study.checks.inputs import CheckInputs
from superactivators.study.checks.ranks import ranks_within
from superactivators.study.checks.samples import CONFOUNDED, SURE

LONGER = 0.6
"""Largest chance with which a false alarm may be longer than a true negative."""

ALARMS = 10
"""Fewest false alarms of a concept of which that is said."""


@check("SA007", "small objects and short spans are missed")
def size_confound(inputs: CheckInputs) -> Finding | None:
    """How well the number of in-concept tokens tells the positive test samples that are found from those missed."""
    labels, fires = inputs.states.labels, inputs.test_fires
    if labels.tokens is None or fires is None:
        return None
    test = labels.in_split("test")
    rows = rows_of(labels.offsets, test)
    bounds = offsets_of(np.diff(labels.offsets)[test])
    sums = np.concatenate([np.zeros((1, len(inputs.concepts))), np.cumsum(labels.tokens[rows].toarray(), axis=0)])
    sizes = sums[bounds[1:]] - sums[bounds[:-1]]
    positive = labels.samples[test] & (sizes > 0)
    auroc, errors = ranks_within(sizes, positive, fires)
    auroc = np.where(errors > SURE, auroc, 0.5)
    worst = int(auroc.argmax())
    if auroc[worst] <= CONFOUNDED:
        return None
    concerned = tuple(inputs.concepts[c] for c in np.flatnonzero(auroc > CONFOUNDED))
    own, found = sizes[positive[:, worst], worst], fires[positive[:, worst], worst]
    return Finding(
        f"What is missed is small: positive test samples of {inputs.concepts[worst]} that are found have a median of "
        f"{np.median(own[found]):.0f} in-concept tokens, missed ones {np.median(own[~found]):.0f} (AUROC "
        f"{auroc[worst]:.2f}; concerned: {named(concerned)}). Report recall by size, or use a higher resolution.",
        auroc[worst],
        CONFOUNDED,
        concerned,
    )


@check("SA015", "false alarms grow with length")
def longer_alarms(inputs: CheckInputs) -> Finding | None:
    """Tell the chance that a false alarm is longer than a true negative, over all concepts."""
    table = getattr(inputs.result, "lengths", None)
    if table is None or "length_auroc" not in table.column_names:
        return None
    rows = [row for row in table.to_pylist() if (row["kind"], row["method"]) == (inputs.kind, inputs.method)]
    together = [row for row in rows if row["concept"] == ALL and row["length_auroc"] is not None]
    if not together or together[0]["length_auroc"] <= LONGER:
        return None
    alarms: dict[str, int] = {}
    for row in rows:
        alarms[row["concept"]] = alarms.get(row["concept"], 0) + int(row["false_positives"])
    chance = {row["concept"]: row["length_auroc"] for row in rows if row["length_auroc"] is not None}
    concerned = tuple(
        name for name in inputs.concepts if chance.get(name, 0.0) > LONGER and alarms.get(name, 0) >= ALARMS
    )
    short, long = together[0], together[-1]
    return Finding(
        f"False alarms rise with length: {percent(short['fpr'])} of the concepts absent from test samples of "
        f"{short['low']} to {short['high']} tokens are reported, and {percent(long['fpr'])} of those absent from "
        f"samples of {long['low']} to {long['high']} tokens"
        f"{f' (concerned: {named(concerned)})' if concerned else ''}. Ask for evidence of several tokens "
        "(min-tokens, segment), or set thresholds for samples of the length in use.",
        together[0]["length_auroc"],
        LONGER,
        concerned,
    )
