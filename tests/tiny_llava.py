"""Tiny checkpoints whose language model reads image tokens: LLaVA with several towers, Mistral 3, Gemma 3.

Each is saved as the hub has it, by the class with a language-model head; ``"...-base"`` by the class without one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from tiny_models import _DECODER, _STACK, _VISION, _save, gemma_tokenizer, llama_tokenizer
from tiny_towers import PIXTRAL_VISION, pixtral_processor

# two blocks, since random ones mix patches so much that soon none of them stands for its own place
_TOWER = {"num_hidden_layers": 2, "vision_use_head": False}
PIXTRAL_TOKENS = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
GEMMA_TOKENS = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}


def clip_processor() -> transformers.BaseImageProcessor:
    """Shorter side to 32, centre crop of 32 x 32."""
    return transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def siglip_processor() -> transformers.BaseImageProcessor:
    """32 x 32."""
    return transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})


def gemma3_processor() -> transformers.BaseImageProcessor:
    """64 x 64, no crops."""
    return transformers.Gemma3ImageProcessorPil(size={"height": 64, "width": 64})


def _llama_with(*tokens: str) -> Callable[[], Any]:
    def make() -> Any:
        tokenizer = llama_tokenizer()
        tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
        return tokenizer

    return make


def _gemma_with_images() -> Any:
    """Gemma's tokenizer with image tokens that have names of their own, as Gemma 3 has them."""
    plain = gemma_tokenizer()
    names = {f"{kind}_token": getattr(plain, f"{kind}_token") for kind in ("bos", "eos", "pad", "unk")}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        model_max_length=64,
        padding_side="left",
        extra_special_tokens=GEMMA_TOKENS,
        **names,
    )


def _saver(
    model: str,
    make_tokenizer: Callable[[], Any],
    make_processor: Callable[[], Any],
    vision: dict[str, Any],
    text: dict[str, Any],
    extra: Callable[[Any], dict[str, Any]],
) -> Callable[[str], Callable[[Path], None]]:
    def of_class(head: str) -> Callable[[Path], None]:
        def build(folder: Path) -> None:
            tokenizer = make_tokenizer()
            ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
            config = getattr(transformers, f"{model}Config")(
                vision_config=vision,
                text_config={**_DECODER, **text, **ids, "vocab_size": len(tokenizer)},
                **extra(tokenizer),
            )
            _save(getattr(transformers, f"{model}{head}")(config), folder)
            make_processor().save_pretrained(folder)
            tokenizer.save_pretrained(folder)

        return build

    return of_class


def _image_token(token: str, **more: Any) -> Callable[[Any], dict[str, Any]]:
    return lambda tokenizer: {"image_token_index": tokenizer.convert_tokens_to_ids(token), **more}


def _gemma(tokenizer: Any) -> dict[str, Any]:
    begin, end, image = tokenizer.convert_tokens_to_ids(list(GEMMA_TOKENS.values()))
    return {
        "boi_token_index": begin,
        "eoi_token_index": end,
        "image_token_index": image,
        "mm_tokens_per_image": 16,
    }


_KINDS: dict[str, Callable[[str], Callable[[Path], None]]] = {
    "llava": _saver(
        "Llava",
        _llama_with("<image>"),
        clip_processor,
        {**_VISION, "num_hidden_layers": 2, "model_type": "clip_vision_model"},
        {"model_type": "llama", "num_hidden_layers": 3},
        _image_token("<image>"),
    ),
    "llava-siglip": _saver(
        "Llava",
        _llama_with("<image>"),
        siglip_processor,
        {**_VISION, **_TOWER, "model_type": "siglip_vision_model"},
        {"model_type": "llama", "num_hidden_layers": 3},
        _image_token("<image>", vision_feature_select_strategy="full"),
    ),
    "pixtral": _saver(
        "Llava",
        _llama_with(*PIXTRAL_TOKENS),
        pixtral_processor,
        {**PIXTRAL_VISION, "model_type": "pixtral"},
        {"model_type": "mistral", "num_hidden_layers": 3},
        _image_token("[IMG]", vision_feature_select_strategy="full", vision_feature_layer=-1),
    ),
    "mistral3": _saver(
        "Mistral3",
        _llama_with(*PIXTRAL_TOKENS),
        pixtral_processor,
        {**PIXTRAL_VISION, "model_type": "pixtral"},
        {"model_type": "mistral", "num_hidden_layers": 3},
        _image_token("[IMG]", spatial_merge_size=2),
    ),
    "gemma3-images": _saver(
        "Gemma3",
        _gemma_with_images,
        gemma3_processor,
        {**_STACK, **_TOWER, "image_size": 64, "patch_size": 8},
        {"num_hidden_layers": 6, "sliding_window": 16},
        _gemma,
    ),
}

BUILDERS: dict[str, Callable[[Path], None]] = {
    **{name: of_class("ForConditionalGeneration") for name, of_class in _KINDS.items()},
    **{f"{name}-base": of_class("Model") for name, of_class in _KINDS.items()},
}
