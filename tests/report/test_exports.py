"""Exported tables: every number is that of the result tables, bold follows cal, and nothing is overwritten."""

from __future__ import annotations

import copy
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from superactivators.detection.lengths import ALL
from superactivators.errors import StoreError, StudyError
from superactivators.report.cells import BEST, MISSING, Cell, Column, Table
from superactivators.report.exports import cross_tables, export_tables, kinds_table, methods_table, write_tables
from superactivators.report.inputs import ReportInputs
from superactivators.report.recorded_tables import ORACLE, arrow_table
from superactivators.report.study_results import StudyTables
from superactivators.report.study_tables import NO_VECTORS, NOT_ESTIMABLE, study_tables


def with_fields(result: Any, **fields: Any) -> Any:
    """Copy a result with other content, whether or not it has such a field by itself."""
    clone = copy.copy(result)
    for name, value in fields.items():
        object.__setattr__(clone, name, value)
    return clone


def bare(inputs: ReportInputs) -> StudyTables:
    """A study without the tables that are optional."""
    return StudyTables(with_fields(inputs.result, comparisons=None, lengths=None, oracle=None), inputs.result.summary)


@pytest.fixture(scope="module")
def study(text_study: ReportInputs) -> StudyTables:
    return bare(text_study)


@pytest.fixture(scope="module")
def pictures(image_study: ReportInputs) -> StudyTables:
    return bare(image_study)


def changed(table: pa.Table, change: Any) -> pa.Table:
    """Rows as ``change`` gives them; it may return several for each."""
    return pa.Table.from_pylist([new for row in table.to_pylist() for new in change(row)], schema=None)


def with_probe(study: StudyTables) -> StudyTables:
    """Add a kindless method: the numbers of ``mean`` vectors with ``last``, under a name of its own."""

    def twice(row: dict[str, Any]) -> list[dict[str, Any]]:
        is_source = (row["kind"], row["method"]) == ("mean", "last")
        return [row, {**row, "kind": "probe", "method": "attention"}] if is_source else [row]

    tables = {name: changed(getattr(study.result, name), twice) for name in ("metrics", "curves", "aggregates")}
    summary = copy.deepcopy(dict(study.summary))
    for name in ("weighted_f1", "macro_f1", "cal_weighted_f1", "chosen"):
        summary[name] = {"probe": {"attention": summary[name]["mean"]["last"]}, **summary[name]}
    return StudyTables(with_fields(study.result, **tables, summary=summary), summary)


def named(study: StudyTables) -> dict[str, Table]:
    return {table.name: table for table in study_tables(study)}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def number(text: str) -> float | None:
    return float(text) if text else None


def bold(table: Table) -> list[tuple[int, str]]:
    """Row and column of every best cell."""
    return [
        (place, column.name)
        for place, row in enumerate(table.rows)
        for column, cell in zip(table.columns, row, strict=True)
        if cell.best
    ]


