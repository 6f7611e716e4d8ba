"""Files of published sparse autoencoders in each layout, against an encoder in double precision; wrong ones of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from superactivators.concepts.sae_files import read_sae
from superactivators.errors import ModelError

D, F, K = 7, 16, 3
Arrays = dict[str, np.ndarray]


def drawn(seed: int = 0) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def rows(n: int = 60) -> np.ndarray:
    return (drawn(99)(n, D) * 2 + 0.5).numpy().astype(np.float64)


def top(values: np.ndarray, k: int) -> np.ndarray:
    """The k largest of each row, one row at a time."""
    kept = np.zeros_like(values)
    for row, into in zip(values, kept, strict=True):
        for place in sorted(range(len(row)), key=lambda j: -row[j])[:k]:
            into[place] = max(row[place], 0.0)
    return kept


def relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0.0)


def write(folder: Path, file: str, tensors: dict[str, Tensor], configs: dict[str, Any], **header: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file, metadata=header or None)
    for name, content in configs.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def compare(source: Path, expected: np.ndarray, atol: float = 2e-5, **options: Any) -> None:
    assert 0.02 < (expected > 0).mean() < 0.9
    found = read_sae(source, **options).encode(torch.from_numpy(rows()))
    np.testing.assert_allclose(found.numpy(), expected, atol=atol, rtol=1e-4)


# SAELens


def saelens(folder: Path, architecture: str = "standard", dtype: torch.dtype = torch.float32, **config: Any) -> Path:
    draw = drawn()
    tensors = {"W_enc": draw(D, F), "b_enc": draw(F), "W_dec": draw(F, D), "b_dec": draw(D)}
    if architecture == "jumprelu":
        tensors["threshold"] = draw(F).abs()
    if architecture == "gated":
        del tensors["b_enc"]
        tensors |= {"b_gate": draw(F), "b_mag": draw(F), "r_mag": draw(F) / 3}
    about = {"model_name": "gpt2", "hook_name": "blocks.4.hook_resid_pre", "sae_lens_version": "6.5.0"}
    settings = {"architecture": architecture, "d_in": D, "d_sae": F, "dtype": "float32", "metadata": about}
    return write(
        folder,
        "sae_weights.safetensors",
        {name: tensor.to(dtype) for name, tensor in tensors.items()},
        {"cfg.json": settings | config},
    )


def held(folder: Path, file: str = "sae_weights.safetensors") -> Arrays:
    return {name: tensor.double().numpy() for name, tensor in load_file(folder / file).items()}


def test_saelens_standard_and_its_notes(tmp_path: Path) -> None:
    a = held(saelens(tmp_path))
    compare(tmp_path, relu((rows() - a["b_dec"]) @ a["W_enc"] + a["b_enc"]))
    compare(tmp_path / "sae_weights.safetensors", relu((rows() - a["b_dec"]) @ a["W_enc"] + a["b_enc"]))
    encoder = read_sae(str(tmp_path))
    assert encoder.notes == {
        "layout": "saelens",
        "class": "standard",
        "rule": "relu",
        "latents": F,
        "width": D,
        "model": "gpt2",
        "hook": "blocks.4.hook_resid_pre",
        "layer": 4,
        "site": "block[3]",
    }
    np.testing.assert_allclose(encoder.directions(1.0).numpy(), a["W_dec"], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    a = held(saelens(tmp_path, dtype=dtype))
    encoder = read_sae(tmp_path)
    assert encoder.weight.dtype == torch.float32
    compare(tmp_path, relu((rows() - a["b_dec"]) @ a["W_enc"] + a["b_enc"]))


def test_saelens_jumprelu_and_its_logarithm(tmp_path: Path) -> None:
    a = held(saelens(tmp_path / "new", "jumprelu"))
    before = (rows() - a["b_dec"]) @ a["W_enc"] + a["b_enc"]
    expected = before * (before > a["threshold"])
    compare(tmp_path / "new", expected)
    tensors = {name: torch.from_numpy(array) for name, array in a.items() if name != "threshold"}
    tensors["log_threshold"] = torch.from_numpy(np.log(a["threshold"]))
    cfg = json.loads((tmp_path / "new" / "cfg.json").read_text())
    compare(write(tmp_path / "old", "sae_weights.safetensors", tensors, {"cfg.json": cfg}), expected)


def test_saelens_gated(tmp_path: Path) -> None:
    a = held(saelens(tmp_path, "gated"))
    product = (rows() - a["b_dec"]) @ a["W_enc"]
    compare(tmp_path, (product + a["b_gate"] > 0) * relu(np.exp(a["r_mag"]) * product + a["b_mag"]))


@pytest.mark.parametrize("rescaled", [False, True])
def test_saelens_top_k(rescaled: bool, tmp_path: Path) -> None:
    a = held(saelens(tmp_path, "topk", k=K, rescale_acts_by_decoder_norm=rescaled))
    before = (rows() - a["b_dec"]) @ a["W_enc"] + a["b_enc"]
    norms = np.sqrt((a["W_dec"] ** 2).sum(axis=1)) if rescaled else np.ones(F)
    compare(tmp_path, top(before * norms, K))


def test_saelens_flat_settings_of_earlier_versions(tmp_path: Path) -> None:
    saelens(tmp_path)
    flat = {
        "d_in": D,
        "d_sae": F,
        "hook_point": "blocks.{layer}.hook_resid_post",
        "hook_point_layer": 5,
        "model_name": "gpt2-small",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "normalize_activations": False,
        "apply_b_dec_to_input": False,
    }
    (tmp_path / "cfg.json").write_text(json.dumps(flat))
    a = held(tmp_path)
    compare(tmp_path, top(rows() @ a["W_enc"] + a["b_enc"], K))
    notes = read_sae(tmp_path).notes
    assert (notes["class"], notes["layer"], notes["site"]) == ("topk", 5, "block[5]")


@pytest.mark.parametrize("stored", [None, 2.0])
def test_saelens_batch_top_k_uses_its_threshold_if_it_has_one(stored: float | None, tmp_path: Path) -> None:
    saelens(tmp_path, "batchtopk", k=float(K))
    a = held(tmp_path)
    before = (rows() - a["b_dec"]) @ a["W_enc"] + a["b_enc"]
    if stored is None:
        compare(tmp_path, top(before, K))
        compare(tmp_path, before * (before > 1.5), threshold=1.5)
    else:
        tensors = {name: torch.from_numpy(array) for name, array in a.items()}
        write(tmp_path, "sae_weights.safetensors", tensors | {"topk_threshold": torch.tensor(stored).double()}, {})
        compare(tmp_path, before * (before > stored))


def test_saelens_normalised_inputs(tmp_path: Path) -> None:
    a = held(saelens(tmp_path / "a"))
    x = rows()

    def latents(inputs: np.ndarray) -> np.ndarray:
        return relu((inputs - a["b_dec"]) @ a["W_enc"] + a["b_enc"])

    centred = x - x.mean(axis=1, keepdims=True)
    normed = centred / (x.std(axis=1, ddof=1, keepdims=True) + 1e-5)
    compare(saelens(tmp_path / "ln", normalize_activations="layer_norm"), latents(normed))
    rescaled = x * np.sqrt(D) / np.sqrt((x**2).sum(axis=1, keepdims=True))
    compare(saelens(tmp_path / "cn", normalize_activations="constant_norm_rescale"), latents(rescaled))
    folder = saelens(tmp_path / "ea", normalize_activations="expected_average_only_in")
    with pytest.raises(ModelError, match="input_scale="):
        read_sae(folder)
    compare(folder, latents(x * 0.4), input_scale=0.4)
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.7}')
    compare(folder, latents(x * 0.7))
    compare(saelens(tmp_path / "true", normalize_activations=True), latents(x * 0.4), input_scale=0.4)
    kwargs = {"center_writing_weights": True}
    folder = saelens(tmp_path / "cw", model_from_pretrained_kwargs=kwargs)
    compare(folder, latents(centred))
    compare(folder, latents(x), centred=False)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architecture": "temporal"}, "'temporal' is not read; .*Known: batchtopk, gated, jumprelu"),
        ({"architecture": "jumprelu_transcoder"}, "is not read"),
        ({"activation_fn_str": "tanh-relu"}, "activation 'tanh-relu' is not read"),
        ({"normalize_activations": "covariance_whitening"}, "'covariance_whitening' is not read"),
        ({"d_in": 8}, f"weights have {D} width, but its settings say 8"),
        ({"d_sae": 32}, f"weights have {F} latents, but its settings say 32"),
        ({"architecture": "topk"}, "no whole k"),
        ({"architecture": "topk", "k": 2.5}, "no whole k"),
        ({"architecture": "topk", "k": 99}, "needs k from 1 to 16"),
        ({"architecture": "jumprelu"}, "has no 'threshold'"),
        ({"architecture": "gated"}, "b_enc, which SAELens has no use for"),
        ({"metadata": ["x"]}, "not those of saelens"),
    ],
    ids=str,
)
def test_wrong_settings_of_saelens(config: dict[str, Any], says: str, tmp_path: Path) -> None:
    settings = json.loads((saelens(tmp_path) / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(settings | config))
    with pytest.raises(ModelError, match=says) as caught:
        read_sae(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"b_enc": None}, "has no 'b_enc'; it holds W_dec, W_enc, b_dec"),
        ({"b_enc": torch.zeros(F + 1)}, r"bias of shape \(17,\)"),
        ({"b_dec": torch.zeros(D - 1)}, r"centre of shape \(6,\)"),
        ({"W_dec": torch.zeros(D, F)}, r"decoder of shape \(7, 16\)"),
        ({"W_enc": torch.zeros(F)}, "must have 2 dimensions"),
        ({"W_enc": torch.zeros(F, D)}, "weights have 16 width, but its settings say 7"),
        ({"W_enc": torch.full((D, F), torch.inf)}, "values in weight that are not finite"),
        ({"b_enc": torch.zeros(F, dtype=torch.int32)}, "floating-point weights are needed"),
        ({"W_skip": torch.zeros(D, D)}, "holds W_skip, which SAELens has no use for"),
    ],
    ids=str,
)
def test_wrong_weights_of_saelens(tensors: dict[str, Tensor | None], says: str, tmp_path: Path) -> None:
    saelens(tmp_path)
    given = {name: torch.from_numpy(array).float() for name, array in held(tmp_path).items()} | tensors
    write(tmp_path, "sae_weights.safetensors", {n: t for n, t in given.items() if t is not None}, {})
    with pytest.raises(ModelError, match=says) as caught:
        read_sae(tmp_path)
    assert "\n" not in str(caught.value)


# dictionary_learning


def dictionary_learning(folder: Path, name: str, extra: dict[str, Tensor] | None = None, **trainer: Any) -> Path:
    draw = drawn(1)
    if name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        tensors = {"W_enc": draw(D, F), "b_enc": draw(F), "W_dec": draw(F, D), "b_dec": draw(D)}
    else:
        tensors = {"encoder.weight": draw(F, D), "decoder.weight": draw(D, F)}
        if name == "GatedAutoEncoder":
            tensors |= {"decoder_bias": draw(D), "r_mag": draw(F) / 3, "gate_bias": draw(F), "mag_bias": draw(F)}
        else:
            centre = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}.get(name, "b_dec")
            tensors |= {"encoder.bias": draw(F), centre: draw(D)}
    config = {"dict_class": name, "activation_dim": D, "dict_size": F, "layer": 8, "lm_name": "EleutherAI/pythia-70m"}
    return write(
        folder,
        "ae.safetensors",
        tensors | (extra or {}),
        {"config.json": {"trainer": config | {"submodule_name": "resid_post_layer_8"} | trainer, "buffer": {}}},
    )


def test_dictionary_learning_auto_encoders(tmp_path: Path) -> None:
    x = rows()
    a = held(dictionary_learning(tmp_path / "a", "AutoEncoder"), "ae.safetensors")
    norms = np.sqrt((a["decoder.weight"] ** 2).sum(axis=0))
    before = (x - a["bias"]) @ a["encoder.weight"].T + a["encoder.bias"]
    compare(tmp_path / "a", relu(before) * norms)
    encoder = read_sae(tmp_path / "a")
    assert encoder.notes["decoder_norms_folded"] is True
    assert (encoder.notes["layer"], encoder.notes["site"]) == (8, "block[8]")
    np.testing.assert_allclose(encoder.directions(1.0).numpy(), (a["decoder.weight"] / norms).T, rtol=1e-5)
    unit = {"decoder.weight": torch.from_numpy(a["decoder.weight"] / norms).float()}
    compare(dictionary_learning(tmp_path / "u", "AutoEncoder", unit), relu(before))
    assert read_sae(tmp_path / "u").notes["decoder_norms_folded"] is False
    b = held(dictionary_learning(tmp_path / "b", "AutoEncoderNew"), "ae.safetensors")
    compare(tmp_path / "b", relu(x @ b["encoder.weight"].T + b["encoder.bias"]))
    c = held(dictionary_learning(tmp_path / "c", "GatedAutoEncoder"), "ae.safetensors")
    product = (x - c["decoder_bias"]) @ c["encoder.weight"].T
    compare(tmp_path / "c", (product + c["gate_bias"] > 0) * relu(np.exp(c["r_mag"]) * product + c["mag_bias"]))
    bound = {"threshold": torch.linspace(-1, 3, F)}
    d = held(dictionary_learning(tmp_path / "d", "JumpReluAutoEncoder", bound), "ae.safetensors")
    before = x @ d["W_enc"] + d["b_enc"]
    compare(tmp_path / "d", relu(before * (before > d["threshold"])))


@pytest.mark.parametrize("name", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
@pytest.mark.parametrize("threshold", [-1.0, 2.5])
def test_dictionary_learning_batch_top_k(name: str, threshold: float, tmp_path: Path) -> None:
    extra = {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(threshold)}
    if name.startswith("Matryoshka"):
        extra["group_sizes"] = torch.tensor([6, 10])
    a = held(dictionary_learning(tmp_path, name, extra, k=K), "ae.safetensors")
    weight = a["W_enc"] if "W_enc" in a else a["encoder.weight"].T
    before = (rows() - a["b_dec"]) @ weight + a["b_enc" if "b_enc" in a else "encoder.bias"]
    compare(tmp_path, before * (before > threshold) if threshold > 0 else top(before, K))


def test_dictionary_learning_top_k_does_not_use_its_threshold(tmp_path: Path) -> None:
    extra = {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(2.5)}
    a = held(dictionary_learning(tmp_path, "AutoEncoderTopK", extra), "ae.safetensors")
    before = (rows() - a["b_dec"]) @ a["encoder.weight"].T + a["encoder.bias"]
    compare(tmp_path, top(before, K))
    compare(tmp_path, top(before, K), k=K)
    with pytest.raises(ModelError, match="trained with k = 3, but k = 4"):
        read_sae(tmp_path, k=4)
    with pytest.raises(ModelError, match="its class is no batch top-k"):
        read_sae(tmp_path, threshold=1.0)


def test_wrong_exports_of_dictionary_learning(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any], dict[str, Tensor], str]] = [
        ("AutoEncoderTopK", {}, {}, "no whole k"),
        ("AutoEncoderTopK", {"k": 5}, {"k": torch.tensor(K)}, "holds k = 3, but its config.json says 5"),
        ("CrossCoder", {}, {}, "class 'CrossCoder' is not read; .*Known: AutoEncoder, "),
        ("AutoEncoder", {"dict_size": 4}, {}, "weights have 16 latents, but its settings say 4"),
        ("AutoEncoder", {}, {"extra": torch.zeros(2)}, "holds extra, which the class AutoEncoder has no use for"),
        ("JumpReluAutoEncoder", {}, {}, "has no 'threshold'"),
        ("BatchTopKSAE", {"k": K}, {"threshold": torch.tensor(torch.nan)}, "threshold is tensor.nan."),
    ]
    for number, (name, trainer, extra, says) in enumerate(cases):
        folder = dictionary_learning(tmp_path / str(number), name, extra, **trainer)
        with pytest.raises(ModelError, match=says) as caught:
            read_sae(folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="k = 3 was asked for, but its rule is relu"):
        read_sae(dictionary_learning(tmp_path / "k", "AutoEncoder"), k=3)


# Overcomplete


def overcomplete(folder: Path, config: dict[str, Any], extra: dict[str, Tensor] | None = None, **header: str) -> Path:
    draw = drawn(2)
    tensors = {
        "encoder.final_block.0.weight": draw(F, D),
        "encoder.final_block.0.bias": draw(F),
        "dictionary._weights": draw(F, D),
        "dictionary.multiplier": torch.tensor(0.5),
    }
    return write(folder, "model.safetensors", tensors | (extra or {}), {"config.json": config}, **header)


def linear(a: Arrays) -> np.ndarray:
    return np.asarray(rows() @ a["encoder.final_block.0.weight"].T + a["encoder.final_block.0.bias"])


def test_overcomplete_classes(tmp_path: Path) -> None:
    a = held(overcomplete(tmp_path / "a", {"class": "TopKSAE", "top_k": K}), "model.safetensors")
    compare(tmp_path / "a", top(linear(a), K))
    np.testing.assert_allclose(
        read_sae(tmp_path / "a").directions(1.0).numpy(), a["dictionary._weights"] * np.exp(0.5), rtol=1e-5
    )
    compare(overcomplete(tmp_path / "b", {}), top(linear(a), 5), k=5)
    compare(overcomplete(tmp_path / "h", {}, **{"class": "TopKSAE", "top_k": "4"}), top(linear(a), 4))
    compare(overcomplete(tmp_path / "c", {"class": "SAE"}), relu(linear(a)))
    compare(
        overcomplete(tmp_path / "d", {"running_threshold": 1.5, "class": "BatchTopKSAE"}),
        linear(a) * (linear(a) >= 1.5),
    )
    compare(overcomplete(tmp_path / "e", {}), linear(a) * (linear(a) >= 2.5), threshold=2.5)
    jump = overcomplete(tmp_path / "f", {"site": "block[2]"}, {"thresholds": torch.linspace(-3, 1, F)})
    compare(jump, linear(a) * (linear(a) >= np.exp(np.linspace(-3, 1, F))))
    assert read_sae(jump).notes["class"] == "JumpSAE"
    assert read_sae(jump).notes["site"] == "block[2]"


def test_overcomplete_bounds_are_passed_when_reached(tmp_path: Path) -> None:
    tensors = {
        "encoder.final_block.0.weight": torch.eye(2),
        "encoder.final_block.0.bias": torch.zeros(2),
        "dictionary._weights": torch.eye(2),
    }
    write(tmp_path, "model.safetensors", tensors, {"config.json": {"class": "BatchTopKSAE", "running_threshold": 1.25}})
    below = float(np.nextafter(np.float32(1.25), np.float32(0)))
    assert read_sae(tmp_path).encode(torch.tensor([[1.25, below]])).tolist() == [[1.25, 0.0]]


def test_overcomplete_encoders_that_are_one_linear_map(tmp_path: Path) -> None:
    draw = drawn(3)
    norm = {
        "weight": draw(F),
        "bias": draw(F),
        "running_mean": draw(F),
        "running_var": draw(F).abs() + 0.1,
        "num_batches_tracked": torch.tensor(7),
    }
    extra = {f"encoder.final_block.1.{name}": tensor for name, tensor in norm.items()}
    a = held(overcomplete(tmp_path / "bn", {"class": "TopKSAE", "top_k": K}, extra), "model.safetensors")
    n = {name: tensor.double().numpy() for name, tensor in norm.items()}
    spread = np.sqrt(n["running_var"] + 1e-5)
    compare(tmp_path / "bn", top((linear(a) - n["running_mean"]) / spread * n["weight"] + n["bias"], K), atol=2e-4)
    atoms, bias, own = draw(F, D), draw(F), draw(F, D)
    config = {"config.json": {"class": "TopKSAE", "top_k": K}}
    tied = {"dictionary._weights": atoms, "encoder.bias": bias}
    write(tmp_path / "tied", "model.safetensors", tied, config)
    compare(tmp_path / "tied", top(rows() @ atoms.double().numpy().T + bias.double().numpy(), K))
    untied = {"dictionary._weights": atoms, "encoder.weight": own}
    write(tmp_path / "untied", "model.safetensors", untied, config)
    compare(tmp_path / "untied", top(rows() @ own.double().numpy().T, K))
    points, mix, loose = draw(9, D), draw(F, 9), draw(F, D)
    archetypal = {"dictionary.C": points, "dictionary.W": mix, "dictionary.Relax": loose, "encoder.weight": own}
    write(tmp_path / "ra", "model.safetensors", archetypal, {"config.json": {"class": "RATopKSAE", "top_k": K}})
    compare(tmp_path / "ra", top(rows() @ own.double().numpy().T, K))
    np.testing.assert_allclose(
        read_sae(tmp_path / "ra").directions(1.0).numpy(), (mix @ points + loose).numpy(), rtol=1e-4, atol=1e-5
    )


def test_wrong_exports_of_overcomplete(tmp_path: Path) -> None:
    layer_norm = {"encoder.final_block.1.weight": torch.ones(F), "encoder.final_block.1.bias": torch.ones(F)}
    hidden = {"encoder.mlp_blocks.0.0.weight": torch.zeros(D, D)}
    cases: list[tuple[dict[str, Any], dict[str, Tensor], str]] = [
        ({}, {}, "does not say how it encodes .*config.json beside it"),
        ({"class": "QSAE"}, {}, "does not say how it encodes .class 'QSAE'."),
        ({"class": "SAE"}, {"Q": torch.zeros(4)}, "holds Q, which the layout of Overcomplete has no use for"),
        ({"class": "BatchTopKSAE", "top_k": 900}, {}, "keeps its running_threshold outside its weights"),
        ({"running_threshold": "much", "class": "BatchTopKSAE"}, {}, "running_threshold is 'much'"),
        ({"class": "TopKSAE", "top_k": "many"}, {}, "no whole k"),
        ({"class": "TopKSAE", "top_k": K}, layer_norm, "more than one linear map .final_block.1.bias"),
        ({"class": "TopKSAE", "top_k": K}, hidden, "more than one linear map .mlp_blocks"),
    ]
    for number, (config, extra, says) in enumerate(cases):
        with pytest.raises(ModelError, match=says) as caught:
            read_sae(overcomplete(tmp_path / str(number), config, extra))
        assert "\n" not in str(caught.value)
    pursuit = write(tmp_path / "mp", "model.safetensors", {"dictionary._weights": torch.eye(D)}, {})
    with pytest.raises(ModelError, match="matching pursuit and identity encoders are not read"):
        read_sae(pursuit, k=2)


# Gemma Scope


def gemma(**changed: np.ndarray) -> Arrays:
    draw = drawn(4)
    arrays = {
        "W_enc": draw(D, F).numpy(),
        "W_dec": draw(F, D).numpy(),
        "b_enc": draw(F).numpy(),
        "b_dec": draw(D).numpy(),
        "threshold": draw(F).abs().numpy(),
    }
    return arrays | changed


@pytest.mark.parametrize("file", ["params.npz", "params.safetensors"])
def test_gemma_scope(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "layer_12" / "width_16"
    folder.mkdir(parents=True)
    a = gemma()
    if file.endswith("npz"):
        np.savez(folder / file, **a)
    else:
        small = {name.replace("W_", "w_"): torch.from_numpy(array) for name, array in a.items()}
        save_file(small, folder / file)
    before = rows() @ a["W_enc"].astype(np.float64) + a["b_enc"]
    compare(folder, before * (before > a["threshold"]))
    notes = read_sae(folder).notes
    assert (notes["layout"], notes["layer"]) == ("gemma_scope", 12)
    assert "site" not in notes


def test_wrong_archives_of_gemma_scope(tmp_path: Path) -> None:
    path = tmp_path / "params.npz"
    np.savez(path, **gemma(threshold=np.array([{"a": 1}], dtype=object)))
    with pytest.raises(ModelError, match="not a readable archive of plain arrays"):
        read_sae(path)
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ModelError, match="not a readable archive of plain arrays"):
        read_sae(path)
    np.savez(path, **gemma(b_enc=np.zeros(F, dtype=np.int64)))
    with pytest.raises(ModelError, match="floating-point weights are needed"):
        read_sae(path)
    np.savez(path, **gemma(threshold=np.zeros(F - 1, dtype=np.float32)))
    with pytest.raises(ModelError, match=r"threshold of shape \(15,\)"):
        read_sae(path)


# Finding them


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "opened",))

    torch.save(Trap(), tmp_path / "ae.pt")
    for source in (tmp_path, tmp_path / "ae.pt"):
        with pytest.raises(
            ModelError, match=r"ae.pt: is a pickle, which is never opened here.*'ae.safetensors'"
        ) as caught:
            read_sae(source)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "opened").exists()
    (tmp_path / "ae.pt").unlink()
    (tmp_path / "config.json").write_text('{"trainer": {}}')
    with pytest.raises(ModelError, match=r"if its weights are ae\.pt"):
        read_sae(tmp_path)


def test_the_line_about_pickles_tells_a_command_that_works(tmp_path: Path) -> None:
    folder = dictionary_learning(tmp_path, "AutoEncoderTopK", k=K)
    expected = read_sae(folder).encode(torch.from_numpy(rows()))
    torch.save(load_file(folder / "ae.safetensors"), folder / "ae.pt")
    (folder / "ae.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        read_sae(folder)
    command = str(caught.value).split('python -c "')[1].rstrip('"').replace("'ae.", f"'{folder}/ae.")
    exec(command, {})
    assert torch.equal(read_sae(folder).encode(torch.from_numpy(rows())), expected)


def test_folders_without_an_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights of a sparse autoencoder here; give a folder with safetensors"):
        read_sae(tmp_path)
    saelens(tmp_path / "blocks.4")
    with pytest.raises(ModelError, match=r"give one of its folders, such as 'blocks\.4'"):
        read_sae(tmp_path)
    for name in ("one", "two"):
        save_file({"x": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelError, match=r"several files of weights \(one.safetensors, two.safetensors\)"):
        read_sae(tmp_path)
    with pytest.raises(ModelError, match="holds x, which is no layout that is read"):
        read_sae(tmp_path / "one.safetensors")
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(ModelError, match="holds no weights"):
        read_sae(tmp_path / "text.txt")


def test_statistics_beside_the_weights_are_left_alone(tmp_path: Path) -> None:
    folder = saelens(tmp_path)
    save_file({"sparsity": torch.zeros(F)}, folder / "sparsity.safetensors")
    assert read_sae(folder).n_latents == F


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_damaged_and_missing_files(name: str, tmp_path: Path) -> None:
    saelens(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"not readable (JSON|safetensors)") as caught:
        read_sae(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=r"no cfg.json of SAELens beside it|no weights of a sparse autoencoder"):
        read_sae(tmp_path)
    if name == "cfg.json":
        (tmp_path / name).write_text("[1]")
        with pytest.raises(ModelError, match="is not a JSON object"):
            read_sae(tmp_path)


def test_dictionary_learning_without_its_settings(tmp_path: Path) -> None:
    folder = dictionary_learning(tmp_path, "AutoEncoder")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config.json of dictionary_learning beside it"):
        read_sae(folder)


def test_hub_ids_are_asked_for_where_no_such_path_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.append({"repository": repository, **options})
        if options["local_files_only"]:
            raise FileNotFoundError("not in the cache")
        saelens(tmp_path / "blocks.4")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    found = read_sae("someone/some-saes/blocks.4", revision="main")
    assert found.n_latents == F
    assert [call["local_files_only"] for call in asked] == [True, False]
    assert asked[1]["repository"] == "someone/some-saes"
    assert asked[1]["revision"] == "main"
    assert "blocks.4/*.safetensors" in asked[1]["allow_patterns"]
    assert all(".pt" not in pattern for pattern in asked[1]["allow_patterns"])
    assert asked[1]["ignore_patterns"] == ["blocks.4/*/*"]
    with pytest.raises(ModelError, match="no such folder in that repository"):
        read_sae("someone/some-saes/blocks.5")
    asked.clear()
    with pytest.raises(ModelError, match="not looked for"):
        read_sae("someone/some-saes/blocks.4", local_files_only=True)
    assert [call["local_files_only"] for call in asked] == [True]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"not to be had from the hub \(not in the cache\)") as caught:
        read_sae("someone/some-saes/blocks.4")
    assert "\n" not in str(caught.value)


def test_paths_that_do_not_exist(tmp_path: Path) -> None:
    for source in (tmp_path / "nothing", str(tmp_path / "nothing"), "not a hub id", "one-word"):
        with pytest.raises(ModelError, match="no such folder; give the folder of a sparse autoencoder, or a hub id"):
            read_sae(source)
