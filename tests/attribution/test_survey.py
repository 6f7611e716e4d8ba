"""Surveys: which samples are drawn, what survives an interruption, and that nothing of test reaches a threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from small_data import planted_images
from small_survey import Small
from superactivators.attribution.catalogue import build_explainers
from superactivators.attribution.plan import SurveyPlan
from superactivators.attribution.results import AttributionResult
from superactivators.attribution.sanity import with_random_model, with_random_vectors
from superactivators.attribution.scene import Scene
from superactivators.attribution.survey import attribute_samples, draw_samples, survey
from superactivators.data.sources import load_dataset
from superactivators.detection.inference import detect
from superactivators.errors import StudyError
from superactivators.models.backbone import Backbone
from superactivators.states.extraction import extract
from superactivators.states.labels import Labels
from superactivators.study.fit import fit_detector

METHODS = ("rise", "activation")
OBJECTIVES = ("concept", "superactivators")


def plan_of(budget: int = 8, **changes: Any) -> SurveyPlan:
    given = {"cal_samples": 0, "test_samples": 0, "steps": 3, "sanity_samples": 2, "examples": 99, "resamples": 30}
    return SurveyPlan(build_explainers(METHODS, budget=budget), **{**given, **changes})


def run(small: Small, plan: SurveyPlan, folder: Path | None = None, **changes: Any) -> AttributionResult:
    labels = changes.pop("labels", small.labels)
    return survey(small.backbone, small.detector, small.dataset, labels, plan, folder, **changes)


def records(small: Small, plan: SurveyPlan, folder: Path | None = None, labels: Labels | None = None) -> dict[int, Any]:
    """What is measured in every sample, as text; times are left out."""
    samples, made = attribute_samples(
        small.backbone, small.detector, small.dataset, labels or small.labels, plan, folder, lambda samples: samples
    )
    shown = [
        {name: np.asarray(value).tolist() for name, value in vars(record).items() if name not in ("seconds", "sanity")}
        for record in made
    ]
    return dict(zip(samples.tolist(), shown, strict=True))


@pytest.fixture(scope="module")
def whole(small: Small) -> AttributionResult:
    return run(small, plan_of())


def same(one: AttributionResult, other: AttributionResult) -> None:
    for name in ("aggregates", "concepts", "comparisons", "curves", "hybrid", "sanity"):
        assert str(getattr(one, name).to_pydict()) == str(getattr(other, name).to_pydict()), name
    timed = {"seconds", "seconds_per_sample"}
    assert {k: v for k, v in one.summary.items() if k not in timed} == {
        k: v for k, v in other.summary.items() if k not in timed
    }
    assert len(one.examples) == len(other.examples)
    for mine, theirs in zip(one.examples, other.examples, strict=True):
        assert (mine.sample, mine.concept, mine.fallback) == (theirs.sample, theirs.concept, theirs.fallback)
        assert dict(mine.thresholds) == dict(theirs.thresholds)
        for name in ("truth", "known", "fired"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
        for key, values in mine.maps.items():
            np.testing.assert_array_equal(values, theirs.maps[key])


@pytest.fixture
def scenes_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the samples of which scenes are made."""
    made: list[str] = []
    real = Scene.of

    def counted(backbone: Any, detector: Any, sample: Any, *args: Any, **more: Any) -> Scene:
        made.append(sample.id)
        return real(backbone, detector, sample, *args, **more)

    monkeypatch.setattr(Scene, "of", staticmethod(counted))
    return made


# ------------------------------------------------------------------ which samples


def slow_holding(labels: Labels, split: str) -> dict[int, list[str]]:
    """Concepts by sample that has a known token of them, token by token."""
    assert labels.tokens is not None
    dense, held = labels.tokens.toarray(), {}
    for number in range(len(labels.ids)):
        names = []
        for concept in ("animal", "colour"):
            column = labels.concepts.index(concept)
            for row in range(labels.offsets[number], labels.offsets[number + 1]):
                if dense[row, column] and labels.known[row] and concept not in names:
                    names.append(concept)
        if labels.splits[number] == split and names:
            held[number] = names
    return held


