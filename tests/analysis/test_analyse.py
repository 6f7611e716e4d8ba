"""All analyses of small random studies, against plain loops and the study's own metrics."""

from __future__ import annotations

import weakref
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from detection.worlds import World, world
from superactivators.analysis.analyse import Chosen, analyse
from superactivators.analysis.histograms import BINS
from superactivators.analysis.results import SCHEMAS, AnalysisResult
from superactivators.analysis.store import load_analysis, save_analysis
from superactivators.errors import StoreError
from superactivators.study.clock import Clock
from superactivators.study.plan import StudyPlan
from superactivators.study.stages import Stages

KINDS = ("mean", "linear")


def run(w: World, *, token_labels: bool = True, **options: Any) -> tuple[AnalysisResult, Any, Stages, Any]:
    states = w.states()
    if not token_labels:
        states = replace(states, labels=states.labels.without_tokens())
    plan = StudyPlan(kinds=KINDS, methods=("superactivators", "max"), resamples=0)
    stages = Stages(states, plan, None, Clock())
    result = stages.run()
    return analyse(stages.scores, stages.sites, KINDS, states, result, stages.bank, **options), result, stages, states


@pytest.fixture(scope="module")
def drawn() -> World:
    return world(3)


@pytest.fixture(scope="module")
def studied(drawn: World) -> tuple[AnalysisResult, Any, Stages, Any]:
    return run(drawn)


def same(one: AnalysisResult, other: AnalysisResult) -> None:
    for name in SCHEMAS:
        assert getattr(one, name).equals(getattr(other, name)), name
    assert list(one.pairs) == list(other.pairs)
    for sample, held in one.pairs.items():
        assert held.keys() == other.pairs[sample].keys()
        for name, value in held.items():
            np.testing.assert_array_equal(value, other.pairs[sample][name])


def truth(w: World, states: Any, scores: Any, c: int) -> tuple[list[float], list[float], dict[int, list[float]]]:
    """In-concept and absent activations on test, and the in-concept ones by sample."""
    place = {row: number for number, row in enumerate(np.concatenate([range_of(w, i) for i in scores.samples]))}
    inner, outer, by_sample = [], [], {}
    for i in w.in_split("test"):
        for row in range_of(w, i):
            value = float(scores.tokens[place[row], c])
            if w.token_labels[row, c] and w.known[row]:
                inner.append(value)
                by_sample.setdefault(i, []).append(value)
            if not states.labels.samples[i, c]:
                outer.append(value)
    return inner, outer, by_sample


def range_of(w: World, sample: int) -> range:
    return range(int(w.offsets[sample]), int(w.offsets[sample + 1]))


def test_every_layer_and_concept_equals_plain_loops(drawn: World, studied: Any) -> None:
    found, result, stages, states = studied
    separation, histograms = found.separation.to_pylist(), found.histograms.to_pylist()
    places = [(kind, site, concept) for kind in KINDS for site in states.sites for concept in drawn.concepts]
    assert [(r["kind"], r["site"], r["concept"]) for r in separation] == places
    assert [(r["kind"], r["site"], r["concept"]) for r in histograms] == places
    sparsity = {(r["kind"], r["concept"], r["share"]): r["cumulative"] for r in found.sparsity.to_pylist()}
    assert len(sparsity) == len(KINDS) * len(drawn.concepts) * 21
    for row, counts in zip(separation, histograms, strict=True):
        c = drawn.concepts.index(row["concept"])
        inner, outer, by_sample = truth(drawn, states, stages.scores(row["kind"], "token", row["site"]), c)
        assert (row["n_in"], row["n_out"]) == (len(inner), len(outer))
        assert (sum(counts["inside"]), sum(counts["outside"])) == (len(inner), len(outer))
        assert len(counts["inside"]) == BINS
        assert (counts["low"], counts["high"]) == (min(inner + outer), max(inner + outer))
        higher = sum((a > b) + (a == b) / 2 for a in inner for b in outer)
        assert row["auroc"] == pytest.approx(higher / len(inner) / len(outer))
        assert row["tail_mass"] == pytest.approx(sum(value > row["far"] for value in inner) / len(inner))
        assert row["coverage"] == pytest.approx(
            sum(max(values) > row["far"] for values in by_sample.values()) / len(by_sample)
        )
        pick = result.summary["chosen"][row["kind"]]["superactivators"][row["concept"]]
        if pick["site"] == row["site"]:
            held = [sum(v >= pick["threshold"] for v in values) / len(values) for values in by_sample.values()]
            for share in (0.0, 0.25, 0.5, 1.0):
                expected = sum(value <= share for value in held) / len(held)
                assert sparsity[row["kind"], row["concept"], share] == pytest.approx(expected)