@pytest.fixture(scope="module")
def folder(study: StudyTables, pictures: StudyTables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    export_tables({"planted texts": study, "pictures": pictures}, out)
    return out


def test_every_format_of_every_table_is_written_and_listed(folder: Path) -> None:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    names = {"methods", "methods-macro", "kinds", "kinds-best-method"}
    own = {"layers", "deltas", "deltas-best-layer", "concepts", "best-layers", "comparisons"}
    names |= {f"{place}/{name}" for place in ("planted-texts", "pictures") for name in own}
    assert names <= {file.removesuffix(".csv") for file in files}
    assert files == {"README.md"} | {
        f"{file.rsplit('.', 1)[0]}.{ending}" for file in files - {"README.md"} for ending in ("csv", "md", "tex")
    }
    index = (folder / "README.md").read_text("utf-8")
    assert all(f"]({file})" in index for file in files - {"README.md"})


@pytest.mark.parametrize(("file", "entry"), [("methods", "weighted_f1"), ("methods-macro", "macro_f1")])
def test_methods_by_data_set_are_the_summaries(
    file: str, entry: str, folder: Path, study: StudyTables, pictures: StudyTables
) -> None:
    rows = read(folder / f"{file}.csv")
    for name, held in (("planted texts", study), ("pictures", pictures)):
        expected = {
            (kind, method): (found["value"], found["low"], found["high"])
            for kind, by_method in held.summary[entry].items()
            for method, found in by_method.items()
        }
        found = {
            (row["kind"], row["method"]): tuple(number(row[part]) for part in (name, f"{name} low", f"{name} high"))
            for row in rows
        }
        assert found == expected


def test_bold_is_the_best_on_cal_once_a_column(folder: Path, study: StudyTables, pictures: StudyTables) -> None:
    rows = read(folder / "methods.csv")
    for name, held in (("planted texts", study), ("pictures", pictures)):
        scores = {
            (kind, method): value
            for kind, by_method in held.summary["cal_weighted_f1"].items()
            for method, value in by_method.items()
        }
        marked = [(row["kind"], row["method"]) for row in rows if row[f"{name} mark"] == BEST]
        assert len(marked) == 1
        assert scores[marked[0]] == max(scores.values())


def test_bold_does_not_look_at_test(study: StudyTables) -> None:
    def spoiled(row: dict[str, Any]) -> list[dict[str, Any]]:
        flipped = {name: 1 - row[name] for name in row if name in ("f1", "weighted_f1", "macro_f1", "micro_f1")}
        return [{**row, **flipped}] if row["split"] == "test" else [row]

    tables = {name: changed(getattr(study.result, name), spoiled) for name in ("metrics", "curves", "aggregates")}
    summary = copy.deepcopy(dict(study.summary))
    for average in ("weighted_f1", "macro_f1", "micro_f1"):
        for by_method in summary.get(average, {}).values():
            for estimate in by_method.values():
                estimate["value"] = 1 - estimate["value"]
    other = StudyTables(with_fields(study.result, **tables, summary=summary), summary)
    for one, two in zip(
        [*cross_tables({"x": study}), *study_tables(study)],
        [*cross_tables({"x": other}), *study_tables(other)],
        strict=True,
    ):
        assert bold(one) == bold(two), one.name
        if not one.name.startswith(("comparisons", "lengths")):
            assert bold(one), one.name
            assert one.csv_rows() != two.csv_rows(), one.name


def test_kinds_take_superactivators_or_the_best_method_on_cal(folder: Path, study: StudyTables) -> None:
    for row in read(folder / "kinds.csv"):
        expected = study.summary["weighted_f1"][row["kind"]]["superactivators"]
        assert number(row["planted texts"]) == expected["value"]
    for row in read(folder / "kinds-best-method.csv"):
        on_cal = study.summary["cal_weighted_f1"][row["kind"]]
        method = row["planted texts mark"].split("; ")[-1]
        assert on_cal[method] == max(on_cal.values())
        assert number(row["planted texts"]) == study.summary["weighted_f1"][row["kind"]][method]["value"]


def test_layers_are_the_aggregates(folder: Path, study: StudyTables) -> None:
    found = {(row["layer"], row["method"]): row for row in read(folder / "planted-texts" / "layers.csv")}
    expected = [
        row for row in study.result.aggregates.to_pylist() if row["split"] == "test" and row["site"] != "chosen"
    ]
    kinds = {row["kind"] for row in expected}
    assert len(expected) == len(kinds) * len(found)
    for row in expected:
        assert number(found[row["site"], row["method"]][row["kind"]]) == row["weighted_f1"]
    for kind in kinds:
        cal = {
            (row["site"], row["method"]): row["weighted_f1"]
            for row in study.result.aggregates.to_pylist()
            if row["split"] == "cal" and row["site"] != "chosen" and row["kind"] == kind
        }
        marked = [place for place, row in found.items() if row[f"{kind} mark"] == BEST]
        assert len(marked) == 1
        assert cal[marked[0]] == max(cal.values())


def weighted_curves(study: StudyTables, kind: str, split: str) -> dict[tuple[str, float], float]:
    """Plain loops over the curves of the SuperActivators."""
    rows = [row for row in study.result.metrics.to_pylist() if row["split"] == split and row["chosen"]]
    positives = {row["concept"]: row["n_positive"] for row in rows}
    sums: dict[tuple[str, float], float] = defaultdict(float)
    for row in study.result.curves.to_pylist():
        if (row["split"], row["kind"], row["method"]) == (split, kind, "superactivators"):
            sums[row["site"], row["delta"]] += row["f1"] * positives[row["concept"]]
    return {key: value / sum(positives.values()) for key, value in sums.items()}


@pytest.mark.parametrize("file", ["deltas", "deltas-best-layer"])
def test_deltas_are_weighted_means_of_the_curves(file: str, folder: Path, study: StudyTables) -> None:
    rows = read(folder / "planted-texts" / f"{file}.csv")
    assert [float(row["δ"]) for row in rows] == study.summary["deltas"]
    for kind in ("mean", "linear"):
        test, cal = (weighted_curves(study, kind, split) for split in ("test", "cal"))
        column = next(name for name in rows[0] if name.startswith(f"{kind} at ") and not name.endswith(" mark"))
        site = column.removeprefix(f"{kind} at ")
        best = max(value for (place, _), value in cal.items() if place == site)
        if file == "deltas":
            assert site == "block[2]"
        else:
            assert best == pytest.approx(max(cal.values()), abs=1e-12)
        for row in rows:
            assert float(row[column]) == pytest.approx(test[site, float(row["δ"])], abs=1e-12)
            if row[f"{column} mark"]:
                assert cal[site, float(row["δ"])] == pytest.approx(best, abs=1e-12)


def test_concepts_and_best_layers_are_the_metrics(folder: Path, study: StudyTables) -> None:
    metrics = {
        (row["split"], row["kind"], row["method"], row["concept"]): row
        for row in study.result.metrics.to_pylist()
        if row["chosen"]
    }
    rows = read(folder / "planted-texts" / "concepts.csv")
    assert len(rows) == len(study.kinds) * len(study.summary["concepts"])
    for row in rows:
        held = metrics["test", row["kind"], row["method"], row["concept"]]
        for column, name in {
            "positives": "n_positive",
            "prevalence": "prevalence",
            "F1": "f1",
            "F1 low": "f1_low",
            "F1 high": "f1_high",
            "precision": "precision",
            "recall": "recall",
            "AUROC": "auroc",
            "δ": "delta",
        }.items():
            assert number(row[column]) == held[name]
        assert row["layer"] == held["site"]
    rows = read(folder / "planted-texts" / "best-layers.csv")
    assert len(rows) == len(study.pairs) * len(study.summary["concepts"])
    for row in rows:
        pick = study.summary["chosen"][row["kind"]][row["method"]][row["concept"]]
        assert (row["layer"], float(row["δ"])) == (pick["site"], pick["delta"])
        for column, split in (("F1 on test", "test"), ("F1 on cal", "cal")):
            assert number(row[column]) == metrics[split, row["kind"], row["method"], row["concept"]]["f1"]
    for concept in study.summary["concepts"]:
        own = [row for row in rows if row["concept"] == concept]
        marked = [float(row["F1 on cal"]) for row in own if row["F1 on test mark"] == BEST]
        assert marked == [max(float(row["F1 on cal"]) for row in own)]


def test_without_a_table_of_comparisons_leads_come_from_the_summary(folder: Path, study: StudyTables) -> None:
    rows = read(folder / "planted-texts" / "comparisons.csv")
    assert len(rows) == 2 * (len(study.pairs) - len(study.kinds))
    for row in rows:
        entry = study.summary[f"{row['average']}_f1_minus_superactivators"][row["kind"]][row["method"]]
        name = "F1 minus superactivators"
        assert [number(row[part]) for part in (name, f"{name} low", f"{name} high")] == list(entry.values())


def test_markdown_and_latex_hold_the_same_numbers_as_csv(folder: Path, study: StudyTables) -> None:
    places = [(folder, table) for table in cross_tables({"planted texts": study})]
    places += [(folder / "planted-texts", table) for table in study_tables(study)]
    for place, table in places:
        texts = [(place / f"{table.name}.{ending}").read_text("utf-8") for ending in ("md", "tex")]
        for row in table.rows:
            for column, cell in zip(table.columns, row, strict=True):
                if isinstance(cell.value, float):
                    shown = column.number(cell)
                    assert shown in texts[0]
                    assert shown.replace("−", "$-$") in texts[1]


def test_kinds_without_vectors_come_once(study: StudyTables) -> None:
    probed = with_probe(study)
    methods = methods_table({"x": probed}).text_rows()
    assert [row[:2] for row in methods].count(("probe", "attention")) == 1
    assert methods[-1][:2] == ("probe", "attention"), "vector kinds come first"
    tables = named(probed)
    layers = tables["layers"]
    assert layers.headers == ("layer", "method", *study.kinds, NO_VECTORS)
    own = {row[0]: row for row in layers.text_rows() if row[1] == "attention"}
    last = {row[0]: row for row in layers.text_rows() if row[1] == "last"}
    assert list(own) == list(last)
    for site, row in own.items():
        assert set(row[2:-1]) == {MISSING}
        assert row[-1].rstrip("*") == last[site][2].rstrip("*")
        assert last[site][-1] == MISSING
    concepts = [row for row in tables["concepts"].text_rows() if row[0] == "probe"]
    assert [row[1] for row in concepts] == ["attention"] * len(study.summary["concepts"])
    assert not any("probe" in name for name in tables["deltas"].headers)
    (cell,) = [row[1] for row in kinds_table({"x": probed}).rows if row[0].value == "probe"]
    assert cell.mark == "attention"
    assert cell.value == study.summary["weighted_f1"]["mean"]["last"]["value"]


def test_studies_without_a_method_or_kind_leave_its_cells_empty(study: StudyTables) -> None:
    table = methods_table({"plain": study, "probed": with_probe(study)})
    (row,) = [row for row in table.rows if row[0].value == "probe"]
    assert row[2].value is None
    assert row[3].value is not None


def test_concepts_that_are_not_estimable_say_so_beside_the_value(study: StudyTables) -> None:
    doubtful = study.summary["concepts"][0]

    def flagged(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "estimable": row["concept"] != doubtful, "unit": 7 if row["kind"] == "mean" else None}]

    metrics = changed(study.result.metrics, flagged)
    result = with_fields(study.result, metrics=metrics)
    plain, tables = named(study), named(StudyTables(result, study.summary))
    for name, column in (("concepts", "F1"), ("best-layers", "F1 on test")):
        for row, before in zip(tables[name].as_dict()["rows"], plain[name].as_dict()["rows"], strict=True):
            none = row["concept"] == doubtful
            assert (NOT_ESTIMABLE in row[f"{column} mark"]) == none
            assert [row[f"{column} {end}"] is None for end in ("low", "high")] == [none] * 2
            assert row[column] == before[column]
        assert any("Not estimable" in note for note in tables[name].notes)
        assert not any("Not estimable" in note for note in plain[name].notes)
    for row in tables["concepts"].as_dict()["rows"]:
        assert row["unit"] == (7 if row["kind"] == "mean" else None)


