"""The detector: made from a study, judged, kept as a folder, and refused when that folder is not what it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from detection.worlds import World, world
from superactivators.artefacts import Manifest, write_bytes
from superactivators.concepts.bank import ConceptBank
from superactivators.concepts.learning import learn_concepts
from superactivators.detection.detector import FORMAT, Detector
from superactivators.detection.evaluation import evaluate_detection
from superactivators.detection.results import DetectionResult
from superactivators.detection.superactivators import SuperActivatorDetector
from superactivators.detection.thresholds import Threshold
from superactivators.errors import CalibrationError, DataError, ModelError, StoreError
from superactivators.scores.activations import score_tokens
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
            for name in set(row) - {"in_sample"}:
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


def test_calibrating_needs_labelled_tokens_of_every_concept(banks: list[ConceptBank]) -> None:
    bare = world(12, per_split=10)
    bare.token_labels[:, 1] = False
    with pytest.raises(CalibrationError, match="no in-concept token on cal for concept 1"):
        SuperActivatorDetector(banks).calibrate(bare.states())
    states = bare.states()
    states.labels.__dict__["tokens"] = None
    with pytest.raises(CalibrationError, match="need labelled tokens"):
        SuperActivatorDetector(banks).calibrate(states)
    with pytest.raises(CalibrationError, match="no concept bank"):
        SuperActivatorDetector([]).calibrate(bare.states())


# ------------------------------------------------------------------ as a folder


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
