"""The whole entry: tables of drawn samples, what they are made of, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mechanism_families import FAMILIES, drawn_for
from small_survey import Small
from superactivators.analysis.separation import separation
from superactivators.concepts.bank import ConceptBank
from superactivators.detection.detector import Detector
from superactivators.detection.thresholds import Threshold
from superactivators.errors import ModelError, StoreError, StudyError
from superactivators.mechanism.anatomy import Anatomy
from superactivators.mechanism.explain import draw_mixed, explain_mechanism, within_variance
from superactivators.mechanism.passes import Directions, record, scores_without, without_head
from superactivators.mechanism.results import TABLES, MechanismResult
from superactivators.models.backbone import Backbone
from superactivators.ragged import rows_of, segment_ids, segment_max
from superactivators.states.scaling import Scaling

Explain = Callable[..., MechanismResult]


def bank_at(site: str, concepts: tuple[str, ...], seed: int, width: int = 32) -> ConceptBank:
    generator = torch.Generator().manual_seed(seed)
    return ConceptBank(
        kind="mean",
        site=site,
        level="token",
        concepts=concepts,
        vectors=torch.randn(len(concepts), width, generator=generator),
        bias=torch.zeros(len(concepts)),
        scaling=Scaling(torch.randn(width, generator=generator), 2.0),
        activation="cosine",
        estimable=np.ones(len(concepts), dtype=bool),
    )


@pytest.fixture(scope="session")
def banks(small: Small) -> dict[str, ConceptBank]:
    # in another order than the detector's concepts, so that columns have to be found by name
    return {site: bank_at(site, small.detector.concepts[::-1], n) for n, site in enumerate(("block[0]", "block[3]"))}


@pytest.fixture(scope="session")
def explain(small: Small, banks: dict[str, ConceptBank]) -> Explain:
    def make(**options: Any) -> MechanismResult:
        given: dict[str, Any] = {"samples": 12, "ablate": 2, "banks": banks} | options
        return explain_mechanism(small.backbone, small.dataset, small.detector, small.labels, **given)

    return make


@pytest.fixture(scope="session")
def found(explain: Explain) -> MechanismResult:
    return explain()


def same(one: MechanismResult, other: MechanismResult, tolerance: float = 1e-4) -> None:
    for name in TABLES:
        left, right = getattr(one, name).to_pydict(), getattr(other, name).to_pydict()
        assert left.keys() == right.keys()
        for column, values in left.items():
            if values and isinstance(values[0], float) and column != "error":
                np.testing.assert_allclose(values, right[column], rtol=tolerance, atol=tolerance, err_msg=column)
            elif column != "error":
                assert values == right[column]


# ------------------------------------------------------------------ drawing


def test_a_larger_draw_holds_the_smaller_one(small: Small) -> None:
    labels = small.labels.with_concepts(list(small.detector.concepts))
    whole = draw_mixed(labels, "test", 0, 0)
    assert whole.tolist() == [n for n in labels.in_split("test") if labels.offsets[n + 1] > labels.offsets[n]]
    draws = [set(draw_mixed(labels, "test", number, 0).tolist()) for number in range(1, len(whole) + 3)]
    for number, (less, more) in enumerate(itertools.pairwise(draws), start=1):
        assert less <= more
        assert len(less) == min(number, len(whole))
    assert draws[5] != set(draw_mixed(labels, "test", 6, 1).tolist())


def test_concepts_take_turns_with_samples_that_have_none(small: Small) -> None:
    labels = small.labels.with_concepts(list(small.detector.concepts))
    held = labels.samples[draw_mixed(labels, "test", 3, 0)]
    assert held.any(axis=0).all()
    assert (~held.any(axis=1)).sum() == 1


def test_a_draw_does_not_depend_on_the_order_of_samples(small: Small) -> None:
    labels = small.labels.with_concepts(list(small.detector.concepts))
    order = np.random.default_rng(0).permutation(len(labels.ids))
    turned = replace(
        labels,
        ids=[labels.ids[n] for n in order],
        splits=labels.splits[order],
        samples=labels.samples[order],
        offsets=np.concatenate([[0], np.cumsum(np.diff(labels.offsets)[order])]).astype(np.int64),
    )
    one, other = ({made.ids[n] for n in draw_mixed(made, "test", 7, 0)} for made in (labels, turned))
    assert one == other


# ------------------------------------------------------------------ tables


def test_tables_have_a_row_for_everything(found: MechanismResult, small: Small) -> None:
    concepts, n_blocks = len(small.detector.concepts), small.backbone.n_blocks
    assert found.growth.num_rows == concepts * (n_blocks + 1 + 2)  # embed and blocks; own vectors at two of them
    assert found.splits.num_rows == 3 * concepts * (n_blocks + 2)
    assert found.heads.num_rows == 4 * concepts * (n_blocks + 2)
    for name, needed in TABLES.items():
        assert set(needed) <= set(getattr(found, name).column_names)
    assert max(found.splits["error"].to_pylist()) == found.summary["largest_error"] < 1e-4
    assert found.summary["notes"] == []
    splits = dict(zip(small.labels.ids, small.labels.splits.tolist(), strict=True))
    assert {splits[name] for name in found.summary["ids"]} == {"test"}


def test_growth_is_that_of_the_captured_states(
    found: MechanismResult, small: Small, banks: dict[str, ConceptBank]
) -> None:
    numbers = [small.labels.ids.index(name) for name in found.summary["ids"]]
    samples = [small.dataset.samples[number] for number in numbers]
    encoding = small.backbone.encode(samples)
    labels = small.labels.with_concepts(list(small.detector.concepts))
    inside = labels.tokens[rows_of(labels.offsets, np.array(numbers))].toarray()
    inside &= labels.known[rows_of(labels.offsets, np.array(numbers)), None]
    outside = ~labels.samples[numbers][segment_ids(encoding.offsets)]
    states = np.zeros((encoding.n_tokens, small.backbone.width))
    for batch in small.backbone.capture(samples, encoding, ["block[3]"]):
        states[rows_of(encoding.offsets, batch.rows)] = batch.tokens["block[3]"].double().numpy()
    for c, name in enumerate(small.detector.concepts):
        vector = banks["block[3]"].vectors[banks["block[3]"].concepts.index(name)].double().numpy()
        along = states @ (vector / np.linalg.norm(vector))
        apart = separation(along[:, None], inside[:, c : c + 1], outside[:, c : c + 1], encoding.offsets)
        (row,) = [
            row
            for row in found.growth.to_pylist()
            if (row["site"], row["vector"], row["concept"]) == ("block[3]", "own", name)
        ]
        gaps = [
            np.abs(along[a:b, None] - along[a:b]).sum() / ((b - a) * (b - a - 1))
            for a, b in zip(encoding.offsets[:-1], encoding.offsets[1:], strict=True)
            if b - a > 1
        ]
        assert row["gap"] == pytest.approx(np.mean(gaps), rel=1e-4)
        assert row["auroc"] == pytest.approx(apart.auroc[0])
        assert row["tail_mass"] == pytest.approx(apart.tail_mass[0])
        assert row["length"] == pytest.approx(np.linalg.norm(states, axis=1).mean(), rel=1e-4)
        assert (row["n_in"], row["n_out"]) == (inside[:, c].sum(), outside[:, c].sum())


def test_parts_explain_the_growth_of_means(found: MechanismResult, small: Small) -> None:
    """From block to block, what the parts add to D_in and D_out is what the parts of the stream gain."""
    again = explain_parts(small, found)
    for (block, concept), change in again.items():
        rows = [
            row
            for row in found.splits.to_pylist()
            if (row["block"], row["concept"], row["vector"]) == (block, concept, "fixed")
        ]
        assert sum(row["change_in"] for row in rows) == pytest.approx(change, rel=1e-3, abs=1e-4)


def explain_parts(small: Small, found: MechanismResult) -> dict[tuple[int, str], float]:
    numbers = np.array([small.labels.ids.index(name) for name in found.summary["ids"]])
    samples = [small.dataset.samples[number] for number in numbers]
    encoding = small.backbone.encode(samples)
    labels = small.labels.with_concepts(list(small.detector.concepts))
    rows = rows_of(labels.offsets, numbers)
    inside = labels.tokens[rows].toarray() & labels.known[rows, None]
    sites = ["embed", *(f"block[{block}]" for block in range(small.backbone.n_blocks))]
    states = {site: np.zeros((encoding.n_tokens, small.backbone.width)) for site in sites}
    for batch in small.backbone.capture(samples, encoding, sites):
        for site in sites:
            states[site][rows_of(encoding.offsets, batch.rows)] = batch.tokens[site].double().numpy()
    result = {}
    for c, name in enumerate(small.detector.concepts):
        (bank,) = [bank for bank in small.detector.banks if name in bank.concepts]
        vector = bank.vectors[bank.concepts.index(name)].double().numpy()
        vector = vector / np.linalg.norm(vector)
        for block in range(small.backbone.n_blocks):
            moved = (states[sites[block + 1]] - states[sites[block]]) @ vector
            result[block, name] = float(moved[inside[:, c]].mean())
    return result


def test_amplification_is_the_product_of_gains_and_variance(found: MechanismResult) -> None:
    for row in found.heads.to_pylist():
        assert row["amplification"] == pytest.approx(row["ov_gain"] * row["qk_gain"] * row["variance"])
        assert row["lift"] == pytest.approx(row["attention"] / row["share"])
        assert row["kv_head"] == row["head"] // 2
        assert -1 <= row["ov_cosine"] <= 1


def test_ablations_are_what_the_detector_says_without_the_head(found: MechanismResult, small: Small) -> None:
    numbers = np.array([small.labels.ids.index(name) for name in found.summary["ids"]])
    samples = [small.dataset.samples[number] for number in numbers]
    encoding = small.backbone.encode(samples)
    labels = small.labels.with_concepts(list(small.detector.concepts))
    from superactivators.mechanism.anatomy import dissect

    inputs = next(iter(next(iter(small.backbone.batches(samples, encoding))).passes)).inputs
    parts = dissect(small.backbone, inputs)
    assert found.ablations.num_rows
    for row in found.ablations.to_pylist():
        heads = parts[row["block"]].heads
        assert heads is not None
        with without_head(heads, row["head"]):
            scores = np.zeros((encoding.n_tokens, len(small.detector.concepts)), np.float32)
            for batch in small.backbone.capture(samples, encoding, small.detector.sites):
                scores[rows_of(encoding.offsets, batch.rows)] = small.detector.activations(batch.tokens)
        c = small.detector.concepts.index(row["concept"])
        positive = labels.samples[numbers, c]
        highest = segment_max(scores, encoding.offsets)[positive, c]
        assert row["max_activation"] == pytest.approx(highest.mean(), rel=1e-4)
        assert row["recall"] == pytest.approx((highest >= small.detector.thresholds[c].value).mean())
        assert int(row["site"][6:-1]) >= row["block"]
    assert any(abs(row["max_activation_change"]) > 1e-3 for row in found.ablations.to_pylist())


def test_the_heads_that_are_taken_out_are_those_that_amplify_most(explain: Explain, small: Small) -> None:
    found = explain(ablate=1)
    first = small.detector.concepts[0]
    deepest = int(found.summary["sites"][first][6:-1])
    rows = [
        row
        for row in found.heads.to_pylist()
        if row["vector"] == "fixed" and row["concept"] == first and row["block"] <= deepest
    ]
    best = max(rows, key=lambda row: abs(row["amplification"]))
    assert {(row["block"], row["head"]) for row in found.ablations.to_pylist()} == {(best["block"], best["head"])}


def test_all_heads_or_none(explain: Explain, small: Small) -> None:
    assert explain(ablate=0).ablations.num_rows == 0
    found = explain(ablate="all", samples=4)
    deepest = max(int(site[6:-1]) for site in found.summary["sites"].values())
    heads = {(row["block"], row["head"]) for row in found.ablations.to_pylist()}
    assert heads == {(block, head) for block in range(deepest + 1) for head in range(4)}


# ------------------------------------------------------------------ properties


def test_batches_do_not_matter(explain: Explain, found: MechanismResult) -> None:
    same(found, explain(max_batch_tokens=1))


def test_one_concept_is_the_same_alone(explain: Explain, small: Small) -> None:
    name = small.detector.concepts[1]
    whole = explain(samples=0)
    alone = explain(samples=0, concepts=[name])
    for table in ("growth", "splits", "heads"):
        kept = [row for row in getattr(whole, table).to_pylist() if row["concept"] == name]
        for one, other in zip(kept, getattr(alone, table).to_pylist(), strict=True):
            for key, value in one.items():
                if isinstance(value, float) and key != "error":
                    assert other[key] == pytest.approx(value, rel=1e-3, abs=1e-5, nan_ok=True), key


def test_what_is_written_is_read_back(found: MechanismResult, tmp_path: Any) -> None:
    found.save(tmp_path / "mechanism")
    again = MechanismResult.load(tmp_path / "mechanism")
    same(found, again, 0)
    assert again.summary == found.summary
    assert "12 samples" in repr(again)
    with pytest.raises(StoreError):
        MechanismResult.load(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_recorded(
    family: str, backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    """Projections, parts and the detector's scores against the captured states; every head can be taken out."""
    backbone = backbones(family)
    drawn = drawn_for(backbone, max_batch_tokens=20)
    bank = bank_at("block[2]", ("a", "b"), 5)
    detector = Detector.of(
        {"block[2]": bank},
        [Threshold(0.1, 0.1, name, "mean", "superactivators", "block[2]", n=9) for name in bank.concepts],
    )
    unit = torch.nn.functional.normalize(bank.vectors, dim=1)
    found = record(backbone, drawn, anatomies(family), Directions(unit, {}), detector)
    sites = ["embed", *(f"block[{block}]" for block in range(backbone.n_blocks))]
    for batch in backbone.capture(drawn.samples, drawn.encoding, sites):
        rows = rows_of(drawn.encoding.offsets, batch.rows)
        for site in sites:
            expected = (batch.tokens[site] @ unit.T).numpy()
            np.testing.assert_allclose(found.along[site, "fixed"][rows], expected, rtol=1e-4, atol=1e-4)
        scores = detector.activations(batch.tokens)
        np.testing.assert_allclose(found.scores[rows], scores, rtol=1e-4, atol=1e-5)
    for block in range(backbone.n_blocks):
        change = found.along[sites[block + 1], "fixed"] - found.along[sites[block], "fixed"]
        np.testing.assert_allclose(found.parts[block, "fixed"].sum(axis=0), change, rtol=1e-3, atol=1e-4)
    heads = anatomies(family)[0].heads
    assert heads is not None
    assert {part.module for part in heads.folds if part.normed} <= set(found.inverse_lengths)
    without = scores_without(backbone, drawn, heads, 1, detector)
    assert np.abs(without - found.scores).max() > 1e-4
    deep = anatomies(family)[3].heads  # behind the site: nothing can change
    assert deep is not None
    np.testing.assert_allclose(scores_without(backbone, drawn, deep, 1, detector), found.scores, rtol=1e-4, atol=1e-6)


