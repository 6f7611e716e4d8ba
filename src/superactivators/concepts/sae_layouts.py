"""What the files of published sparse autoencoders mean: SAELens, dictionary_learning, Overcomplete, Gemma Scope.

Facts about the layouts are from the repositories decoderesearch/SAELens (``sae_lens/saes``, and
``sae_lens/loading/pretrained_sae_loaders.py`` for older versions and for Gemma Scope), saprmarks/dictionary_learning
(``dictionary_learning/dictionary.py`` and ``trainers``) and KempnerInstitute/overcomplete (``overcomplete/sae``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from superactivators.concepts.sae import SparseEncoder
from superactivators.concepts.sae_weights import Given, read_json
from superactivators.errors import ModelError, allowed

BATCH_NORM_EPS = 1e-5
"""What torch adds to the variance in batch normalisation."""

BATCH_TOP_K = ("batchtopk", "matryoshka_batchtopk", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")
"""Classes that encode with one threshold for all latents."""


def _shape(given: Given, weight: Tensor, width: object, latents: object) -> None:
    """Compare the weights with what the settings say of them."""
    found = (weight.shape[1], weight.shape[0])
    for what, value, said in (("width", found[0], width), ("latents", found[1], latents)):
        if said is not None and said != value:
            raise ModelError(
                f"{given.path}: its weights have {value} {what}, but its settings say {said}; get it again"
            )


def _per_latent(threshold: Tensor, latents: int) -> Tensor:
    return threshold.expand(latents).contiguous() if threshold.numel() == 1 else threshold


def _notes(layout: str, name: str, rule: str, weight: Tensor, **known: Any) -> dict[str, Any]:
    notes = {"layout": layout, "class": name, "rule": rule, "latents": weight.shape[0], "width": weight.shape[1]}
    return notes | {key: value for key, value in known.items() if value is not None}


def _place(hook: object, layer: object) -> dict[str, Any]:
    """Give hook, layer, and the site of ours that gives the same states."""
    place: dict[str, Any] = {}
    if isinstance(hook, str):
        hook = hook.replace("{layer}", str(layer))
        place["hook"] = hook
        found = re.search(r"(?:^|\.)(?:blocks|layers?|h)\.(\d+)(?:\.|$)", hook)
        if found:
            number = int(found[1])
            place["layer"] = number
            if hook.endswith(("hook_resid_post", found[0])):
                place["site"] = f"block[{number}]"
            elif hook.endswith("hook_resid_pre") and number:
                place["site"] = f"block[{number - 1}]"
    if isinstance(layer, int) and not isinstance(layer, bool):
        place["layer"] = layer
    return place


def _read_saelens(given: Given) -> SparseEncoder:
    config = given.config
    about: Mapping[str, Any] = config.get("metadata") or {}

    def told(*names: str) -> Any:
        values = [source[name] for name in names for source in (config, about) if source.get(name) is not None]
        return values[0] if values else None

    activation = told("activation_fn_str", "activation_fn") or "relu"
    architecture = told("architecture") or "standard"
    options = told("activation_fn_kwargs") or {}
    if activation == "topk" and architecture == "standard":
        architecture = "topk"
    kinds = ("standard", "jumprelu", "topk", "batchtopk", "matryoshka_batchtopk", "gated")
    if architecture not in kinds:
        raise ModelError(
            f"{given.path}: SAELens architecture {architecture!r} is not read; {allowed(architecture, kinds)}"
        )
    if activation not in ("relu", "topk"):
        raise ModelError(f"{given.path}: SAELens activation {activation!r} is not read; relu and topk are")
    weight = given.need("W_enc", 2).T.contiguous()
    decoder = given.need("W_dec", 2)
    centre = given.need("b_dec", 1)
    _shape(given, weight, told("d_in"), told("d_sae"))
    biases = {"b_gate", "b_mag", "r_mag"} if architecture == "gated" else {"b_enc"}
    bounds = {"jumprelu": {"threshold", "log_threshold"}}.get(architecture, set())
    bounds |= {"topk_threshold"} if architecture in BATCH_TOP_K else set()
    # scaling factors of fine-tuned autoencoders change what is written, not what is read
    given.refuse_others(
        "SAELens", {"W_enc", "W_dec", "b_dec", "scaling_factor", "finetuning_scaling_factor"} | biases | bounds
    )
    bias = given.need("b_gate" if architecture == "gated" else "b_enc", 1)
    if told("rescale_acts_by_decoder_norm") and "topk" in architecture:
        norms = decoder.norm(dim=1)
        weight, bias, decoder = weight * norms[:, None], bias * norms, decoder / norms.clamp_min(1e-8)[:, None]
    normalisation, scale = _saelens_input(given, told("normalize_activations"))
    loading = told("model_from_pretrained_kwargs") or {}
    centred = bool(loading.get("center_writing_weights")) if given.centred is None else given.centred
    rule: dict[str, Any] = {"rule": "relu"}
    if architecture == "jumprelu":
        logarithm = given.may("log_threshold", 1)
        bound = given.need("threshold", 1, 0) if logarithm is None else logarithm.exp()
        rule = {"rule": "jumprelu", "threshold": _per_latent(bound, len(weight))}
    elif architecture == "topk":
        rule = {"rule": "topk", "k": given.chosen_k(told("k") or options.get("k"))}
    elif architecture == "gated":
        rule = {"rule": "gated", "gain": given.need("r_mag", 1).exp(), "magnitude_bias": given.need("b_mag", 1)}
    elif "topk" in architecture:
        rule = _batch_top_k(given, given.may("topk_threshold"), told("k"), len(weight))
    place = _place(told("hook_name", "hook_point"), told("hook_layer", "hook_point_layer"))
    subtracts = told("apply_b_dec_to_input")
    return SparseEncoder(
        weight=weight,
        bias=bias,
        centre=centre if subtracts is None or subtracts else torch.zeros_like(centre),
        decoder=decoder,
        input_scale=scale,
        normalisation=normalisation,
        centred=centred,
        notes=_notes("saelens", str(architecture), rule["rule"], weight, model=told("model_name"), **place),
        **rule,
    )


def _saelens_input(given: Given, said: object) -> tuple[str, float]:
    """Tell what is done to the inputs before the autoencoder sees them."""
    # versions before 3 say true or false
    name = ("expected_average_only_in" if said else "none") if said is None or isinstance(said, bool) else said
    kinds: dict[object, str] = {"none": "none", "layer_norm": "layer_norm", "constant_norm_rescale": "constant_norm"}
    scale = given.input_scale
    if name == "expected_average_only_in":
        if scale is None:
            scale = read_json(given.path.parent / "activation_scaler.json").get("scaling_factor")
        if not isinstance(scale, int | float):
            raise ModelError(
                f"{given.path}: was trained on states times a factor (normalize_activations: {said}) that no file here "
                "holds; give it, as in read_sae(path, input_scale=0.35): root of the width over their mean norm"
            )
        return "none", float(scale)
    if name in kinds:
        return kinds[name], 1.0 if scale is None else float(scale)
    raise ModelError(
        f"{given.path}: normalize_activations {said!r} is not read; none, expected_average_only_in, layer_norm and "
        "constant_norm_rescale are"
    )


def _number(given: Given, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise ModelError(f"{given.path}: its {name} is {value!r}; a finite number is needed, get it again or give one")
    return number


def _batch_top_k(given: Given, stored: Tensor | None, k: object, latents: int) -> dict[str, Any]:
    """At inference the stored threshold where training has set one, else the k largest of each row."""
    value = (
        _number(given, "threshold", -1.0 if stored is None else stored) if given.threshold is None else given.threshold
    )
    if value >= 0:
        return {"rule": "jumprelu", "threshold": torch.full((latents,), value)}
    return {"rule": "topk", "k": given.chosen_k(k)}


def _read_dictionary_learning(given: Given) -> SparseEncoder:
    trainer = given.config["trainer"] if isinstance(given.config["trainer"], dict) else {}
    name = trainer.get("dict_class")
    kinds = (
        "AutoEncoder",
        "AutoEncoderNew",
        "AutoEncoderTopK",
        "BatchTopKSAE",
        "MatryoshkaBatchTopKSAE",
        "JumpReluAutoEncoder",
        "GatedAutoEncoder",
    )
    if name not in kinds:
        raise ModelError(f"{given.path}: dictionary_learning class {name!r} is not read; {allowed(name, kinds)}")
    centre_name = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "GatedAutoEncoder": "decoder_bias"}.get(
        name, "b_dec"
    )
    if name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        weight, decoder, bias_name = given.need("W_enc", 2).T.contiguous(), given.need("W_dec", 2), "b_enc"
        known = {"W_enc", "W_dec"}
    else:
        weight, decoder = given.need("encoder.weight", 2), given.need("decoder.weight", 2).T.contiguous()
        bias_name = "gate_bias" if name == "GatedAutoEncoder" else "encoder.bias"
        known = {"encoder.weight", "decoder.weight"}
    known |= {bias_name, centre_name, "k", "threshold", "group_sizes"}
    given.refuse_others(f"the class {name}", known | ({"r_mag", "mag_bias"} if name == "GatedAutoEncoder" else set()))
    bias, centre = given.need(bias_name, 1), given.need(centre_name, 1)
    _shape(given, weight, trainer.get("activation_dim"), trainer.get("dict_size"))
    stored = given.tensors.get("k")
    k = trainer.get("k") if stored is None else int(stored)
    if stored is not None and trainer.get("k") not in (None, k):
        raise ModelError(f"{given.path}: holds k = {k}, but its config.json says {trainer['k']}; get it again")
    rule: dict[str, Any] = {"rule": "relu"}
    folded = None
    if name == "AutoEncoder":
        # as AutoEncoder.from_pretrained does: latents count in units of directions of length one
        norms = decoder.norm(dim=1)
        folded = not torch.allclose(norms, torch.ones_like(norms))
        if folded:
            weight, bias, decoder = weight * norms[:, None], bias * norms, decoder / norms.clamp_min(1e-8)[:, None]
    elif name == "AutoEncoderTopK":
        rule = {"rule": "topk", "k": given.chosen_k(k)}
    elif name == "JumpReluAutoEncoder":
        rule = {"rule": "jumprelu", "threshold": _per_latent(given.need("threshold", 1, 0), len(weight))}
    elif name == "GatedAutoEncoder":
        rule = {"rule": "gated", "gain": given.need("r_mag", 1).exp(), "magnitude_bias": given.need("mag_bias", 1)}
    elif name != "AutoEncoderNew":
        rule = _batch_top_k(given, given.may("threshold"), k, len(weight))
    layer = trainer.get("layer")
    hook = trainer.get("submodule_name")
    place = _place(hook, layer)
    if isinstance(layer, int) and isinstance(hook, str) and re.fullmatch(rf"resid_post(_layer_{layer})?", hook):
        place["site"] = f"block[{layer}]"
    return SparseEncoder(
        weight=weight,
        bias=bias,
        # these two classes take nothing off their inputs
        centre=torch.zeros_like(centre) if name in ("AutoEncoderNew", "JumpReluAutoEncoder") else centre,
        decoder=decoder,
        input_scale=1.0 if given.input_scale is None else given.input_scale,
        centred=bool(given.centred),
        notes=_notes(
            "dictionary_learning",
            name,
            rule["rule"],
            weight,
            model=trainer.get("lm_name"),
            decoder_norms_folded=folded,
            **place,
        ),
        **rule,
    )


def _read_overcomplete(given: Given) -> SparseEncoder:
    said = {**given.header, **given.config}
    name = said.get("class")
    dictionary = _overcomplete_dictionary(given)
    weight, bias = _overcomplete_encoder(given, dictionary, name)
    names = {"dictionary._weights", "dictionary.multiplier", "dictionary.W", "dictionary.C", "dictionary.Relax"}
    names |= {name for name in given.tensors if name.startswith("encoder.")} | {"thresholds", "running_threshold"}
    given.refuse_others("the layout of Overcomplete", names)
    latents = len(weight)
    rule: dict[str, Any]
    if "thresholds" in given.tensors:
        name = name or "JumpSAE"
        rule = {"rule": "jumprelu", "threshold": _reached(given.need("thresholds", 1).exp())}
    elif name == "BatchTopKSAE" or "running_threshold" in given.tensors or given.threshold is not None:
        name = name or "BatchTopKSAE"
        stored = given.may("running_threshold")
        value: Any = said.get("running_threshold") if stored is None else stored
        value = value if given.threshold is None else given.threshold
        if value is None:
            raise ModelError(
                f"{given.path}: a BatchTopKSAE keeps its running_threshold outside its weights; write it into a "
                "config.json beside them, or give it, as in read_sae(path, threshold=1.5)"
            )
        rule = {
            "rule": "jumprelu",
            "threshold": _reached(torch.full((latents,), _number(given, "running_threshold", value))),
        }
    elif name in ("TopKSAE", "RATopKSAE") or said.get("top_k") is not None or given.k is not None:
        name = name or "TopKSAE"
        top_k = said.get("top_k")
        rule = {
            "rule": "topk",
            "k": given.chosen_k(int(top_k) if isinstance(top_k, str) and top_k.isdigit() else top_k),
        }
    elif name == "SAE":
        rule = {"rule": "relu"}
    else:
        raise ModelError(
            f"{given.path}: an export of Overcomplete does not say how it encodes (class {name!r}); write a "
            'config.json beside it such as {"class": "TopKSAE", "top_k": 32}, or give k '
            "(classes: SAE, TopKSAE, BatchTopKSAE, JumpSAE)"
        )
    return SparseEncoder(
        weight=weight,
        bias=bias,
        centre=torch.zeros(weight.shape[1]),
        decoder=dictionary,
        input_scale=1.0 if given.input_scale is None else given.input_scale,
        centred=bool(given.centred),
        notes=_notes("overcomplete", str(name), rule["rule"], weight, model=said.get("model"))
        | _place(said.get("hook"), said.get("layer"))
        | ({"site": said["site"]} if isinstance(said.get("site"), str) else {}),
        **rule,
    )


def _reached(threshold: Tensor) -> Tensor:
    """Turn a bound that is enough when reached into one that must be passed."""
    return torch.nextafter(threshold, torch.tensor(-torch.inf))


def _overcomplete_dictionary(given: Given) -> Tensor:
    multiplier = given.may("dictionary.multiplier", 0)
    factor = 1.0 if multiplier is None else float(multiplier.exp())
    if "dictionary.W" in given.tensors:
        mixed = given.need("dictionary.W", 2) @ given.need("dictionary.C", 2) + given.need("dictionary.Relax", 2)
        return mixed * factor
    return given.need("dictionary._weights", 2) * factor


def _overcomplete_encoder(given: Given, dictionary: Tensor, name: object) -> tuple[Tensor, Tensor]:
    """One linear map: the default encoder, one with batch normalisation, or one tied to the dictionary."""
    held = {key.removeprefix("encoder.") for key in given.tensors if key.startswith("encoder.")}
    shared = any(key.startswith("encoder.tied_to.") for key in {*given.header, *given.tensors})
    if shared or (not held - {"bias"} and name in ("SAE", "TopKSAE", "BatchTopKSAE", "JumpSAE")):
        weight, bias = dictionary, given.may("encoder.bias", 1)
    elif "weight" in held:
        weight, bias = given.need("encoder.weight", 2), given.may("encoder.bias", 1)
        held -= {"weight"}
    elif "final_block.0.weight" in held:
        weight, bias = given.need("encoder.final_block.0.weight", 2), given.need("encoder.final_block.0.bias", 1)
        held -= {"final_block.0.weight", "final_block.0.bias"}
        if "final_block.1.running_mean" in held:
            part = "encoder.final_block.1."
            factor = given.need(part + "weight", 1) / (given.need(part + "running_var", 1) + BATCH_NORM_EPS).sqrt()
            bias = (bias - given.need(part + "running_mean", 1)) * factor + given.need(part + "bias", 1)
            weight = weight * factor[:, None]
            held = {key for key in held if not key.startswith("final_block.1.")}
    else:
        raise ModelError(
            f"{given.path}: no encoder that is one linear map (it holds {', '.join(sorted(held)[:4]) or 'none'}); "
            "matching pursuit and identity encoders are not read: wrap the model's own object with wrap_sae"
        )
    others = sorted(key for key in held if key != "bias" and not key.startswith("tied_to."))
    if others:
        raise ModelError(
            f"{given.path}: its encoder is more than one linear map ({', '.join(others[:4])}); wrap the model's own "
            "object with wrap_sae"
        )
    return weight, torch.zeros(len(weight)) if bias is None else bias


def _read_gemma_scope(given: Given) -> SparseEncoder:
    # Gemma Scope 2 writes w_enc and w_dec.
    named = {"W_" + name[2:] if name.startswith("w_") else name: tensor for name, tensor in given.tensors.items()}
    given = replace(given, tensors=named)
    weight = given.need("W_enc", 2).T.contiguous()
    centre = given.need("b_dec", 1)
    given.refuse_others("Gemma Scope", {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"})
    found = re.search(r"layer_(\d+)", str(given.path.parent))
    return SparseEncoder(
        weight=weight,
        bias=given.need("b_enc", 1),
        # b_dec is added to what is written, and not taken off what is read
        centre=torch.zeros_like(centre),
        rule="jumprelu",
        threshold=_per_latent(given.need("threshold", 1, 0), len(weight)),
        decoder=given.need("W_dec", 2),
        input_scale=1.0 if given.input_scale is None else given.input_scale,
        centred=bool(given.centred),
        notes=_notes("gemma_scope", "jumprelu", "jumprelu", weight, layer=int(found[1]) if found else None),
    )


READERS: Mapping[str, Callable[[Given], SparseEncoder]] = {
    "saelens": _read_saelens,
    "dictionary_learning": _read_dictionary_learning,
    "overcomplete": _read_overcomplete,
    "gemma_scope": _read_gemma_scope,
}
"""Readers by layout."""
