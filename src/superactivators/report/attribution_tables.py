"""The printed tables of attribution: explainers by objective and measure, differences, mixtures, sanity checks."""

from __future__ import annotations

from superactivators.attribution.objectives import OBJECTIVES
from superactivators.attribution.results import AttributionResult
from superactivators.report.attributions import explainer_label, measure_label
from superactivators.report.cells import Cell, Column, Table
from superactivators.report.recorded_tables import arrow_table

HEADLINE = ("token_f1", "insertion", "deletion")
"""Measures of the paper's figure on attribution."""

CASES = "Brackets hold 95 % intervals by test sample, thresholds on maps fixed; averages over concepts by their cases."


def attribution_tables(result: AttributionResult | None) -> list[Table | None]:
    """Make every table of attribution; none without a result."""
    if result is None:
        return []
    aggregates = result.aggregates
    measures = list(dict.fromkeys(aggregates["measure"].to_pylist()))
    further = [name for name in measures if name not in HEADLINE]
    return [
        measures_table("attribution", "Attribution by explainer and objective", result, HEADLINE),
        measures_table(
            "attribution-measures", "Attribution by explainer and objective: other measures", result, further
        ),
        arrow_table(
            "attribution-differences",
            "Attribution: SuperActivators objective minus concept objective",
            result.comparisons,
            ("Paired on the same cases; p is of a two-sided bootstrap test, Holm's correction is over explainers.",),
            signed=("difference",),
            names={"p_holm": "p (Holm)"},
        ),
        arrow_table("attribution-concepts", "Attribution by concept", result.concepts, (CASES,)),
        arrow_table(
            "attribution-hybrid",
            "Activation maps of α · concept vector + (1 − α) · SuperActivators",
            result.hybrid,
            (CASES, "δ is the median over concepts."),
            names={"alpha": "α", "token_f1": "token F1", "delta": "δ"},
        ),
        arrow_table(
            "attribution-sanity",
            "Rank correlation of maps with those of random vectors and of a random model",
            result.sanity.rename_columns(
                ["value" if name == "correlation" else name for name in result.sanity.column_names]
            ),
            ("Near 1, a map does not depend on what was replaced.",),
            names={"value": "rank correlation"},
        ),
    ]


def measures_table(name: str, title: str, result: AttributionResult, measures: tuple[str, ...] | list[str]) -> Table:
    """Measures of every explainer, the objectives beside each other; references have one value for both.

    Parameters
    ----------
    name, title : str
    result : AttributionResult
    measures : sequence of str
    """
    found = {(row["explainer"], row["objective"], row["measure"]): row for row in result.aggregates.to_pylist()}
    explainers = list(dict.fromkeys(explainer for explainer, _, _ in found))
    columns = [
        Column(f"{measure_label(measure)}, {objective}", interval=True)
        for measure in measures
        for objective in OBJECTIVES
    ]
    rows = []
    for explainer in explainers:
        cells = []
        for measure in measures:
            for objective in OBJECTIVES:
                reference = found.get((explainer, "none", measure))
                row = found.get((explainer, objective, measure), reference)
                cells.append(Cell(None) if row is None else Cell.of(row))
        rows.append((Cell(explainer_label(explainer)), *cells))
    notes = (
        CASES,
        "Less is better for deletion. A map that does not beat (all tokens) and (random), which need no explainer, "
        "shows nothing.",
    )
    return Table(name, title, (Column("explainer", text=True), *columns), tuple(rows), notes)
