"""The section of analyses shows what the tables hold, and its sentences are true, whatever a study lacks."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from report.planted import planted
from report.planted_analysis import BINS, analysed, analysis_of, table_from
from report.test_page import HOSTILE, Page, needs_browser, opened
from superactivators.analysis.results import AnalysisResult
from superactivators.report import analysis_sentences as say
from superactivators.report.analyses import analyses, packed_counts
from superactivators.report.analysis_pairs import mean_cosines, packed_cosines, shown_tokens, token_groups
from superactivators.report.inputs import ReportInputs
from superactivators.report.json_values import embeddable, plain
from superactivators.report.page import render_report
from superactivators.report.payload import build_payload

CONCEPTS = ("joy", "fear", "a dry wit", "hope", "calm", "doubt")


@pytest.fixture(scope="module")
def study() -> ReportInputs:
    return analysed(planted("text", concepts=CONCEPTS, methods=("superactivators",), resamples=0))


@pytest.fixture(scope="module")
def images() -> ReportInputs:
    inputs = planted("image", concepts=("disc", "ring"), methods=("superactivators",), resamples=0)
    return analysed(inputs, lengths=False)


@pytest.fixture(scope="module")
def shown(study: ReportInputs) -> dict:
    return build_payload(study)["analyses"]


def counts_of(text: str) -> list[int]:
    """Numbers from unsigned LEB128, a byte at a time."""
    numbers, value, shift = [], 0, 0
    for byte in base64.b64decode(text):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value, shift = 0, 0
    assert shift == 0
    return numbers


def close(shown: float | None, true: float | None) -> bool:
    return shown is true is None or shown == pytest.approx(true, rel=1e-3, abs=1e-9)


@cache
def smallest() -> ReportInputs:
    return planted("text", concepts=("joy",), methods=("superactivators",), resamples=0)


def bare(kinds: list[str], sites: list[str], concepts: list[str]) -> ReportInputs:
    """Inputs of a report that know no more than what was evaluated."""
    inputs = smallest()
    metrics = pa.table(
        {
            "kind": [kind for kind in kinds for _ in sites],
            "site": [site for _ in kinds for site in sites],
            "chosen": [False] * (len(kinds) * len(sites)),
        }
    )
    summary = {"concepts": concepts, "weighted_f1": {kind: {} for kind in kinds}}
    result = replace(inputs.result, summary=summary, metrics=metrics)
    return replace(inputs, result=result, dataset=None, encoding=None)


def sentences(found: dict) -> list[str]:
    """Every sentence of a payload."""
    told = [] if found["pairs"] is None else [found["pairs"]["sentence"]]
    for kind in found["kinds"].values():
        for text in kind["sentences"].values():
            told += list(text.values()) if isinstance(text, dict) else [text]
    return told


@given(st.lists(st.integers(0, 2**62), max_size=40))
def test_packed_counts_are_exact(numbers: list[int]) -> None:
    assert counts_of(packed_counts(np.array(numbers, dtype=np.int64))) == numbers


def test_without_analyses_there_is_no_section() -> None:
    assert "analyses" not in build_payload(planted("text", methods=("superactivators",), resamples=0))


def test_grids_and_histograms_equal_the_tables(study: ReportInputs, shown: dict) -> None:
    analysis = study.analysis
    assert analysis is not None
    seen = 0
    for row in analysis.separation.to_pylist():
        found = shown["kinds"][row["kind"]]
        site, concept = found["sites"].index(row["site"]), CONCEPTS.index(row["concept"])
        for name in ("auroc", "cohens_d", "overlap", "skewness_in", "tail_mass", "coverage", "far", "n_in"):
            assert close(found["separation"][name][site][concept], row[name])
        seen += 1
    for row in analysis.histograms.to_pylist():
        found = shown["kinds"][row["kind"]]
        site, concept = found["sites"].index(row["site"]), CONCEPTS.index(row["concept"])
        numbers = counts_of(found["histograms"]["counts"][site])[2 * BINS * concept :]
        assert (numbers[:BINS], numbers[BINS : 2 * BINS]) == (row["inside"], row["outside"])
        assert close(found["histograms"]["low"][site][concept], row["low"])
    for row in analysis.deltas.to_pylist():
        levels = shown["kinds"][row["kind"]]["levels"]
        place = levels["sites"].index(row["site"]), levels["deltas"].index(row["delta"])
        assert close(levels["test"][place[0]][place[1]], row["test"])
    for row in analysis.confusion.to_pylist():
        confusion = shown["kinds"][row["kind"]]["confusion"]
        present, absent = CONCEPTS.index(row["present"]), CONCEPTS.index(row["absent"])
        assert (confusion["n"][present][absent], confusion["fired"][present][absent]) == (row["n"], row["fired"])
        assert close(confusion["base"][absent], row["base"])
    for row in analysis.sparsity.to_pylist():
        sparsity = shown["kinds"][row["kind"]]["sparsity"]
        assert close(
            sparsity["concepts"][CONCEPTS.index(row["concept"])][sparsity["shares"].index(row["share"])],
            row["cumulative"],
        )
    assert seen == len(study.kinds) * len(study.sites) * len(CONCEPTS)


def test_order_of_rows_does_not_matter(study: ReportInputs, shown: dict) -> None:
    analysis = study.analysis
    assert analysis is not None
    random = np.random.default_rng(1)

    def mixed(table: pa.Table) -> pa.Table:
        return table.take(random.permutation(table.num_rows))

    tables = {name: value for name, value in vars(analysis).items() if isinstance(value, pa.Table)}
    tables.pop("errors")  # Dots are drawn in the order of the table.
    turned = replace(analysis, **{name: mixed(table) for name, table in tables.items()})
    assert plain(analyses(study, turned)) == shown


def test_sentences_of_the_study_are_true(study: ReportInputs, shown: dict) -> None:
    analysis = study.analysis
    assert analysis is not None
    told = shown["kinds"]["linear"]["sentences"]
    rows = [row for row in analysis.separation.to_pylist() if row["kind"] == "linear"]
    tail = {(row["site"], row["concept"]): row["tail_mass"] for row in rows}
    grown = sum(tail["block[2]", name] > tail["embed", name] for name in CONCEPTS)
    ends = [np.median([tail[site, name] for name in CONCEPTS]) for site in ("embed", "block[2]")]
    assert grown == len(CONCEPTS)
    assert told["distributions"].startswith("In all 6 concepts, ")
    assert f"({'median of all 6: '}{say.percent(ends[0])} → {say.percent(ends[1])})" in told["distributions"]
    means = {site: np.mean([r["auroc"] for r in rows if r["site"] == site]) for site in study.sites}
    top = max(means, key=lambda site: means[site])
    assert told["separation"].startswith(f"AUROC is highest at {top} ({say.short(means[top])})")
    assert "(mean of 6 concepts)" in told["separation"]
    best = max((r for r in analysis.deltas.to_pylist() if r["kind"] == "linear"), key=lambda row: row["cal"])
    assert f"cal chooses {best['site']} and δ = {say._level(best['delta'])}: " in told["levels"]
    assert f"weighted test F1 {say.short(best['test'])};" in told["levels"]
    wrong = [r for r in analysis.confusion.to_pylist() if r["kind"] == "linear"]
    worst = max(wrong, key=lambda row: row["rate"] - row["base"])
    assert (worst["present"], worst["absent"]) == ("joy", "fear")
    assert told["confusion"].startswith("fear is most often taken for present where joy is: it fires in ")
    assert f"{say.percent(worst['rate'])} of the {worst['n']} test samples" in told["confusion"]
    errors = [r for r in analysis.errors.to_pylist() if r["kind"] == "linear"]
    rho = spearmanr([r["prevalence"] for r in errors], [r["f1"] for r in errors]).statistic
    assert f"prevalence (rank correlation {say.short(float(rho), signed=True)})" in told["errors"]


def confused(*rows: tuple[str, str, int, int, float]) -> dict:
    """Payload of a study of three concepts of which only confusion was measured."""
    names = ["x", "y", "z"]
    empty = analysis_of([], [], [])
    found = [
        {"kind": "mean", "present": p, "absent": a, "n": n, "fired": f, "rate": f / n if n else None, "base": base}
        for p, a, n, f, base in rows
    ]
    return analyses(bare(["mean"], ["a"], names), replace(empty, confusion=table_from("confusion", found)))["kinds"]


def test_confusion_lists_only_pairs_with_enough_samples_beyond_their_base() -> None:
    found = confused(
        ("x", "y", 40, 10, 0.1),
        ("z", "y", 4, 4, 0.1),
        ("y", "x", 30, 3, 0.2),
        ("z", "x", 30, 15, 0.2),
        ("x", "z", 0, 0, 0),
    )["mean"]
    assert found["confusion"]["pairs"] == [[2, 0], [0, 1]]
    assert found["sentences"]["confusion"] == (
        "x is most often taken for present where z is: it fires in 50 % of the 30 test samples with z and without x, "
        "against 20 % of all samples without x."
    )
    quiet = confused(("x", "y", 40, 4, 0.1), ("y", "x", 30, 0, 0.2))["mean"]["sentences"]["confusion"]
    assert quiet == "In none of 2 pairs does an absent concept fire more often where the other is present."
    few = confused(("x", "y", 4, 4, 0.1))["mean"]["sentences"]["confusion"]
    assert few.startswith("No two concepts have 5 test samples")


def test_pairs_of_tokens_against_loops() -> None:
    random = np.random.default_rng(0)
    states = random.normal(size=(30, 4))
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    cosine = (states @ states.T).astype(np.float32)
    inside, fired = random.random(30) < 0.3, random.random(30) < 0.5
    found = mean_cosines({"cosine": cosine, "inside": inside, "fired": fired})
    within = [cosine[a, b] for a in range(30) for b in range(a) if inside[a] and inside[b]]
    both = [cosine[a, b] for a in range(30) for b in range(a) if inside[a] and inside[b] and fired[a] and fired[b]]
    across = [cosine[a, b] for a in range(30) for b in range(30) if inside[a] and not inside[b]]
    for name, values in (("within", within), ("fired", both), ("across", across)):
        assert found[name] == pytest.approx(np.mean(values), abs=1e-6)
    cosine[0, 1] = np.nan
    steps = np.frombuffer(base64.b64decode(packed_cosines(cosine)), dtype=np.int8)
    wanted = [cosine[a, b] for a in range(30) for b in range(a + 1, 30)]
    assert steps[0] == -128
    np.testing.assert_allclose(steps[1:] / 127, wanted[1:], atol=0.5 / 127 + 1e-6)


@given(st.lists(st.integers(0, 3), max_size=300), st.integers(4, 100))
def test_shown_tokens(groups: list[int], most: int) -> None:
    given_groups = np.array(groups, dtype=np.int64)
    chosen = shown_tokens(given_groups, most)
    assert len(chosen) == min(len(groups), most)
    assert (np.diff(chosen) > 0).all()
    assert {*given_groups[chosen].tolist()} == {*groups}


def test_examples_of_pairs_name_their_tokens(study: ReportInputs, images: ReportInputs, shown: dict) -> None:
    dataset, analysis = study.dataset, study.analysis
    assert dataset is not None and analysis is not None  # noqa: PT018
    texts = {sample.id: sample.text for sample in dataset.samples}
    for example in shown["pairs"]["examples"]:
        words = texts[example["sample"]].split(" ")
        assert example["names"] == [words[token] for token in example["tokens"]]
        found = analysis.pairs[example["sample"]]
        assert example["groups"] == token_groups(found["inside"], found["fired"])[example["tokens"]].tolist()
    assert build_payload(images)["analyses"]["pairs"]["examples"][0]["names"][9] == "row 2, column 2"
    away = replace(study, dataset=None, encoding=None)
    assert analyses(away, analysis)["pairs"]["examples"][0]["names"] is None


@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("sites", [["a"], ["a", "b"]])
@pytest.mark.parametrize("concepts", [["x"], ["x", "y", "z"]])
def test_small_studies_have_sentences_without_gaps(tokens: bool, sites: list[str], concepts: list[str]) -> None:
    result = analysis_of(["mean"], sites, concepts, tokens=tokens, lengths=tokens)
    for name in ("auroc", "tail_mass", "coverage", "cohens_d", "overlap", "skewness_in", "skewness_out"):
        told = sentences(plain(analyses(bare(["mean"], sites, concepts), result)))
        assert len(told) == 16
        assert all(text.endswith(".") and not re.search("nan|None|inf[^l]", text) for text in told)
        place = result.separation.column_names.index(name)
        missing = pa.nulls(result.separation.num_rows, pa.float64())
        result = replace(result, separation=result.separation.set_column(place, name, missing))


def test_payload_of_a_large_study_is_small() -> None:
    kinds, sites = ["mean", "linear", "sae"], [f"block[{depth}]" for depth in range(12)]
    concepts = [f"concept {number}" for number in range(50)]
    result = analysis_of(kinds, sites, concepts, size=20_000)
    wide = [(np.array(part) * 50).tolist() for part in result.histograms["outside"].to_pylist()]
    place = result.histograms.column_names.index("outside")
    histograms = result.histograms.set_column(place, "outside", pa.array(wide, pa.list_(pa.int64())))
    result = replace(result, histograms=histograms)
    assert len(embeddable(plain(analyses(bare(kinds, sites, concepts), result)))) < 750_000


LOOK = """
<script type="module">
const wait = (time = 300) => new Promise((resolve) => setTimeout(resolve, time));
await wait();
const section = document.getElementById("analyses");
const find = (selector) => section.querySelector(selector);
const all = (selector) => [...section.querySelectorAll(selector)];
const told = { nav: document.querySelectorAll(".bar nav a[href='#analyses']").length };
told.sentences = all(".see").map((node) => node.textContent);
told.charts = all("svg[role=img]").length;
const chart = () => find(".chart svg").getAttribute("aria-label");
told.start = chart();
const slider = find("input[type=range]");
slider.value = 0;
slider.dispatchEvent(new Event("input"));
told.moved = chart();
told.lines = [find(".threshold") !== null];
const map = find(".confusion svg");
map.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
told.confusion = find(".confusion .readout").textContent;
map.dispatchEvent(new Event("blur"));
const canvas = find(".pair-map canvas");
canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
told.pair = all(".readout.active").map((node) => node.textContent);
canvas.dispatchEvent(new Event("blur"));
told.left = all(".readout.active").length;
const concept = find("select");
concept.value = [...concept.options].map((option) => option.value).findLast((name) => name !== concept.value);
concept.dispatchEvent(new Event("change"));
told.other = chart();
told.lines.push(find(".threshold") !== null);
told.opened = document.getElementById("concept-title").textContent;
told.named = all("select, input").every((node) => node.labels.length > 0);
const maps = all(".pair-map canvas, .confusion svg");
told.focusable = maps.length === 2 && maps.every((node) => node.tabIndex === 0 && node.getAttribute("aria-label"));
document.querySelector("input[value=mean]").click();
told.mean = all(".see").map((node) => node.textContent);
document.body.append(Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) }));
</script>
"""


def told_by(page: str, folder: Path) -> dict:
    dom, logged = opened(page.replace("</body>", LOOK + "</body>"), folder)
    assert logged == []
    body = dom.split('id="page"')[1].split('<pre id="told"')[0]
    assert "NaN" not in body
    assert "undefined" not in body
    return json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)[1]))


@needs_browser
@pytest.mark.parametrize("modality", ["study", "images"])
def test_section_works_in_a_browser(modality: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    inputs: ReportInputs = request.getfixturevalue(modality)
    payload = build_payload(inputs)
    found = payload["analyses"]
    told = told_by(render_report(inputs), tmp_path)
    best = payload["best_kind"]

    def of_kind(kind: str) -> set[str]:
        # Without lengths there is no chart of them, and so no sentence.
        kinds = {kind: found["kinds"][kind]}
        return {text for text in sentences(found | {"kinds": kinds}) if text != "Lengths were not compared."}

    assert of_kind(best) <= set(told["sentences"])
    assert of_kind("mean") <= set(told["mean"])
    assert told["nav"] == 1
    assert told["charts"] == (14 if modality == "study" else 13)
    opening = max(payload["rows"][best], key=lambda row: row["n_positive"])
    assert told["start"].startswith(f"Activations of {opening['concept']} at {opening['site']}: ")
    assert " at embed: " in told["moved"]
    assert told["lines"] == [False, True]
    assert re.match(r".+ fires in \d+ of \d+ samples with .+ against .+", told["confusion"])
    assert re.match(r".+ and .+: cosine −?\d*\.\d+$", told["pair"][0])
    assert (len(told["pair"]), told["left"]) == (1, 0)
    other = [name for name in payload["concepts"] if name != opening["concept"]][-1]
    assert told["other"].startswith(f"Activations of {other} at ")
    assert told["opened"] == other
    assert told["named"]
    assert told["focusable"]


NARROW = """<!doctype html><iframe width="400" height="3000" style="border: 0" srcdoc="PAGE"></iframe>
<script type="module">
await new Promise((resolve) => setTimeout(resolve, 1500));
const page = document.querySelector("iframe").contentDocument;
const free = [...page.querySelectorAll("#analyses *")].filter((node) => !node.closest(".scroll, .unseen"));
const wide = free.filter((node) => node.getBoundingClientRect().right > 401).map((node) => node.outerHTML.slice(0, 90));
const told = { elements: free.length, wide, scrolls: page.documentElement.scrollWidth };
document.body.append(Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) }));
</script>"""


@needs_browser
def test_section_fits_a_narrow_screen(study: ReportInputs, tmp_path: Path) -> None:
    dom, logged = opened(NARROW.replace("PAGE", html.escape(render_report(study))), tmp_path)
    assert logged == []
    told = json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert told["elements"] > 300
    assert told["wide"] == []
    assert told["scrolls"] <= 400


@needs_browser
def test_study_without_token_labels_says_so(tmp_path: Path) -> None:
    inputs = planted("text", methods=("superactivators",), resamples=0)
    dom, logged = opened(render_report(analysed(inputs, tokens=False)), tmp_path)
    assert logged == []
    part = dom.split('id="analyses"')[1].split('id="lengths"')[0]
    assert say.NO_TOKENS in part
    assert "Layer by layer" not in part
    assert "Rare and small concepts" in part
    assert "NaN" not in part


@needs_browser
def test_one_concept_at_one_layer_is_shown(tmp_path: Path) -> None:
    inputs = planted("text", concepts=("joy",), methods=("superactivators",), resamples=0)
    small = replace(analysis_of(inputs.kinds, inputs.sites[-1:], ["joy"]), pairs={})
    dom, logged = opened(render_report(replace(inputs, analysis=small)), tmp_path)
    assert logged == []
    part = dom.split('id="analyses"')[1].split('id="lengths"')[0]
    assert "At block[2], the share of in-concept tokens" in part
    assert "Taken for present" not in part
    assert "NaN" not in part


@needs_browser
def test_hostile_names_stay_text(tmp_path: Path) -> None:
    page = render_report(
        analysed(planted("text", concepts=("joy", HOSTILE), methods=("superactivators",), resamples=0))
    )
    assert "img" not in {tag for tag, _ in Page(page).elements}
    dom, logged = opened(page, tmp_path)
    assert logged == []
    assert "<img" not in dom


def test_an_empty_result_has_no_kinds() -> None:
    empty: AnalysisResult = analysis_of([], [], [])
    assert analyses(bare(["mean"], ["a"], ["x"]), empty) == {"kinds": {}, "pairs": None}
