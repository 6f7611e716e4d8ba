"""``superactivators report --figures`` on a finished study of a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from superactivators.cli.app import run
from superactivators.figures.distributions import drawn_concepts
from superactivators.figures.writing import study_figures
from superactivators.study.finished import open_studies
from superactivators.study.run import run_study
from tiny_models import build_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("study")
    model = build_checkpoint("gpt2", place / "gpt2")
    settings = {
        "data": {"name": "passages", "size": 120, "min_positives": 2},
        "model": {"name": str(model), "layers": [0, -1]},
        "detection": {"resamples": 10},
    }
    run_study(settings, place / "out", progress=False, say=lambda _: None)
    return place / "out"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["superactivators", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        run()
    return int(stop.value.code or 0)


def test_a_finished_study_gets_its_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (study,) = open_studies([folder]).values()
    assert study.analysis is not None
    assert drawn_concepts(study, "linear") == study.summary["concepts"]
    expected = [name for name, _ in study_figures(study)]
    assert {"methods", "deltas", "separation", "sparsity", "token-pairs", "confusion-linear"} <= set(expected)
    assert call(monkeypatch, "report", folder, "--figures", "--figure-format", "pdf", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert Path(answer["report"]).is_file()
    assert [Path(path) for path in answer["figures"]] == [folder / "figures" / f"{name}.pdf" for name in expected]
    assert all(Path(path).read_bytes().startswith(b"%PDF-") for path in answer["figures"])


def test_people_are_told_how_many(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "report", folder, "--figures", "--figure-format", " png") == 0
    count = len(list((folder / "figures").glob("*.png")))
    assert f"{count} files in" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_format_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "report", folder, "--figures", "--figure-format", "pdf,jpg") != 0
    assert "unknown figure format 'jpg'; choose from pdf, png" in " ".join(capsys.readouterr().err.split())


def test_without_the_option_nothing_is_drawn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "figures").glob("*")}
    assert call(monkeypatch, "report", folder, "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"report"}
    assert before == {path.name: path.stat().st_mtime_ns for path in (folder / "figures").glob("*")}
