"""Checks of baselines: answers that nobody could read, and concepts that the words alone give away."""

from __future__ import annotations

import numpy as np

from superactivators.study.checks.check import Finding, check, counted, named, percent
from superactivators.study.checks.inputs import CheckInputs

UNPARSABLE = 0.01
"""Largest share of answers that may be neither yes nor no."""


@check("SA018", "answers to the prompt are neither yes nor no")
def unparsable(inputs: CheckInputs) -> Finding | None:
    """Share of a chat model's answers that count as no because they could not be read."""
    counts = inputs.prompt or {}
    questions, odd = int(counts.get("questions", 0)), int(counts.get("unparsable", 0))
    if not questions or odd <= UNPARSABLE * questions:
        return None
    return Finding(
        f"{counted(odd, 'answer')} of {questions:,} to the prompt ({percent(odd / questions)}) are neither yes nor no "
        "and count as no, which lowers its recall. Read them in prompt/answers.jsonl; ask for one word, or allow more "
        "tokens.",
        odd / questions,
        UNPARSABLE,
    )


@check("SA019", "words alone do as well")
def lexical(inputs: CheckInputs) -> Finding | None:
    """Concepts that a bag of words finds on test at least as well as the method here."""
    words, ours = inputs.chosen("test", "input", "bag-of-words"), inputs.chosen("test")
    if words is None or ours is None or inputs.method == "bag-of-words":
        return None
    lead = (words["f1"] - ours["f1"]).astype(np.float64)
    concerned = tuple(
        inputs.concepts[c] for c in np.argsort(-lead, kind="stable") if lead[c] >= 0 and words["f1"][c] > 0
    )
    if not concerned:
        return None
    worst = inputs.concepts.index(concerned[0])
    return Finding(
        f"A bag of words does as well as {inputs.method} on test, or better, for {len(concerned)} of "
        f"{counted(len(lead), 'concept')} ({named(concerned)}; {concerned[0]}: F1 {words['f1'][worst]:.2f} against "
        f"{ours['f1'][worst]:.2f}). These concepts may be lexical: do not read a finding of the model into them.",
        lead[worst],
        0,
        concerned,
    )