@pytest.mark.parametrize("split", ["cal", "test"])
def test_all_samples_with_a_known_token_of_a_concept_are_drawn(split: str, small: Small) -> None:
    drawn = draw_samples(small.labels, small.detector.concepts, split, 0, 0).tolist()
    expected = slow_holding(small.labels, split)
    assert sorted(drawn) == sorted(expected)
    assert len(set(drawn)) == len(drawn)
    tokenless = [n for n, name in enumerate(small.labels.ids) if name.startswith("u")]
    columns = [small.labels.concepts.index(name) for name in small.detector.concepts]
    assert small.labels.samples[np.ix_(tokenless, columns)].all(), (
        "they hold both concepts, but nobody knows where one of them is"
    )
    assert not set(tokenless) & set(drawn)


def test_a_larger_number_adds_samples(small: Small) -> None:
    for seed in range(4):
        every = draw_samples(small.labels, small.detector.concepts, "test", 0, seed).tolist()
        for number in range(1, len(every) + 3):
            some = draw_samples(small.labels, small.detector.concepts, "test", number, seed).tolist()
            assert some == every[:number]
    assert draw_samples(small.labels, small.detector.concepts, "test", 4, 0).tolist() != every[:4]


def test_draws_depend_on_names_and_not_on_places(small: Small) -> None:
    """What other samples there are, and in which order, changes nothing."""
    labels = small.labels
    drawn = draw_samples(labels, small.detector.concepts, "test", 0, 3)
    kept = np.array(range(len(labels.ids))[::-1][::2])
    assert labels.tokens is not None
    rows = [range(labels.offsets[n], labels.offsets[n + 1]) for n in kept]
    flat = np.array([row for run in rows for row in run])
    fewer = replace(
        labels,
        ids=[labels.ids[n] for n in kept],
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        splits=labels.splits[kept],
        samples=labels.samples[kept],
        tokens=labels.tokens[flat],
        known=labels.known[flat],
    )
    again = draw_samples(fewer, small.detector.concepts, "test", 0, 3)
    assert [fewer.ids[n] for n in again] == [labels.ids[n] for n in drawn if n in set(kept.tolist())]
    assert 0 < len(again) < len(drawn)


def test_seeds_draw_each_sample_alike(small: Small) -> None:
    able = sorted(slow_holding(small.labels, "test"))
    counts = np.zeros(len(able))
    for seed in range(600):
        for number in draw_samples(small.labels, small.detector.concepts, "test", 3, seed):
            counts[able.index(int(number))] += 1
    share = 3 / len(able)
    spread = math.sqrt(600 * share * (1 - share))
    assert np.abs(counts - 600 * share).max() < 4.5 * spread


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda labels: labels.without_tokens(), "this data set has labels of whole samples only"),
        (lambda labels: replace(labels, known=np.zeros_like(labels.known)), "no sample of cal has a labelled token"),
        (
            lambda labels: replace(labels, splits=np.where(labels.splits == "test", "train", labels.splits)),
            "no sample of test has a labelled token of animal, colour",
        ),
    ],
    ids=["no token labels", "nothing known", "no test"],
)
def test_data_that_cannot_be_judged_is_refused(change: Callable[[Labels], Labels], part: str, small: Small) -> None:
    with pytest.raises(StudyError, match=part) as caught:
        run(small, plan_of(), labels=change(small.labels))
    assert "\n" not in str(caught.value)


def test_wrong_plans_are_refused(small: Small) -> None:
    with pytest.raises(StudyError, match="unknown way 'blur' to hide tokens of a model of texts"):
        run(small, plan_of(hiding="blur"))
    with pytest.raises(StudyError, match="has no explainer"):
        run(small, SurveyPlan())


# ------------------------------------------------------------------ what is in the result


