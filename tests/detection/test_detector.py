"""The detector: made from a study, judged, kept as a folder, and refused when that folder is not what it was."""

from __future__ import annotations

import inspect
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import binomtest

from detection import oracle
from detection.worlds import World, world
from superactivators.artefacts import Manifest, write_bytes
from superactivators.concepts.bank import ConceptBank
from superactivators.concepts.learning import learn_concepts
from superactivators.detection.detector import FORMAT, Detector
from superactivators.detection.evaluation import evaluate_detection
from superactivators.detection.results import DetectionResult
from superactivators.detection.superactivators import SuperActivatorDetector
from superactivators.detection.tail import DELTAS
from superactivators.detection.thresholds import Threshold
from superactivators.errors import CalibrationError, DataError, ModelError, StoreError, StudyError
from superactivators.scores.activations import score_tokens
from superactivators.scores.layout import Layout
from superactivators.states import arrays

CARD = {"data": "planted", "test": {"concept 0": {"prevalence": 0.25, "f1": 0.5, "n": 36}}}


@pytest.fixture(scope="module")
def data() -> World:
    return world(11)


@pytest.fixture(scope="module")
def banks(data: World) -> list[ConceptBank]:
    states = data.states()
    return [learn_concepts(states, site, ["mean"])[0] for site in states.sites]


@pytest.fixture(scope="module")
def result(data: World, banks: list[ConceptBank]) -> DetectionResult:
    states = data.states()
    scores = {bank.site: score_tokens(states, [bank])[0] for bank in banks}
    return evaluate_detection(
        lambda kind, level, site: scores[site],
        states.sites,
        ["mean"],
        states.labels,
        method_names=["superactivators"],
        resamples=20,
    )


@pytest.fixture
def detector(banks: list[ConceptBank], result: DetectionResult) -> Detector:
    model = {"name": "tiny", "fingerprint": "f" * 64, "options": {"long_texts": "window"}}
    return Detector.of({bank.site: bank for bank in banks}, result.thresholds, model=model, card=CARD)


def raw(data: World, sites: tuple[str, ...], rows: slice) -> dict[str, torch.Tensor]:
    return {site: torch.from_numpy(data.values[site][rows]) for site in sites}


def test_it_is_made_of_the_columns_that_its_concepts_chose(
    detector: Detector, banks: list[ConceptBank], data: World
) -> None:
    assert detector.concepts == tuple(data.concepts)
    assert sorted(name for bank in detector.banks for name in bank.concepts) == sorted(data.concepts)
    assert set(detector.sites) == {threshold.site for threshold in detector.thresholds}
    assert len(detector.sites) > 1, "concepts of several layers, or this tests less than it should"
    rows = slice(0, 40)
    found = detector.activations(raw(data, detector.sites, rows))
    by_site = {bank.site: bank for bank in banks}
    for c, threshold in enumerate(detector.thresholds):
        whole = by_site[threshold.site].activations(torch.from_numpy(data.values[threshold.site][rows])).numpy()
        np.testing.assert_allclose(found[:, c], whole[:, c], atol=1e-6)


def test_it_judges_as_the_study_did(detector: Detector, result: DetectionResult, data: World) -> None:
    states = data.states()
    for split in ("train", "cal", "test"):
        table = detector.evaluate(states, split, in_sample=split != "test").to_pylist()
        study = [row for row in result.metrics.to_pylist() if row["split"] == split and row["chosen"]]
        assert [row["concept"] for row in table] == data.concepts
        for row, expected in zip(table, study, strict=True):
            assert row["in_sample"] == (split != "test")
            assert (row["min_tokens"], row["within"]) == (1, "sample")
            for name in set(row) - {"in_sample", "min_tokens", "within"}:
                assert row[name] == pytest.approx(expected[name], abs=1e-9), (split, name)


