"""Studies end to end on a tiny model: what is written, what is skipped, what survives an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import superactivators as sa
from superactivators.errors import StoreError
from superactivators.study import run as run_module
from superactivators.study import stages as stages_module
from tiny_models import build_checkpoint

METHODS = ["superactivators", "max", "mean", "last", "random", "cls"]
KINDS = ["mean", "linear"]


def settings(model: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    base: dict[str, dict[str, Any]] = {
        "data": {"name": "passages", "size": 160, "min_positives": 3},
        "model": {"name": str(model)},
        "detection": {"resamples": 20},
    }
    return {name: {**base.get(name, {}), **sections.get(name, {})} for name in {*base, *sections}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint("bert", tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture(scope="module")
def study(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sa.run_study(settings(model), tmp_path_factory.mktemp("studies") / "first")


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def forbid(monkeypatch: pytest.MonkeyPatch, *names: tuple[Any, str]) -> None:
    """Make any of the named functions fail the test."""

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("this work should have been skipped")

    for owner, name in names:
        monkeypatch.setattr(owner, name, never)


def test_summary_and_tables_hold_what_is_promised(study: Any) -> None:
    summary = json.loads((study.folder / "summary.json").read_text("utf-8"))
    for average in ("weighted_f1", "macro_f1"):
        assert set(summary[average]) == set(KINDS)
        for by_method in summary[average].values():
            assert set(by_method) == set(METHODS)
            for estimate in by_method.values():
                assert set(estimate) == {"value", "low", "high"}
                assert 0 <= estimate["low"] <= estimate["high"] <= 1
    n_concepts, n_sites = len(summary["concepts"]), len(summary["model"]["sites"])
    metrics = pq.read_table(study.folder / "detection" / "metrics.parquet")
    assert metrics.num_rows == 3 * (n_sites + 1) * len(KINDS) * len(METHODS) * n_concepts
    chosen = [row for row in metrics.to_pylist() if row["chosen"] and row["split"] == "test"]
    for row in chosen:
        pick = summary["chosen"][row["kind"]][row["method"]][row["concept"]]
        assert (pick["site"], pick["delta"], pick["threshold"]) == (row["site"], row["delta"], row["threshold"])
    assert {row["in_sample"] for row in chosen} == {""}
    assert {"data", "model", "states", "concepts", "scores", "detection", "report"} <= set(summary["seconds"])
    assert summary["peak_memory_bytes"] > 0
    assert study.report.is_file()


def test_weighted_f1_is_the_mean_over_concepts_weighted_by_positives(study: Any) -> None:
    metrics = pq.read_table(study.folder / "detection" / "metrics.parquet").to_pylist()
    for kind in KINDS:
        for method in METHODS:
            rows = [
                r for r in metrics if r["chosen"] and (r["split"], r["kind"], r["method"]) == ("test", kind, method)
            ]
            expected = np.average([r["f1"] for r in rows], weights=[r["tp"] + r["fn"] for r in rows])
            assert study.summary["weighted_f1"][kind][method]["value"] == pytest.approx(expected, abs=1e-12)


def test_second_run_does_no_work_and_changes_no_file(study: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamps(study.folder)
    forbid(
        monkeypatch,
        (sa.Backbone, "capture"),
        (stages_module, "learn_concepts"),
        (stages_module, "score_tokens"),
        (stages_module, "evaluate_detection"),
        (run_module, "render_report"),
    )
    again = sa.run_study(settings(model), study.folder)
    assert again.summary == study.summary
    assert stamps(study.folder) == before


@pytest.mark.parametrize(
    "change",
    [
        {"detection": {"deltas": [0.05, 0.5], "resamples": 20}},
        {"detection": {"methods": ["superactivators", "mean"], "resamples": 20}},
        {"detection": {"resamples": 5}},
    ],
    ids=["deltas", "methods", "resamples"],
)
def test_changed_detection_neither_runs_the_model_nor_learns(
    study: Any, model: Path, tmp_path: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(study.folder, tmp_path / "copy")
    forbid(monkeypatch, (sa.Backbone, "capture"), (stages_module, "learn_concepts"), (stages_module, "score_tokens"))
    changed = sa.run_study(settings(model, **change), copy)
    assert changed.summary["settings"]["detection"] != study.summary["settings"]["detection"]
    deltas = {pick["delta"] for pick in changed.summary["chosen"]["mean"]["superactivators"].values()}
    assert deltas <= set(changed.summary["deltas"])


def test_other_concepts_do_not_run_the_model(
    study: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(study.folder, tmp_path / "copy")
    forbid(monkeypatch, (sa.Backbone, "capture"))
    chosen = study.summary["concepts"][:2]
    changed = sa.run_study(settings(model, data={"concepts": chosen}), copy)
    assert changed.summary["concepts"] == chosen


def test_interrupted_learning_goes_on_where_it_stopped(
    model: Path, tmp_path: Path, study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = stages_module.learn_concepts, []

    def stopping(states: Any, site: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(site)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(states, site, *args, **kwargs)

    monkeypatch.setattr(stages_module, "learn_concepts", stopping)
    with pytest.raises(KeyboardInterrupt):
        sa.run_study(settings(model), tmp_path / "study")
    first = calls[0]
    calls.clear()
    calls.extend(["started", "again"])
    result = sa.run_study(settings(model), tmp_path / "study")
    assert calls.count(first) == 1, "the first site's token vectors were kept; only its sample vectors are learned"
    assert result.summary["weighted_f1"] == study.summary["weighted_f1"]


def test_study_states_gives_the_same_tables_in_memory(study: Any) -> None:
    states = sa.open_states(study.folder / "states")
    result = sa.study_states(states, min_positives=3, resamples=20)
    assert result.summary["weighted_f1"] == study.summary["weighted_f1"]
    stored = pq.read_table(study.folder / "detection" / "metrics.parquet")
    assert result.metrics.column_names == stored.column_names
    for name in stored.column_names:
        np.testing.assert_array_equal(result.metrics[name].to_numpy(), stored[name].to_numpy(), err_msg=name)


def test_states_made_elsewhere_are_studied_alike(study: Any) -> None:
    states = sa.open_states(study.folder / "states")
    values = {site: np.concatenate([b.numpy() for _, b in states.values.blocks(site)]) for site in states.sites}
    samples = {site: states.values.samples(site).numpy() for site in states.sites}
    labels = states.labels
    copy = sa.states_from_arrays(
        values, labels.offsets, labels.tokens, labels.samples, labels.splits, labels.concepts, samples, ids=labels.ids
    )
    result = sa.study_states(copy, min_positives=3, resamples=0)
    for kind in KINDS:
        for method in METHODS:
            value = result.summary["weighted_f1"][kind][method]["value"]
            assert value == pytest.approx(study.summary["weighted_f1"][kind][method]["value"], abs=1e-9)


def test_without_sample_states_the_method_cls_is_left_out() -> None:
    generator = np.random.default_rng(0)
    offsets = np.arange(0, 241, 4)
    labels = generator.random((240, 2)) < 0.2
    states = sa.states_from_arrays(
        generator.normal(size=(240, 5)).astype(np.float32),
        offsets,
        labels,
        None,
        ["train", "cal", "test"] * 20,
        ["a", "b"],
    )
    result = sa.study_states(states, kinds=["mean"], resamples=5)
    assert "cls" not in result.summary["weighted_f1"]["mean"]


def test_detector_of_the_study_repeats_its_decisions(study: Any, model: Path) -> None:
    states = sa.open_states(study.folder / "states")
    rows = pq.read_table(study.folder / "detection" / "metrics.parquet").to_pylist()
    for kind in KINDS:
        found = sa.open_detector(study.folder, kind).evaluate(states, "test").to_pylist()
        expected = {
            row["concept"]: row
            for row in rows
            if row["chosen"] and (row["split"], row["kind"], row["method"]) == ("test", kind, "superactivators")
        }
        for row in found:
            for name in ("tp", "fp", "fn", "tn", "threshold", "site", "auroc"):
                assert row[name] == expected[row["concept"]][name]


def test_report_can_be_written_again_without_the_model(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, (sa.Backbone, "from_pretrained"))
    before = study.report.read_bytes()
    assert run_module.render_again(study.folder).read_bytes() == before
    with pytest.raises(StoreError, match="no finished study"):
        run_module.render_again(tmp_path)
