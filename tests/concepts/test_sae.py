"""Latents of sparse autoencoders against loops in double precision, whatever the blocks; pruning against counting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from concepts.autoencoders import LATENTS, RULES, WIDTH, Doubling, encoder, states
from superactivators.concepts import latents
from superactivators.concepts.rows import ArrayRows
from superactivators.concepts.sae import SparseEncoder, prune_latents
from superactivators.concepts.sae_object import wrap_sae
from superactivators.errors import ModelError, StudyError


def slow(model: SparseEncoder, rows: torch.Tensor) -> np.ndarray:
    """One row and one latent at a time."""
    held = {name: array.astype(np.float64) for name, array in model.arrays().items()}
    result = np.zeros((len(rows), len(held["weight"])))
    for r, row in enumerate(rows.double().numpy()):
        x = row - row.mean() if model.centred else row
        if model.normalisation == "layer_norm":
            x = x - x.mean()
            x = x / (np.sqrt((x**2).sum() / (len(x) - 1)) + 1e-5)
        if model.normalisation == "constant_norm":
            x = x * np.sqrt(len(x)) / np.sqrt((x**2).sum())
        x = x * model.input_scale - held["centre"]
        product = np.array([sum(a * b for a, b in zip(w, x, strict=True)) for w in held["weight"]])
        before = product + held["bias"]
        for c, value in enumerate(before):
            if model.rule == "relu":
                kept = value > 0
            elif model.rule == "jumprelu":
                kept = value > 0 and value > held["threshold"][c]
            elif model.rule == "topk":
                kept = value > 0 and (before > value).sum() < (model.k or 0)
            else:
                kept = value > 0
                value = max(0.0, held["gain"][c] * product[c] + held["magnitude_bias"][c])
            result[r, c] = value if kept else 0.0
    return result


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"normalisation": "layer_norm"},
        {"normalisation": "constant_norm"},
        {"centred": True},
        {"input_scale": 0.3},
        {"centred": True, "normalisation": "constant_norm", "input_scale": 1.7},
    ],
    ids=str,
)
def test_latents_equal_loops(rule: str, inputs: dict[str, Any]) -> None:
    model = encoder(rule, **inputs)
    expected = slow(model, states())
    assert 0.02 < (expected > 0).mean() < 0.9
    found = model.encode(states())
    assert found.dtype == torch.float32
    assert found.shape == (40, LATENTS)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("rule", RULES)
def test_blocks_and_order_of_rows_do_not_matter(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = encoder(rule), states(50)
    whole = model.encode(rows)
    monkeypatch.setattr(latents, "CELLS", 7 * LATENTS)
    monkeypatch.setattr(latents, "LEAST_ROWS", 1)
    parts = list(model.blocks(rows))
    assert [start for start, _ in parts] == list(range(0, 50, 7))
    torch.testing.assert_close(torch.cat([part for _, part in parts]), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.encode(rows), whole, rtol=0, atol=1e-5)
    order = torch.from_numpy(np.random.default_rng(0).permutation(50))
    torch.testing.assert_close(model.encode(rows[order]), whole[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_inputs_are_not_written_to_and_half_precision_is_taken(rule: str) -> None:
    model, rows = encoder(rule), states().half()
    before, arrays = rows.clone(), {name: array.copy() for name, array in model.arrays().items()}
    found = model.encode(rows)
    assert torch.equal(rows, before)
    assert all(np.array_equal(array, arrays[name]) for name, array in model.arrays().items())
    np.testing.assert_allclose(found.numpy(), slow(model, rows.float()), atol=2e-5)
    assert model.encode(rows[:0]).shape == (0, LATENTS)


def in_sixteenths(model: SparseEncoder) -> SparseEncoder:
    """Round every number, so that float32 sums are exact and do not depend on how a product is cut into blocks."""
    names = ("weight", "bias", "centre", "threshold", "gain", "magnitude_bias")
    rounded = {name: (getattr(model, name) * 16).round() / 16 for name in names if getattr(model, name) is not None}
    return replace(model, **rounded)


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 1000),
    columns=st.lists(st.integers(0, LATENTS - 1), min_size=1, max_size=12),
    again=st.lists(st.integers(0, 10**6), min_size=1, max_size=5),
)
def test_chosen_latents_are_those_of_the_whole(rule: str, seed: int, columns: list[int], again: list[int]) -> None:
    model, rows = in_sixteenths(encoder(rule, seed)), (states(9, seed) * 16).round() / 16
    whole = model.encode(rows)
    chosen = model.select(np.array(columns))
    assert chosen.n_latents == len(columns)
    assert torch.equal(chosen.encode(rows), whole[:, columns])
    second = np.array([number % len(columns) for number in again])
    assert torch.equal(chosen.select(second).encode(rows), whole[:, np.array(columns)[second]])
    assert model.decoder is not None
    torch.testing.assert_close(chosen.directions(2.0), model.decoder[columns] / 2.0)


@pytest.mark.parametrize("rule", RULES)
def test_only_the_needed_rows_are_kept(rule: str) -> None:
    kept = encoder(rule).select(np.array([3, 1]))
    assert len(kept.weight) == (LATENTS if rule == "topk" else 2)


def test_directions_without_decoder_are_what_is_read() -> None:
    for rule in ("relu", "topk"):
        model = replace(encoder(rule), decoder=None, input_scale=0.5).select(np.array([4, 2]))
        torch.testing.assert_close(model.directions(3.0), encoder(rule).weight[[4, 2]] * 1.5)
    written = replace(encoder("relu"), input_scale=0.5)
    assert written.decoder is not None
    torch.testing.assert_close(written.directions(3.0), written.decoder / 1.5)


def test_latents_that_tie_with_the_kth_are_kept() -> None:
    weight = torch.tensor([[3.0], [2.0], [2.0], [1.0], [-1.0]])
    model = SparseEncoder(weight, torch.zeros(5), torch.zeros(1), "topk", k=2)
    found = model.encode(torch.tensor([[1.0], [-1.0]]))
    assert found.tolist() == [[3, 2, 2, 0, 0], [0, 0, 0, 0, 1]]


def test_a_threshold_below_zero_counts_as_zero_and_one_that_is_reached_is_not_passed() -> None:
    model = SparseEncoder(
        torch.eye(3), torch.zeros(3), torch.zeros(3), "jumprelu", threshold=torch.tensor([-2.0, 1.0, 0.5])
    )
    assert model.encode(torch.tensor([[-1.0, 1.0, 0.75]])).tolist() == [[0, 0, 0.75]]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"rule": "softmax"}, "did you mean|Known: gated, jumprelu, relu, topk"),
        ({"normalisation": "whitening"}, "Known: constant_norm, layer_norm, none"),
        ({"bias": torch.zeros(3)}, r"bias of shape \(3,\), but 20 latents of width 6 need \(20,\)"),
        ({"centre": torch.zeros(7)}, r"centre of shape \(7,\)"),
        ({"decoder": torch.zeros(WIDTH, LATENTS)}, r"decoder of shape \(6, 20\)"),
        ({"weight": torch.full((LATENTS, WIDTH), torch.nan)}, "values in weight that are not finite"),
        ({"threshold": torch.zeros(LATENTS)}, "threshold of shape"),
        ({"k": 3}, "k = 3"),
        ({"rule": "topk"}, "k = None; topk needs k from 1 to 20"),
        ({"rule": "topk", "k": 21}, "k = 21; topk needs k from 1 to 20"),
        ({"rule": "topk", "k": 0}, "k = 0"),
        ({"rule": "jumprelu"}, "threshold of shape None"),
        ({"rule": "gated"}, "gain of shape None"),
        ({"input_scale": 0.0}, "input scale 0.0"),
        ({"chosen": torch.tensor([1]), "decoder": None}, "chosen latents"),
    ],
    ids=str,
)
def test_impossible_encoders_are_refused_in_one_line(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        replace(encoder("relu"), **changed)
    assert "\n" not in str(caught.value)


def test_wrong_states_and_numbers_are_refused() -> None:
    with pytest.raises(StudyError, match="reads states of width 6, but these have 5"):
        encoder("relu").encode(torch.zeros(2, 5))
    for columns in ([20], [-1]):
        with pytest.raises(StudyError, match="give 0 to 19"):
            encoder("topk").select(np.array(columns))


def test_arrays_and_settings_hold_everything() -> None:
    for rule in RULES:
        model = encoder(rule, input_scale=0.1, centred=True).select(np.array([2, 2, 0]))
        again = SparseEncoder.of(model.arrays(), model.settings())
        assert torch.equal(again.encode(states()), model.encode(states()))
        assert again.fingerprint == model.fingerprint
        assert again.fingerprint != replace(model, input_scale=0.2).fingerprint
        assert again.fingerprint != replace(model, bias=model.bias + 1).fingerprint


@pytest.mark.parametrize("given", ["tensor", "array", "pair"])
def test_any_object_that_encodes_is_taken(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "CELLS", 12 * 5)
    monkeypatch.setattr(latents, "LEAST_ROWS", 1)
    model = Doubling(given)
    wrapped = wrap_sae(model, 12, decoder=np.ones((12, WIDTH)))
    expected = torch.cat([states(), 2 * states()], dim=1)
    found = wrapped.encode(states().double())
    assert model.longest == 5
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(wrapped.select(np.array([11, 0])).encode(states()), expected[:, [11, 0]])
    torch.testing.assert_close(wrapped.select(np.array([11, 0])).directions(4.0), torch.full((2, WIDTH), 0.25))
    assert wrap_sae(model, 12).directions(4.0) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [("short", r"shape \(40, 3\) for 40 rows"), ("nan", "not finite"), ("text", "no array")],
)
def test_objects_that_give_something_else_are_refused(given: str, says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        wrap_sae(Doubling(given), 12).encode(states())
    assert "\n" not in str(caught.value)


def test_what_cannot_encode_is_not_wrapped() -> None:
    with pytest.raises(StudyError, match=r"has no method encode\(x\)"):
        wrap_sae(3, 12)
    with pytest.raises(StudyError, match="width is 0"):
        wrap_sae(Doubling(), 0)
    with pytest.raises(StudyError, match="one finite row for each latent"):
        wrap_sae(Doubling(), 12, decoder=np.ones((11, WIDTH)))


def counted(model: SparseEncoder, rows: torch.Tensor, least: int, share: float, most: int) -> list[int]:
    """The stated rule, with loops."""
    latents = slow(model, rows)
    counts = [sum(1 for value in latents[:, c] if value > 0) for c in range(latents.shape[1])]
    left = [c for c, count in enumerate(counts) if count >= least and count <= share * len(rows)]
    return sorted(sorted(left, key=lambda c: (-counts[c], c))[:most])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("most", [3, 4096])
def test_pruning_counts_on_cal(rule: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bias = torch.linspace(-9, 9, LATENTS)
    model = encoder(rule, bias=bias)
    rows = states(200)
    expected = counted(model, rows, 7, 0.4, most)
    assert 0 < len(expected) < LATENTS
    units, notes = prune_latents(model, ArrayRows(rows), least=7, share=0.4, most=most)
    assert units.tolist() == expected
    assert units.dtype == np.int64
    assert notes["kept"] == len(units)
    assert notes["dead"] + notes["ubiquitous"] + notes["beyond_most"] + notes["kept"] == LATENTS
    monkeypatch.setattr(latents, "CELLS", LATENTS)
    monkeypatch.setattr(latents, "LEAST_ROWS", 3)
    for block_rows in (1, 17):
        assert prune_latents(model, ArrayRows(rows, block_rows), least=7, share=0.4, most=most)[0].tolist() == expected


def test_equal_counts_are_decided_by_number() -> None:
    model = SparseEncoder(torch.ones(5, 1), torch.zeros(5), torch.zeros(1), "relu")
    rows = ArrayRows(torch.tensor([[1.0]] * 5 + [[-1.0]] * 5))
    assert prune_latents(model, rows, most=2)[0].tolist() == [0, 1]
    assert prune_latents(model, rows)[0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(StudyError, match="none of 5 latents fires on at least 6 and at most 50% of 10 cal rows"):
        prune_latents(model, rows, least=6)
    with pytest.raises(StudyError, match=r"5 on more"):
        prune_latents(model, rows, share=0.4)


def test_pruning_takes_wrapped_objects_and_refuses_impossible_bounds() -> None:
    units, _ = prune_latents(wrap_sae(Doubling(), 12), ArrayRows(states(200)), share=0.95)
    latents = torch.cat([states(200), states(200)], dim=1).numpy()
    assert units.tolist() == [c for c in range(12) if 5 <= (latents[:, c] > 0).sum() <= 190]
    for bounds in ({"least": 0}, {"share": 0.0}, {"share": 1.5}, {"most": 0}):
        with pytest.raises(StudyError, match="must be at least 1"):
            prune_latents(encoder("relu"), ArrayRows(states()), **bounds)  # type: ignore[arg-type]
