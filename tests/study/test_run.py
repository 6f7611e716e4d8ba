"""Studies end to end on a tiny model: what is written, what is skipped, what survives an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import superactivators as sa
from superactivators.errors import StoreError
from superactivators.study import outputs as outputs_module
from superactivators.study import stages as stages_module
from superactivators.study.run import render_again
from superactivators.study.settings import StudySettings
from tiny_models import build_checkpoint

METHODS = ["superactivators", "max", "mean", "last", "random", "top-k-mean", "cls", "mean-probe"]
KINDS = ["mean", "linear"]
VECTORS = [*KINDS, "best"]


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
    for average in ("weighted_f1", "macro_f1", "micro_f1"):
        assert set(summary[average]) == {*VECTORS, "input"}
        for kind, by_method in summary[average].items():
            assert set(by_method) == (set(METHODS) if kind in VECTORS else {"bag-of-words"})
            for estimate in by_method.values():
                assert set(estimate) == {"value", "low", "high"}
                assert 0 <= estimate["low"] <= estimate["high"] <= 1
    n_concepts, n_sites = len(summary["concepts"]), len(summary["model"]["sites"])
    metrics = pq.read_table(study.folder / "detection" / "metrics.parquet")
    assert metrics.num_rows == 3 * n_concepts * ((n_sites + 1) * len(VECTORS) * len(METHODS) + 2)
    chosen = [row for row in metrics.to_pylist() if row["chosen"] and row["split"] == "test"]
    for row in chosen:
        pick = summary["chosen"][row["kind"]][row["method"]][row["concept"]]
        assert (pick["site"], pick["delta"], pick["threshold"]) == (row["site"], row["delta"], row["threshold"])
    assert {row["in_sample"] for row in chosen} == {""}
    assert {"data", "model", "states", "concepts", "scores", "detection", "report"} <= set(summary["seconds"])
    assert isinstance(summary["checks"], list)
    assert (study.folder / "tables" / "README.md").is_file()
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
        (outputs_module, "render_report"),
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
    assert calls.count(first) == 2, "the first site's token vectors were kept; only those of whole samples are learned"
    assert result.summary["weighted_f1"] == study.summary["weighted_f1"]


def test_study_states_gives_the_same_tables_in_memory(study: Any) -> None:
    states = sa.open_states(study.folder / "states")
    result = sa.study_states(states, min_positives=3, resamples=20)
    assert result.summary["weighted_f1"] == {kind: study.summary["weighted_f1"][kind] for kind in VECTORS}
    stored = pq.read_table(study.folder / "detection" / "metrics.parquet")
    stored = stored.filter(pc.field("kind") != "input")
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
    assert render_again(study.folder).read_bytes() == before
    with pytest.raises(StoreError, match="no finished study"):
        render_again(tmp_path)


def write_sae(folder: Path, width: int, latents: int = 24, k: int = 6) -> Path:
    """A random TopK autoencoder in the layout of dictionary_learning."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(latents, width, generator=generator)
    folder.mkdir(parents=True)
    held = {"encoder.weight": weight, "encoder.bias": torch.zeros(latents), "decoder.weight": weight.T.contiguous()}
    save_file({**held, "b_dec": torch.zeros(width), "k": torch.tensor(k)}, folder / "ae.safetensors")
    trainer = {"dict_class": "AutoEncoderTopK", "activation_dim": width, "dict_size": latents, "k": k}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    return folder


@pytest.fixture(scope="module")
def everything(model: Path, study: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All kinds and methods that need nobody else, on the states of the first study."""
    folder = tmp_path_factory.mktemp("studies") / "everything"
    shutil.copytree(study.folder / "states", folder / "states")
    sae = write_sae(folder.parent / "sae", sa.open_states(folder / "states").values.width)
    concepts = {"kinds": "all", "clusters": 12, "sample_clusters": 5, "sae": {"path": str(sae), "site": "block[1]"}}
    return sa.run_study(settings(model, concepts=concepts, detection={"methods": "all"}), folder)


def test_all_kinds_and_methods_run_from_one_file(everything: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = everything.summary
    assert list(summary["weighted_f1"]) == [
        "mean",
        "linear",
        "kmeans",
        "kmeans-linear",
        "sae",
        "best",
        "probe",
        "input",
    ]
    of_vectors = {*METHODS, "min-tokens", "segment", "top-tokens", "top-tokens-max"}
    assert set(summary["weighted_f1"]["sae"]) == of_vectors
    assert set(summary["weighted_f1"]["probe"]) == {"attention", "softmax", "rolling-max", "multimax"}
    assert {pick["site"] for pick in summary["chosen"]["sae"]["superactivators"].values()} == {"block[1]"}
    rows = everything.detection.metrics.to_pylist()
    assert all((row["unit"] is None) == (row["vectors"] not in ("kmeans", "kmeans-linear", "sae")) for row in rows)
    assert {row["kind"] for row in everything.detection.oracle.to_pylist()} == {"kmeans", "kmeans-linear", "sae"}
    before = stamps(everything.folder)
    forbid(monkeypatch, (sa.Backbone, "capture"), (stages_module, "learn_concepts"), (stages_module, "match_tokens"))
    again = sa.run_study(StudySettings.of(summary["settings"]), everything.folder)
    assert again.summary == summary
    assert stamps(everything.folder) == before


def test_detectors_of_matched_kinds_detect_as_the_study_does(everything: Any) -> None:
    states = sa.open_states(everything.folder / "states").with_concepts(everything.summary["concepts"])
    for kind in ("kmeans", "kmeans-linear", "sae"):
        detector = sa.open_detector(everything.folder, kind)
        measured = {row["concept"]: row for row in detector.evaluate(states).to_pylist()}
        for row in everything.detection.metrics.to_pylist():
            if (row["kind"], row["method"], row["split"], row["chosen"]) == (kind, "superactivators", "test", True):
                assert (measured[row["concept"]]["tp"], measured[row["concept"]]["fp"]) == (row["tp"], row["fp"])


def test_sample_labels_alone_are_enough_for_a_study(model: Path, study: Any, tmp_path: Path) -> None:
    shutil.copytree(study.folder / "states", tmp_path / "study" / "states")
    wanted = settings(model, data={"supervision": "samples"}, detection={"methods": ["superactivators", "top-tokens"]})
    result = sa.run_study(wanted, tmp_path / "study")
    assert result.summary["token_labels"] is False
    assert result.detection.localisation.num_rows == 0
    assert "SA012" in {check["code"] for check in result.summary["checks"]}
    assert "No token was labelled" in (tmp_path / "study" / "detectors" / "mean" / "README.md").read_text("utf-8")


def test_the_paper_protocol_sets_what_the_file_leaves_open(model: Path, tmp_path: Path) -> None:
    wanted = settings(model, run={"protocol": "paper"}, detection={"resamples": 5, "deltas": [0.1, 0.5]})
    result = sa.run_study(wanted, tmp_path / "study")
    resolved = result.summary["settings"]
    assert (resolved["data"]["text_rule"], resolved["concepts"]["kinds"]) == ("word", ["mean", "linear-adam"])
    assert (resolved["detection"]["intervals"], resolved["detection"]["deltas"]) == ("fixed", [0.1, 0.5])
    assert result.summary["protocol"] == "paper"
    assert set(result.summary["weighted_f1"]) == {"mean", "linear-adam", "best"}
