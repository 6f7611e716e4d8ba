"""Tiny checkpoints of Qwen's models that read images, and of Qwen3 for texts alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, processors

from tiny_models import N_BLOCKS, WIDTH, _byte_level, _save

VISION_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]

PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 100}
"""Fewest and most pixels of a picture: the fewest as in Qwen2-VL, the most so that tests stay quick."""


def qwen_vl_tokenizer() -> Any:
    """Qwen's own tokenizer class over byte-level pieces, with the special tokens of its models that read images."""
    trained = json.loads(_byte_level(["<|endoftext|>"]).to_str())["model"]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=trained["vocab"], merges=[tuple(pair) for pair in trained["merges"]], model_max_length=512
    )
    special = ["<|im_start|>", "<|im_end|>", *VISION_TOKENS]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(token, special=True, normalized=False) for token in special]}
    )
    return tokenizer


def qwen3_embedding_tokenizer() -> Any:
    """The same with an end-of-text token behind every text, as the tokenizers of Qwen3-Embedding have it."""
    tokenizer = qwen_vl_tokenizer()
    end = "<|endoftext|>"
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"$A {end}", special_tokens=[(end, tokenizer.convert_tokens_to_ids(end))]
            ),
        ]
    )
    return tokenizer


_TEXT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "max_position_embeddings": 2048,
}

_VISION: dict[str, dict[str, Any]] = {
    "Qwen2VL": {"embed_dim": 16, "hidden_size": WIDTH, "mlp_ratio": 2, "patch_size": 14},
    "Qwen2_5_VL": {
        "hidden_size": 16,
        "out_hidden_size": WIDTH,
        "intermediate_size": 24,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1, 3],
    },
    "Qwen3VL": {
        "hidden_size": 16,
        "out_hidden_size": WIDTH,
        "intermediate_size": 24,
        "patch_size": 16,
        "num_position_embeddings": 144,
        "deepstack_visual_indexes": [0, 2],
    },
}

_ROPE: dict[str, dict[str, Any]] = {
    "Qwen2VL": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
    "Qwen2_5_VL": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
    "Qwen3VL": {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_theta": 1e4},
}


def qwen_vl_config(version: str) -> Any:
    """Config of a tiny model; ``version`` is ``"Qwen2VL"``, ``"Qwen2_5_VL"`` or ``"Qwen3VL"``.

    Both towers have equally many blocks, so that nothing can tell them apart by their number.
    """
    tokenizer = qwen_vl_tokenizer()
    start, end, _, image, video = tokenizer.convert_tokens_to_ids(VISION_TOKENS)
    own = {"bos_token_id": None, "eos_token_id": None} if version != "Qwen3VL" else {"head_dim": 16}
    text = {**_TEXT, **own, "vocab_size": len(tokenizer), "rope_parameters": _ROPE[version]}
    return getattr(transformers, f"{version}Config")(
        text_config=text,
        vision_config={"depth": N_BLOCKS, "num_heads": 2, **_VISION[version]},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )


def qwen_vl_processor(version: str) -> Any:
    """Qwen's own image processor class; Qwen3-VL uses that of Qwen2-VL with other patches and norms."""
    own = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3} if version == "Qwen3VL" else {}
    return transformers.Qwen2VLImageProcessorPil(size=dict(PIXELS), **own)


def _whole(version: str, head: str = "ForConditionalGeneration") -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        _save(getattr(transformers, f"{version}{head}")(qwen_vl_config(version)), folder)
        qwen_vl_processor(version).save_pretrained(folder)
        qwen_vl_tokenizer().save_pretrained(folder)

    return build


def _text(tokenizer: Callable[[], Any]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        prepared = tokenizer()
        config = transformers.Qwen3Config(
            vocab_size=len(prepared), head_dim=16, eos_token_id=prepared.eos_token_id, bos_token_id=None, **_TEXT
        )
        _save(transformers.Qwen3Model(config), folder)
        prepared.save_pretrained(folder)

    return build


BUILDERS: dict[str, Callable[[Path], None]] = {
    "qwen2-vl": _whole("Qwen2VL"),
    "qwen2.5-vl": _whole("Qwen2_5_VL"),
    "qwen3-vl": _whole("Qwen3VL"),
    "qwen2.5-vl-base": _whole("Qwen2_5_VL", "Model"),
    "qwen3": _text(qwen_vl_tokenizer),
    "qwen3-embedding": _text(qwen3_embedding_tokenizer),
}
