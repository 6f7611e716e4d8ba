"""The card of a detector: what a user must know before relying on it, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from superactivators.detection.lengths import exact_bounds
from superactivators.detection.thresholds import Threshold

COLUMNS = (
    "concept",
    "layer",
    "δ",
    "threshold",
    "95 % interval",
    "evidence",
    "prevalence",
    "precision",
    "recall",
    "F1",
    "false-alarm rate",
    "on cal",
    "n",
)


def evidence_words(threshold: Threshold) -> str:
    """Say what makes a concept count as present, such as ``"3 tokens in one segment"``."""
    if threshold.min_tokens == 1:
        return "any token"
    return f"{threshold.min_tokens} tokens" + (" in one segment" if threshold.within == "segment" else "")


def _cal_rate(counts: Mapping[str, Any] | None) -> str:
    """False-alarm rate on cal with its exact interval."""
    if not counts or not counts["negatives"]:
        return "–"
    alarms, negatives = np.array(counts["false_positives"]), np.array(counts["negatives"])
    low, high = exact_bounds(alarms, negatives)
    return f"{alarms / negatives:.3f} [{float(low):.3f}, {float(high):.3f}]"


def render_card(
    kind: str, dtype: str, thresholds: Sequence[Threshold], model: Mapping[str, Any], card: Mapping[str, Any]
) -> str:
    """Write the README of a detector bundle; arguments as the attributes of `Detector`."""
    name = model.get("name", "states from arrays")
    lines = [
        "# Concept detector",
        "",
        f"SuperActivator detectors of {len(thresholds)} concepts on `{name}`.",
        "A concept is present when the activations of as many tokens as its evidence asks for reach its threshold.",
        "",
        f"- Concept vectors: `{kind}`; states rounded to {dtype}",
        "- Thresholds: quantiles of in-concept activations on the cal split, chosen by F1 on cal",
    ]
    if any(threshold.within == "segment" for threshold in thresholds):
        lines.append("- One segment: a sentence, or patches that touch at a side or corner")
    if card.get("token_labels") is False:
        lines.append(
            "- No token was labelled: vectors and thresholds take all tokens of positive samples for the concept"
        )
    if card.get("max_fpr") is not None:
        lines.append(
            f"- Chosen among those whose false-alarm rate on cal is at most {card['max_fpr']:g} "
            "(one-sided 95 % Clopper-Pearson bound of each)"
        )
    lines += [
        f"- Model fingerprint: `{model.get('fingerprint', 'unknown')}`",
        f"- Data: {card.get('data', 'unknown')}; fingerprint `{card.get('data_fingerprint', 'unknown')}`",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
    ]
    for threshold in thresholds:
        row = card.get("test", {}).get(threshold.concept, {})
        figures = [row.get(name) for name in ("prevalence", "precision", "recall", "f1", "fpr")]
        shown = " | ".join("–" if figure is None else f"{figure:.3f}" for figure in figures)
        lines.append(
            f"| {threshold.concept} | {threshold.site} | {threshold.delta:g} | {threshold.value:.4f} "
            f"| {threshold.low:.4f} to {threshold.high:.4f} | {evidence_words(threshold)} | {shown} "
            f"| {_cal_rate(card.get('cal', {}).get(threshold.concept))} | {row.get('n', '–')} |"
        )
    lines += [
        "",
        "Figures are from the test split, which no choice has seen, except the false-alarm rate on cal: in brackets",
        "its exact 90 % interval, whose upper end is a one-sided 95 % bound. Since thresholds were chosen on cal, the",
        "rate on test is the honest one. Limits: the figures hold for inputs like those of the data set; with longer",
        "inputs detectors, above all those of any token, raise more false alarms; concepts that overlap in meaning",
        "fire together; a model with other weights needs a new calibration.",
        "",
    ]
    return "\n".join(lines)
