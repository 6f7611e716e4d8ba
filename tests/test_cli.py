"""The command line: every command on a tiny model, for people and for machines."""

from __future__ import annotations

import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from baselines.chat_server import Act, serving
from small_data import planted_images
from superactivators.cli.app import run
from superactivators.data.passages import passages
from superactivators.data.scenes import scenes
from tiny_models import build_checkpoint

COMMANDS = [
    ["compare"],
    ["tables"],
    ["attribute"],
    *(["demo"], ["run"], ["extract"], ["fit"], ["evaluate"], ["detect"], ["report"], ["layers"]),
    *(
        ["data", "check"],
        ["data", "convert"],
        ["data", "formats"],
        ["data", "filler"],
        ["doctor"],
        ["paper"],
        ["mechanism"],
    ),
]


def call(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
    """Run a command in this process; return exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(sys, "argv", ["superactivators", *map(str, arguments)])
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        patched.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            run()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def call_json(*arguments: object, stdin: str = "") -> Any:
    code, out, err = call(*arguments, "--json", stdin=stdin)
    assert code == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint("gpt2", tmp_path_factory.mktemp("text") / "gpt2")


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint("dinov2", tmp_path_factory.mktemp("image") / "dinov2")


@pytest.fixture(scope="module")
def text_study(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text-study")
    (folder / "study.toml").write_text(
        f'[data]\nname = "passages"\nsize = 120\nmin_positives = 2\n[model]\nname = "{text_model}"\nlayers = [0, -1]\n'
        "[detection]\nresamples = 10\n",
        encoding="utf-8",
    )
    summary = call_json("run", folder / "study.toml", "--out", folder / "out")
    assert set(summary["weighted_f1"]) == {"mean", "linear", "best", "input"}
    return folder / "out"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    code, out, _ = call(*command, "--help")
    assert code == 0
    assert "Usage: superactivators" in out
    assert "--json" in out


def test_dry_run_says_the_cost_and_writes_nothing(text_model: Path, tmp_path: Path) -> None:
    plan = call_json("extract", "passages", "-m", text_model, "--out", tmp_path / "states", "--dry-run")
    assert plan["tokens"] > 1000
    assert plan["bytes"] == (plan["tokens"] + plan["samples"]) * plan["width"] * 2 * len(plan["sites"])
    assert plan["memory_bytes"] > 0
    assert not list(tmp_path.iterdir())


def test_detect_gives_character_ranges_that_slice_the_text(text_study: Path) -> None:
    texts = ["Thank you so much, this made my day! The train leaves at noon.", "The printer is on the third floor."]
    found = call_json("detect", text_study, *texts, "--all")["detections"]
    assert [item["input"] for item in found] == texts
    for item in found:
        for row in item["concepts"]:
            assert row["present"] == (row["score"] >= row["threshold"])
            assert bool(row["tokens"]) == row["present"]
            for token in row["tokens"]:
                assert item["input"][token["start"] : token["end"]] == token["text"]
                assert token["activation"] >= row["threshold"]


def test_detect_reads_lines_and_agrees_with_single_calls(text_study: Path) -> None:
    texts = [sample.text for sample in passages(5, seed=3).samples]
    together = call_json("detect", text_study, "-", stdin="\n".join(texts) + "\n\n")["detections"]
    for text, found in zip(texts, together, strict=True):
        alone = call_json("detect", text_study, text)["detections"][0]
        assert alone["present"] == found["present"]
        for one, other in zip(alone["concepts"], found["concepts"], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_detect_for_people_names_what_fired(text_study: Path) -> None:
    code, out, _ = call("detect", text_study, "Thank you so much, this made my day!", "--all", "--kind", "mean")
    assert code == 0
    assert "threshold" in out


def test_attribute_gives_maps_of_every_explainer_concept_and_objective(text_study: Path) -> None:
    texts = ["Thank you so much, this made my day!", "The printer is on the third floor."]
    given = ["--method", "rise, activation", "--budget", "8"]
    found = call_json("attribute", text_study, *texts, *given)["attributions"]
    detected = call_json("detect", text_study, *texts, "--all")["detections"]
    assert [item["input"] for item in found] == texts
    for item, other in zip(found, detected, strict=True):
        concepts = {row["concept"]: row for row in other["concepts"]}
        pairs = {(row["method"], row["concept"], row["objective"]) for row in item["maps"]}
        assert len(pairs) == len(item["maps"]) == 2 * 2 * len(concepts)
        for token in item["tokens"]:
            assert item["input"][token["start"] : token["end"]] == token["text"]
        for row in item["maps"]:
            assert len(row["values"]) == len(item["tokens"])
            assert row["site"] == concepts[row["concept"]]["site"]
        for name, own in item["superactivators"].items():
            assert own["fallback"] == (not concepts[name]["present"])
            if not own["fallback"]:
                assert own["tokens"] == sorted(token["index"] for token in concepts[name]["tokens"])


def test_attribute_asks_only_what_it_is_asked(text_study: Path) -> None:
    (concept, other) = [
        row["concept"] for row in call_json("detect", text_study, "x", "--all")["detections"][0]["concepts"]
    ][:2]
    given = ["--concept", concept, "--concept", other, "--objective", "concept", "--kind", "linear", "--seed", "3"]
    (alone,) = call_json("attribute", text_study, "a day", "--budget", "4", *given)["attributions"]
    assert [(row["method"], row["concept"], row["objective"]) for row in alone["maps"]] == [
        ("rise", concept, "concept"),
        ("rise", other, "concept"),
    ]
    lines = call_json("attribute", text_study, "-", "--budget", "4", *given, stdin="another\n\na day\n")["attributions"]
    assert [item["input"] for item in lines] == ["another", "a day"]
    for one, two in zip(alone["maps"], lines[1]["maps"], strict=True):
        assert one["values"] == pytest.approx(two["values"], abs=1e-5)


def test_attribute_for_people_shows_the_highest_tokens_and_writes_a_page(text_study: Path, tmp_path: Path) -> None:
    text = "a <script>alert(1)</script> [/b] day!"
    page = tmp_path / "maps.html"
    given = ["attribute", text_study, text, "--method", "activation", "--html", page]
    code, out, err = call(*given)
    assert code == 0, err
    (item,) = call_json(*given)["attributions"]
    shown = [line for line in out.splitlines() if line.startswith("  ") and "·" in line]
    assert len(shown) == len(item["maps"])
    for line, found in zip(shown, item["maps"], strict=True):
        highest = max(range(len(found["values"])), key=lambda token: found["values"][token])
        fired = highest in item["superactivators"][found["concept"]]["tokens"]
        first = f"{'●' if fired else ''}{item['tokens'][highest]['text']!r} {found['values'][highest]:.3g}"
        assert line.startswith(f"  {found['concept']} · activation · {found['objective']}: {first}")
    assert str(page) in out.replace("\n", "")
    content = page.read_text("utf-8")
    assert "<script" not in content
    assert content.startswith("<!doctype html>")
    assert content.count("activation") == len(item["maps"])


def test_attribute_on_images(image_model: Path, tmp_path: Path) -> None:
    data = planted_images(tmp_path / "images", 18)
    call_json("extract", data, "-m", image_model, "--out", tmp_path / "states", "--layers", "1")
    call_json("fit", tmp_path / "states", "--out", tmp_path / "detector", "--kind", "mean", "--min-positives", "1")
    picture = data / "i000.png"
    given = ["attribute", tmp_path / "detector", picture, "--budget", "8", "--hiding", "noise"]
    (item,) = call_json(*given, "--html", tmp_path / "maps.html")["attributions"]
    assert item["input"] == str(picture)
    assert {token["row"] for token in item["tokens"]} == set(range(4))
    assert {token["column"] for token in item["tokens"]} == set(range(6))
    code, out, err = call(*given)
    assert code == 0, err
    assert "rise · superactivators: " in out
    content = (tmp_path / "maps.html").read_text("utf-8")
    assert "<script" not in content
    assert content.count("data:image/png;base64,") == len(item["maps"])


def test_extract_fit_evaluate_detect_on_images(image_model: Path, tmp_path: Path) -> None:
    states, detector = tmp_path / "states", tmp_path / "detector"
    call_json("extract", "scenes", "-m", image_model, "--out", states, "--layers", "0,-1")
    fitted = call_json("fit", states, "--out", detector, "--kind", "mean")
    assert {threshold["split"] for threshold in fitted["thresholds"]} == {"cal"}
    rows = call_json("evaluate", detector, states)["concepts"]
    assert [row["concept"] for row in rows] == [threshold["concept"] for threshold in fitted["thresholds"]]
    code, _, err = call("evaluate", detector, states, "--split", "cal")
    assert code == 2
    assert "fitted on the cal split" in err
    assert call_json("evaluate", detector, states, "--split", "cal", "--in-sample")["in_sample"] is True

    picture = tmp_path / "scene.png"
    pixels = scenes(1).samples[0].image  # type: ignore[union-attr]
    Image.fromarray(np.asarray(pixels)).save(picture)
    found = call_json("detect", detector, picture, "--all")["detections"][0]
    for row in found["concepts"]:
        for token in row["tokens"]:
            left, top, right, bottom = token["box"]
            assert 0 <= left < right <= 224.01
            assert 0 <= top < bottom <= 224.01
    assert (detector / "README.md").read_text(encoding="utf-8").startswith("# Concept detector")


def test_report_layers_check_and_doctor(text_study: Path, text_model: Path) -> None:
    assert Path(call_json("report", text_study)["report"]).is_file()
    assert call_json("layers", text_model, "--spec", "-1")["sites"] == [f"block[{_blocks(text_model) - 1}]"]
    checked = call_json("data", "check", "passages")
    assert checked["modality"] == "text"
    assert set(checked["positives"]) == set(checked["concepts"])
    diagnosis = call_json("doctor", text_model)
    assert diagnosis["passed"] is True


def _blocks(model: Path) -> int:
    return int(json.loads((model / "config.json").read_text("utf-8"))["n_layer"])


def test_outputs_for_people_do_not_fail(text_study: Path, text_model: Path) -> None:
    for arguments in (
        ["layers", text_model],
        ["data", "check", "passages"],
        ["doctor", text_model],
        ["report", text_study],
        ["evaluate", text_study, text_study / "states"],
        ["extract", "passages", "-m", text_model, "--out", "unused", "--dry-run"],
    ):
        code, out, err = call(*arguments)
        assert code == 0, err
        assert out.strip()


def test_data_of_another_format_is_checked_converted_and_extracted(image_model: Path, tmp_path: Path) -> None:
    made = importlib.import_module("data.formats.mini_coco")
    original = made.build(tmp_path / "original")
    given = [part for key, value in made.OPTIONS.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    checked = call_json("data", "check", original, "--format", made.FORMAT, *given)
    told = call_json("data", "convert", original, "--format", made.FORMAT, *given, "--out", tmp_path / "open")
    assert told["samples"] == sum(checked["samples"].values())
    again = call_json("data", "check", tmp_path / "open")
    assert again["positives"] == checked["positives"]
    plan = call_json(
        *("extract", original, "--format", made.FORMAT, *given, "--model", image_model, "--device", "cpu"),
        *("--layers", "-1", "--out", tmp_path / "states", "--dry-run"),
    )
    assert plan["samples"] == told["samples"]
    assert not (tmp_path / "states").exists()


def test_formats_are_listed_with_their_options() -> None:
    listed = call_json("data", "formats")
    assert listed["coco"]["options"]["concepts"] == "both"
    assert all(entry["reads"] for entry in listed.values())


@pytest.mark.parametrize("given", ["top", "=3", "a b=3"])
def test_an_option_without_a_name_is_refused(given: str, tmp_path: Path) -> None:
    code, _, err = call("data", "check", tmp_path, "--format", "voc", "--set", given)
    assert code == 2
    assert "--set takes key=value" in err


def test_filler_from_a_chat_model(tmp_path: Path) -> None:
    lines = [f"The {number} bus leaves from stop {number} at noon." for number in range(40)]
    with serving(lambda number, seen: Act(content="\n".join(lines[number % 2 :: 2]))) as server:
        told = call_json(
            *("data", "filler", "--out", tmp_path / "lines.txt", "--number", 12, "--model", "m"),
            *("--endpoint", server.url, "--topic", "buses"),
        )
    assert told["texts"] == 12
    assert len((tmp_path / "lines.txt").read_text(encoding="utf-8").splitlines()) == 12
