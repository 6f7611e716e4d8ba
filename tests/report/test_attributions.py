"""The attribution section says what the tables say, and every map can be read back from the page."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from report.planted import planted
from report.planted_attribution import EXPLAINERS, OBJECTIVES, attributed, passage_study, result_of, scene_study
from report.test_page import HOSTILE, Page, needs_browser, opened
from superactivators.attribution.results import AttributionResult, ExampleMaps
from superactivators.report import attribution_maps
from superactivators.report.attribution_maps import MISSING, gallery, packed_map, window, within_budget
from superactivators.report.attributions import attributions, explainer_label, headline
from superactivators.report.inputs import ReportInputs
from superactivators.report.page import render_report
from superactivators.report.payload import build_payload


@pytest.fixture(scope="module")
def texts() -> ReportInputs:
    return attributed(passage_study())


@pytest.fixture(scope="module")
def images() -> ReportInputs:
    return attributed(scene_study())


@pytest.fixture(scope="module")
def section(texts: ReportInputs) -> dict:
    return build_payload(texts)["attribution"]


def unpacked(entry: dict) -> tuple[np.ndarray, np.ndarray]:
    """Values and flags of a map, as the page reads them."""
    steps = np.frombuffer(base64.b64decode(entry["steps"]), dtype=np.int8)
    bits = base64.b64decode(entry["above"])
    above = [bool(bits[token >> 3] >> (7 - (token & 7)) & 1) for token in range(len(steps))]
    return np.where(steps == MISSING, np.nan, steps * entry["scale"] / 127), np.array(above)


def compared(result: AttributionResult) -> list[dict]:
    """Comparisons of measures of which one side is better."""
    return [row for row in result.comparisons.to_pylist() if row["measure"] != "sparseness"]


def test_without_attribution_there_is_no_section() -> None:
    inputs = planted("text", methods=("superactivators",), resamples=0)
    assert inputs.attribution is None
    assert "attribution" not in build_payload(inputs)


def test_rows_hold_the_numbers_of_the_table(texts: ReportInputs, section: dict) -> None:
    assert texts.attribution is not None
    shown = {(row["explainer"], row["objective"]): row["values"] for row in section["rows"]}
    lines = [row for row in texts.attribution.aggregates.to_pylist() if row["explainer"] in EXPLAINERS]
    assert sum(map(len, shown.values())) == len(lines) + 2  # what needs no explainer has one measure here
    assert shown["(all tokens)", "none"]["token_f1"]["value"] == pytest.approx(0.21)
    assert [one["name"] for one in section["explainers"] if one["reference"]] == ["(all tokens)", "(random)"]
    assert [one["name"] for one in section["measures"]][:3] == ["token_f1", "insertion", "deletion"]
    assert {one["name"]: one["better"] for one in section["measures"]}["deletion_raw"] == -1
    for line in lines:
        cell = shown[line["explainer"], line["objective"]][line["measure"]]
        for part in ("value", "low", "high"):
            assert cell[part] == pytest.approx(line[part], rel=1e-3)


def test_other_tables_keep_their_numbers(texts: ReportInputs, section: dict) -> None:
    result = texts.attribution
    assert result is not None
    for shown, line in zip(section["comparisons"], compared(result), strict=True):
        assert {name: shown[name] for name in ("explainer", "measure")} == {
            k: line[k] for k in ("explainer", "measure")
        }
        for part in ("difference", "low", "high", "p_holm"):
            assert shown[part] == pytest.approx(line[part], rel=1e-3, abs=1e-12)
    for shown, line in zip(section["hybrid"]["rows"], result.hybrid.to_pylist(), strict=True):
        assert shown == pytest.approx(line, rel=1e-3)
    cells = {(row["explainer"], row["objective"]): row["values"] for row in section["sanity"]["rows"]}
    for line in result.sanity.to_pylist():
        cell = cells[line["explainer"], line["objective"]][line["randomised"]]
        assert cell["value"] == pytest.approx(line["correlation"], rel=1e-3)
    for curve in section["curves"]:
        chosen = [
            row
            for row in result.curves.to_pylist()
            if (row["explainer"], row["objective"]) == (curve["explainer"], curve["objective"])
        ]
        for part in ("share", "insertion", "deletion"):
            assert curve[part] == pytest.approx([row[part] for row in chosen], rel=1e-3)


def test_verdicts_follow_holm_and_the_direction_of_the_measure(texts: ReportInputs, section: dict) -> None:
    assert texts.attribution is not None
    verdicts = set()
    for shown, line in zip(section["comparisons"], compared(texts.attribution), strict=True):
        good = line["difference"] < 0 if line["measure"].startswith("deletion") else line["difference"] > 0
        wanted = "unclear" if line["p_holm"] >= 0.05 else "better" if good else "worse"
        assert shown["verdict"] == wanted
        verdicts.add(wanted)
    assert {"unclear", "better"} <= verdicts


def comparison(explainer: str, difference: float, p_holm: float | None, verdict: str = "unclear") -> dict:
    return {
        "explainer": explainer,
        "measure": "token_f1",
        "difference": difference,
        "p_holm": p_holm,
        "verdict": verdict,
    }


def test_headline() -> None:
    start = "The SuperActivators objective gives a higher token F1 than the concept objective for "
    rows = [
        comparison("lime", 0.1, 0.001, "better"),
        comparison("rise", 0.01, 0.8),
        comparison("grad-cam", -0.1, 0.01, "worse"),
        comparison("mfaba", -0.01, 0.9),
        comparison("rollout", 0.0, 1.0),
        comparison("occlusion", float("nan"), float("nan")),
        comparison("shap-iq", 0.1, 0.001, "better") | {"measure": "insertion"},
    ]
    assert headline(rows) == (
        f"{start}2 of 5 explainers, and for 1 of these the difference survives Holm’s correction; it is lower for "
        "Grad-CAM and MFABA, beyond the correction for Grad-CAM; it is the same for attention rollout."
    )
    assert headline(rows[1:2]) == (
        f"{start}1 of 1 explainers, and for none of these the difference survives Holm’s correction."
    )
    assert headline([comparison("lime", -0.1, 0.3)]) == (
        f"{start}0 of 1 explainers; it is lower for LIME, but not beyond the correction."
    )
    assert headline([comparison("lime", 0.1, None)]) == f"{start}1 of 1 explainers (no test was made)."
    assert headline([]) == "The two objectives were not compared."


@pytest.mark.parametrize(
    ("name", "label"),
    [("kernel-shap", "KernelSHAP"), ("rollout", "attention rollout"), ("my-own_one", "my own one")],
)
def test_names_of_explainers(name: str, label: str) -> None:
    assert explainer_label(name) == label


def test_hybrid_sentence(texts: ReportInputs) -> None:
    assert texts.attribution is not None
    rows = [
        {"alpha": 0.0, "token_f1": 0.5, "low": 0.45, "high": 0.55, "delta": 0.1},
        {"alpha": 0.25, "token_f1": 0.6, "low": 0.55, "high": 0.65, "delta": 0.1},
        {"alpha": 1.0, "token_f1": 0.4, "low": 0.35, "high": 0.45, "delta": 0.1},
    ]

    def said(table: list[dict]) -> str:
        result = replace(texts.attribution, hybrid=pa.Table.from_pylist(table))
        return attributions(texts, result)["hybrid"]["sentence"]

    assert said(rows) == (
        "Token F1 on test is highest at α = .25: .60 [.55, .65]; the SuperActivators alone (α = 0) reach .50 "
        "[.45, .55] and the concept vector alone (α = 1) reaches .40 [.35, .45]."
    )
    assert said(rows[:1]) == "Token F1 on test is highest at α = 0: .50 [.45, .55]."


def test_empty_tables_leave_their_part_out(texts: ReportInputs) -> None:
    result = texts.attribution
    assert result is not None
    bare = replace(
        result,
        comparisons=result.comparisons.slice(0, 0),
        curves=result.curves.slice(0, 0),
        hybrid=result.hybrid.slice(0, 0),
        sanity=result.sanity.slice(0, 0),
        examples=(),
    )
    found = attributions(texts, bare)
    assert [found[part] for part in ("curves", "hybrid", "sanity", "gallery")] == [None] * 4
    assert attributions(replace(texts, dataset=None), result)["gallery"] is None


@pytest.mark.parametrize("study", ["texts", "images"])
def test_maps_can_be_read_back(study: str, request: pytest.FixtureRequest) -> None:
    inputs: ReportInputs = request.getfixturevalue(study)
    assert inputs.attribution is not None and inputs.dataset is not None  # noqa: PT018
    shown = gallery(inputs, inputs.attribution.examples)
    assert shown is not None
    assert len(shown["examples"]) == len(inputs.attribution.examples)
    for entry, example in zip(shown["examples"], inputs.attribution.examples, strict=True):
        assert entry["sample"] == inputs.dataset.samples[example.sample].id
        assert entry["inside"].tolist() == np.flatnonzero(example.truth).tolist()
        assert entry["fires"].tolist() == np.flatnonzero(example.fired).tolist()
        assert [(e, o) for e in entry["maps"] for o in entry["maps"][e]] == [
            (e, o) for e in EXPLAINERS for o in OBJECTIVES
        ]
        for (explainer, objective), values in example.maps.items():
            packed = entry["maps"][explainer][objective]
            found, above = unpacked(packed)
            assert np.abs(found - values).max() <= packed["scale"] / 254 * 1.001
            assert (above == (values.astype(np.float64) >= example.thresholds[explainer, objective])).all()


def test_values_that_are_not_finite_and_maps_of_zeros() -> None:
    found, above = unpacked(packed_map(np.array([np.nan, -2.0, 1.0, np.inf, 0.5], dtype=np.float32), 0.5))
    assert np.isnan(found).tolist() == [True, False, False, True, False]
    assert found[1] == -2
    assert above.tolist() == [False, False, True, False, True]
    zeros = packed_map(np.zeros(3, dtype=np.float32), float("nan"))
    assert zeros["scale"] == 0
    assert not np.concatenate(unpacked(zeros)).any()
    assert unpacked(packed_map(np.zeros(0, dtype=np.float32), 0.0))[0].shape == (0,)


def example_of(concept: str, tokens: int, sample: int = 0, first: int = 0) -> ExampleMaps:
    truth = np.zeros(tokens, dtype=bool)
    truth[first] = True
    values = np.arange(tokens, dtype=np.float32)
    return ExampleMaps(
        sample, concept, truth, ~truth, truth.copy(), False, {("lime", "concept"): values}, {("lime", "concept"): 3.0}
    )


def test_budget_serves_every_concept_first(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = tuple(example_of(concept, 100) for concept in ("a", "b", "c") for _ in range(20))
    kept = within_budget(examples)
    assert [sum(one.concept == name for one in kept) for name in "abc"] == [8, 8, 8]
    monkeypatch.setattr(attribution_maps, "VALUES", 450)
    assert [one.concept for one in within_budget(examples)] == ["a", "a", "b", "c"]
    monkeypatch.setattr(attribution_maps, "VALUES", 0)
    assert len(within_budget(examples)) == 1


def test_long_texts_are_cut_and_unknown_tokens_are_told(texts: ReportInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert texts.encoding is not None and texts.dataset is not None  # noqa: PT018
    count = int(texts.encoding.offsets[1])
    example = example_of("joy", count, first=count - 4)
    monkeypatch.setattr(attribution_maps, "WINDOW", 8)
    shown = gallery(texts, (example,))
    assert shown is not None
    entry = shown["examples"][0]
    assert entry["window"] == [count - 8, count, count]
    assert entry["unlabelled"].tolist() == [4]
    assert entry["inside"].tolist() == []  # the truth of a token that nobody knows about is not shown
    text = texts.dataset.samples[0].text
    words = [entry["text"][start:end] for start, end in entry["chars"]]
    assert words == re.findall(r"\w+|[^\w\s]", text)[-8:]
    found, above = unpacked(entry["maps"]["lime"]["concept"])
    assert np.allclose(found, np.arange(count - 8, count), atol=count / 250)
    assert above.all()


def test_window_holds_the_first_wanted_token() -> None:
    wanted = np.zeros(1000, dtype=bool)
    assert window(wanted) == slice(0, 256)
    wanted[[700, 999]] = True
    assert window(wanted) == slice(668, 924)


def test_pictures_are_embedded_once(images: ReportInputs) -> None:
    assert images.attribution is not None
    shown = gallery(images, images.attribution.examples)
    assert shown is not None
    assert set(shown["pictures"]) == {entry["sample"] for entry in shown["examples"]}


def test_section_of_full_size_stays_small(images: ReportInputs) -> None:
    found = result_of(images, per_concept=9)
    full = replace(found, examples=found.examples * 2)
    assert len(full.examples) > 24
    found = build_payload(replace(images, attribution=full))["attribution"]
    assert len(found["gallery"]["examples"]) == 24
    assert found["gallery"]["left_out"] == len(full.examples) - 24
    assert len(json.dumps(found)) < 800_000


LOOK = """
<script type="module">
const wait = () => new Promise((resolve) => setTimeout(resolve, 60));
const find = (selector) => document.querySelector(`#attribution ${selector}`);
const all = (selector) => [...document.querySelectorAll(`#attribution ${selector}`)];
const told = {};
for (let turn = 0; turn < 40 && all(".small-chart svg").length < 13; turn += 1) await wait();
told.sentences = all("header .see").map((one) => one.textContent);
told.nav = document.querySelectorAll("nav a[href='#attribution']").length;
told.maps = all(".map").length;
told.charts = all(".small-chart svg").length;
const input = find(".map-input [tabindex]");
input.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
told.key = find(".readout.active").textContent;
told.values = all(".map-value").map((one) => one.textContent);
input.dispatchEvent(new Event("blur"));
told.left = all(".readout.active").length;
const columns = () => find("table").querySelectorAll("thead th").length;
told.columns = [columns()];
find("input[type=checkbox]").click();
told.columns.push(columns());
const [concept, sample] = all("select");
told.options = [...concept.options].map((option) => option.value);
concept.selectedIndex = 1;
concept.dispatchEvent(new Event("change"));
sample.selectedIndex = 1;
sample.dispatchEvent(new Event("change"));
told.shown = find(".map-input .id").textContent;
told.wide = document.documentElement.scrollWidth - innerWidth;
document.body.append(Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) }));
</script>
"""


@needs_browser
@pytest.mark.parametrize("study", ["texts", "images"])
def test_section_works_in_a_browser(study: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    inputs: ReportInputs = request.getfixturevalue(study)
    found = build_payload(inputs)["attribution"]
    dom, logged = opened(render_report(inputs).replace("</body>", LOOK + "</body>"), tmp_path)
    assert logged == []
    told = json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert told["sentences"] == [found["headline"], found["note"]]
    assert (told["nav"], told["maps"], told["charts"]) == (1, 26, 13)
    assert told["key"].endswith("its value stands above each map.")
    assert len(told["values"]) == 26
    assert all(re.match(r"(−?\d*\.\d+(e−\d+)?|0)( ▣)?$", value) for value in told["values"])
    assert told["left"] == 0
    assert told["columns"] == [5, 2 + len(found["measures"])]
    examples = found["gallery"]["examples"]
    assert told["options"] == list(dict.fromkeys(example["concept"] for example in examples))
    assert told["shown"] == [e["sample"] for e in examples if e["concept"] == told["options"][1]][1]
    assert told["wide"] <= 0
    body = dom.split('id="page"')[1]
    assert "NaN" not in body
    assert "undefined" not in body


@needs_browser
def test_hostile_texts_and_names_stay_text(tmp_path: Path) -> None:
    inputs = planted("text", concepts=("joy", HOSTILE), methods=("superactivators",), resamples=0)
    inputs = attributed(inputs)
    assert inputs.attribution is not None and inputs.dataset is not None  # noqa: PT018
    examples = inputs.attribution.examples
    number = examples[0].sample
    samples = list(inputs.dataset.samples)
    samples[number] = replace(samples[number], text="<img src=x>" + samples[number].text[11:])
    inputs = replace(inputs, dataset=replace(inputs.dataset, samples=tuple(samples)))
    aggregates = inputs.attribution.aggregates
    names = ["<b>hostile</b>" if name == "lime" else name for name in aggregates["explainer"].to_pylist()]
    aggregates = aggregates.set_column(0, "explainer", pa.array(names))
    inputs = replace(inputs, attribution=replace(inputs.attribution, aggregates=aggregates))
    page = render_report(inputs)
    assert "img" not in {tag for tag, _ in Page(page).elements}
    dom, logged = opened(page, tmp_path)
    assert logged == []
    assert 'id="attribution"' in dom
    assert "<img" not in dom
    assert "&lt;b&gt;hostile&lt;/b&gt;" in dom


@needs_browser
def test_page_without_attribution_has_no_section(tmp_path: Path) -> None:
    dom, logged = opened(render_report(planted("text", methods=("superactivators",), resamples=0)), tmp_path)
    assert logged == []
    assert "attribution" not in dom.split('id="page"')[1]
