"""The analysis stage of a study: what it writes, what it skips, and what tables show of it."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import superactivators as sa
from small_data import planted_images, planted_texts, write_texts
from superactivators.analysis.results import SCHEMAS, table_of
from superactivators.analysis.store import load_analysis
from superactivators.errors import StoreError
from superactivators.report.analysis_tables import MEASURES, analysis_tables, confusion_table
from superactivators.study import analysis as analysis_module
from superactivators.study import stages as stages_module
from superactivators.study.finished import open_studies
from superactivators.study.run import render_again
from tiny_models import build_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and texts."""
    root = tmp_path_factory.mktemp("analysed")
    build_checkpoint("bert", root / "bert")
    write_texts(root / "texts", planted_texts(72))
    return root


def settings(place: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    base: dict[str, Any] = {
        "data": {"path": str(place / "texts"), "min_positives": 1},
        "model": {"name": str(place / "bert")},
        "concepts": {"kinds": ["mean", "kmeans"], "clusters": 8},
        "detection": {"resamples": 0, "methods": ["superactivators", "max"]},
    }
    return {name: {**base.get(name, {}), **sections.get(name, {})} for name in {*base, *sections}}


@pytest.fixture(scope="module")
def study(place: Path) -> Any:
    return sa.run_study(settings(place), place / "study")


@pytest.fixture
def copy(study: Any, tmp_path: Path) -> Path:
    return shutil.copytree(study.folder, tmp_path / "copy")


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def never(*args: object, **kwargs: object) -> None:
    raise AssertionError("this work should have been skipped")


def same(one: Any, other: Any) -> None:
    assert all(getattr(one, name).equals(getattr(other, name)) for name in SCHEMAS)
    assert list(one.pairs) == list(other.pairs)
    for sample, held in one.pairs.items():
        for name, value in held.items():
            np.testing.assert_array_equal(value, other.pairs[sample][name])


def test_the_stage_writes_its_folder_and_a_summary(study: Any) -> None:
    found = load_analysis(study.folder / "analysis")
    same(found, open_studies([study.folder])["study"].analysis)
    sites, concepts = study.summary["model"]["sites"], study.summary["concepts"]
    assert found.separation.num_rows == found.histograms.num_rows == 2 * len(sites) * len(concepts)
    assert {row["kind"] for row in found.errors.to_pylist()} == {"mean", "kmeans"}
    entry = json.loads((study.folder / "summary.json").read_text("utf-8"))["analysis"]
    assert entry["pairs"] == list(found.pairs)
    assert entry["pairs"]
    for kind in ("mean", "kmeans"):
        picks = study.summary["chosen"][kind]["superactivators"]
        rows = [
            row
            for row in found.separation.to_pylist()
            if row["kind"] == kind and picks[row["concept"]]["site"] == row["site"]
        ]
        assert len(rows) == len(concepts)
        for name, value in entry["kinds"][kind].items():
            assert value == pytest.approx(np.mean([row[name] for row in rows if row[name] is not None]))
    assert study.summary["seconds"]["analysis"] > 0


def test_what_fires_is_what_detection_counted(study: Any) -> None:
    """Also for kinds whose units are matched to concepts, at every concept's own layer."""
    found = load_analysis(study.folder / "analysis")
    rows = [
        row
        for row in study.detection.metrics.to_pylist()
        if row["chosen"] and (row["split"], row["method"]) == ("test", "superactivators")
    ]
    states = sa.open_states(study.folder / "states")
    test = states.labels.in_split("test")
    for kind in ("mean", "kmeans"):
        counts = {row["concept"]: row for row in rows if row["kind"] == kind}
        for row in found.confusion.to_pylist():
            if row["kind"] == kind:
                absent = counts[row["absent"]]
                assert row["base"] == absent["fp"] / (absent["fp"] + absent["tn"])
        bins = [row for row in found.sizes.to_pylist() if row["kind"] == kind]
        # every positive text has labelled tokens here
        assert sum(row["n"] for row in bins) == sum(row["n_positive"] for row in counts.values())
        assert sum(row["n"] * row["recall"] for row in bins) == pytest.approx(sum(r["tp"] for r in counts.values()))
        lengths = [row for row in found.lengths.to_pylist() if row["kind"] == kind]
        assert sum(row["n"] for row in lengths) == len(test)


def test_a_second_run_analyses_nothing_and_changes_no_file(
    study: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stamps(study.folder)
    monkeypatch.setattr(analysis_module, "analyse", never)
    again = sa.run_study(settings(place), study.folder)
    assert again.summary == study.summary
    assert stamps(study.folder) == before


def test_other_levels_are_analysed_anew_without_the_model(
    copy: Path, study: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name in ((sa.Backbone, "capture"), (stages_module, "learn_concepts"), (stages_module, "score_tokens")):
        monkeypatch.setattr(owner, name, never)
    changed = settings(place, detection={"deltas": [0.1, 0.9]}, concepts={"kinds": ["mean"]})
    sa.run_study(changed, copy)
    found, before = (load_analysis(folder / "analysis") for folder in (copy, study.folder))
    assert set(found.best_deltas["delta"].to_pylist()) == {0.1, 0.9}
    assert set(found.separation["kind"].to_pylist()) == {"mean"}
    assert found.separation.equals(before.separation.slice(0, found.separation.num_rows))


@pytest.mark.parametrize("harm", ["damage", "remove"])
def test_a_damaged_or_missing_result_is_made_again(harm: str, copy: Path, study: Any, place: Path) -> None:
    table = copy / "analysis" / "errors.parquet"
    if harm == "remove":
        shutil.rmtree(copy / "analysis")
        assert open_studies([copy])["copy"].analysis is None
    else:
        content = bytearray(table.read_bytes())
        content[len(content) // 2] ^= 1
        table.write_bytes(content)
        with pytest.raises(StoreError, match="is damaged") as caught:
            open_studies([copy])
        assert "\n" not in str(caught.value)
    sa.run_study(settings(place), copy)
    same(load_analysis(copy / "analysis"), load_analysis(study.folder / "analysis"))


def test_the_report_is_written_again_from_the_stored_result(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis_module, "analyse", never)
    before = (copy / "report" / "index.html").read_bytes()
    assert render_again(copy).read_bytes() == before


def test_only_labels_of_samples_leave_the_tables_of_tokens_empty(copy: Path, place: Path) -> None:
    result = sa.run_study(settings(place, data={"supervision": "samples"}), copy)
    found = load_analysis(copy / "analysis")
    assert found.separation.num_rows == found.sparsity.num_rows == found.sizes.num_rows == 0
    assert found.confusion.num_rows > 0
    assert result.summary["analysis"]["kinds"]["mean"] == dict.fromkeys(analysis_module.SHOWN)
    assert result.summary["analysis"]["pairs"] == []
    names = {table.name for table in analysis_tables(found, result.summary) if table is not None and table.rows}
    assert names == {"layers-deltas", "best-deltas", "best-layers-counts", "errors", "lengths-recall"} | (
        names & {"confusion"}
    )


def test_without_token_methods_there_is_nothing_to_analyse(copy: Path, place: Path) -> None:
    result = sa.run_study(settings(place, detection={"methods": ["cls"]}), copy)
    found = load_analysis(copy / "analysis")
    assert not any(getattr(found, name).num_rows for name in SCHEMAS)
    assert found.pairs == {}
    assert result.summary["analysis"] == {"kinds": {}, "pairs": []}


def test_images_have_sizes_and_pairs_of_patches_but_no_lengths(tmp_path: Path) -> None:
    build_checkpoint("dinov2", tmp_path / "dinov2")
    data = planted_images(tmp_path / "images", 36)
    sections = {"data": {"path": str(data)}, "model": {"name": str(tmp_path / "dinov2"), "layers": [-1]}}
    study = sa.run_study(settings(tmp_path, **sections, concepts={"kinds": ["mean"]}), tmp_path / "study")
    found = load_analysis(study.folder / "analysis")
    assert found.lengths.num_rows == 0
    assert found.sizes.num_rows > 0
    assert found.pairs
    for held in found.pairs.values():
        assert held["cosine"].shape == (len(held["tokens"]),) * 2
        np.testing.assert_allclose(np.diag(held["cosine"]), 1, atol=1e-6)


def test_tables_are_printed(study: Any) -> None:
    (folder,) = (path for path in (study.folder / "tables").iterdir() if path.is_dir())
    printed = {path.stem for path in folder.glob("*.csv")}
    expected = {"distributions", "separation", "sparsity", "layers-deltas", "best-deltas", "best-layers-counts"}
    assert printed >= expected | {"errors", "sizes", "lengths-recall"}
    found = load_analysis(study.folder / "analysis")
    with (folder / "distributions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        own = [r for r in found.separation.to_pylist() if (r["kind"], r["site"]) == (row["kind"], row["layer"])]
        for name, title in MEASURES.items():
            values = [r[name] for r in own if r[name] is not None]
            assert float(row[title]) == pytest.approx(np.mean(values), rel=1e-6)
    tables = {table.name: table for table in analysis_tables(found, study.summary) if table is not None}
    apart = tables["separation"].as_dict()["rows"]
    assert [(row["kind"], row["concept"]) for row in apart] == [
        (kind, concept) for kind in ("mean", "kmeans") for concept in study.summary["concepts"]
    ]
    for row in apart:
        assert row["layer"] == study.summary["chosen"][row["kind"]]["superactivators"][row["concept"]]["site"]
    counted = tables["best-deltas"].as_dict()["rows"]
    for row in counted:
        numbers = [value for name, value in row.items() if name != "kind"]
        assert sum(numbers) == len(study.summary["concepts"])
    assert analysis_tables(None, study.summary) == []


def test_confusions_beyond_the_base_rate_are_listed_most_first(study: Any) -> None:
    columns = {
        "present": ["a", "a", "b", "b"],
        "absent": ["b", "c", "a", "c"],
        "n": [10, 10, 10, 4],  # the last pair has too few samples
        "fired": [3, 9, 1, 4],
        "rate": [0.3, 0.9, 0.1, 1.0],
        "base": [0.2, 0.1, 0.4, 0.0],
    }
    found = replace(
        load_analysis(study.folder / "analysis"), confusion=table_of("confusion", [{"kind": "mean", **columns}])
    )
    table = confusion_table(found)
    rows = table.as_dict()["rows"]
    assert [(row["present"], row["absent"]) for row in rows] == [("a", "c"), ("a", "b")]
    assert [row["difference"] for row in rows] == pytest.approx([0.8, 0.1])
    assert [(row["samples"], row["fired"], row["rate"], row["base rate"]) for row in rows] == [
        (10, 9, 0.9, 0.1),
        (10, 3, 0.3, 0.2),
    ]
