"""The attribution stage of a study: what it writes, what it skips, and what it refuses."""

from __future__ import annotations

import builtins
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import superactivators as sa
from small_data import planted_texts, write_texts
from superactivators.attribution.catalogue import EXPLAINERS
from superactivators.attribution.scene import Scene
from superactivators.attribution.store import load_attribution
from superactivators.attribution.survey import survey
from superactivators.errors import ModelError, StoreError, StudyError
from superactivators.study import attribution as attribution_module
from superactivators.study import stages as stages_module
from superactivators.study.run import render_again
from superactivators.study.settings import StudySettings
from tiny_models import build_checkpoint

ASKED: dict[str, Any] = {
    "explainers": ["rise", "activation"],
    "samples": 6,
    "cal_samples": 6,
    "budget": 6,
    "steps": 2,
    "sanity_samples": 1,
    "examples": 2,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and texts."""
    root = tmp_path_factory.mktemp("attributed")
    build_checkpoint("bert", root / "bert")
    write_texts(root / "texts", planted_texts(48))
    return root


def settings(place: Path, asked: dict[str, Any] | None = ASKED, **sections: dict[str, Any]) -> dict[str, Any]:
    base: dict[str, Any] = {
        "data": {"path": str(place / "texts"), "min_positives": 1},
        "model": {"name": str(place / "bert"), "layers": [1]},
        "concepts": {"kinds": ["mean", "linear"]},
        "detection": {"resamples": 10, "methods": ["superactivators", "max"]},
    }
    changed = {name: {**base.get(name, {}), **sections.get(name, {})} for name in {*base, *sections}}
    return changed if asked is None else {**changed, "attribution": asked}


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


def payload(folder: Path) -> str:
    return (folder / "report" / "index.html").read_text("utf-8")


def test_the_stage_writes_a_result_a_summary_and_a_section(study: Any) -> None:
    result = load_attribution(study.folder / "attribution" / "result")
    assert set(result.concepts["explainer"].to_pylist()) >= {"rise", "activation"}
    entry = json.loads((study.folder / "summary.json").read_text("utf-8"))["attribution"]
    assert entry["kind"] == study.summary["best_kind_on_cal"]
    assert entry["hiding"] == "mask"
    assert entry["samples"] == {"cal": 6, "test": 6}
    assert entry["explainers"] == {"rise": "Rise(budget=6, grain=2)", "activation": "Activation()"}
    assert len(list((study.folder / "attribution" / "samples").glob("*.safetensors"))) == 12
    assert study.summary["seconds"]["attribution"] > 0
    rows = {(r["explainer"], r["objective"], r["measure"]): r for r in result.aggregates.to_pylist()}
    for explainer in ("rise", "activation"):
        for objective in ("concept", "superactivators"):
            for measure, shown in entry["measures"][explainer][objective].items():
                assert shown["value"] == rows[explainer, objective, measure]["value"]
    for row in result.comparisons.to_pylist():
        if row["measure"] == "token_f1":
            assert (row["explainer"] in entry["superactivators_win"]) == (row["difference"] > 0)
            assert (row["explainer"] in entry["concept_wins"]) == (row["difference"] < 0)
    assert '"attribution"' in payload(study.folder)
    assert "RISE" in payload(study.folder)


def test_a_second_run_explains_nothing_and_changes_no_file(
    study: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stamps(study.folder)
    monkeypatch.setattr(attribution_module, "survey", never)
    said: list[str] = []
    again = sa.run_study(settings(place), study.folder, say=said.append)
    assert again.summary == study.summary
    assert stamps(study.folder) == before
    assert not [line for line in said if "explainers" in line]


@pytest.mark.parametrize("change", [{"budget": 7}, {"explainers": ["rise"]}, {"examples": 1, "samples": 4}], ids=str)
def test_another_key_does_only_attribution_again(
    change: dict[str, Any], copy: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stamps(copy)
    for owner, name in (
        (sa.Backbone, "capture"),
        (stages_module, "learn_concepts"),
        (stages_module, "score_tokens"),
        (stages_module, "evaluate_detection"),
    ):
        monkeypatch.setattr(owner, name, never)
    changed = sa.run_study(settings(place, {**ASKED, **change}), copy)
    after = stamps(copy)
    touched = {name.split("/")[0] for name in after if after[name] != before.get(name)}
    assert touched >= {"attribution", "summary.json"}
    assert touched <= {"attribution", "summary.json", "report", "tables"}
    assert changed.summary["attribution"]["explainers"].keys() == set(change.get("explainers", ASKED["explainers"]))
    kept = [name for name in before if name.startswith("attribution/samples") and after[name] == before[name]]
    # fewer samples or examples need no map that is not there
    assert len(kept) == (12 if change.keys() <= {"samples", "examples"} else 0)


def test_a_damaged_result_is_made_again_from_the_records(
    copy: Path, study: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = copy / "attribution" / "result" / "aggregates.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    monkeypatch.setattr(Scene, "of", never)
    sa.run_study(settings(place), copy)
    one, other = (load_attribution(folder / "attribution" / "result") for folder in (copy, study.folder))
    assert str(one.aggregates.to_pydict()) == str(other.aggregates.to_pydict())


def test_interrupted_attribution_goes_on(
    place: Path, study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(study.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("attribution"))

    def stopped(samples: Any, *, progress: bool) -> Any:
        for count, number in enumerate(samples):
            if count == 5:
                raise KeyboardInterrupt
            yield number

    with monkeypatch.context() as patch:
        patch.setattr(attribution_module, "_watched", stopped)
        with pytest.raises(KeyboardInterrupt):
            sa.run_study(settings(place), folder)
    kept = stamps(folder / "attribution" / "samples")
    assert len(kept) == 5
    assert not (folder / "attribution" / "result").exists()
    result = sa.run_study(settings(place), folder)
    after = stamps(folder / "attribution" / "samples")
    assert {name: after[name] for name in kept} == kept
    assert result.summary["attribution"]["measures"] == study.summary["attribution"]["measures"]


def test_the_report_is_written_again_from_the_stored_result(
    copy: Path, study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sa.Backbone, "from_pretrained", never)
    monkeypatch.setattr(attribution_module, "survey", never)
    before = payload(copy)
    (copy / "report" / "index.html").unlink()
    assert render_again(copy).read_text("utf-8") == before
    shutil.rmtree(copy / "attribution")
    with pytest.raises(StoreError, match="no superactivators/attribution folder here") as caught:
        render_again(copy)
    assert "\n" not in str(caught.value)


def test_without_the_section_nothing_is_explained(place: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution_module, "survey", never)
    shutil.rmtree(copy / "attribution")
    plain = sa.run_study(settings(place, None), copy)
    assert not (copy / "attribution").exists()
    assert "attribution" not in plain.summary
    assert "attribution" not in json.loads((copy / "summary.json").read_text("utf-8"))
    assert "RISE" not in payload(copy).split("<script")[0]
    assert attribution_module.read_attribution(copy, StudySettings.of(settings(place, None))) is None


def test_defaults_explain_by_everything(place: Path) -> None:
    plan = attribution_module.plan_attribution(StudySettings.of(settings(place, {}, run={"seed": 5})))
    assert tuple(plan.explainers) == EXPLAINERS
    assert (plan.cal_samples, plan.test_samples, plan.steps, plan.seed, plan.resamples) == (60, 100, 10, 5, 10)
    assert plan.explainers["rise"].budget == 256  # type: ignore[attr-defined]
    options = {"rise": {"budget": 32}, "lime": {"alpha": 0.5}}
    chosen = attribution_module.plan_attribution(StudySettings.of(settings(place, {"options": options, "budget": 99})))
    assert [chosen.explainers[name].budget for name in ("rise", "lime", "shap-iq")] == [32, 99, 99]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("asked", "sections", "part"),
    [
        ({"kind": "sae"}, {}, r"\[attribution\] kind 'sae' has no detector in this study; Known: linear, mean"),
        ({"kind": "best"}, {}, "kind 'best' has no detector"),
        ({"hiding": "blur"}, {}, "unknown way 'blur' to hide tokens of a model of texts"),
        ({}, {"data": {"supervision": "samples"}}, "this data set has labels of whole samples only"),
        ({}, {"detection": {"methods": ["max"]}}, "name 'superactivators' among the methods"),
    ],
    ids=["kind", "mixed kind", "hiding", "no token labels", "no detector"],
)
def test_what_cannot_be_explained_is_refused(
    asked: dict[str, Any], sections: dict[str, Any], part: str, place: Path, study: Any, tmp_path: Path
) -> None:
    shutil.copytree(study.folder / "states", tmp_path / "study" / "states")
    with pytest.raises(StudyError, match=part) as caught:
        sa.run_study(settings(place, {**ASKED, **asked}, **sections), tmp_path / "study")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study" / "attribution" / "result").exists()


def test_a_detector_of_an_earlier_run_is_not_explained(place: Path, copy: Path) -> None:
    assert (copy / "detectors" / "linear").is_dir()
    with pytest.raises(StudyError, match="kind 'linear' has no detector in this study; Known: mean"):
        sa.run_study(settings(place, {**ASKED, "kind": "linear"}, concepts={"kinds": ["mean"]}), copy)


def without(package: str) -> Callable[..., Any]:
    real = builtins.__import__

    def imported(name: str, *args: Any, **more: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {package!r}")
        return real(name, *args, **more)

    return imported


@pytest.mark.parametrize("explainer", ["kernel-shap", "shap-iq"])
def test_a_missing_package_is_named(explainer: str, place: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "shapiq"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without("shapiq"))
    with pytest.raises(ModelError) as caught:
        sa.run_study(settings(place, {**ASKED, "explainers": [explainer]}), copy)
    message = str(caught.value)
    assert message == f"the explainer {explainer!r} needs the package shapiq; install superactivators[attribution]"


def test_the_stage_does_what_survey_does(study: Any, place: Path) -> None:
    """The stage adds names and files; numbers are those of the function."""
    states = sa.open_states(study.folder / "states")
    chosen = StudySettings.of(settings(place))
    found = survey(
        sa.Backbone.from_pretrained(str(place / "bert"), device="cpu"),
        sa.open_detector(study.folder),
        sa.load_dataset(place / "texts"),
        states.labels,
        attribution_module.plan_attribution(chosen),
    )
    read = load_attribution(study.folder / "attribution" / "result")
    assert str(found.concepts.to_pydict()) == str(read.concepts.to_pydict())
    assert str(found.aggregates.to_pydict()) == str(read.aggregates.to_pydict())
