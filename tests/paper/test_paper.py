"""The paper's experiments: what is planned, what comes out on miniatures, what is said when something is missing."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from superactivators.cli.app import run
from superactivators.errors import StudyError
from superactivators.paper.catalogue import DATASETS, MODELS
from superactivators.paper.presets import CELLS, PRESETS, chosen_presets, needed_sections
from superactivators.paper.published import COCO_ATTRIBUTION, COCO_DELTAS, DETECTION, NOTEBOOK, PAPER
from superactivators.paper.run import cost_of, plan_paper, run_paper
from superactivators.paper.sources import Sources, stand_ins
from superactivators.study.settings import StudySettings
from tiny_models import build_checkpoint


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name files of a COCO and a GoEmotions miniature with two tiny models in place of CLIP and Qwen."""
    root = tmp_path_factory.mktemp("paper")
    coco, goemotions = (importlib.import_module(f"data.formats.mini_{name}") for name in ("coco", "goemotions"))
    build_checkpoint("dinov2", root / "clip-vit-large-patch14")
    build_checkpoint("qwen2", root / "language")
    images, texts = coco.build(root / "coco"), goemotions.build(root / "goemotions")
    file = root / "sources.toml"
    file.write_text(
        f"""
        [data.coco]
        path = {json.dumps(str(images))}
        format = "{coco.FORMAT}"
        min_positives = 1
        options = {{ {", ".join(f"{key} = {json.dumps(value)}" for key, value in coco.OPTIONS.items())} }}
        [data.goemotions]
        path = {json.dumps(str(texts))}
        format = "{goemotions.FORMAT}"
        min_positives = 1
        options = {{ {", ".join(f"{key} = {json.dumps(value)}" for key, value in goemotions.OPTIONS.items())} }}
        [models.clip]
        name = "clip-vit-large-patch14"
        device = "cpu"
        [models.qwen]
        name = "language"
        device = "cpu"
        [models.gemma]
        name = "no-such-model-anywhere"
        [concepts]
        clusters = 6
        sample_clusters = 3
        separators_per_concept = 1
        [detection]
        resamples = 20
        [attribution]
        explainers = ["lime", "integrated-gradients"]
        samples = 4
        cal_samples = 4
        budget = 8
        steps = 2
        sanity_samples = 0
        """
    )
    return file


def test_published_figures_are_those_of_the_paper() -> None:
    found = {(p.source, p.data, p.model, p.kind, p.method): p.value for p in DETECTION}
    assert len(found) == len(DETECTION)
    assert found[PAPER, "coco", "llama-vision", "linear", "superactivators"] == 0.83
    assert found[PAPER, "goemotions", "llama-text", "linear", "mean"] == 0.19
    assert found[NOTEBOOK, "pascal", "clip", "mean", "cls"] == 0.718
    assert found[NOTEBOOK, "sarcasm", "gemma", "linear", "last"] == 0.663
    assert found[NOTEBOOK, "isarcasm", "qwen", "mean", "superactivators"] == 0.757
    assert all((p.data, p.model) in CELLS for p in DETECTION)
    assert COCO_DELTAS["kmeans"][0.2] == 0.365
    assert COCO_ATTRIBUTION["deletion"]["mfaba"] == (0.006, 0.004)


def test_every_study_of_the_paper_has_valid_settings() -> None:
    assert len(CELLS) == 4 * 2 + 3 * 3
    everywhere = Sources({name: {"path": "somewhere"} for name in DATASETS})
    for protocol, separators in (("paper", "linear-adam"), ("default", "linear")):
        plan = plan_paper(chosen_presets([]), everywhere, (), protocol)
        assert set(plan.studies) == set(CELLS)
        for (data, model), settings in plan.studies.items():
            assert isinstance(settings, StudySettings)
            assert settings.data.format == DATASETS[data].format
            assert settings.model.layers == MODELS[model].settings["layers"]
            assert separators in settings.concepts.kinds
            assert (settings.attribution is not None) == (data == "coco")
    assert all(set(preset.cells) <= set(CELLS) for preset in PRESETS.values())


