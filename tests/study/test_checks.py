"""Checks: each speaks with the right figure where there is something to say, and is silent in a clean study."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

import superactivators as sa
from superactivators.concepts.bank import ConceptBank
from superactivators.data.dataset import ConceptDataset, ImageSample, Span, TextSample
from superactivators.detection.lengths import length_table
from superactivators.errors import StudyError
from superactivators.models.encoding import Encoding
from superactivators.ragged import offsets_of
from superactivators.states.arrays import states_from_arrays
from superactivators.states.states import States
from superactivators.study.checks import Check, CheckInputs, Finding, Warned, check_codes, checks, run_checks
from superactivators.study.checks.ranks import ranks_within
from superactivators.study.checks.samples import sample_keys
from superactivators.study.checks.states import is_token_mean, token_norms
from superactivators.study.clock import Clock
from superactivators.study.plan import StudyPlan
from superactivators.study.stages import Stages

CONCEPTS = ("sun", "rain")
DOCS = Path(sa.__file__).parents[2] / "docs" / "checks.md"
WIDTH = 8


class Planted:
    """A text study of two concepts, each a direction of its own that in-concept tokens carry; one word is one token."""

    def __init__(self, seed: int = 0, *, grow: int = 0, lexical: bool = False, weak_alone: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.lengths, self.words, self.ids = [], [], []
        carried: list[np.ndarray] = []
        for _ in range(180):
            present = rng.random(2) < 0.4
            length = int(rng.integers(8, 15)) + grow * int(present[0])
            tokens = np.zeros((length, 2), dtype=bool)
            for c in np.flatnonzero(present):
                at, size = 4 * c, int(rng.integers(1, 4))
                tokens[at : at + size, c] = True
            carried.append(tokens)
            self.lengths.append(length)
        self.tokens = np.concatenate(carried)
        self.offsets = offsets_of(np.array(self.lengths))
        self.splits = np.array(["train", "cal", "test"] * 60)
        strength = np.full(len(self.tokens), 6.0)
        if weak_alone:
            # A token that carries its concept alone in its sample carries little of it.
            for tokens, begin in zip(carried, self.offsets, strict=False):
                alone = (tokens.sum(axis=0) == 1)[None] & tokens
                strength[begin : begin + len(tokens)][alone.any(axis=1)] = 3.0
        self.values = {}
        for number, site in enumerate(("block[0]", "block[1]")):
            states = 0.8 * rng.standard_normal((len(self.tokens), WIDTH))
            states[:, :2] += (0.5 + 0.5 * number) * strength[:, None] * self.tokens
            self.values[site] = states.astype(np.float32)
        names = np.array(["plain", *(f"{name}ny" if lexical else "plain" for name in CONCEPTS)])
        kind = np.where(self.tokens.any(axis=1), 1 + self.tokens.argmax(axis=1), 0)
        random_words = [f"w{number}" for number in rng.integers(0, 5000, len(self.tokens))]
        self.words = [
            random if names[k] == "plain" else str(names[k]) for random, k in zip(random_words, kind, strict=True)
        ]

    @property
    def means(self) -> dict[str, np.ndarray]:
        return {
            site: np.stack([rows[a:b].mean(axis=0) for a, b in zip(self.offsets, self.offsets[1:], strict=False)])
            for site, rows in self.values.items()
        }

    def states(self, sample_values: dict[str, np.ndarray] | None = None) -> States:
        return states_from_arrays(
            self.values, self.offsets, self.tokens, None, self.splits, CONCEPTS, sample_values or self.means
        )

    def dataset(self) -> ConceptDataset:
        samples = []
        for number, begin in enumerate(self.offsets[:-1].tolist()):
            words = self.words[begin : self.offsets[number + 1]]
            starts = np.cumsum([0, *(len(word) + 1 for word in words)])
            spans = tuple(
                Span(int(starts[row]), int(starts[row]) + len(words[row]), CONCEPTS[c])
                for row, c in zip(*np.nonzero(self.tokens[begin : self.offsets[number + 1]]), strict=True)
            )
            samples.append(TextSample(str(number), " ".join(words), spans, split=str(self.splits[number])))
        return ConceptDataset("planted", CONCEPTS, tuple(samples))

    def encoding(self, cut: Sequence[int] = ()) -> Encoding:
        n, total = len(self.lengths), int(self.offsets[-1])
        lost = np.zeros(n, dtype=np.int32)
        lost[: len(cut)] = cut
        chars = np.zeros((total, 2), dtype=np.int32)
        return Encoding("text", self.offsets, np.zeros(total, dtype=np.int32), chars, None, None, None, lost)

    def inputs(self, states: States | None = None, **plan: Any) -> CheckInputs:
        states = self.states() if states is None else states
        given = {"kinds": ("mean",), "methods": ("superactivators", "max"), "deltas": (0.2, 0.95), "resamples": 0}
        dataset = self.dataset()
        stages = Stages(states, StudyPlan(**{**given, **plan}), None, Clock(), dataset)
        return CheckInputs(dataset, states, stages.run(), stages.scores, self.encoding(), stages.bank)


@pytest.fixture(scope="module")
def clean() -> CheckInputs:
    return Planted().inputs()


def found(inputs: CheckInputs, code: str) -> Finding | None:
    return checks[code].measure(inputs)


def spoken(inputs: CheckInputs, code: str) -> Finding:
    finding = found(inputs, code)
    assert finding is not None, f"{code} was silent"
    assert set(finding.concepts) <= set(inputs.concepts)
    assert "\n" not in finding.message
    return finding


def with_result(inputs: CheckInputs, **changes: Any) -> CheckInputs:
    return replace(inputs, result=replace(inputs.result, **changes))


def with_metric(inputs: CheckInputs, split: str, column: str, values: dict[str, Any], **where: str) -> CheckInputs:
    """Change some figures of the chosen rows of a split."""
    rows = inputs.result.metrics.to_pylist()
    place = {"kind": "mean", "method": "superactivators"} | where
    for row in rows:
        if row["chosen"] and row["split"] == split and all(row[name] == value for name, value in place.items()):
            row[column] = values.get(row["concept"], row[column])
    return with_result(inputs, metrics=pa.Table.from_pylist(rows, schema=inputs.result.metrics.schema))


def with_choice(inputs: CheckInputs, name: str, values: Sequence[Any], **summary: Any) -> CheckInputs:
    """Change the choice of every concept."""
    chosen = {
        concept: inputs.result.summary["chosen"]["mean"]["superactivators"][concept] | {name: value}
        for concept, value in zip(inputs.concepts, values, strict=True)
    }
    content = {**inputs.result.summary, "chosen": {"mean": {"superactivators": chosen}}, **summary}
    return with_result(inputs, summary=content)


def activations(inputs: CheckInputs, concept: int) -> list[np.ndarray]:
    """Token activations of each test sample at the site chosen for a concept, straight from the bank."""
    assert inputs.bank is not None
    site = inputs.picks("site")[concept]
    rows = torch.cat([block for _, block in inputs.states.values.blocks(site)])
    scores = inputs.bank("mean", "token", site).activations(rows).numpy()[:, concept]
    labels = inputs.states.labels
    return [scores[labels.offsets[i] : labels.offsets[i + 1]] for i in labels.in_split("test")]


# ---------------------------------------------------------------------- running


def test_a_clean_study_is_not_warned_of(clean: CheckInputs) -> None:
    assert run_checks(clean) == []


def test_warnings_come_in_order_as_json_and_can_be_silenced(clean: CheckInputs) -> None:
    labels = replace(clean.states.labels, lost_by_crop={"rain": 3})
    faulty = replace(clean, states=replace(clean.states, labels=labels), encoding=Planted().encoding([4, 0, 2]))
    warned = run_checks(faulty)
    assert [item.code for item in warned] == ["SA010", "SA011"]
    assert isinstance(warned[0], Warned)
    given = json.loads(json.dumps(warned[0].as_dict(), allow_nan=False))
    assert given["concepts"] == ["rain"]
    assert (given["value"], given["limit"]) == (3, 0)
    assert [item.code for item in run_checks(faulty, ["SA010"])] == ["SA011"]
    assert run_checks(faulty, ["SA010", "SA011"]) == []


def test_unknown_codes_are_named_with_the_known_ones(clean: CheckInputs) -> None:
    with pytest.raises(StudyError, match=r"unknown check 'SA04' in silence; .*SA004"):
        run_checks(clean, ["SA04"])
    check_codes(["SA004"])


def test_silenced_checks_are_not_run_and_others_can_be_added(
    clean: CheckInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def measure(inputs: CheckInputs) -> Finding | None:
        seen.append(inputs)
        return Finding("Everything is odd.", float("nan"), 1.0)

    monkeypatch.setitem(checks._known, "XY001", Check("XY001", "odd", measure))
    assert run_checks(clean, ["XY001"]) == []
    assert not seen
    warned = run_checks(clean)
    assert [item.code for item in warned] == ["XY001"]
    assert warned[0].as_dict()["value"] is None


def test_every_code_is_explained_and_nothing_else() -> None:
    text = DOCS.read_text(encoding="utf-8")
    sections = re.split(r"^### ", text, flags=re.M)[1:]
    assert [section.split()[0] for section in sections] == list(checks)
    for section in sections:
        code = section.split()[0]
        assert section.splitlines()[0] == f"{code} {checks[code].title}"
        assert re.fullmatch(r"SA\d{3}", code)
        for part in ("**Means.**", "**Measured.**", "**Limit.**", "**Do.**"):
            assert part in section, (code, part)
    assert list(checks) == [f"SA{number:03d}" for number in range(1, len(list(checks)) + 1)]


def test_limits_in_the_docs_are_those_of_the_code(clean: CheckInputs) -> None:
    from superactivators.study.checks import baselines, errors, samples, states, thresholds

    text = DOCS.read_text(encoding="utf-8")
    limit = {section.split()[0]: section.split("**Limit.**")[1] for section in re.split(r"^### ", text, flags=re.M)[1:]}
    for code, figures in {
        "SA001": (f"{100 * states.OUTLIER_SHARE:g} %",),
        "SA002": (f"{100 * states.CLS_SHARE:g} %",),
        "SA004": (str(thresholds.FEW),),
        "SA006": (f"{samples.CONFOUNDED:g}", f"{samples.SURE:g} standard errors"),
        "SA007": (f"{samples.CONFOUNDED:g}",),
        "SA014": (f"{100 * thresholds.EDGE_SHARE:g} %",),
        "SA015": (f"{errors.LONGER:g}", str(errors.ALARMS)),
        "SA016": (f"{thresholds.OPTIMISM:g}",),
        "SA017": ("1e-4",),
        "SA018": (f"{100 * baselines.UNPARSABLE:g} %",),
    }.items():
        for figure in figures:
            assert figure in limit[code], (code, figure)


# ---------------------------------------------------------------------- states


def test_sa001_outlier_tokens() -> None:
    planted, axis = Planted(), np.eye(WIDTH, dtype=np.float32)[0]
    for number in np.flatnonzero(planted.splits == "test")[:20].tolist():
        for rows in planted.values.values():
            rows[planted.offsets[number + 1] - 1] = 200 * axis
    inputs = planted.inputs()
    finding = spoken(inputs, "SA001")
    site = inputs.picks("site")[0]
    norms = np.linalg.norm(planted.values[site], axis=1)
    outlying = norms > 10 * np.median(norms)
    tops = [
        outlying[planted.offsets[i] + int(scores.argmax())]
        for i, scores in zip(np.flatnonzero(planted.splits == "test"), activations(inputs, 0), strict=True)
    ]
    assert finding.value == pytest.approx(np.mean(tops))
    assert 0.05 < finding.value < 0.4
    assert finding.concepts == ("sun",)
    assert "20 such tokens" in finding.message
    np.testing.assert_allclose(token_norms(inputs.states, site), norms, rtol=1e-5)


def test_sa001_is_silent_where_outliers_do_not_score() -> None:
    planted, axis = Planted(), np.eye(WIDTH, dtype=np.float32)[0]
    for number in np.flatnonzero(planted.splits == "test")[:20].tolist():
        for rows in planted.values.values():
            rows[planted.offsets[number + 1] - 1] = -200 * (axis + np.eye(WIDTH)[1])
    assert found(planted.inputs(), "SA001") is None


def test_sa002_cls_states() -> None:
    planted, rng = Planted(), np.random.default_rng(1)
    cls = {site: rng.standard_normal((180, WIDTH)).astype(np.float32) for site in planted.values}
    test = np.flatnonzero(planted.splits == "test")
    for states in cls.values():
        states[test[:15]] = 5 * np.eye(WIDTH)[1]
        states[test[15:30], :2] = 0.5
        states[test[30:], :2] = -2
    inputs = planted.inputs(planted.states(cls))
    finding = spoken(inputs, "SA002")
    assert inputs.bank is not None
    site = inputs.picks("site")[1]
    own = inputs.bank("mean", "token", site).activations(torch.from_numpy(cls[site][test])).numpy()[:, 1]
    expected = np.mean([score > scores.max() for score, scores in zip(own, activations(inputs, 1), strict=True)])
    assert finding.value == pytest.approx(expected)
    assert finding.value > 0.1
    assert "rain" in finding.concepts
    assert found(replace(inputs, bank=None), "SA002") is None


def test_sa002_does_not_speak_of_mean_states() -> None:
    planted = Planted()
    half = {site: means.astype(np.float16) for site, means in planted.means.items()}
    assert is_token_mean(planted.states(half), "block[1]")
    shifted = {site: means + 1 for site, means in planted.means.items()}
    assert not is_token_mean(planted.states(shifted), "block[1]")


@pytest.mark.parametrize("speaks", [True, False])
def test_sa003_final_norm(speaks: bool) -> None:
    planted = Planted()
    good, bad = planted.values["block[1]"], np.random.default_rng(5).standard_normal(planted.values["block[1]"].shape)
    planted.values = {"block[0]": bad.astype(np.float32), "final_norm": good}
    if not speaks:
        planted.values = {"block[0]": good, "final_norm": bad.astype(np.float32)}
    inputs = planted.inputs()
    if speaks:
        assert spoken(inputs, "SA003").concepts == CONCEPTS
    else:
        assert found(inputs, "SA003") is None


# ---------------------------------------------------------------------- thresholds


def test_sa004_few_examples_in_the_tail() -> None:
    inputs = Planted().inputs(deltas=(0.03,), kinds=("linear",))
    finding = spoken(inputs, "SA004")
    labels = inputs.states.labels
    least = []
    for c, concept in enumerate(CONCEPTS):
        threshold = next(t for t in inputs.result.thresholds if t.concept == concept and t.method == "superactivators")
        scores, rows, offsets = inputs.scores("linear", "token", threshold.site).of_split(labels, "cal")
        above = scores[:, c].astype(np.float64) >= threshold.value
        tokens = int((above & labels.tokens[rows].toarray()[:, c]).sum())
        samples = sum(
            above[offsets[k] : offsets[k + 1]].any() and labels.samples[i, c]
            for k, i in enumerate(labels.in_split("cal"))
        )
        least.append(min(tokens, samples))
    assert finding.value == min(least) < 5
    assert set(finding.concepts) == {name for name, count in zip(CONCEPTS, least, strict=True) if count < 5}
    # Without the method of tokens, samples alone count.
    alone = Planted().inputs(methods=("max",))
    assert found(alone, "SA004") is None
    few = spoken(with_metric(alone, "cal", "tp", {"rain": 2}, method="max"), "SA004")
    assert (few.value, few.concepts) == (2, ("rain",))


def test_sa008_own_split(clean: CheckInputs) -> None:
    thresholds = [replace(t, split="test") if t.concept == "rain" else t for t in clean.result.thresholds]
    finding = spoken(with_result(clean, thresholds=thresholds), "SA008")
    assert (finding.value, finding.concepts) == (2, ("rain",))
    unmarked = with_metric(clean, "cal", "in_sample", {"sun": ""})
    finding = spoken(unmarked, "SA008")
    assert (finding.value, finding.concepts) == (1, ("sun",))
    marked = with_metric(clean, "test", "in_sample", {"sun": "thresholds"})
    assert spoken(marked, "SA008").value == 1


def test_sa013_always_yes(clean: CheckInputs) -> None:
    labels = clean.states.labels
    truth = labels.samples[labels.in_split("test")]
    yes = [f1_score(column, np.ones(len(column))) for column in truth.T]
    assert found(with_metric(clean, "test", "f1", {"rain": yes[1] + 0.01}), "SA013") is None
    finding = spoken(with_metric(clean, "test", "f1", {"rain": yes[1] - 0.02}), "SA013")
    assert finding.value == pytest.approx(-0.02)
    assert finding.concepts == ("rain",)
    assert spoken(with_metric(clean, "test", "f1", {"sun": yes[0], "rain": yes[1]}), "SA013").concepts == CONCEPTS


def test_sa014_edges(clean: CheckInputs) -> None:
    deltas = {"deltas": [0.05, 0.2, 0.5]}
    assert found(with_choice(clean, "delta", [0.2, 0.2], **deltas), "SA014") is None
    finding = spoken(with_choice(clean, "delta", [0.05, 0.2], **deltas), "SA014")
    assert (finding.value, finding.concepts) == (0.5, ("sun",))
    assert "0.05, an end of the deltas, is chosen for 1 of 2 concepts" in finding.message
    planted = Planted()
    planted.values = {f"block[{k}]": planted.values["block[1]"] * (k + 1) for k in range(3)}
    inputs = planted.inputs()
    assert inputs.sites == ("block[0]", "block[1]", "block[2]")
    assert found(with_choice(inputs, "site", ["block[1]"] * 2), "SA014") is None
    finding = spoken(with_choice(inputs, "site", ["block[2]", "block[2]"]), "SA014")
    assert (finding.value, finding.concepts) == (1.0, CONCEPTS)
    assert "block[2], an end of the layers" in finding.message


def test_sa016_optimism(clean: CheckInputs) -> None:
    faulty = with_metric(clean, "cal", "f1", {"sun": 0.9, "rain": 0.8})
    faulty = with_metric(faulty, "test", "f1", {"sun": 0.4, "rain": 0.75})
    faulty = with_metric(faulty, "test", "n_positive", {"sun": 30, "rain": 20})
    finding = spoken(faulty, "SA016")
    assert finding.value == pytest.approx((0.5 * 30 + 0.05 * 20) / 50)
    assert finding.concepts == ("sun",)
    same = with_metric(faulty, "test", "f1", {"sun": 0.85})
    assert found(same, "SA016") is None


def test_sa017_convergence(clean: CheckInputs) -> None:
    def noted(notes: dict[str, Any]) -> CheckInputs:
        assert clean.bank is not None
        real = clean.bank

        def bank(kind: str, level: Any, site: str) -> ConceptBank:
            return replace(real(kind, level, site), notes=notes)

        return replace(clean, bank=bank)

    assert found(noted({"gradient_norm": [1e-5, 9e-5]}), "SA017") is None
    finding = spoken(noted({"gradient_norm": [1e-5, 3e-3]}), "SA017")
    assert (finding.value, finding.concepts) == (3e-3, ("rain",))
    assert "3e-03" in finding.message
    assert "mean at block[1]" in finding.message
    finding = spoken(noted({"stopped": ["epochs", "patience"]}), "SA017")
    assert finding.concepts == ("sun",)
    assert "last epoch" in finding.message
    assert found(noted({"stopped": ["f1", "patience"]}), "SA017") is None


def test_sa017_reads_the_notes_of_the_solver() -> None:
    assert found(Planted().inputs(kinds=("mean", "linear")), "SA017") is None


# ---------------------------------------------------------------------- samples


def change_texts(inputs: CheckInputs, texts: dict[int, str]) -> CheckInputs:
    assert inputs.dataset is not None
    samples = [
        replace(sample, text=texts[number], spans=()) if number in texts else sample
        for number, sample in enumerate(inputs.dataset.samples)
    ]
    return replace(inputs, dataset=replace(inputs.dataset, samples=tuple(samples)))


def test_sa005_shared_texts(clean: CheckInputs) -> None:
    assert clean.dataset is not None
    one, other = clean.dataset.samples[0].text, clean.dataset.samples[4].text
    # 0 and 3 are of train, 4 is of cal, 2, 5 and 8 are of test.
    faulty = change_texts(clean, {2: f"  {one.upper()}!", 5: other.replace(" ", " - "), 8: other, 3: one})
    finding = spoken(faulty, "SA005")
    assert finding.value == 3
    assert finding.message.startswith("More than one split holds 2 texts, such as 0 (train) and 2 (test)")
    within = change_texts(clean, {3: one, 6: one})
    assert found(within, "SA005") is None
    assert found(change_texts(clean, {2: "!!", 3: "??"}), "SA005") is None
    assert found(replace(clean, dataset=None), "SA005") is None
    trained = spoken(change_texts(clean, {1: one}), "SA005")
    assert trained.value == 1
    assert "0 of its 60 samples" in trained.message


def test_sa005_shared_images(clean: CheckInputs, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (6, 5, 3), dtype=np.uint8) for _ in range(3)]
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "1.png").read_bytes())

    def images(*sources: tuple[Any, str]) -> CheckInputs:
        samples = [ImageSample(f"i{k}", image, split=split) for k, (image, split) in enumerate(sources)]
        return replace(clean, dataset=ConceptDataset("images", CONCEPTS, tuple(samples)))

    apart = images((pixels[0], "train"), (pixels[1], "test"), (pixels[1].reshape(5, 6, 3), "cal"))
    assert found(apart, "SA005") is None
    finding = spoken(images((pixels[0], "train"), (pixels[1], "cal"), (pixels[0].copy(), "test")), "SA005")
    assert finding.message.startswith("More than one split holds 1 image, such as i0 (train) and i2 (test)")
    files = [(tmp_path / name, split) for name, split in (("0.png", "train"), ("1.png", "cal"), ("copy.png", "test"))]
    assert spoken(images(*files), "SA005").value == 1
    assert found(images(*files[:2]), "SA005") is None


def test_texts_differ_by_letters_and_digits_only() -> None:
    keys = sample_keys([TextSample(str(k), text) for k, text in enumerate(["A b.", "a  B", "ab", "😀", "🙂", "Ａ b"])])
    assert keys[0] == keys[1] == keys[5]
    assert len(set(keys)) == 4


def test_sa006_length() -> None:
    inputs = Planted(grow=6).inputs()
    finding = spoken(inputs, "SA006")
    labels = inputs.states.labels
    expected = roc_auc_score(labels.samples[:, 0], np.diff(labels.offsets))
    assert finding.value == pytest.approx(expected)
    assert finding.concepts == ("sun",)
    shorter = spoken(Planted(grow=-6).inputs(), "SA006")
    assert shorter.value > 0.7
    assert shorter.concepts == ("sun",)


def test_sa009_begin_of_text_in_texts(clean: CheckInputs) -> None:
    finding = spoken(change_texts(clean, {7: "<s> hello", 9: "  <|begin_of_text|>hello"}), "SA009")
    assert finding.value == 2
    assert "2 of 180 texts, such as 7" in finding.message
    assert found(change_texts(clean, {7: "hello <s>"}), "SA009") is None


def test_sa010_crop(clean: CheckInputs) -> None:
    def lost(counts: dict[str, int]) -> CheckInputs:
        return replace(clean, states=replace(clean.states, labels=replace(clean.states.labels, lost_by_crop=counts)))

    finding = spoken(lost({"sun": 1, "rain": 4, "left out": 9}), "SA010")
    assert (finding.value, finding.concepts) == (5, ("rain", "sun"))
    assert "rain 4, sun 1" in finding.message
    assert found(lost({"left out": 9}), "SA010") is None


def test_sa011_truncation(clean: CheckInputs) -> None:
    finding = spoken(replace(clean, encoding=Planted().encoding([7, 0, 5])), "SA011")
    assert finding.value == 2
    assert "2 texts of 180 lost 12 tokens" in finding.message
    assert found(replace(clean, encoding=None), "SA011") is None


def test_sa012_sample_labels_only() -> None:
    planted = Planted()
    states = planted.states()
    inputs = planted.inputs(replace(states, labels=states.labels.without_tokens()))
    assert spoken(inputs, "SA012").value == 0
    assert found(inputs, "SA007") is None, "where nobody says where a concept is, it has no size"


# ---------------------------------------------------------------------- errors


def test_sa007_small_ones_are_missed() -> None:
    inputs = Planted(weak_alone=True).inputs(deltas=(0.7,))
    labels = inputs.states.labels
    # Positive samples of which nobody has said where the concept is have no size.
    unplaced = labels.in_split("test")[:6]
    labels = replace(labels, samples=labels.samples.copy())
    labels.samples[unplaced] = True
    inputs = replace(inputs, states=replace(inputs.states, labels=labels))
    finding = spoken(inputs, "SA007")
    area, medians = [], []
    for c, concept in enumerate(CONCEPTS):
        threshold = next(t for t in inputs.result.thresholds if t.concept == concept and t.method == "superactivators")
        sizes, hit = [], []
        for i, scores in zip(labels.in_split("test"), activations(inputs, c), strict=True):
            size = labels.tokens[labels.offsets[i] : labels.offsets[i + 1], c].sum()
            if size:
                sizes.append(size)
                hit.append(scores.max() >= threshold.value)
        area.append(roc_auc_score(hit, sizes))
        medians.append((np.median(np.array(sizes)[hit]), np.median(np.array(sizes)[~np.array(hit)])))
    worst = int(np.argmax(area))
    assert finding.value == pytest.approx(area[worst])
    assert finding.concepts == CONCEPTS
    found_size, missed_size = medians[worst]
    assert f"{found_size:.0f} in-concept tokens, missed ones {missed_size:.0f}" in finding.message


def test_decisions_are_those_of_the_tables(clean: CheckInputs) -> None:
    for inputs in (clean, Planted().inputs(methods=("max", "mean")), Planted().inputs(kinds=("kmeans",))):
        labels, figures = inputs.states.labels, inputs.chosen("test")
        truth = labels.samples[labels.in_split("test")]
        assert figures is not None
        assert inputs.test_fires is not None
        np.testing.assert_array_equal((inputs.test_fires & truth).sum(axis=0), figures["tp"])
        np.testing.assert_array_equal((inputs.test_fires & ~truth).sum(axis=0), figures["fp"])


def test_decisions_are_those_of_the_unit_that_was_matched() -> None:
    inputs = Planted().inputs(kinds=("kmeans",))
    site = inputs.picks("site")[0]
    held = inputs.scores("kmeans", "token", site)
    second = int(held.units["max"][1, 0])
    assert second != held.units["max"][0, 0]
    thresholds = [replace(t, unit=second) if t.concept == "sun" else t for t in inputs.result.thresholds]
    fires = with_result(inputs, thresholds=thresholds).test_fires
    assert fires is not None
    scores = held.variants["max"][1, inputs.states.labels.in_split("test"), 0].astype(np.float64)
    np.testing.assert_array_equal(fires[:, 0], scores >= inputs.picks("threshold")[0])


def test_sa015_longer_false_alarms(clean: CheckInputs) -> None:
    def alarms(slope: float) -> CheckInputs:
        rng = np.random.default_rng(0)
        lengths = rng.integers(5, 50, 400)
        pooled = slope * lengths[:, None] / 50 + rng.random((400, 2)) * [1, 0.2]
        labels = np.zeros((400, 2), dtype=bool)
        table = length_table(pooled, np.full(2, 0.9), labels, lengths, concepts=CONCEPTS)
        for name, value in (("method", "superactivators"), ("kind", "mean")):
            table = table.add_column(0, name, pa.array([value] * len(table)))
        return with_result(clean, lengths=table)

    faulty = alarms(1.0)
    finding = spoken(faulty, "SA015")
    rows = faulty.result.lengths.to_pylist()
    assert finding.value == rows[0]["length_auroc"] > 0.6
    assert finding.concepts == CONCEPTS
    assert f"{rows[0]['low']} to {rows[0]['high']} tokens" in finding.message
    assert found(alarms(0.0), "SA015") is None
    assert found(with_result(clean, lengths=pa.table({"kind": pa.array([], pa.string())})), "SA015") is None


# ---------------------------------------------------------------------- baselines


def test_sa018_unparsable_answers(clean: CheckInputs) -> None:
    finding = spoken(replace(clean, prompt={"questions": 400, "unparsable": 30}), "SA018")
    assert finding.value == 30 / 400
    assert "30 answers of 400" in finding.message
    assert found(replace(clean, prompt={"questions": 400, "unparsable": 4}), "SA018") is None
    assert found(replace(clean, prompt={}), "SA018") is None


def test_sa019_lexical_concepts() -> None:
    inputs = Planted(lexical=True).inputs(methods=("superactivators", "bag-of-words"))
    words = inputs.chosen("test", "input", "bag-of-words")
    ours = inputs.chosen("test")
    assert words is not None
    assert ours is not None
    lead = words["f1"] - ours["f1"]
    finding = spoken(inputs, "SA019")
    assert finding.value == pytest.approx(lead.max())
    assert set(finding.concepts) == {name for name, gain in zip(CONCEPTS, lead, strict=True) if gain >= 0}
    assert found(Planted().inputs(methods=("superactivators", "bag-of-words")), "SA019") is None


# ---------------------------------------------------------------------- inside


def test_ranks_within_are_those_of_each_column_alone() -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(0, 6, (80, 5))
    among, marked = rng.random((80, 5)) < 0.7, rng.random((80, 5)) < 0.4
    among[:, 3], marked[:, 4] = False, True
    auroc, errors = ranks_within(values, among, marked)
    for c in range(3):
        own = among[:, c]
        assert auroc[c] == pytest.approx(roc_auc_score(marked[own, c], values[own, c]))
        ones, zeros = int(marked[own, c].sum()), int((~marked[own, c]).sum())
        deviation = np.sqrt((ones + zeros + 1) / (12 * ones * zeros))
        assert errors[c] == pytest.approx(abs(auroc[c] - 0.5) / deviation)
    assert (auroc[3], errors[3], auroc[4], errors[4]) == (0.5, 0, 0.5, 0)


@pytest.mark.parametrize("plan", [{"methods": ("cls",)}, {"methods": ("bag-of-words",)}, {"kinds": ("mean", "kmeans")}])
def test_checks_that_do_not_apply_are_silent(plan: dict[str, Any]) -> None:
    inputs = Planted().inputs(**plan)
    codes = {warned.code for warned in run_checks(inputs)}
    assert not codes & {"SA001", "SA002", "SA003", "SA005", "SA008", "SA018"}
