"""A whole study on the miniature of every data format, with a tiny model."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from superactivators.data.sources import load_dataset
from superactivators.study.run import run_study
from support import MINIATURES, record
from tiny_models import build_checkpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "text": build_checkpoint("bert", root / "bert"),
        "image": build_checkpoint("dinov2", root / "dinov2"),
    }


@pytest.mark.parametrize("name", MINIATURES)
def test_a_study_runs_on(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    made = importlib.import_module(f"data.formats.mini_{name}")
    path = made.build(tmp_path / "original")
    modality = load_dataset(path, format=made.FORMAT, **made.OPTIONS).modality
    settings = {
        "data": {"path": str(path), "format": made.FORMAT, "options": made.OPTIONS, "min_positives": 1},
        "model": {"name": str(models[modality]), "layers": -1, "device": "cpu"},
        "concepts": {"kinds": ["mean"]},
        "detection": {"methods": ["superactivators", "max"], "resamples": 10},
    }
    result = run_study(settings, tmp_path / "study")
    assert result.report.is_file()
    assert result.summary["data"]["modality"] == modality
    value = result.summary["weighted_f1"]["mean"]["superactivators"]["value"]
    assert 0 <= value <= 1
    record(table="datasets", format=made.FORMAT, check="study", value="passed")