def test_a_study_has_what_its_presets_need_and_no_more() -> None:
    few = needed_sections(chosen_presets(["sparsity"]), ("coco", "clip"), "default", prompted=True)
    assert few["concepts"] == {"kinds": ["mean", "linear"]}
    assert few["detection"] == {"methods": ["superactivators"]}
    assert "attribution" not in few
    asked = needed_sections(chosen_presets(["detection"]), ("coco", "clip"), "default", prompted=True)
    assert "prompt" in asked["detection"]["methods"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[data.cocoa]\npath = 'x'", r"unknown \[data.cocoa\]; did you mean 'coco'"),
        ("[models.clipp]\nname = 'x'", r"unknown \[models.clipp\]; did you mean 'clip'"),
        ("[detections]\nresamples = 3", r"unknown section \[detections\]; did you mean 'detection'"),
        ("data = 3", r"data must be a section"),
        ("[data]\ncoco = 3", r"data.coco must be a section"),
        ("[data", "cannot be read as TOML"),
    ],
)
def test_a_wrong_sources_file_is_refused(content: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(content)
    with pytest.raises(StudyError, match=says) as caught:
        Sources.load(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(StudyError, match="no such file"):
        Sources.load(tmp_path / "gone.toml")


def test_wrong_names_are_refused() -> None:
    with pytest.raises(StudyError, match="unknown preset 'detections'; did you mean 'detection'"):
        chosen_presets(["detections"])
    with pytest.raises(StudyError, match="--only: unknown 'cocoo'; did you mean 'coco'"):
        plan_paper(chosen_presets([]), stand_ins(), ["cocoo"])
    with pytest.raises(StudyError, match="unknown protocol"):
        plan_paper(chosen_presets([]), stand_ins(), (), "papers")


def test_presets_on_miniatures(sources: Path, tmp_path: Path) -> None:
    plan = plan_paper(chosen_presets([]), Sources.load(sources), ["clip", "qwen", "goemotions/gemma"], "default")
    assert set(plan.studies) == {("coco", "clip"), ("goemotions", "qwen"), ("goemotions", "gemma")}
    assert all("give [data." in reason for reason in plan.absent.values())
    costs = cost_of(plan)
    assert costs["coco/clip"]["tokens"] > 0
    assert "problem" in costs["goemotions/gemma"]
    said: list[str] = []
    result = run_paper(plan, tmp_path, say=said.append)
    assert set(result.finished) == {("coco", "clip"), ("goemotions", "qwen")}
    assert "no-such-model-anywhere" in result.failed["goemotions", "gemma"]
    assert all(result.tables[name] for name in PRESETS), {name: len(found) for name, found in result.tables.items()}
    rows = result.tables["detection"][0].as_dict()["rows"]
    mine = [row for row in rows if row["data"] == "COCO" and row["kind"] == "linear" and row["method"] == "cls"]
    assert [row["notebooks"] for row in mine] == [0.7]
    assert mine[0]["difference"] == pytest.approx(mine[0]["weighted F1"] - 0.7)
    other = [row for row in rows if row["data"] != "COCO" and row["notebooks"] is not None]
    assert other
    assert all(row["difference"] is None and row["in fact"].endswith(", language") for row in other)
    assert (tmp_path / "tables" / "README.md").is_file()
    held = {cell: json.loads((path / "summary.json").read_text()) for cell, path in result.finished.items()}
    assert "attribution" not in held["goemotions", "qwen"]
    assert held["coco", "clip"]["settings"]["attribution"]["kind"] == "linear"
    assert json.loads((tmp_path / "paper.json").read_text())["failed"]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = run_paper(plan, tmp_path, say=said.append)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == stamps
    assert again.as_dict()["tables"] == result.as_dict()["tables"]


def test_the_command_lists_and_says_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["superactivators", "paper", *arguments])
        with pytest.raises(SystemExit) as stopped:
            run()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    code, out, _ = call("--list", "--json")
    assert code == 0
    assert set(json.loads(out)["presets"]) == set(PRESETS)
    code, _, err = call("--only", "coco/clip")
    assert code == 2
    assert "give [data.coco] path" in err
    code, out, _ = call("--only", "coco/clip", "--dry-run", "--json")
    assert code == 0
    assert "give [data.coco] path" in json.loads(out)["studies"]["coco/clip"]["problem"]
    code, _, err = call("--preset", "smoke", "--sources", "x.toml")
    assert code == 2
    assert "leave --sources out" in err
