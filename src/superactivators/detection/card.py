"""The card of a detector: what a user must know before relying on it, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from superactivators.detection.thresholds import Threshold

COLUMNS = (
    "concept",
    "layer",
    "δ",
    "threshold",
    "95 % interval",
    "prevalence",
    "precision",
    "recall",
    "F1",
    "false-alarm rate",
    "n",
)


def render_card(
    kind: str, dtype: str, thresholds: Sequence[Threshold], model: Mapping[str, Any], card: Mapping[str, Any]
) -> str:
    """Write the README of a detector bundle; arguments as the attributes of `Detector`."""
    name = model.get("name", "states from arrays")
    lines = [
        "# Concept detector",
        "",
        f"SuperActivator detectors of {len(thresholds)} concepts on `{name}`.",
        "A concept is present when the activation of any token reaches its threshold.",
        "",
        f"- Concept vectors: `{kind}`; states rounded to {dtype}",
        "- Thresholds: quantiles of in-concept activations on the cal split, chosen by F1 on cal",
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
            f"| {threshold.low:.4f} to {threshold.high:.4f} | {shown} | {row.get('n', '–')} |"
        )
    lines += [
        "",
        "Figures are from the test split, which no choice has seen. Limits: they hold for inputs like those of the",
        "data set; with longer inputs any-token detection raises more false alarms; concepts that overlap in meaning",
        "fire together; a model with other weights needs a new calibration.",
        "",
    ]
    return "\n".join(lines)