def test_kinds_that_mix_others_name_the_vectors(study: StudyTables) -> None:
    def mixed(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "vectors": "mean" if row["concept"] == "joy" else row["kind"]}]

    result = with_fields(study.result, metrics=changed(study.result.metrics, mixed))
    rows = named(StudyTables(result, study.summary))["concepts"].as_dict()["rows"]
    assert {(row["kind"], row["concept"]): row["vectors"] for row in rows}["linear", "joy"] == "mean"
    assert {(row["kind"], row["concept"]): row["vectors"] for row in rows}["linear", "fear"] == "linear"
    alone = with_fields(
        study.result, metrics=changed(study.result.metrics, lambda row: [{**row, "vectors": row["kind"]}])
    )
    assert "vectors" not in named(StudyTables(alone, study.summary))["concepts"].headers


def test_micro_f1_is_a_table_where_it_was_recorded(study: StudyTables) -> None:
    plain = study.result.aggregates
    kept = plain.drop_columns("micro_f1") if "micro_f1" in plain.column_names else plain
    summary = {name: value for name, value in study.summary.items() if name != "micro_f1"}
    without = StudyTables(with_fields(study.result, aggregates=kept, summary=summary), summary)
    assert "methods-micro" not in [table.name for table in cross_tables({"x": without})]
    held = kept.append_column("micro_f1", pa.array(np.linspace(0, 1, kept.num_rows)))
    table = methods_table({"x": StudyTables(with_fields(without.result, aggregates=held), summary)}, "micro")
    rows = {(r["kind"], r["method"], r["split"]): r for r in held.to_pylist() if r["site"] == "chosen"}
    best = max((row["micro_f1"], pair) for pair, row in rows.items() if pair[2] == "cal")
    for kind, method, cell in table.rows:
        assert cell.value == rows[kind.value, method.value, "test"]["micro_f1"]
        assert cell.low is None
        assert cell.best == ((kind.value, method.value) == best[1][:2])