def test_cases_are_the_pairs_with_a_known_token(small: Small, whole: AttributionResult) -> None:
    for split in ("cal", "test"):
        held = slow_holding(small.labels, split)
        assert whole.summary["samples"][split] == len(held)
        assert whole.summary["cases"][split] == sum(map(len, held.values()))
    pairs = [(example.sample, example.concept) for example in whole.examples]
    assert sorted(pairs) == sorted((number, name) for number, names in held.items() for name in names)
    for row in whole.concepts.to_pylist():
        assert row["cases"] == sum(row["concept"] in names for names in held.values())
    assert small.labels.tokens is not None
    for example in whole.examples:
        rows = slice(small.labels.offsets[example.sample], small.labels.offsets[example.sample + 1])
        column = small.labels.concepts.index(example.concept)
        np.testing.assert_array_equal(example.truth, small.labels.tokens[rows].toarray()[:, column])
        np.testing.assert_array_equal(example.known, small.labels.known[rows])


def test_fallbacks_are_the_samples_in_which_detection_finds_no_token(small: Small, whole: AttributionResult) -> None:
    """Detection has a forward pass of its own."""
    missing = 0
    for example in whole.examples:
        text = small.dataset.samples[example.sample].text  # type: ignore[union-attr]
        (found,) = detect(small.detector, [text], small.backbone)
        (finding,) = [item for item in found.findings if item.concept == example.concept]
        fired = np.flatnonzero(example.fired).tolist()
        assert example.fallback == (len(finding.fired) == 0)
        assert fired == (sorted(finding.fired.tolist()) or [int(np.argmax(finding.activations))])
        missing += example.fallback
    assert whole.summary["fallback_cases"] == missing


def test_maps_and_measures_equal_plain_loops(small: Small, whole: AttributionResult) -> None:
    """Token F1 and raw insertion of one explainer, from scenes made here, at the stored thresholds."""
    plan, labels = plan_of(), small.labels
    assert labels.tokens is not None
    truth, rows = labels.tokens.toarray(), whole.concepts.to_pylist()
    counts = {(o, c): [0, 0, 0] for o in OBJECTIVES for c in ("animal", "colour")}
    areas: dict[tuple[str, str], list[float]] = {key: [] for key in counts}
    stored = {(r["objective"], r["concept"]): r for r in rows if r["explainer"] == "rise"}
    for number, names in slow_holding(labels, "test").items():
        sample = small.dataset.samples[number]
        scene = Scene.of(small.backbone, small.detector, sample, names, seed=plan.seed)
        maps = plan.explainers["rise"].maps(scene)
        (one,) = [e for e in whole.examples if (e.sample, e.concept) == (number, names[0])]
        np.testing.assert_allclose(one.maps["rise", "superactivators"], maps[:, 1], atol=1e-6)
        for column, (concept, objective) in enumerate(
            zip(scene.objectives.concepts, scene.objectives.objectives, strict=True)
        ):
            values, row = maps[:, column].astype(np.float64), stored[objective, concept]
            if row["scale"] == "relative":
                values = values / np.abs(values).max()
            for token in range(scene.n_tokens):
                at = labels.offsets[number] + token
                if not labels.known[at]:
                    continue
                fires, inside = values[token] >= row["threshold"], truth[at, labels.concepts.index(concept)]
                counts[objective, concept][0] += bool(fires and inside)
                counts[objective, concept][1] += bool(fires and not inside)
                counts[objective, concept][2] += bool(inside and not fires)
            first = scene.objectives.concepts.index(concept)  # the column of the objective "concept"
            order = sorted(range(scene.n_tokens), key=lambda t: (-maps[t, column], t))
            heights = []
            for step in range(4):
                keep = np.zeros((1, scene.n_tokens), dtype=bool)
                keep[0, order[: math.floor(scene.n_tokens * step / 3 + 0.5)]] = True
                heights.append(float(scene.values(keep)[0, first]))
            areas[objective, concept].append(sum((a + b) / 2 for a, b in pairwise(heights)) / 3)
    scores, cases = {}, {}
    for key, (hits, false, missed) in counts.items():
        scores[key] = 2 * hits / (2 * hits + false + missed)
        cases[key] = len(areas[key])
        assert stored[key]["token_f1"] == pytest.approx(scores[key], abs=1e-12)
        assert stored[key]["iou"] == pytest.approx(hits / (hits + false + missed), abs=1e-12)
        assert stored[key]["insertion_raw"] == pytest.approx(np.mean(areas[key]), abs=1e-5)
    mean = {}
    for objective in OBJECTIVES:
        keys = [key for key in scores if key[0] == objective]
        mean[objective] = sum(scores[k] * cases[k] for k in keys) / sum(cases[k] for k in keys)
        (row,) = [
            r
            for r in whole.aggregates.to_pylist()
            if (r["explainer"], r["objective"], r["measure"]) == ("rise", objective, "token_f1")
        ]
        assert row["value"] == pytest.approx(mean[objective], abs=1e-12)
        assert row["macro"] == pytest.approx(np.mean([scores[key] for key in keys]), abs=1e-12)
        assert row["low"] <= row["value"] <= row["high"]
    (row,) = [r for r in whole.comparisons.to_pylist() if (r["explainer"], r["measure"]) == ("rise", "token_f1")]
    assert row["difference"] == pytest.approx(mean["superactivators"] - mean["concept"], abs=1e-12)