def test_blocks_do_not_change_the_judgement(detector: Detector, data: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = detector.evaluate(data.states()).to_pylist()
    monkeypatch.setattr(arrays, "BLOCK", 5)
    again = detector.evaluate(data.states()).to_pylist()
    for one, other in zip(usual, again, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize("split", ["cal", "train"])
def test_it_refuses_the_splits_it_was_made_from(detector: Detector, data: World, split: str) -> None:
    with pytest.raises(CalibrationError, match="in_sample=True"):
        detector.evaluate(data.states(), split)
    assert detector.evaluate(data.states(), split, in_sample=True)["in_sample"].to_pylist() == [True] * 3


def test_it_needs_states_of_its_concepts(detector: Detector, data: World) -> None:
    with pytest.raises(DataError, match="no concept 'concept 1'"):
        detector.evaluate(data.states().with_concepts(["concept 0", "concept 2"]))


def test_findings_decide_by_the_highest_token(detector: Detector, data: World) -> None:
    for i in range(data.n):
        rows = slice(int(data.offsets[i]), int(data.offsets[i + 1]))
        activations = detector.activations(raw(data, detector.sites, rows))
        for c, finding in enumerate(detector.findings(activations)):
            own = [float(value) for value in activations[:, c]]
            threshold = detector.thresholds[c]
            assert finding.concept == threshold.concept
            assert finding.score == max(own)
            assert finding.present == (max(own) >= threshold.value)
            assert finding.fired.tolist() == [t for t, value in enumerate(own) if value >= threshold.value]
            assert bool(len(finding.fired)) == finding.present
            assert (finding.threshold, finding.delta, finding.site) == (
                threshold.value,
                threshold.delta,
                threshold.site,
            )
            assert finding.activations.tolist() == own


def test_an_activation_equal_to_the_threshold_is_a_finding(detector: Detector) -> None:
    score = np.float32(0.3)
    values = [float(score), float(np.nextafter(np.float64(score), 1.0)), 0.0]
    thresholds = [
        Threshold(value, 0.1, old.concept, old.kind, old.method, old.site, 5)
        for value, old in zip(values, detector.thresholds, strict=True)
    ]
    exact = Detector(detector.kind, detector.banks, tuple(thresholds), {}, "float32", {})
    found = exact.findings(np.array([[score, score, -1.0]], dtype=np.float32))
    assert [finding.present for finding in found] == [True, False, False]
    assert [finding.fired.tolist() for finding in found] == [[0], [], []]


def test_states_are_rounded_like_those_it_was_made_from(
    banks: list[ConceptBank], result: DetectionResult, data: World
) -> None:
    rows = slice(0, 30)
    by_site = {bank.site: bank for bank in banks}
    coarse = Detector.of(by_site, result.thresholds, dtype="bfloat16")
    exact = Detector.of(by_site, result.thresholds)
    given = raw(data, exact.sites, rows)
    rounded = {site: states.bfloat16().float() for site, states in given.items()}
    np.testing.assert_array_equal(coarse.activations(given), exact.activations(rounded))
    assert (coarse.activations(given) != exact.activations(given)).any()


# ------------------------------------------------------------------ calibration without a study


def test_calibrating_gives_the_thresholds_of_the_study(
    banks: list[ConceptBank], result: DetectionResult, data: World
) -> None:
    fitted = SuperActivatorDetector(banks).calibrate(data.states())
    for found, expected in zip(fitted.thresholds, result.thresholds, strict=True):
        assert (found.concept, found.site, found.delta, found.value) == (
            expected.concept,
            expected.site,
            expected.delta,
            expected.value,
        )
        assert found.n == expected.n
        assert np.isnan(found.low)
    single = SuperActivatorDetector(banks[0], deltas=[0.5]).calibrate(data.states())
    assert {threshold.delta for threshold in single.thresholds} == {0.5}
    assert single.sites == (banks[0].site,)


def test_calibrating_needs_in_concept_tokens_of_every_concept(banks: list[ConceptBank]) -> None:
    bare = world(12, per_split=10)
    bare.token_labels[:, 1] = False
    with pytest.raises(CalibrationError, match="no in-concept token on cal for concept 1"):
        SuperActivatorDetector(banks).calibrate(bare.states())
    with pytest.raises(CalibrationError, match="no concept bank"):
        SuperActivatorDetector([]).calibrate(bare.states())


def test_without_token_labels_all_tokens_of_positives_set_the_threshold_and_the_card_says_so(
    banks: list[ConceptBank],
) -> None:
    data = world(12, per_split=10)
    states = data.states()
    weak = SuperActivatorDetector(banks).calibrate(replace(states, labels=states.labels.without_tokens()))
    owner = np.repeat(np.arange(data.n), np.diff(data.offsets))
    data.token_labels, data.known = data.sample_labels[owner], np.ones(len(owner), dtype=bool)
    assert weak.thresholds == SuperActivatorDetector(banks).calibrate(data.states()).thresholds
    assert weak.card["token_labels"] is False


# ------------------------------------------------------------------ evidence of several tokens


def layout_of(data: World, seed: int = 0) -> Layout:
    """Sentences of random lengths."""
    random = np.random.default_rng(seed)
    numbers = [np.cumsum(random.random(b - a) < 0.3) for a, b in itertools.pairwise(data.offsets)]
    return Layout(data.offsets.astype(np.int64), sentences=np.concatenate(numbers).astype(np.int32))


def evidence_of(own: list[float], sentences: list[int], wanted: int, within: str) -> float:
    """Highest activation that enough tokens of the sample, or of one sentence, reach."""
    best = -math.inf
    for value in own:
        for sentence in set(sentences):
            held = [a for a, s in zip(own, sentences, strict=True) if within == "sample" or s == sentence]
            if sum(a >= value for a in held) >= wanted:
                best = max(best, value)
    return best


@pytest.fixture(scope="module")
def activations(data: World, banks: list[ConceptBank]) -> list[np.ndarray]:
    return [bank.activations(torch.from_numpy(data.values[bank.site])).numpy() for bank in banks]


def pooled_slowly(data: World, activations: np.ndarray, layout: Layout, wanted: int, within: str) -> np.ndarray:
    assert layout.sentences is not None
    return np.array(
        [
            [
                evidence_of(activations[a:b, c].tolist(), layout.sentences[a:b].tolist(), wanted, within)
                for c in range(activations.shape[1])
            ]
            for a, b in itertools.pairwise(data.offsets.tolist())
        ]
    )


@pytest.mark.parametrize("within", ["sample", "segment"])
@pytest.mark.parametrize("max_fpr", [None, 0.35])
def test_number_of_tokens_level_and_layer_are_chosen_together(
    data: World, banks: list[ConceptBank], activations: list[np.ndarray], within: str, max_fpr: float | None
) -> None:
    layout, numbers, cal = layout_of(data), (2, 1, 3), data.in_split("cal")
    fitted = SuperActivatorDetector(
        banks,
        min_tokens=numbers,
        within=within,  # type: ignore[arg-type]
        layout=layout,
        max_fpr=max_fpr,
    ).calibrate(data.states())
    candidates = {}
    for layer in range(len(banks)):
        tail = oracle.token_tail(activations, data.token_labels, data.offsets)
        for wanted in numbers:
            pooled = pooled_slowly(data, activations[layer], layout, wanted, within)
            for c in range(3):
                truth = [bool(data.sample_labels[i, c]) for i in cal]
                for level, delta in enumerate(DELTAS):
                    value = oracle.quantile(tail(layer, c, cal), delta)
                    fires = [pooled[i, c] >= value for i in cal]
                    alarms = sum(f and not t for f, t in zip(fires, truth, strict=True))
                    negatives = len(truth) - sum(truth)
                    upper = binomtest(alarms, negatives).proportion_ci(0.9, "exact").high
                    if max_fpr is None or upper <= max_fpr:
                        # the best F1; of equals the fewest tokens, the smallest level, the shallowest layer
                        rank = (-oracle.f1(truth, fires), wanted, level, layer)
                        candidates.setdefault(c, []).append((*rank, value, alarms, negatives))
    for c, threshold in enumerate(fitted.thresholds):
        _, wanted, level, layer, value, alarms, negatives = min(candidates[c])
        assert (threshold.min_tokens, threshold.within) == (wanted, within)
        assert (threshold.delta, threshold.site) == (DELTAS[level], banks[layer].site)
        assert threshold.value == pytest.approx(value, abs=1e-12)
        assert fitted.card["cal"][threshold.concept] == {"false_positives": alarms, "negatives": negatives}
    assert fitted.card.get("max_fpr") == max_fpr


def with_evidence_of(detector: Detector, numbers: tuple[int, ...], within: str) -> Detector:
    thresholds = [
        replace(threshold, min_tokens=wanted, within=within, value=threshold.value - 0.4)
        for threshold, wanted in zip(detector.thresholds, numbers, strict=True)
    ]
    return replace(detector, thresholds=tuple(thresholds))


@pytest.mark.parametrize("within", ["sample", "segment"])
def test_findings_need_as_many_tokens_as_their_threshold_says(detector: Detector, data: World, within: str) -> None:
    asked, layout, present = with_evidence_of(detector, (1, 2, 3), within), layout_of(data), 0
    assert asked.needs_layout == (within == "segment")
    for i in range(data.n):
        rows = slice(int(data.offsets[i]), int(data.offsets[i + 1]))
        found = asked.activations(raw(data, asked.sites, rows))
        assert layout.sentences is not None
        sentences = layout.sentences[rows].tolist()
        for c, finding in enumerate(asked.findings(found, layout.block(i, i + 1))):
            own, threshold = [float(value) for value in found[:, c]], asked.thresholds[c]
            wanted = threshold.min_tokens
            assert (finding.min_tokens, finding.within) == (wanted, within)
            assert finding.score == evidence_of(own, sentences, wanted, within)
            passing = [t for t, value in enumerate(own) if value >= threshold.value]
            groups = {s if within == "segment" else 0: [] for s in sentences}
            for t in passing:
                groups[sentences[t] if within == "segment" else 0].append(t)
            expected = sorted(t for group in groups.values() if len(group) >= wanted for t in group)
            assert finding.fired.tolist() == expected
            assert finding.present == bool(expected)
            present += finding.present and wanted > 1
    assert present > 10, "or this tests less than it should"


@pytest.mark.parametrize("within", ["sample", "segment"])
@pytest.mark.parametrize("block", [5, 4096])
def test_the_judgement_is_that_of_the_findings(
    detector: Detector, data: World, within: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, layout = with_evidence_of(detector, (1, 2, 3), within), layout_of(data)
    monkeypatch.setattr(arrays, "BLOCK", block)
    table = asked.evaluate(data.states(), layout=layout).to_pylist()
    tp, fp = np.zeros(3, dtype=int), np.zeros(3, dtype=int)
    for i in data.in_split("test"):
        rows = slice(int(data.offsets[i]), int(data.offsets[i + 1]))
        found = asked.findings(asked.activations(raw(data, asked.sites, rows)), layout.block(i, i + 1))
        fires = np.array([finding.present for finding in found])
        tp += fires & data.sample_labels[i]
        fp += fires & ~data.sample_labels[i]
    assert [row["tp"] for row in table] == tp.tolist()
    assert [row["fp"] for row in table] == fp.tolist()
    assert [(row["min_tokens"], row["within"]) for row in table] == [(number, within) for number in (1, 2, 3)]


def test_segments_need_a_layout_of_the_same_samples(detector: Detector, data: World, banks: list[ConceptBank]) -> None:
    asked = with_evidence_of(detector, (1, 2, 2), "segment")
    other = layout_of(world(12, per_split=4))
    with pytest.raises(StudyError, match=r"got no layout; pass layout=Layout.of"):
        asked.evaluate(data.states())
    with pytest.raises(StudyError, match="the layout is of 12 samples"):
        asked.evaluate(data.states(), layout=other)
    with pytest.raises(StudyError, match="got no layout"):
        asked.findings(np.zeros((4, 3), dtype=np.float32))
    with pytest.raises(StudyError, match="got no layout"):
        SuperActivatorDetector(banks, min_tokens=2, within="segment").calibrate(data.states())
    with pytest.raises(StudyError, match="the layout is of 12 samples"):
        SuperActivatorDetector(banks, min_tokens=2, within="segment", layout=other).calibrate(data.states())
    one = SuperActivatorDetector(banks, within="segment").calibrate(data.states())
    plain = SuperActivatorDetector(banks).calibrate(data.states())
    assert [t.value for t in one.thresholds] == [t.value for t in plain.thresholds], (
        "one token is always in one segment"
    )


def test_impossible_options_are_refused(banks: list[ConceptBank]) -> None:
    # The type checker of the tests would be first to refuse some of these.
    make, made = inspect.unwrap(SuperActivatorDetector.__init__), object.__new__(SuperActivatorDetector)
    for wrong in (0, [], [1, 1], [2, 0], [1.5], "2"):
        with pytest.raises(StudyError, match="min_tokens must be a whole number from 1"):
            make(made, banks, min_tokens=wrong)
    with pytest.raises(StudyError, match="unknown within 'segments'; did you mean 'segment'"):
        make(made, banks, within="segments")
    for share in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(StudyError, match="max_fpr must lie between 0 and 1"):
            make(made, banks, max_fpr=share)


def test_a_false_alarm_rate_out_of_reach_is_refused_with_the_best_there_is(
    banks: list[ConceptBank], data: World
) -> None:
    """Without any false alarm among n negatives the bound is 1 - 0.05^(1/n)."""
    with pytest.raises(CalibrationError) as caught:
        SuperActivatorDetector(banks, max_fpr=0.01).calibrate(data.states())
    message = str(caught.value)
    assert "\n" not in message
    cal = data.in_split("cal")
    for c, name in enumerate(data.concepts):
        negatives = sum(not data.sample_labels[i, c] for i in cal)
        assert f"{name} ({1 - 0.05 ** (1 / negatives):.3f} at best)" in message, "no alarms at the highest threshold"


# ------------------------------------------------------------------ as a folder


def test_what_version_1_wrote_is_still_read(detector: Detector, data: World, tmp_path: Path) -> None:
    """Version 1 had no evidence in its thresholds, and no unit."""
    folder = tmp_path / "detector"
    detector.save_pretrained(folder)
    new = ("min_tokens", "within", "unit")
    rows = [{k: v for k, v in t.as_dict().items() if k not in new} for t in detector.thresholds]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    rewrite(folder, thresholds=sink.getvalue().to_pybytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["version"] == 2
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 1}))
    again = Detector.from_pretrained(folder)
    assert again.thresholds == detector.thresholds
    assert {(t.min_tokens, t.within) for t in again.thresholds} == {(1, "sample")}
    assert again.evaluate(data.states()).equals(detector.evaluate(data.states()))
    again.save_pretrained(folder)
    assert json.loads((folder / "manifest.json").read_text())["version"] == 2
    for version in (0, 3, "1", None):
        (folder / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
        with pytest.raises(StoreError):
            Detector.from_pretrained(folder)


def test_evidence_and_false_alarms_are_kept_and_shown(banks: list[ConceptBank], data: World, tmp_path: Path) -> None:
    fitted = SuperActivatorDetector(
        banks, min_tokens=2, within="segment", layout=layout_of(data), max_fpr=0.4
    ).calibrate(data.states())
    fitted.save_pretrained(tmp_path / "detector")
    again = Detector.from_pretrained(tmp_path / "detector")
    assert [t.as_dict() for t in again.thresholds] == [t.as_dict() for t in fitted.thresholds]
    assert again.needs_layout
    assert again.fingerprint == fitted.fingerprint
    readme = (tmp_path / "detector" / "README.md").read_text(encoding="utf-8")
    for wanted in ("2 tokens in one segment", "touch at a side or corner", "at most 0.4", "one-sided 95 %"):
        assert wanted in readme
    for name, counts in fitted.card["cal"].items():
        exact = binomtest(counts["false_positives"], counts["negatives"]).proportion_ci(0.9, "exact")
        rate = counts["false_positives"] / counts["negatives"]
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| {name} |")]
        assert f"| {rate:.3f} [{exact.low:.3f}, {exact.high:.3f}] |" in line
        assert exact.high <= 0.4


def test_saved_and_loaded_it_decides_bit_for_bit_the_same(detector: Detector, data: World, tmp_path: Path) -> None:
    detector.save_pretrained(tmp_path / "detector")
    again = Detector.from_pretrained(tmp_path / "detector")
    assert again.concepts == detector.concepts
    assert again.thresholds == detector.thresholds
    assert (again.kind, again.dtype, dict(again.model)) == (detector.kind, detector.dtype, dict(detector.model))
    assert again.fingerprint == detector.fingerprint
    given = raw(data, detector.sites, slice(0, 100))
    np.testing.assert_array_equal(again.activations(given), detector.activations(given))
    assert again.evaluate(data.states()).equals(detector.evaluate(data.states()))
    assert {path.suffix for path in (tmp_path / "detector").iterdir()} == {".json", ".safetensors", ".parquet", ".md"}
    readme = (tmp_path / "detector" / "README.md").read_text(encoding="utf-8")
    for wanted in ("tiny", "f" * 64, "concept 0", "0.250", "Limits", "cal split"):
        assert wanted in readme


def test_a_concept_that_is_never_found_can_be_saved(detector: Detector, tmp_path: Path) -> None:
    first = detector.thresholds[0]
    never = Threshold(float("inf"), 0.1, first.concept, first.kind, first.method, first.site, 0)
    given = Detector(detector.kind, detector.banks, (never, *detector.thresholds[1:]), {}, "float32", {})
    given.save_pretrained(tmp_path / "detector")
    assert Detector.from_pretrained(tmp_path / "detector").thresholds[0].value == float("inf")


def test_equal_detectors_have_equal_fingerprints(
    detector: Detector, banks: list[ConceptBank], result: DetectionResult
) -> None:
    same = Detector.of({bank.site: bank for bank in banks}, result.thresholds, model=detector.model, card=CARD)
    assert same.fingerprint == detector.fingerprint
    other = Detector.of({bank.site: bank for bank in banks}, result.thresholds, model=detector.model, card={})
    assert other.fingerprint != detector.fingerprint


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("file", ["config.json", "vectors-00.safetensors", "thresholds.parquet"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_bundle_is_refused(detector: Detector, tmp_path: Path, file: str, harm: str) -> None:
    detector.save_pretrained(tmp_path / "detector")
    path = tmp_path / "detector" / file
    if harm == "flip":
        damage(path)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
    with pytest.raises(StoreError) as caught:
        Detector.from_pretrained(tmp_path / "detector")
    assert "\n" not in str(caught.value)


def rewrite(folder: Path, **changes: bytes) -> None:
    """Replace files and make the manifest agree, as somebody with an editor might."""

    manifest = json.loads((folder / "manifest.json").read_text())
    for name, content in changes.items():
        file = {"config": "config.json", "thresholds": "thresholds.parquet"}[name]
        manifest["files"][file] = write_bytes(folder / file, content)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_bundle_whose_parts_do_not_fit_is_refused(detector: Detector, tmp_path: Path) -> None:
    folder = tmp_path / "detector"
    detector.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())

    def refused() -> str:
        with pytest.raises(StoreError) as caught:
            Detector.from_pretrained(folder)
        return str(caught.value)

    rewrite(folder, config=json.dumps({**config, "banks": []}).encode())
    assert "does not fit the format" in refused()
    rewrite(folder, config=json.dumps({key: config[key] for key in ("model", "dtype", "card")}).encode())
    assert "does not fit the format" in refused()
    rewrite(folder, config=b"{")
    assert "not JSON" in refused()
    rewrite(folder, config=json.dumps(config).encode())
    assert Detector.from_pretrained(folder).concepts == detector.concepts

    rows = [threshold.as_dict() for threshold in detector.thresholds]
    for wrong in (rows[:-1], [{**row, "colour": "red"} for row in rows]):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(wrong), sink)
        rewrite(folder, thresholds=sink.getvalue().to_pybytes())
        refused()


def test_folders_of_other_formats_and_versions_are_refused(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no superactivators/detector folder here"):
        Detector.from_pretrained(tmp_path / "nothing")
    folder = tmp_path / "detector"
    detector.save_pretrained(folder)
    content = json.loads((folder / "manifest.json").read_text())
    assert Manifest.read(folder, FORMAT).parameters["concepts"] == list(detector.concepts)
    (folder / "manifest.json").write_text(json.dumps({**content, "version": FORMAT.version + 1}))
    with pytest.raises(StoreError, match="version"):
        Detector.from_pretrained(folder)
    (folder / "manifest.json").write_text(json.dumps({**content, "format": "superactivators/states"}))
    with pytest.raises(StoreError, match="superactivators/states"):
        Detector.from_pretrained(folder)


def test_another_backbone_is_refused(detector: Detector) -> None:
    detector.check_backbone("f" * 64, "tiny")
    with pytest.raises(ModelError, match="made with 'tiny', but 'other' has other weights"):
        detector.check_backbone("e" * 64, "other")
