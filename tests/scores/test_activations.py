"""Scores of token and sample states: against loops, whatever the blocks and the order of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detection.worlds import World, world
from superactivators.concepts.bank import ConceptBank
from superactivators.errors import StoreError, StudyError
from superactivators.scores.activations import POOLS, score_samples, score_tokens
from superactivators.scores.layout import Layout
from superactivators.scores.site_scores import WHOLE, SiteScores
from superactivators.states import arrays
from superactivators.states.scaling import Scaling

SITE = "block[1]"


def bank(activation: str = "cosine", level: str = "token", site: str = SITE, seed: int = 0) -> ConceptBank:
    generator = torch.Generator().manual_seed(seed)
    return ConceptBank(
        kind=activation,
        site=site,
        level=level,  # type: ignore[arg-type]
        concepts=("concept 0", "concept 1", "concept 2"),
        vectors=torch.randn(3, 8, generator=generator),
        scaling=Scaling(torch.randn(8, generator=generator), 2.5),
        bias=torch.randn(3, generator=generator) if activation == "logit" else torch.zeros(3),
        activation=activation,  # type: ignore[arg-type]
        estimable=np.ones(3, dtype=bool),
    )


def slow(rows: np.ndarray, against: ConceptBank) -> np.ndarray:
    """Activations in double precision, one row and concept at a time."""
    mean = against.scaling.mean.numpy().astype(np.float64)
    result = np.empty((len(rows), 3))
    for t, row in enumerate(rows):
        z = (row.astype(np.float64) - mean) / against.scaling.scale
        for c in range(3):
            vector = against.vectors[c].numpy().astype(np.float64)
            product = sum(float(a) * float(b) for a, b in zip(z, vector, strict=True))
            if against.activation == "cosine":
                result[t, c] = product / np.sqrt((z * z).sum()) / np.sqrt((vector * vector).sum())
            else:
                result[t, c] = product + float(against.bias[c])
    return result


def pooled_slowly(data: World, tokens: np.ndarray) -> dict[str, np.ndarray]:
    parts = [tokens[data.offsets[i] : data.offsets[i + 1]] for i in range(data.n)]
    return {
        "max": np.array([part.max(axis=0) for part in parts]),
        "mean": np.array([part.mean(axis=0) for part in parts]),
        "last": np.array([part[-1] for part in parts]),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", ["cosine", "logit"])
def test_token_scores_against_loops(activation: str, dtype: torch.dtype) -> None:
    data, against = world(0), bank(activation)
    (found,) = score_tokens(data.states(dtype), [against])
    rounded = torch.from_numpy(data.values[SITE]).to(dtype).float().numpy()
    tokens = slow(rounded, against)
    assert set(found.pooled) == set(POOLS)
    for name, expected in pooled_slowly(data, tokens).items():
        np.testing.assert_allclose(found.pooled[name], expected, atol=2e-6, err_msg=name)
    for i in range(data.n):
        own = tokens[data.offsets[i] : data.offsets[i + 1]]
        assert np.abs(own - found.pooled["random"][i]).max(axis=1).min() < 2e-6
    kept = [i for i in range(data.n) if data.splits[i] != "train"]
    assert found.samples.tolist() == kept
    rows = np.concatenate([np.arange(data.offsets[i], data.offsets[i + 1]) for i in kept])
    np.testing.assert_allclose(found.tokens, tokens[rows], atol=2e-6)
    assert (found.kind, found.level, found.site) == (activation, "token", SITE)
    assert found.tokens.dtype == found.pooled["mean"].dtype == np.float32


@pytest.mark.parametrize("block", [1, 7, 50])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    states, banks = world(1).states(), [bank("cosine"), bank("logit")]
    usual = score_tokens(states, banks, seed=5)
    monkeypatch.setattr(arrays, "BLOCK", block)
    assert len(list(states.values.blocks(SITE))) > 5
    again = score_tokens(states, banks, seed=5)
    for one, other in zip(usual, again, strict=True):
        np.testing.assert_allclose(one.tokens, other.tokens, atol=1e-6)
        for name in POOLS:
            np.testing.assert_allclose(one.pooled[name], other.pooled[name], atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(one.samples, other.samples)


@pytest.mark.parametrize("block", [1, 7, 50])
def test_segments_keep_their_place_in_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = world(1)
    states, against = data.states(), bank("logit")
    numbers = np.random.default_rng(0).random(data.offsets[-1]) < 0.4
    layout = Layout(states.offsets, sentences=np.cumsum(numbers).astype(np.int32))
    (usual,) = score_tokens(states, [against], poolings=("kth", "segment", "max"), layout=layout, min_tokens=2)
    tokens = slow(data.values[SITE], against)
    for i in range(data.n):
        own = range(data.offsets[i], data.offsets[i + 1])
        for c in range(3):
            ordered = sorted((tokens[t, c] for t in own), reverse=True)
            assert usual.pooled["kth"][i, c] == pytest.approx(ordered[1] if len(ordered) > 1 else -np.inf, abs=2e-6)
            pairs = [
                min(tokens[s, c], tokens[t, c])
                for s in own
                for t in own
                if s < t and layout.sentences[s] == layout.sentences[t]  # type: ignore[index]
            ]
            assert usual.pooled["segment"][i, c] == pytest.approx(max(pairs, default=-np.inf), abs=2e-6)
    monkeypatch.setattr(arrays, "BLOCK", block)
    (again,) = score_tokens(states, [against], poolings=("kth", "segment", "max"), layout=layout, min_tokens=2)
    for name in again.pooled:
        np.testing.assert_allclose(again.pooled[name], usual.pooled[name], atol=1e-6, err_msg=name)


def test_wrong_layouts_and_numbers_of_tokens_are_refused() -> None:
    states, against = world(1, per_split=4).states(), bank()
    with pytest.raises(StudyError, match="min_tokens must be a whole number of at least 1; got 0"):
        score_tokens(states, [against], min_tokens=0)
    with pytest.raises(StudyError, match="got no layout"):
        score_tokens(states, [against], poolings=["segment"])
    other = Layout(np.array([0, 2]), sentences=np.zeros(2, dtype=np.int32))
    with pytest.raises(StudyError, match=r"layout is of 1 samples with 2 tokens, but the states are of 12"):
        score_tokens(states, [against], layout=other)


def test_banks_scored_together_equal_banks_scored_alone() -> None:
    states, banks = world(2).states(), [bank("cosine"), bank("logit")]
    together = score_tokens(states, banks)
    for one, alone in zip(together, (score_tokens(states, [held])[0] for held in banks), strict=True):
        np.testing.assert_array_equal(one.tokens, alone.tokens)
        np.testing.assert_array_equal(one.pooled["random"], alone.pooled["random"])


def test_reordered_samples_give_reordered_scores() -> None:
    data, against = world(3), bank()
    order = np.random.default_rng(0).permutation(data.n)
    (usual,), (again,) = (score_tokens(held.states(), [against], seed=2) for held in (data, data.permuted(order)))
    for name in POOLS:
        np.testing.assert_allclose(again.pooled[name], usual.pooled[name][order], atol=1e-6, err_msg=name)
    sample = bank(level="sample")
    one, other = (score_samples(held.states(), sample).pooled[WHOLE] for held in (data, data.permuted(order)))
    np.testing.assert_allclose(other, one[order], atol=1e-6)


def test_a_longer_neighbour_changes_nothing() -> None:
    """Rows are ragged: the score of a sample is the score it has alone."""
    data, against = world(4), bank("logit")
    (found,) = score_tokens(data.states(), [against])
    for i in (0, 5, data.n - 1):
        rows = slice(data.offsets[i], data.offsets[i + 1])
        alone = World(
            {site: held[rows] for site, held in data.values.items()},
            {site: held[i : i + 1] for site, held in data.sample_values.items()},
            np.array([0, data.offsets[i + 1] - data.offsets[i]]),
            data.token_labels[rows],
            data.known[rows],
            data.sample_labels[i : i + 1],
            ["test"],
            data.concepts,
            [data.ids[i]],
        )
        (single,) = score_tokens(alone.states(), [against])
        for name in POOLS:
            np.testing.assert_allclose(single.pooled[name][0], found.pooled[name][i], atol=1e-6, err_msg=name)


def test_sample_scores_against_loops() -> None:
    data, against = world(5), bank("cosine", "sample")
    found = score_samples(data.states(), against)
    assert list(found.pooled) == [WHOLE]
    np.testing.assert_allclose(found.pooled[WHOLE], slow(data.sample_values[SITE], against), atol=2e-6)
    assert found.tokens.shape == (0, 3)
    assert found.samples.tolist() == []


def test_one_split_is_cut_out_with_its_tokens() -> None:
    data = world(6)
    states = data.states()
    (found,) = score_tokens(states, [bank()])
    for split in ("cal", "test"):
        activations, rows, offsets = found.of_split(states.labels, split)
        samples = data.in_split(split)
        expected = [t for i in samples for t in range(data.offsets[i], data.offsets[i + 1])]
        assert rows.tolist() == expected
        assert np.diff(offsets).tolist() == [data.offsets[i + 1] - data.offsets[i] for i in samples]
        for number, i in enumerate(samples):
            own = activations[offsets[number] : offsets[number + 1]]
            np.testing.assert_array_equal(own.max(axis=0), found.pooled["max"][i])
            np.testing.assert_array_equal(own[-1], found.pooled["last"][i])
        activations[:] = 0  # a copy
        assert found.tokens.any()


def test_saved_and_loaded(tmp_path: Path) -> None:
    (found,) = score_tokens(world(7).states(), [bank()])
    found.save(tmp_path / "scores", "made from this")
    again = SiteScores.load(tmp_path / "scores")
    assert (again.kind, again.level, again.site) == (found.kind, found.level, found.site)
    assert set(again.pooled) == set(found.pooled)
    for name in POOLS:
        np.testing.assert_array_equal(again.pooled[name], found.pooled[name])
    np.testing.assert_array_equal(again.tokens, found.tokens)
    np.testing.assert_array_equal(again.samples, found.samples)
    file = tmp_path / "scores" / "scores.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="damaged"):
        SiteScores.load(tmp_path / "scores")


def test_banks_of_the_wrong_level_or_of_several_sites_are_refused() -> None:
    states = world(8, per_split=4).states()
    with pytest.raises(StudyError, match="token banks of one site"):
        score_tokens(states, [bank(level="sample")])
    with pytest.raises(StudyError, match="token banks of one site"):
        score_tokens(states, [bank(), bank(site="block[0]")])
    with pytest.raises(StudyError, match="token banks of one site"):
        score_tokens(states, [])
    with pytest.raises(StudyError, match="same scaling"):
        score_tokens(states, [bank(), bank(seed=1)])
    with pytest.raises(StudyError, match="bank of sample states"):
        score_samples(states, bank())