def test_thresholds_of_examples_are_in_units_of_their_maps(whole: AttributionResult) -> None:
    stored = {(r["explainer"], r["objective"], r["concept"]): r for r in whole.concepts.to_pylist()}
    for example in whole.examples:
        assert set(example.thresholds) == set(example.maps) == {(m, o) for m in METHODS for o in OBJECTIVES}
        for key, values in example.maps.items():
            row = stored[(*key, example.concept)]
            size = float(np.abs(values).max()) if row["scale"] == "relative" else 1.0
            assert example.thresholds[key] == pytest.approx(row["threshold"] * size, rel=1e-12)


def test_a_map_of_zeros_reaches_no_threshold_above_zero(small: Small) -> None:
    """Maps relative to their largest value: a map without one stays as it is, and so must its threshold."""

    class Sometimes:
        def maps(self, scene: Scene) -> np.ndarray:
            shown = np.zeros((scene.n_tokens, scene.n_columns), dtype=np.float32)
            number = small.labels.ids.index(scene.sample.id)
            if small.labels.splits[number] == "cal":
                rows = slice(small.labels.offsets[number], small.labels.offsets[number + 1])
                columns = [small.labels.concepts.index(name) for name in scene.objectives.concepts]
                # right about every token, in sizes that differ by sample, so that the relative scale is the better one
                shown[:] = 1 + small.labels.tokens[rows].toarray()[:, columns]  # type: ignore[index]
                shown *= scene.generator("size").lognormal(sigma=4)
            return shown

    result = run(small, replace(plan_of(sanity_samples=0), explainers={"sometimes": Sometimes()}))
    stored = {(r["objective"], r["concept"]): r for r in result.concepts.to_pylist() if r["explainer"] == "sometimes"}
    relative = [key for key, row in stored.items() if row["scale"] == "relative" and row["threshold"] > 0]
    assert len(relative) == 4
    for example in result.examples:
        for objective, concept in relative:
            if concept == example.concept:
                assert example.thresholds["sometimes", objective] > 0
    for key in relative:
        assert stored[key]["token_f1"] == 0


def test_sanity_checks_are_of_the_first_samples_of_test(small: Small, whole: AttributionResult) -> None:
    held = slow_holding(small.labels, "test")
    first = draw_samples(small.labels, small.detector.concepts, "test", 2, 0).tolist()
    rows = whole.sanity.to_pylist()
    assert {(r["explainer"], r["objective"], r["randomised"]) for r in rows} == {
        (m, o, what) for m in METHODS for o in OBJECTIVES for what in ("vectors", "model")
    }
    changed = {
        "vectors": (small.backbone, with_random_vectors(small.detector)),
        "model": (with_random_model(small.backbone), small.detector),
    }
    for row in rows:
        assert row["cases"] == sum(len(held[number]) for number in first)
        values, model = [], changed[row["randomised"]]
        for number in first:
            for concept in held[number]:
                explainer = plan_of().explainers[row["explainer"]]
                one, two = (
                    explainer.maps(Scene.of(m, d, small.dataset.samples[number], [concept]))
                    for m, d in ((small.backbone, small.detector), model)
                )
                side = OBJECTIVES.index(row["objective"])
                values.append(spearmanr(one[:, side], two[:, side]).statistic)
        assert row["correlation"] == pytest.approx(np.mean(values), abs=1e-3)


