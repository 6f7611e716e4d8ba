"""Banks: what they score, what a subset keeps, and what comes back from disk, whoever wrote it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from concepts.autoencoders import RULES, WIDTH, Doubling, encoder, states
from superactivators.artefacts import FolderReader, FolderWriter, Format, writing
from superactivators.concepts.bank import ConceptBank, sae_bank
from superactivators.concepts.sae import SparseEncoder
from superactivators.concepts.sae_object import wrap_sae
from superactivators.errors import StoreError, StudyError
from superactivators.states.scaling import Scaling

KIND = Format("superactivators/test-bank", 1)
SCALING = Scaling(torch.tensor([0.5, -1.0, 2.0, 0.0, 3.0, -0.25]), 2.5)
UNITS = np.array([7, 2, 19, 11])
ACTIVATIONS = ("cosine", "logit", *RULES)


def bank(activation: str) -> ConceptBank:
    if activation in RULES:
        return sae_bank(encoder(activation), UNITS, SCALING, "block[1]", "token", notes={"kept": 4})
    generator = torch.Generator().manual_seed(3)
    return ConceptBank(
        kind="linear",
        site="block[1]",
        level="token",
        concepts=("a", "b", "c", "d"),
        vectors=torch.randn(4, WIDTH, generator=generator),
        bias=torch.randn(4, generator=generator) if activation == "logit" else torch.zeros(4),
        scaling=SCALING,
        activation=activation,  # type: ignore[arg-type]
        estimable=np.array([True, False, True, True]),
        notes={"strength": 0.1},
    )


def reread(written: ConceptBank, folder: Path) -> ConceptBank:
    entry = json.loads(json.dumps(written.entry("bank.safetensors"), allow_nan=False))
    with writing(folder, KIND, "made", entry) as writer:
        written.write(writer, "bank.safetensors")
    reader = FolderReader(folder, KIND)
    return ConceptBank.read(reader, reader.manifest.parameters)


@pytest.mark.parametrize("rule", RULES)
def test_latents_of_a_bank_are_those_of_the_autoencoder(rule: str) -> None:
    model, raw = encoder(rule), states()
    expected = model.encode(raw)[:, UNITS]
    assert 0.02 < (expected > 0).float().mean() < 0.95
    made = bank(rule)
    assert made.concepts == ("7", "2", "19", "11")
    assert made.activation == "latent"
    np.testing.assert_array_equal(made.units, UNITS)
    torch.testing.assert_close(made.activations(raw), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made.score(SCALING.apply(raw)), expected, rtol=1e-5, atol=1e-5)
    assert made.notes == {"layout": "test", "kept": 4}
    assert made.encoder is not None
    assert made.encoder.decoder is None
    assert model.decoder is not None
    torch.testing.assert_close(made.vectors, model.decoder[UNITS] / 2.5)


def test_the_direction_written_is_that_of_the_scaled_states() -> None:
    model = encoder("relu", input_scale=0.4)
    made = sae_bank(model, UNITS, SCALING, "block[1]", "token")
    assert model.decoder is not None
    # one unit more of a latent moves the raw state by decoder / input_scale
    raw = states(1)
    moved = SCALING.apply(raw + model.decoder[UNITS] / 0.4) - SCALING.apply(raw)
    torch.testing.assert_close(made.vectors, moved, rtol=1e-4, atol=1e-5)
    reads = sae_bank(replace(model, decoder=None), UNITS, SCALING, "block[1]", "token").vectors
    scaled = SCALING.apply(raw)
    before = scaled @ reads.T - (scaled + reads[:1]) @ reads.T
    there = raw @ model.weight[UNITS].T * 0.4 - (raw + reads[:1] * 2.5) @ model.weight[UNITS].T * 0.4
    torch.testing.assert_close(before, there, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(activation=st.sampled_from(ACTIVATIONS), columns=st.lists(st.integers(0, 3), max_size=8))
def test_a_subset_scores_its_columns(activation: str, columns: list[int]) -> None:
    whole, raw = bank(activation), states(7)
    names = [f"concept {place}" for place in range(len(columns))]
    part = whole.subset(columns, names)
    assert part.concepts == tuple(names)
    expected = whole.activations(raw)[:, columns]
    torch.testing.assert_close(part.activations(raw), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(part.vectors, whole.vectors[columns])
    assert torch.equal(part.bias, whole.bias[columns])
    np.testing.assert_array_equal(part.estimable, whole.estimable[columns])
    assert (part.kind, part.site, part.level, part.notes) == (whole.kind, whole.site, whole.level, whole.notes)
    if whole.units is not None:
        np.testing.assert_array_equal(part.units, whole.units[columns])
    else:
        assert part.units is None


def test_a_subset_keeps_names_unless_told_and_refuses_what_cannot_be() -> None:
    whole = bank("relu")
    assert whole.subset(np.array([2, 0])).concepts == ("19", "7")
    for columns in ([4], [-1], [0, 9]):
        with pytest.raises(StudyError, match="asked of a bank of 4 concepts; give 0 to 3"):
            whole.subset(columns)
    for columns, names in (([1, 1], None), ([1, 1], ["x", "x"]), ([0, 1], ["x"]), ([0], ["x", "y"])):
        with pytest.raises(StudyError, match="give each its own name"):
            whole.subset(columns, names)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_banks_come_back_from_disk(activation: str, tmp_path: Path) -> None:
    for written in (bank(activation), bank(activation).subset([3, 3, 0], ["x", "y", "z"])):
        again = reread(written, tmp_path / "bank")
        assert torch.equal(again.activations(states()), written.activations(states()))
        assert again.entry("f") == written.entry("f")
        assert again.fingerprint == written.fingerprint
        assert torch.equal(again.vectors, written.vectors)
        np.testing.assert_array_equal(again.estimable, written.estimable)
        if written.units is None:
            assert again.units is None
        else:
            np.testing.assert_array_equal(again.units, written.units)
            assert again.units is not None
            assert again.units.dtype == np.int64


@pytest.mark.parametrize("inputs", [{"normalisation": "layer_norm"}, {"centred": True, "input_scale": 1 / 3}], ids=str)
def test_what_is_done_to_inputs_comes_back_from_disk(inputs: dict[str, Any], tmp_path: Path) -> None:
    model = encoder("jumprelu", **inputs)
    written = sae_bank(model, UNITS, SCALING, "block[1]", "token")
    again = reread(written, tmp_path / "bank")
    torch.testing.assert_close(again.activations(states()), model.encode(states())[:, UNITS], rtol=1e-5, atol=1e-5)


def test_fingerprints_know_the_encoder() -> None:
    made = bank("jumprelu")
    assert isinstance(made.encoder, SparseEncoder)
    assert made.encoder.threshold is not None
    other = replace(made, encoder=replace(made.encoder, threshold=made.encoder.threshold + 0.1))
    assert len({made.fingerprint, other.fingerprint, bank("relu").fingerprint, bank("cosine").fingerprint}) == 4


@pytest.mark.parametrize("activation", ["cosine", "logit"])
def test_banks_of_earlier_releases_are_read(activation: str, tmp_path: Path) -> None:
    expected = bank(activation)
    arrays = {
        "vectors": expected.vectors.numpy(),
        "bias": expected.bias.numpy(),
        "mean": SCALING.mean.numpy(),
        "scale": np.array([2.5]),
        "estimable": np.array([1, 0, 1, 1], dtype=np.uint8),
    }
    entry = {
        "file": "old.safetensors",
        "kind": "linear",
        "site": "block[1]",
        "level": "token",
        "concepts": ["a", "b", "c", "d"],
        "activation": activation,
        "notes": {"strength": 0.1},
    }
    # nothing is added to what such a bank writes
    assert expected.entry("old.safetensors") == entry
    with writing(tmp_path / "old", KIND, "made", entry) as writer:
        writer.arrays("old.safetensors", arrays)
    reader = FolderReader(tmp_path / "old", KIND)
    again = ConceptBank.read(reader, reader.manifest.parameters)
    assert torch.equal(again.activations(states()), expected.activations(states()))
    assert again.encoder is None
    assert again.units is None
    with writing(tmp_path / "new", KIND, "made", entry) as writer:
        expected.write(writer, "old.safetensors")
    assert (tmp_path / "new" / "old.safetensors").read_bytes() == (tmp_path / "old" / "old.safetensors").read_bytes()


def test_objects_score_but_are_not_written(tmp_path: Path) -> None:
    made = sae_bank(wrap_sae(Doubling(), 12), np.array([8, 1]), SCALING, "block[1]", "sample")
    expected = torch.stack([2 * states()[:, 2], states()[:, 1]], dim=1)
    torch.testing.assert_close(made.activations(states()), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made.subset([1]).activations(states()), expected[:, [1]], rtol=1e-5, atol=1e-5)
    assert torch.equal(made.vectors, torch.zeros(2, WIDTH))
    known = sae_bank(wrap_sae(Doubling(), 12, np.ones((12, WIDTH))), np.array([8]), SCALING, "block[1]", "sample")
    torch.testing.assert_close(known.vectors, torch.full((1, WIDTH), 0.4))
    for attempt in (
        lambda: made.entry("f"),
        lambda: made.fingerprint,
        lambda: made.write(FolderWriter(tmp_path), "f.safetensors"),
    ):
        with pytest.raises(
            StudyError, match="is a Python object and cannot be written; keep the study in memory"
        ) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_impossible_banks_are_refused() -> None:
    with pytest.raises(StudyError, match=r"reads states of width 6, but block\[1\] has 5"):
        sae_bank(encoder("relu"), UNITS, Scaling(torch.zeros(5), 1.0), "block[1]", "token")
    for units, says in (([], "none"), ([1, 1], "not all different"), ([20], "give 0 to 19"), ([-1], "give 0 to 19")):
        with pytest.raises(StudyError, match=says):
            sae_bank(encoder("relu"), np.array(units, dtype=np.int64), SCALING, "block[1]", "token")
    made = bank("relu")
    for changed in ({"encoder": None}, {"units": None}, {"activation": "logit"}, {"encoder": encoder("relu")}):
        with pytest.raises(StudyError, match="use sae_bank"):
            replace(made, **changed)
    with pytest.raises(StudyError, match="use sae_bank"):
        replace(bank("cosine"), activation="latent")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda entry, arrays: entry.update(activation="sigmoid"), "activation 'sigmoid' is unknown here"),
        (lambda entry, arrays: entry.pop("encoder"), "does not fit the format"),
        (lambda entry, arrays: entry.pop("notes"), "does not fit the format .'notes'."),
        (lambda entry, arrays: entry["encoder"].update(rule="softmax"), "Known: gated, jumprelu, relu, topk"),
        (lambda entry, arrays: entry["encoder"].update(extra=1), "does not fit the format"),
        (lambda entry, arrays: entry["concepts"].append("more"), "vectors are not those of its concepts"),
        (lambda entry, arrays: arrays.pop("units"), "use sae_bank"),
        (lambda entry, arrays: arrays.pop("encoder.weight"), "does not fit the format"),
        (lambda entry, arrays: arrays.pop("encoder.threshold"), "threshold of shape None"),
        (lambda entry, arrays: arrays.update({"encoder.bias": np.full(4, np.nan, np.float32)}), "not finite"),
        (lambda entry, arrays: arrays.pop("mean"), "does not fit the format .'mean'."),
    ],
)
def test_damaged_banks_are_refused_in_one_line(change: Any, says: str, tmp_path: Path) -> None:
    written = bank("jumprelu")
    entry = json.loads(json.dumps(written.entry("bank.safetensors")))
    assert isinstance(written.encoder, SparseEncoder)
    with writing(tmp_path / "whole", KIND, "made", {}) as writer:
        written.write(writer, "bank.safetensors")
    arrays = FolderReader(tmp_path / "whole", KIND).arrays("bank.safetensors")
    change(entry, arrays)
    with writing(tmp_path / "bank", KIND, "made", {}) as writer:
        writer.arrays("bank.safetensors", arrays)
    with pytest.raises(StoreError, match=says) as caught:
        ConceptBank.read(FolderReader(tmp_path / "bank", KIND), entry)
    assert "\n" not in str(caught.value)