def test_errors_are_the_metrics_and_bins_add_up_to_them(drawn: World, studied: Any) -> None:
    found, result, _, states = studied
    labels = states.labels
    test = labels.in_split("test")
    for kind in KINDS:
        rows = {r["concept"]: r for r in result.metrics.to_pylist() if wanted(r, kind, "test")}
        errors = {r["concept"]: r for r in found.errors.to_pylist() if r["kind"] == kind}
        assert list(errors) == drawn.concepts
        for name, row in errors.items():
            for column in ("n_positive", "prevalence", "f1", "precision", "recall", "fpr"):
                assert row[column] == rows[name][column]
        lengths = [r for r in found.lengths.to_pylist() if r["kind"] == kind]
        assert sum(r["n"] for r in lengths) == len(test)
        positives = [
            sum(labels.samples[i].sum() for i in test if r["low"] <= np.diff(labels.offsets)[i] <= r["high"])
            for r in lengths
        ]
        hits = sum(r["recall"] * n for r, n in zip(lengths, positives, strict=True))
        assert hits == pytest.approx(sum(row["tp"] for row in rows.values()))
        confused = [r for r in found.confusion.to_pylist() if r["kind"] == kind]
        for r in confused:
            metrics = rows[r["absent"]]
            assert r["base"] == pytest.approx(metrics["fp"] / (metrics["fp"] + metrics["tn"]))
            assert 0 <= r["fired"] <= min(r["n"], metrics["fp"])
        assert sum(r["n"] for r in found.sizes.to_pylist() if r["kind"] == kind) == sum(
            any(drawn.token_labels[row, c] and drawn.known[row] for row in range_of(drawn, i))
            for i in test
            for c in range(len(drawn.concepts))
        )


def wanted(row: dict[str, Any], kind: str, split: str) -> bool:
    return (row["kind"], row["split"], row["method"], row["chosen"]) == (kind, split, "superactivators", True)


def test_choices_are_those_of_cal(drawn: World, studied: Any) -> None:
    found, result, _, states = studied
    for kind in KINDS:
        picks = list(result.summary["chosen"][kind]["superactivators"].values())
        for table, name, offered in (
            (found.best_deltas, "delta", result.summary["deltas"]),
            (found.best_layers, "site", list(states.sites)),
        ):
            rows = {r[name]: r["concepts"] for r in table.to_pylist() if r["kind"] == kind}
            assert list(rows) == offered
            assert rows == {value: sum(pick[name] == value for pick in picks) for value in offered}
        rows = [r for r in found.deltas.to_pylist() if r["kind"] == kind]
        assert len(rows) == len(states.sites) * len(result.summary["deltas"])
        for row in rows:
            for split in ("cal", "test"):
                held = {
                    r["concept"]: r["f1"]
                    for r in result.curves.to_pylist()
                    if (r["kind"], r["split"], r["method"], r["site"], r["delta"])
                    == (kind, split, "superactivators", row["site"], row["delta"])
                }
                weights = states.labels.samples[states.labels.in_split(split)].sum(axis=0)
                expected = np.average([held[name] for name in drawn.concepts], weights=weights)
                assert row[split] == pytest.approx(expected)


def test_pairs_are_positive_test_samples_that_fire(drawn: World, studied: Any) -> None:
    found, result, stages, states = studied
    assert 1 <= len(found.pairs) <= 4
    kind = result.summary["best_kind_on_cal"]
    chosen = result.summary["chosen"][kind]["superactivators"]
    for sample, held in found.pairs.items():
        number = drawn.ids.index(sample)
        c = drawn.concepts.index(held["concept"])
        assert drawn.splits[number] == "test"
        assert states.labels.samples[number, c]
        pick = chosen[held["concept"]]
        assert (held["kind"], held["site"]) == (kind, pick["site"])
        rows = [range_of(drawn, number)[token] for token in held["tokens"].tolist()]
        assert held["inside"].tolist() == [bool(drawn.token_labels[r, c] and drawn.known[r]) for r in rows]
        bank = stages.bank(kind, "token", held["site"])
        raw = torch.from_numpy(drawn.values[held["site"]][rows])
        assert held["fired"].tolist() == (bank.activations(raw)[:, c].double() >= pick["threshold"]).tolist()
        assert held["fired"].any()
        assert held["inside"].any()
        scaled = ((raw - bank.scaling.mean) / bank.scaling.scale).numpy()
        for i, a in enumerate(scaled):
            for j, b in enumerate(scaled):
                expected = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
                assert held["cosine"][i, j] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("cells", [1, 100])
def test_a_few_concepts_at_a_time_give_the_same(studied: Any, cells: int) -> None:
    found, result, stages, states = studied
    same(found, analyse(stages.scores, stages.sites, KINDS, states, result, stages.bank, cells=cells))


def test_one_layer_is_held_at_a_time(studied: Any) -> None:
    found, result, stages, states = studied
    held: list[weakref.ref[Any]] = []

    def counted(*key: Any) -> Any:
        assert not [one for one in held if one() is not None], "an earlier layer is still held"
        scores = replace(stages.scores(*key))
        held.append(weakref.ref(scores))
        return scores

    same(found, analyse(counted, stages.sites, KINDS, states, result, stages.bank))
    assert len(held) == len(KINDS) * len(states.sites) + 1