# ------------------------------------------------------------------ nothing of test reaches a threshold


def with_other_truth(labels: Labels, split: str) -> Labels:
    """Labels whose in-concept tokens of one split are others: those of a sample in reverse order."""
    assert labels.tokens is not None
    changed = labels.tokens.toarray()
    for number in labels.in_split(split):
        rows = slice(labels.offsets[number], labels.offsets[number + 1])
        changed[rows] = changed[rows][::-1]
    return replace(labels, tokens=type(labels.tokens)(changed))


def chosen(result: AttributionResult) -> list[tuple[Any, ...]]:
    names = ("explainer", "objective", "concept", "scale", "delta", "threshold")
    return [tuple(row[name] for name in names) for row in result.concepts.to_pylist()]


def test_labels_of_test_do_not_reach_thresholds(small: Small, whole: AttributionResult) -> None:
    other = run(small, plan_of(), labels=with_other_truth(small.labels, "test"))
    assert chosen(other) == chosen(whole)
    assert str(other.hybrid["delta"].to_pylist()) == str(whole.hybrid["delta"].to_pylist())
    assert str(other.aggregates.to_pydict()) != str(whole.aggregates.to_pydict()), "the change is seen in the measures"
    assert [e.thresholds for e in other.examples] == [e.thresholds for e in whole.examples]


def test_labels_of_cal_do(small: Small, whole: AttributionResult) -> None:
    assert chosen(run(small, plan_of(), labels=with_other_truth(small.labels, "cal"))) != chosen(whole)


def test_the_choice_of_test_samples_does_not_reach_thresholds(small: Small, whole: AttributionResult) -> None:
    fewer = run(small, plan_of(test_samples=6))
    one, other = ({row[:3]: row[3:] for row in chosen(result)} for result in (fewer, whole))
    both = [key for key in one if one[key][0] is not None and other[key][0] is not None]
    assert len(both) >= len(METHODS) * 2
    assert all(one[key] == other[key] for key in both if key[0] in METHODS)


# ------------------------------------------------------------------ going on where it stopped


def stopping(after: int) -> Callable[[Iterable[int]], Iterator[int]]:
    def watch(samples: Iterable[int]) -> Iterator[int]:
        for count, number in enumerate(samples):
            if count == after:
                raise KeyboardInterrupt
            yield number

    return watch


@pytest.mark.parametrize("after", [0, 1, 7])
def test_an_interrupted_survey_goes_on_where_it_stopped(
    after: int, small: Small, whole: AttributionResult, tmp_path: Path, scenes_made: list[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(small, plan_of(), tmp_path / "samples", watch=stopping(after))
    before = set(scenes_made)
    assert len(before) == after
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "samples").iterdir()}
    assert len(kept) == after
    if after > 3:
        assert {str(small.labels.splits[small.labels.ids.index(name)]) for name in before} == {"cal", "test"}
    scenes_made.clear()
    told: list[int] = []
    result = run(small, plan_of(), tmp_path / "samples", watch=lambda samples: told.extend(samples) or told)
    assert not before & set(scenes_made), "what was finished is not made again"
    assert {small.labels.ids[n] for n in told} == set(scenes_made)
    assert len(told) == sum(whole.summary["samples"].values()) - after
    same(result, whole)
    scenes_made.clear()
    same(run(small, plan_of(), tmp_path / "samples"), whole)
    assert scenes_made == []
    for name, stamp in kept.items():
        assert (tmp_path / "samples" / name).stat().st_mtime_ns == stamp


