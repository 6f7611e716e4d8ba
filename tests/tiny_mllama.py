"""Tiny checkpoints of Mllama: its real classes, image processor, tokenizer and processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken

from tiny_models import WIDTH, _save, llama_tokenizer

TILE, PATCH, SLOTS = 32, 8, 4
N_LOCAL, N_GLOBAL = 4, 2
N_TEXT, CROSS_ATTENTION = 6, (1, 4)


def mllama_tokenizer() -> Any:
    """Llama 3's pieces with the image token and the padding token of Llama 3.2 Vision behind them."""
    tokenizer = llama_tokenizer()
    special = [AddedToken(text, special=True) for text in ("<|finetune_right_pad_id|>", "<|python_tag|>", "<|image|>")]
    tokenizer.add_special_tokens({"pad_token": special[0], "additional_special_tokens": special[1:]})
    return tokenizer


def mllama_image_processor(**changes: Any) -> Any:
    """Tiles of 32 pixels, at most four of them."""
    settings = {"size": {"height": TILE, "width": TILE}, "max_image_tiles": SLOTS, **changes}
    return transformers.MllamaImageProcessorPil(**settings)


def mllama_config(**vision: Any) -> Any:
    """Four local and two global blocks of vision; six blocks of text, two of which read images only."""
    tokenizer = mllama_tokenizer()
    return transformers.MllamaConfig(
        vision_config={
            "hidden_size": WIDTH,
            "num_hidden_layers": N_LOCAL,
            "num_global_layers": N_GLOBAL,
            "attention_heads": 4,
            "intermediate_size": 48,
            "vision_output_dim": WIDTH * 3,
            "intermediate_layers_indices": [0, 2],
            "image_size": TILE,
            "patch_size": PATCH,
            "max_num_tiles": SLOTS,
            **vision,
        },
        text_config={
            "hidden_size": WIDTH,
            "num_hidden_layers": N_TEXT,
            "cross_attention_layers": list(CROSS_ATTENTION),
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 128,
            # the embeddings hold eight more rows than the vocabulary, the image token among them
            "vocab_size": len(tokenizer) - 1,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )


def _build(kind: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        _save(getattr(transformers, kind)(mllama_config()), folder)
        transformers.MllamaProcessor(mllama_image_processor(), mllama_tokenizer()).save_pretrained(folder)

    return build


BUILDERS: dict[str, Callable[[Path], None]] = {
    "mllama": _build("MllamaForConditionalGeneration"),
    "mllama-base": _build("MllamaModel"),
}
