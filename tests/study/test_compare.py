"""Studies side by side: small real ones, and planted resamples against plain loops."""

from __future__ import annotations

import copy
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import superactivators as sa
from report.planted import planted
from superactivators.errors import StoreError, StudyError
from superactivators.report.study_results import StudyTables
from superactivators.study.compare import BEST_KIND, Comparison, compare, compare_studies
from superactivators.study.finished import export_studies, open_studies
from superactivators.study.paired import NOT_STORED, Pairing, SharedResults
from tiny_models import build_checkpoint

KINDS = ["mean", "linear"]
METHODS = ["superactivators", "max", "mean"]


def run(checkpoint: Path, out: Path, **changes: Any) -> Any:
    base: dict[str, dict[str, Any]] = {
        "data": {"name": "passages", "size": 120, "min_positives": 3},
        "model": {"name": str(checkpoint)},
        "detection": {"resamples": 20, "methods": METHODS},
    }
    return sa.run_study({key: {**base.get(key, {}), **changes.get(key, {})} for key in {*base, *changes}}, out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four studies: all layers, the last layer alone, two concepts alone, two other concepts alone."""
    place = tmp_path_factory.mktemp("studies")
    model = build_checkpoint("bert", place / "bert")
    concepts = run(model, place / "all").summary["concepts"]
    run(model, place / "last", model={"layers": -1})
    run(model, place / "two", data={"concepts": concepts[:2]})
    run(model, place / "others", data={"concepts": concepts[2:4]}, concepts={"kinds": ["mean"]})
    return place


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text("utf-8"))


def rows_of(comparison: Comparison, name: str) -> list[dict[str, Any]]:
    return comparison.as_dict()["tables"][name]["rows"]


def test_methods_of_real_studies_are_their_summaries(folder: Path) -> None:
    found = compare_studies([folder / "all", folder / "last"])
    for entry, name in (("weighted_f1", "methods"), ("macro_f1", "methods-macro")):
        for study in ("all", "last"):
            expected = summary_of(folder / study)[entry]
            rows = [row for row in rows_of(found, name) if row[study] is not None]
            assert len(rows) == sum(len(by_method) for by_method in expected.values())
            for row in rows:
                parts = {"value": row[study], "low": row[f"{study} low"], "high": row[f"{study} high"]}
                assert parts == expected[row["kind"]][row["method"]]
    for row in rows_of(found, "studies"):
        summary = summary_of(folder / row["study"])
        assert row["best kind on cal"] == summary["best_kind_on_cal"]
        best = summary["weighted_f1"][summary["best_kind_on_cal"]]["superactivators"]
        assert row["weighted F1 on test"] == best["value"]


def test_settings_list_what_differs_and_nothing_else(folder: Path) -> None:
    rows = rows_of(compare_studies([folder / "all", folder / "last"]), "settings")
    assert rows == [{"entry": "[model] layers", "all": "all", "last": "-1"}]
    rows = rows_of(compare_studies([folder / "all", folder / "two"]), "settings")
    entries = [row["entry"] for row in rows]
    assert entries == ["data: fingerprint", "concepts", "[data] concepts"]
    assert rows[-1]["all"] is None
    assert rows[-1]["two"] == ", ".join(summary_of(folder / "two")["concepts"])
    same = compare_studies([folder / "all", folder / "all"], names=["one", "again"])
    assert rows_of(same, "settings") == []
    assert "Nothing differs" in same.overview[1].notes[0]


def test_differences_of_real_studies_are_second_minus_first(folder: Path) -> None:
    found = compare_studies([folder / "all", folder / "last"])
    first, second = (summary_of(folder / name) for name in ("all", "last"))
    assert [(item.state, item.why) for item in found.pairings] == [("paired", "")]
    rows = rows_of(found, "differences")
    for row in rows:
        entry = f"{row['average']}_f1"
        kinds = [s["best_kind_on_cal"] if row["kind"] == BEST_KIND else row["kind"] for s in (first, second)]
        one, other = (s[entry][kind][row["method"]]["value"] for s, kind in zip((first, second), kinds, strict=True))
        assert row["second minus first"] == pytest.approx(other - one, abs=1e-12)
        assert row["resamples"] == "paired"
        assert 0 < row["p"] <= row["p (Holm)"] <= 1
    common = [(kind, method) for kind in first["weighted_f1"] for method in first["weighted_f1"][kind]]
    extra = first["best_kind_on_cal"] != second["best_kind_on_cal"]
    assert len(rows) == 2 * (len(common) + extra)


def test_studies_of_the_same_samples_are_paired_on_shared_concepts_only_if_known(folder: Path) -> None:
    (found,) = compare_studies([folder / "all", folder / "two"]).pairings
    same_ids = "test_ids_fingerprint" in summary_of(folder / "all")
    assert found.state == ("paired" if same_ids else "unpaired")


def test_shared_concepts_alone_count_with_their_own_weights(folder: Path) -> None:
    found = compare_studies([folder / "all", folder / "two"])
    shared = summary_of(folder / "two")["concepts"]
    assert list(found.concepts) == shared
    studies = open_studies([folder / "all", folder / "two"])
    for row in rows_of(found, "methods"):
        for name, study in studies.items():
            chosen = study.chosen_rows()
            held_rows = [chosen[row["kind"], row["method"], concept] for concept in shared]
            f1, n = ([item[key] for item in held_rows] for key in ("f1", "n_positive"))
            assert row[name] == pytest.approx(np.average(f1, weights=n), abs=1e-12)
    assert any("Left out of all" in line for line in found.render())


def test_studies_without_a_shared_concept_are_only_listed(folder: Path) -> None:
    found = compare_studies([folder / "two", folder / "others"])
    assert [table.name for table in found.tables()] == ["studies", "settings"]
    assert found.render() == ["The studies share no concept, so their results are only listed."]
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["shared_concepts"] == []


def test_comparisons_are_written_in_all_formats(folder: Path, tmp_path: Path) -> None:
    found = compare_studies([folder / "all", folder / "last"])
    files = {path.name for path in found.write(tmp_path)}
    names = ("studies", "settings", "methods", "methods-macro", "differences", "differences-concepts")
    assert files == {"README.md", *(f"{name}.{ending}" for name in names for ending in ("csv", "md", "tex"))}
    with (tmp_path / "differences.csv").open(encoding="utf-8", newline="") as stream:
        for row, expected in zip(csv.DictReader(stream), rows_of(found, "differences"), strict=True):
            assert float(row["second minus first"]) == expected["second minus first"]
    json.dumps(found.as_dict(), allow_nan=False)


def test_tables_of_finished_studies_are_exported(folder: Path, tmp_path: Path) -> None:
    files = export_studies([folder / "all", folder / "two"], tmp_path, ["csv"])
    assert files[0] == tmp_path / "README.md"
    with (tmp_path / "methods.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name in ("all", "two"):
        expected = summary_of(folder / name)["weighted_f1"]
        for row in rows:
            assert float(row[name]) == expected[row["kind"]][row["method"]]["value"]


def test_folders_without_a_finished_study_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no finished study here"):
        compare_studies([folder / "all", tmp_path])
    with pytest.raises(StudyError, match="two studies or more; got 1"):
        compare_studies([folder / "all"])
    with pytest.raises(StudyError, match="no study given"):
        open_studies([])
    with pytest.raises(StudyError, match="2 studies but 1 names"):
        compare_studies([folder / "all", folder / "two"], names=["x"])
    with pytest.raises(StudyError, match="two studies would be called"):
        compare_studies([folder / "all", folder / "all"])
    half = shutil.copytree(folder / "two", tmp_path / "half")
    summary = summary_of(half)
    (half / "summary.json").write_text(json.dumps({**summary, "concepts": ["x"]}), encoding="utf-8")
    with pytest.raises(StoreError, match="of an earlier run"):
        open_studies([half])
    del summary["concepts"]
    (half / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    with pytest.raises(StoreError, match="lacks 'concepts'; run the study again"):
        open_studies([half])


def test_folders_of_one_name_are_told_apart_by_their_parents(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "two", tmp_path / "two")
    assert list(open_studies([folder / "two", tmp_path / "two"])) == [f"{folder.name}/two", f"{tmp_path.name}/two"]


R = 60


@pytest.fixture(scope="module")
def world() -> StudyTables:
    """A study in memory, without stored resamples."""
    result = copy.copy(planted("text", methods=METHODS, resamples=10).result)
    object.__setattr__(result, "resamples", {})
    return StudyTables(result, {**result.summary, "resamples": R})


def resampled(study: StudyTables, seed: int, *, draws_seed: int = 0, shift: float = 0.0, n: int = R) -> StudyTables:
    """Attach resamples: F1 shaken by a noise that equal ``draws_seed`` share, and by one of the study's own."""
    concepts = study.summary["concepts"]
    common, own = np.random.default_rng(draws_seed), np.random.default_rng([seed, 99])
    positives = common.integers(5, 40, size=(n, len(concepts)))
    noise = common.normal(0, 0.05, size=(n, len(concepts)))
    rows = study.chosen_rows()
    arrays_: dict[str, np.ndarray] = {"positives": positives.astype(np.float32)}
    for kind, method in study.pairs:
        f1 = np.array([rows[kind, method, concept]["f1"] for concept in concepts])
        shaken = f1 + shift + noise + own.normal(0, 0.01, size=noise.shape)
        arrays_[f"{kind}/{method}"] = shaken.astype(np.float32)
    result = copy.copy(study.result)
    object.__setattr__(result, "resamples", arrays_)
    marks = {"test_fingerprint": f"test {draws_seed}", "draws": {"seed": 0, "cal": 80, "test": 80}, "resamples": n}
    return StudyTables(result, {**study.summary, **marks})


def looped(first: StudyTables, second: StudyTables, pair: str, concepts: list[int], weighted: bool) -> list[float]:
    """Differences of averages, resample by resample, in plain Python."""
    out = []
    for r in range(R):
        averages = []
        for study in (first, second):
            stored = study.result.resamples
            top = bottom = 0.0
            for c in concepts:
                weight = float(stored["positives"][r, c]) if weighted else 1.0
                top += weight * float(stored[pair][r, c])
                bottom += weight
            averages.append(top / bottom)
        out.append(averages[1] - averages[0])
    return out


def looped_p(drawn: list[float], gain: float) -> float:
    centre = sum(drawn) / len(drawn)
    return (1 + sum(abs(value - centre) >= abs(gain) - 1e-12 for value in drawn)) / (1 + len(drawn))


def moved(study: StudyTables, gain: float) -> StudyTables:
    """The same study with a higher test F1 everywhere."""
    result = copy.copy(study.result)
    rows = [{**row, "f1": min(1.0, row["f1"] + gain)} for row in study.result.metrics.to_pylist()]
    object.__setattr__(result, "metrics", type(study.result.metrics).from_pylist(rows))
    return StudyTables(result, study.summary)


@pytest.mark.parametrize("average", ["weighted", "macro"])
def test_paired_differences_equal_plain_loops(world: StudyTables, average: str) -> None:
    first, second = resampled(world, 1), moved(resampled(world, 2), 0.004)
    found = compare({"a": first, "b": second})
    assert [(item.state, item.why) for item in found.pairings] == [("paired", "")]
    rows = [row for row in rows_of(found, "differences") if row["average"] == average]
    assert len(rows) == len(world.pairs)
    for row in rows:
        drawn = looped(first, second, f"{row['kind']}/{row['method']}", [0, 1, 2], average == "weighted")
        gain = row["second minus first"]
        assert gain == pytest.approx(0.004, abs=1e-12)
        assert row["p"] == pytest.approx(looped_p(drawn, gain))
        assert row["second minus first low"] < gain < row["second minus first high"]
        assert row["resamples"] == "paired"
    assert [row["p (Holm)"] for row in rows] == pytest.approx(looped_holm([row["p"] for row in rows]))


def test_differences_per_concept_equal_plain_loops(world: StudyTables) -> None:
    first, second = resampled(world, 1), moved(resampled(world, 2), 0.01)
    rows = rows_of(compare({"a": first, "b": second}), "differences-concepts")
    assert len(rows) == len(world.pairs) * 3
    for row in rows:
        column = world.summary["concepts"].index(row["concept"])
        drawn = looped(first, second, f"{row['kind']}/{row['method']}", [column], False)
        assert row["p"] == pytest.approx(looped_p(drawn, row["second minus first"]))
        assert row["second minus first low"] < row["second minus first"] < row["second minus first high"]
    assert [row["p (Holm)"] for row in rows] == pytest.approx(looped_holm([row["p"] for row in rows]))


def test_the_same_study_twice_does_not_differ(world: StudyTables) -> None:
    study = resampled(world, 1)
    for row in rows_of(compare({"a": study, "b": study}), "differences"):
        assert row["second minus first"] == 0
        assert row["second minus first low"] <= 0 <= row["second minus first high"]
        assert row["p"] == row["p (Holm)"] == 1


def test_turning_studies_around_turns_differences_around(world: StudyTables) -> None:
    first, second = resampled(world, 1), resampled(world, 2)
    one = rows_of(compare({"a": first, "b": second}), "differences")
    other = rows_of(compare({"b": second, "a": first}), "differences")
    for row, turned in zip(one, other, strict=True):
        assert row["second minus first low"] == pytest.approx(-turned["second minus first high"], abs=1e-12)
        assert row["p"] == pytest.approx(turned["p"])


def test_unpaired_intervals_are_wider_where_the_draws_are_shared(world: StudyTables) -> None:
    first, second = resampled(world, 1), resampled(world, 2)
    elsewhere = dict.fromkeys(("test_fingerprint", "test_ids_fingerprint"), "of other samples")
    other = StudyTables(second.result, {**second.summary, **elsewhere})
    paired, unpaired = compare({"a": first, "b": second}), compare({"a": first, "b": other})
    assert unpaired.pairings[0].state == "unpaired"
    for one, two in zip(rows_of(paired, "differences"), rows_of(unpaired, "differences"), strict=True):
        width = [row["second minus first high"] - row["second minus first low"] for row in (one, two)]
        assert width[1] > 1.5 * width[0]
        assert two["resamples"] == "unpaired"
    (table,) = [table for table in unpaired.tables() if table.name == "differences"]
    assert "a and b: unpaired (other test samples, labels or concepts)." in table.notes


@pytest.mark.parametrize(
    ("change", "state", "why"),
    [
        ({}, "paired", ""),
        ({"draws": {"seed": 1, "cal": 80, "test": 80}}, "unpaired", "other draws"),
        ({"draws": {"seed": 0, "cal": 81, "test": 80}}, "unpaired", "other draws"),
        ({"draws": None}, "unpaired", "other draws"),
        ({"test_fingerprint": "x"}, "unpaired", "other test samples"),
        ({"test_fingerprint": None}, "unpaired", "other test samples"),
        ({"test_fingerprint": None, "data": {"fingerprint": "same"}}, "paired", ""),
        ({"test_fingerprint": "x", "test_ids_fingerprint": "ids"}, "paired", ""),
        ({"resamples": 0}, "not stored", "b has no resamples"),
    ],
)
def test_pairing_needs_the_same_samples_and_draws(
    world: StudyTables, change: dict[str, Any], state: str, why: str
) -> None:
    first, second = (resampled(world, seed) for seed in (1, 2))
    first = StudyTables(first.result, {**first.summary, "data": {"fingerprint": "same"}, "test_ids_fingerprint": "ids"})
    second = StudyTables(second.result, {**second.summary, **change})
    (found,) = compare({"a": first, "b": second}).pairings
    assert found.state == state
    assert why in found.why


def test_equal_marks_with_other_positives_are_not_paired(world: StudyTables) -> None:
    first, second = resampled(world, 1), resampled(world, 2, draws_seed=5)
    second = StudyTables(second.result, {**second.summary, "test_fingerprint": first.summary["test_fingerprint"]})
    (found,) = compare({"a": first, "b": second}).pairings
    assert (found.state, found.why) == ("unpaired", "other labels: the positives of the resamples differ")


def test_other_numbers_of_resamples_are_compared_unpaired(world: StudyTables) -> None:
    found = compare({"a": resampled(world, 1), "b": resampled(world, 2, n=25)})
    assert found.pairings[0].state == "unpaired"
    assert all(row["p"] is not None for row in rows_of(found, "differences"))


def test_studies_of_before_say_that_nothing_was_stored(world: StudyTables) -> None:
    found = compare({"a": resampled(world, 1), "old": world})
    assert found.pairings == (Pairing("a", "old", "not stored", f"old: {NOT_STORED}"),)
    for name in ("differences", "differences-concepts"):
        for row in rows_of(found, name):
            assert row["second minus first"] is not None
            assert row["p"] is row["second minus first low"] is None
            assert row["resamples"] == f"old: {NOT_STORED}"
    assert any(NOT_STORED in line for line in found.render())


def test_a_method_that_is_not_stored_says_so_by_itself(world: StudyTables) -> None:
    first, second = resampled(world, 1), resampled(world, 2)
    del second.result.resamples["mean/max"]
    for row in rows_of(compare({"a": first, "b": second}), "differences"):
        missing = (row["kind"], row["method"]) == ("mean", "max")
        assert row["resamples"] == (NOT_STORED if missing else "paired")


def test_subsets_of_concepts_take_their_columns_of_the_resamples(world: StudyTables) -> None:
    study, concepts = resampled(world, 1), world.summary["concepts"]
    shared = SharedResults.of(study, [concepts[2], concepts[0]])
    rows = study.chosen_rows()
    for pair in study.pairs:
        series = shared.series(pair)
        np.testing.assert_array_equal(series.resampled, study.result.resamples["/".join(pair)][:, [2, 0]])
        np.testing.assert_array_equal(series.drawn, study.result.resamples["positives"][:, [2, 0]])
        held = [rows[*pair, concepts[place]] for place in (2, 0)]
        assert series.f1.tolist() == [row["f1"] for row in held]
        assert series.positives.tolist() == [row["n_positive"] for row in held]
        assert series.counted.tolist() == [row["tp"] + row["fp"] + row["fn"] for row in held]
        for number, average in enumerate(("weighted", "macro")):
            ends = [end[number] for end in series.quantities(("weighted", "macro")).ends]
            assert shared.interval(pair, average) == pytest.approx(tuple(ends))
    assert len(shared.series(study.pairs[0], stored=False).resampled) == 0


def test_findings_name_the_better_study(world: StudyTables) -> None:
    lines = compare({"a": resampled(world, 1), "b": moved(resampled(world, 2), 0.2)}).render()
    assert "a and b: paired." in lines
    assert sum("b is better" in line for line in lines) == len(world.kinds)


def looped_holm(p: list[float]) -> list[float]:
    """By the definition: the largest of (n - rank) p over all that are no larger."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    return [
        min(1.0, max((len(p) - rank) * p[other] for rank, other in enumerate(order[: order.index(k) + 1])))
        for k in range(len(p))
    ]