def test_a_damaged_record_is_made_again_and_only_that(
    small: Small, whole: AttributionResult, tmp_path: Path, scenes_made: list[str]
) -> None:
    run(small, plan_of(), tmp_path)
    files = sorted(tmp_path.iterdir())

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content)

    harms: list[Callable[[Path], Any]] = [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x80\x04."),
        lambda path: path.write_bytes(files[-1].read_bytes()),
        lambda path: path.unlink(),
    ]
    for harm, path in zip(harms, files, strict=False):
        harm(path)
    scenes_made.clear()
    same(run(small, plan_of(), tmp_path), whole)
    assert set(scenes_made) == {small.labels.ids[int(path.stem.split("-")[1])] for path in files[: len(harms)]}


@pytest.mark.parametrize(
    "change", [{"budget": 9}, {"steps": 4}, {"seed": 1}, {"hiding": "pad"}], ids=lambda change: next(iter(change))
)
def test_another_question_makes_all_records_again(
    change: dict[str, Any], small: Small, tmp_path: Path, scenes_made: list[str]
) -> None:
    few = {"cal_samples": 3, "test_samples": 3, "sanity_samples": 0}
    records(small, plan_of(**few), tmp_path)
    scenes_made.clear()
    fresh = records(small, plan_of(**{**few, **change}))
    assert len(scenes_made) == 6
    scenes_made.clear()
    assert records(small, plan_of(**{**few, **change}), tmp_path) == fresh
    assert len(scenes_made) == 6


def test_more_samples_only_add_records(small: Small, tmp_path: Path, scenes_made: list[str]) -> None:
    few: dict[str, Any] = {"cal_samples": 3, "test_samples": 4, "sanity_samples": 0}
    records(small, plan_of(**few), tmp_path)
    first = list(scenes_made)
    scenes_made.clear()
    records(small, plan_of(**{**few, "cal_samples": 5, "test_samples": 5}), tmp_path)
    assert len(scenes_made) == 3
    assert not set(scenes_made) & set(first)
    scenes_made.clear()
    records(small, plan_of(**{**few, "sanity_samples": 1, "resamples": 5, "deltas": (0.1, 0.5)}), tmp_path)
    assert len(scenes_made) == 3, "one sample is checked now: its own scene and two randomised ones"
    assert len(set(scenes_made)) == 1


def test_other_labels_ask_for_other_concepts(small: Small, tmp_path: Path) -> None:
    """Rules for token labels can change while data set, model and detector stay."""
    few: dict[str, Any] = {"sanity_samples": 0}
    records(small, plan_of(**few), tmp_path)
    assert small.labels.tokens is not None
    dense = small.labels.tokens.toarray()
    numbers = [n for n, names in slow_holding(small.labels, "test").items() if len(names) == 2]
    for number in numbers:
        rows = slice(small.labels.offsets[number], small.labels.offsets[number + 1])
        dense[rows, small.labels.concepts.index("colour")] = False
    labels = replace(small.labels, tokens=type(small.labels.tokens)(dense))
    assert numbers
    assert records(small, plan_of(**few), tmp_path, labels) == records(small, plan_of(**few), labels=labels)


# ------------------------------------------------------------------ images


def test_images_are_surveyed_alike(backbones: Callable[[str], Backbone], tmp_path: Path) -> None:
    model, dataset = backbones("vit"), load_dataset(planted_images(tmp_path / "images", 24))
    states = extract(model, dataset, [1, 3], out=tmp_path / "states")
    detector, _ = fit_detector(tmp_path / "states", tmp_path / "detector", kind="linear", min_positives=1)
    result = survey(model, detector, dataset, states.labels, plan_of(hiding="noise"))
    assert result.summary["samples"]["test"] > 1
    assert {len(example.truth) for example in result.examples} == {16}
    assert all(example.truth[example.known].any() for example in result.examples)
    values = [row["value"] for row in result.aggregates.to_pylist() if row["measure"] == "token_f1"]
    assert all(0 <= value <= 1 for value in values)