def test_recorded_tables_are_laid_out_as_they_are(study: StudyTables) -> None:
    oracle = pa.table(
        {
            "kind": ["kmeans", "kmeans"],
            "chosen": [True, False],
            "concept": ["joy", "joy"],
            "unit": [3, 4],
            "f1": [0.5, 0.2],
            "f1_low": [0.4, 0.1],
            "f1_high": [0.6, 0.3],
        }
    )
    lengths = pa.table(
        {
            "kind": ["mean", "mean"],
            "concept": [ALL, "joy"],
            "low": [1, 1],
            "high": [9, 9],
            "fpr": [0.25, 0.5],
            "fpr_low": [0.125, None],
            "fpr_high": [0.5, None],
        }
    )
    comparisons = pa.table(
        {
            "quantity": ["average", "concept"],
            "name": ["weighted", "joy"],
            "a": ["mean max", "mean max"],
            "b": ["mean superactivators", "mean superactivators"],
            "difference": [-0.25, -0.5],
            "low": [-0.5, float("nan")],
            "high": [0.125, float("nan")],
            "p": [0.03125, float("nan")],
            "p_holm": [0.0625, float("nan")],
            "n_compared": [2, 0],
            "paired": [True, True],
            "estimable": [True, False],
        }
    )
    tables = named(
        StudyTables(with_fields(study.result, oracle=oracle, lengths=lengths, comparisons=comparisons), study.summary)
    )
    assert tables["oracle"].headers == ("kind", "concept", "unit", "F1")
    assert tables["oracle"].text_rows() == [("kmeans", "joy", "3", f".500 [.400, .600] ({ORACLE})")]
    assert ORACLE in tables["oracle"].notes[0]
    assert tables["lengths"].as_dict()["rows"] == [
        {"kind": "mean", "tokens from": 1, "tokens to": 9, "FPR": 0.25, "FPR low": 0.125, "FPR high": 0.5}
    ]
    shown = ("a", "b", "a minus b", "p", "p (Holm)", "compared", "estimable")
    assert tables["comparisons"].headers == ("average", *shown)
    names = ("mean max", "mean superactivators")
    assert tables["comparisons"].text_rows() == [
        ("weighted", *names, "−.250 [−.500, +.125]", "0.0312", "0.0625", "2", "yes")
    ]
    assert tables["comparisons-concepts"].headers == ("concept", *shown)
    assert tables["comparisons-concepts"].text_rows() == [("joy", *names, "−.500", MISSING, MISSING, "0", "no")]
    empty = study_tables(StudyTables(with_fields(study.result, oracle=oracle.slice(0, 0)), study.summary))
    assert "oracle" not in [table.name for table in empty]
    assert arrow_table("x", "", None, ()) is None


def test_exports_refuse_what_they_cannot_do(study: StudyTables, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study given; name at least one"):
        export_tables({}, tmp_path)
    with pytest.raises(StudyError, match=r"'a b' and 'A-b' would share the folder 'A-b'; give other names"):
        export_tables({"a b": study, "A-b": study}, tmp_path)
    with pytest.raises(StudyError, match="unknown table format 'html'"):
        export_tables({"a": study}, tmp_path, ["html"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "README.md").write_text("# Mine\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"README\.md: is no index of ours and would be replaced"):
        export_tables({"a": study}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file.*cannot be (written|read)"):
        export_tables({"a": study}, tmp_path / "file")


def test_writing_again_replaces_and_takes_only_the_wanted_formats(tmp_path: Path) -> None:
    table = Table("t", "T", (Column("x"),), ((Cell(1),),))
    files = write_tables({"One": ("", [table]), "Two": ("sub", [table])}, tmp_path, ["md", "md"])
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["README.md", "t.md", "sub/t.md"]
    before = [path.read_bytes() for path in files]
    assert write_tables({"One": ("", [table]), "Two": ("sub", [table])}, tmp_path, ["md"]) == files
    assert [path.read_bytes() for path in files] == before