def test_post_norm_models_say_so(backbones: Callable[[str], Backbone], tmp_path: Any) -> None:
    from small_survey import make_small

    held = make_small(backbones("distilbert"), tmp_path)
    found = explain_mechanism(held.backbone, held.dataset, held.detector, held.labels, samples=4, ablate=0)
    assert any("Norms stand behind the sums" in note for note in found.summary["notes"])
    assert any(abs(row["change_in"]) > 1e-3 for row in found.splits.to_pylist() if row["part"] == "norm")


def test_variance_within_samples_equals_a_loop() -> None:
    values = np.random.default_rng(0).normal(size=(9, 2))
    offsets = np.array([0, 4, 4, 9])
    expected = (values[:4].var(axis=0) + values[4:].var(axis=0)) / 2
    np.testing.assert_allclose(within_variance(values, offsets), expected)


# ------------------------------------------------------------------ mistakes


def test_mistakes_are_told_in_one_line(explain: Explain, small: Small, backbones: Callable[[str], Backbone]) -> None:
    with pytest.raises(StudyError, match="no concept 'anmal' in this detector; did you mean 'animal'"):
        explain(concepts=["anmal"])
    with pytest.raises(StudyError, match="numbers of 0 or more"):
        explain(samples=-1)
    with pytest.raises(StudyError, match="ablate='all'"):
        explain(ablate="some")
    with pytest.raises(StudyError, match="has no concept"):
        explain(banks={"block[1]": bank_at("block[1]", ("animal",), 0)})
    with pytest.raises(ModelError, match="other weights"):
        explain_mechanism(backbones("gpt2"), small.dataset, small.detector, small.labels)
    flat = replace(small.detector.banks[0], vectors=torch.zeros_like(small.detector.banks[0].vectors))
    hollow = replace(small.detector, banks=(flat, *small.detector.banks[1:]))
    with pytest.raises(StudyError, match="has no direction"):
        explain_mechanism(small.backbone, small.dataset, hollow, small.labels)
    none = replace(small.labels, samples=np.zeros_like(small.labels.samples))
    with pytest.raises(StudyError, match="no sample of test holds"):
        explain_mechanism(small.backbone, small.dataset, small.detector, none)
