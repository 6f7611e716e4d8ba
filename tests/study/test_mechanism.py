"""The mechanism of a finished study, from Python and from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import superactivators as sa
import superactivators.cli.mechanism  # enters the command
from superactivators.detection.detector import Detector
from superactivators.errors import StoreError, StudyError
from superactivators.mechanism.results import TABLES, MechanismResult
from superactivators.study.mechanism import study_mechanism
from test_cli import call, call_json
from tiny_models import build_checkpoint

SETTINGS: dict[str, Any] = {
    "data": {"name": "passages", "size": 120, "min_positives": 2},
    "concepts": {"kinds": ["mean", "kmeans"], "clusters": 8},
    "detection": {"resamples": 0, "methods": ["superactivators"]},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mechanism-study")
    model = {"name": str(build_checkpoint("gpt2", place / "gpt2")), "layers": [0, 2, -1]}
    return sa.run_study({**SETTINGS, "model": model}, place / "study").folder


@pytest.mark.parametrize("kind", ["mean", "kmeans"])
def test_a_study_has_own_vectors_at_the_layers_that_it_studied(study: Path, kind: str) -> None:
    found = study_mechanism(study, kind=kind, samples=10, ablate=1)
    detector = Detector.from_pretrained(study / "detectors" / kind)
    assert found.summary["concepts"] == list(detector.concepts)
    assert found.summary["kind"] == kind
    rows = found.growth.to_pylist()
    assert {row["site"] for row in rows if row["vector"] == "own"} == {"block[0]", "block[2]", "block[3]"}
    assert {row["site"] for row in rows if row["vector"] == "fixed"} == {
        "embed",
        *(f"block[{block}]" for block in range(4)),
    }
    sites = found.summary["sites"]
    for row in rows:  # at its own site, a concept's fixed vector is its own one
        if row["vector"] == "own" and row["site"] == sites[row["concept"]]:
            (other,) = [
                held
                for held in rows
                if (held["site"], held["concept"], held["vector"]) == (row["site"], row["concept"], "fixed")
            ]
            assert other["gap"] == pytest.approx(row["gap"], rel=1e-5)


def test_the_command_says_and_writes_the_same(study: Path, tmp_path: Path) -> None:
    concept = Detector.from_pretrained(study / "detectors" / "mean").concepts[0]
    options = ("--concept", concept, "--samples", 6, "--ablate", 1, "--kind", "mean")
    content = call_json("mechanism", study, *options, "--out", tmp_path / "out")
    assert content["summary"]["concepts"] == [concept]
    assert content["summary"]["samples"] == 6
    held = MechanismResult.load(tmp_path / "out")
    for name in TABLES:
        assert len(content[name]) == getattr(held, name).num_rows > 0
    assert json.loads(json.dumps(content)) == content
    code, out, err = call("mechanism", study, *options)
    assert code == 0, err
    assert "Without one head" in out
    assert concept in out


def test_mistakes_end_with_one_line(study: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((study, "--ablate", "many"), "--ablate takes a number"),
        ((study, "--concept", "nothing"), "no concept 'nothing'"),
        ((study, "--kind", "linear"), "no detector of kind 'linear'"),
        ((tmp_path,), "no finished study here"),
    ):
        code, out, err = call("mechanism", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") <= 2  # progress may stand before it
    with pytest.raises(StudyError):
        study_mechanism(study, samples=-1)


def test_a_data_set_that_changed_is_refused(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    summary = json.loads((copy / "summary.json").read_text())
    summary["data"]["fingerprint"] = "0"
    (copy / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(StoreError, match="its data set has changed since"):
        study_mechanism(copy)
    (copy / "summary.json").write_text("{")
    with pytest.raises(StoreError, match="no finished study"):
        study_mechanism(copy)