def test_order_of_samples_does_not_matter(drawn: World, studied: Any) -> None:
    found, result, stages, states = studied
    order = np.random.default_rng(1).permutation(drawn.n)
    turned = drawn.permuted(order).states()

    def permuted(kind: str, level: Any, site: str) -> Any:
        bank = stages.bank(kind, level, site)
        scores = stages.scores(kind, level, site)
        judged = np.flatnonzero(np.isin(turned.labels.splits, ["cal", "test"]))
        back = {row: number for number, row in enumerate(scores.samples.tolist())}
        starts = np.concatenate([[0], np.cumsum(np.diff(states.offsets)[scores.samples])])
        tokens = [scores.tokens[starts[k] : starts[k + 1]] for k in (back[int(order[i])] for i in judged)]
        assert bank.site == site
        pooled = {name: values[order] for name, values in scores.pooled.items()}
        return replace(scores, samples=judged, tokens=np.concatenate(tokens), pooled=pooled)

    other = analyse(permuted, stages.sites, KINDS, turned, result, stages.bank)
    for name in SCHEMAS:
        one, two = getattr(found, name), getattr(other, name)
        for column, kind in SCHEMAS[name].items():
            values = one[column].to_pylist()
            expected = pytest.approx(values, rel=1e-9) if kind == pa.float64() else values
            assert two[column].to_pylist() == expected, (name, column)
    assert found.pairs.keys() == other.pairs.keys()
    for sample, held in found.pairs.items():
        np.testing.assert_allclose(held["cosine"], other.pairs[sample]["cosine"], atol=1e-6)


def test_without_token_labels_tables_of_tokens_are_empty(drawn: World) -> None:
    found, _, _, _ = run(drawn, token_labels=False)
    for name in ("separation", "histograms", "sparsity", "sizes"):
        assert getattr(found, name).num_rows == 0
        assert getattr(found, name).column_names == list(SCHEMAS[name])
    for name in ("deltas", "best_deltas", "best_layers", "errors", "lengths", "confusion"):
        assert getattr(found, name).num_rows > 0
    assert set(found.errors["size"].to_pylist()) == {None}
    assert found.pairs == {}


def test_images_are_not_compared_by_length_and_kinds_without_superactivators_have_distributions(studied: Any) -> None:
    found, result, stages, states = studied
    images = analyse(stages.scores, stages.sites, KINDS, states, result, stages.bank, modality="image")
    assert images.lengths.num_rows == 0
    assert images.sizes.equals(found.sizes)
    summary = {**result.summary, "chosen": {kind: {} for kind in KINDS}}
    bare = replace(result, summary=summary)
    assert Chosen.of(summary, "mean") is None
    other = analyse(stages.scores, stages.sites, KINDS, states, bare, stages.bank)
    assert other.separation.equals(found.separation)
    assert other.histograms.equals(found.histograms)
    assert other.errors.num_rows == other.sparsity.num_rows == len(other.pairs) == 0


def test_a_threshold_that_is_never_reached_fires_nothing(studied: Any) -> None:
    _, result, stages, states = studied
    chosen = result.summary["chosen"]["mean"]["superactivators"]
    never = {name: {**pick, "threshold": None, "delta": None} for name, pick in chosen.items()}
    summary = {**result.summary, "chosen": {**result.summary["chosen"], "mean": {"superactivators": never}}}
    other = analyse(stages.scores, stages.sites, ("mean",), states, replace(result, summary=summary), stages.bank)
    assert set(other.sizes["recall"].to_pylist()) == {0.0}
    assert set(other.confusion["fired"].to_pylist()) == {0}
    assert set(other.sparsity["cumulative"].to_pylist()) == {1.0}
    assert sum(other.best_deltas["concepts"].to_pylist()) == 0


def test_what_is_written_is_read_back_and_damage_is_told(studied: Any, tmp_path: Path) -> None:
    found = studied[0]
    assert {field.name for field in fields(AnalysisResult)} == {*SCHEMAS, "pairs"}
    save_analysis(tmp_path / "analysis", found, "made")
    same(found, load_analysis(tmp_path / "analysis"))
    table = tmp_path / "analysis" / "errors.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    with pytest.raises(StoreError, match=r"errors\.parquet: is damaged"):
        load_analysis(tmp_path / "analysis")
    with pytest.raises(StoreError):
        load_analysis(tmp_path / "nothing")
    broken = replace(found, errors=found.errors.drop_columns("f1"))
    save_analysis(tmp_path / "broken", broken, "made")
    with pytest.raises(StoreError, match="lacks columns"):
        load_analysis(tmp_path / "broken")
    sample, held = next(iter(found.pairs.items()))
    uneven = replace(found, pairs={sample: {**held, "inside": held["inside"][:-1]}})
    save_analysis(tmp_path / "uneven", uneven, "made")
    with pytest.raises(StoreError, match="differ in their number of tokens"):
        load_analysis(tmp_path / "uneven")
