"""Result tables that a study recorded, laid out for print as they are: comparisons, lengths, oracle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from superactivators.detection.lengths import ALL
from superactivators.detection.results import REFERENCE
from superactivators.report.cells import Cell, Column, Table
from superactivators.report.study_results import Pair, StudyTables
from superactivators.report.tables import selected

ORACLE = "oracle: matched on test"


def recorded_tables(study: StudyTables) -> list[Table | None]:
    """Comparisons, false alarms against length and the oracle match, as the study recorded them."""
    lengths = getattr(study.result, "lengths", None)
    if lengths is not None and "concept" in lengths.column_names:
        lengths = selected(lengths, concept=ALL).drop_columns("concept")
    matched = getattr(study.result, "oracle", None)
    if matched is not None and "chosen" in matched.column_names:
        matched = selected(matched, chosen=True).drop_columns("chosen")
    oracle = arrow_table(
        "oracle",
        "Units matched to concepts on test (oracle)",
        matched,
        (f"{ORACLE}: unit, layer and level of each concept are chosen with test labels; a bound, not a result.",),
        mark=ORACLE,
        names={"f1": "F1", "delta": "δ", "n_positive": "positives", "site": "layer"},
    )
    return [
        *(comparisons_tables(study) or [leads_table(study)]),
        arrow_table(
            "lengths",
            "False alarms against the length of inputs, all concepts together",
            lengths,
            ("Brackets hold 95 % Wilson intervals.", "A length AUROC above .5: false alarms are the longer inputs."),
            names={"low": "tokens from", "high": "tokens to", "fpr": "FPR", "length_auroc": "length AUROC"},
        ),
        oracle,
    ]


def comparisons_tables(study: StudyTables) -> list[Table | None]:
    """Paired differences as `superactivators.detection.comparisons.compare` gives them: averages, then concepts."""
    held = getattr(study.result, "comparisons", None)
    if held is None or not held.num_rows:
        return []
    tables = []
    for quantity, name, title in (
        ("average", "comparisons", "Paired differences of average test F1"),
        ("concept", "comparisons-concepts", "Paired differences of test F1, by concept"),
    ):
        rows = selected(held, quantity=quantity).drop_columns(["quantity", "paired"])
        tables.append(
            arrow_table(
                name,
                title,
                rows,
                (
                    "Brackets hold 95 % intervals, p is of a two-sided bootstrap test.",
                    "Holm's procedure corrects for as many as are compared; what is not estimable does not count.",
                ),
                signed=("difference",),
                names={"name": quantity, "difference": "a minus b", "p_holm": "p (Holm)", "n_compared": "compared"},
            )
        )
    return tables


def leads_table(study: StudyTables) -> Table | None:
    """Paired differences to the SuperActivators from the summary, for results without a table of comparisons."""
    content = []
    for average in ("weighted", "macro"):
        for kind, by_method in study.summary.get(f"{average}_f1_minus_{REFERENCE}", {}).items():
            for method, difference in by_method.items():
                content.append((Cell(average), Cell(kind), Cell(method), Cell.of(difference)))
    columns = (
        *(Column(name, text=True) for name in ("average", "kind", "method")),
        Column(f"F1 minus {REFERENCE}", interval=True, signed=True),
    )
    notes = ("Brackets hold 95 % intervals of the paired bootstrap, not corrected for their number.",)
    return Table("comparisons", "Paired differences of test F1", columns, tuple(content), notes)


def arrow_table(
    name: str,
    title: str,
    table: pa.Table | None,
    notes: Iterable[str],
    *,
    mark: str = "",
    signed: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
) -> Table | None:
    """Lay out a result table column by column; ``x_low`` and ``x_high`` become the interval of ``x``.

    Parameters
    ----------
    name, title : str
    table : pyarrow Table or None
    notes : iterable of str
    mark : str
        Remark on every F1.
    signed : iterable of str
        Columns shown with their sign.
    names : mapping of str to str, optional
        What to call columns; by default as they are, with blanks for underscores.
    """
    if table is None or not table.num_rows:
        return None
    held = table.column_names
    ends: dict[str, Pair] = {}
    for column in held:
        if column in ("low", "high") or column.endswith(("_low", "_high")):
            continue
        for prefix in (f"{column}_", ""):
            pair = (f"{prefix}low", f"{prefix}high")
            is_owner = prefix or column in ("value", "difference", "gain")
            if is_owner and set(pair) <= set(held) and pair not in ends.values():
                ends[column] = pair
                break
    taken = {end for pair in ends.values() for end in pair}
    shown = [column for column in held if column not in taken]
    columns = tuple(
        Column(
            (names or {}).get(column, column.replace("_", " ")),
            text=not _is_number(table.schema.field(column).type),
            interval=column in ends,
            places=None if column == "delta" or column == "p" or column.startswith("p_") else 3,
            signed=column in signed,
        )
        for column in shown
    )

    def cell(row: Mapping[str, Any], column: str) -> Cell:
        value = row[column]
        if isinstance(value, bool):
            return Cell("yes" if value else "no")
        low, high = ends.get(column, (None, None))
        estimated = {"value": value, "low": low and row[low], "high": high and row[high]}
        return Cell.of(estimated, mark if column == "f1" else "")

    rows = tuple(tuple(cell(row, column) for column in shown) for row in table.to_pylist())
    return Table(name, title, columns, rows, tuple(notes))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
