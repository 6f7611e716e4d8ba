"""Tiny, randomly initialised checkpoints of real transformers classes, with real tokenizers and image processors.

``build_checkpoint("bert", folder)`` writes one; tests of several rooms use them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from superactivators.models.quiet import quiet_transformers

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog does not care at all.",
    "A model of language reads tokens; each token has a state in every layer.",
    "Café naïveté, Zürich and São Paulo are words with accents.",
    "I can't believe it's 42 degrees! Isn't that too hot for a walk in the park?",
    "Emoji 😀 🎉 and symbols € ½ © are made of several bytes.",
    "日本語 and 한국어 and हिन्दी are written without Latin letters.",
    "Concepts are directions; the tail of their activations is what can be trusted.",
]

TEXT_FAMILIES = ("bert", "distilbert", "roberta", "gpt2", "llama", "qwen2", "gemma2", "gemma3")
IMAGE_FAMILIES = ("vit", "dinov2", "dinov2-registers", "clip", "siglip")
PRE_NORM_HIDDEN_STATES = ("bert", "distilbert", "roberta", *IMAGE_FAMILIES)
"""Families whose last entry of ``output_hidden_states`` is the raw output of the last block."""

WIDTH, N_BLOCKS = 32, 4


# ------------------------------------------------------------------ tokenizers


def _wrap(tokenizer: Tokenizer, **special: Any) -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def word_piece_tokenizer() -> Any:
    """Lower-casing word pieces between [CLS] and [SEP], as BERT has them."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    latin = [sentence for number, sentence in enumerate(SENTENCES) if number not in (4, 5)]  # leaves [UNK] to be seen
    words = {word for sentence in latin for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(sentence))}
    # made by hand, since what the trainer learns differs from run to run: letters, short words, long ones in two pieces
    pieces = {word[:4] for word in words} | {f"##{word[4:]}" for word in words if len(word) > 4}
    letters = {letter for word in words for letter in word}
    vocabulary = [*special, *sorted(letters | {f"##{letter}" for letter in letters} | pieces)]
    tokenizer = Tokenizer(
        models.WordPiece(vocab={piece: number for number, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return _wrap(
        tokenizer,
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _byte_level(special: list[str], *, prefix_space: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def roberta_tokenizer() -> Any:
    """Byte-level pieces between <s> and </s>, offsets trimmed of blanks."""
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    return _wrap(tokenizer, model_max_length=64, **{f"{kind}_token": text for kind, text in names.items()})


def gpt2_tokenizer() -> Any:
    """Byte-level pieces, nothing added, no pad token; the end-of-text token doubles as the unknown one."""
    tokenizer = _byte_level(["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    end = "<|endoftext|>"
    return _wrap(tokenizer, model_max_length=64, bos_token=end, eos_token=end, unk_token=end)


def llama_tokenizer() -> Any:
    """Byte-level pieces after a begin-of-text token, no pad token, as Llama 3 has them."""
    tokenizer = _byte_level(["<|begin_of_text|>", "<|end_of_text|>"])
    begin = "<|begin_of_text|>"
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 0)])
    return _wrap(tokenizer, model_max_length=64, bos_token=begin, eos_token="<|end_of_text|>")


def qwen_tokenizer() -> Any:
    """Byte-level pieces of composed characters, nothing added, padding on the left by default."""
    tokenizer = _byte_level(["<|endoftext|>"])
    tokenizer.normalizer = normalizers.NFC()
    end = "<|endoftext|>"
    return _wrap(tokenizer, model_max_length=64, eos_token=end, pad_token=end, padding_side="left")


def gemma_tokenizer() -> Any:
    """SentencePiece-like pieces with bytes as a last resort, after <bos>; padding on the left by default."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=special + byte_tokens, show_progress=False)
    tokenizer.train_from_iterator([sentence for number, sentence in enumerate(SENTENCES) if number != 4], trainer)
    # bytes are ordinary entries, not special tokens: rebuild the vocabulary without the marks
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [entry for entry in described["added_tokens"] if entry["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    names = {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>"}
    return _wrap(
        tokenizer, model_max_length=64, padding_side="left", **{f"{kind}_token": text for kind, text in names.items()}
    )


# ------------------------------------------------------------------ checkpoints

_STACK = {"hidden_size": WIDTH, "num_hidden_layers": N_BLOCKS, "num_attention_heads": 4, "intermediate_size": 48}
_DECODER = {**_STACK, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
_VISION = {**_STACK, "image_size": 32, "patch_size": 8}


def _text(model: str, tokenizer: Callable[[], Any], settings: dict[str, Any]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        prepared = tokenizer()
        config = getattr(transformers, f"{model}Config")(
            vocab_size=len(prepared),
            pad_token_id=prepared.pad_token_id,
            bos_token_id=prepared.bos_token_id,
            eos_token_id=prepared.eos_token_id,
            **settings,
        )
        kind = "Gemma3TextModel" if model == "Gemma3Text" else f"{model}Model"
        _save(getattr(transformers, kind)(config), folder)
        prepared.save_pretrained(folder)

    return build


def _save(model: Any, folder: Path) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Each parameter has a generator of its own: trained vocabularies differ a little from run to run, and so
            # would everything drawn after them. Matrices are larger than the usual start, so that layers and positions
            # really matter; vectors lie around where they start, such as one for norms.
            generator = np.random.default_rng(zlib.crc32(name.encode()))
            start = parameter if parameter.ndim == 1 else 0.0
            parameter.copy_(start + 0.15 * torch.from_numpy(generator.standard_normal(parameter.shape)))
    model.save_pretrained(folder)


def _image(model: str, processor: Any, settings: dict[str, Any]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        _save(getattr(transformers, f"{model}Model")(getattr(transformers, f"{model}Config")(**settings)), folder)
        processor().save_pretrained(folder)

    return build


def _cropping_processor() -> Any:
    """Shorter side to 48, centre crop of 32 x 48 (not square, so that rows and columns cannot be mixed up)."""
    return transformers.BitImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 32, "width": 48})


def _dual(model: str, processor: Callable[[], Any]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        tokenizer = word_piece_tokenizer()
        ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
        text = {**_STACK, "num_hidden_layers": 3, "vocab_size": len(tokenizer), "max_position_embeddings": 64, **ids}
        config = getattr(transformers, f"{model}Config")(text_config=text, vision_config=_VISION)
        _save(getattr(transformers, f"{model}Model")(config), folder)
        processor().save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return build


_BUILDERS: dict[str, Callable[[Path], None]] = {
    "bert": _text("Bert", word_piece_tokenizer, {**_STACK, "max_position_embeddings": 64}),
    "distilbert": _text(
        "DistilBert",
        word_piece_tokenizer,
        {"dim": WIDTH, "n_layers": N_BLOCKS, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64},
    ),
    "roberta": _text("Roberta", roberta_tokenizer, {**_STACK, "max_position_embeddings": 40, "type_vocab_size": 1}),
    "gpt2": _text("GPT2", gpt2_tokenizer, {"n_embd": WIDTH, "n_layer": N_BLOCKS, "n_head": 4, "n_positions": 128}),
    "llama": _text("Llama", llama_tokenizer, _DECODER),
    "qwen2": _text("Qwen2", qwen_tokenizer, {**_STACK, "num_key_value_heads": 2, "max_position_embeddings": 128}),
    "gemma2": _text("Gemma2", gemma_tokenizer, {**_DECODER, "sliding_window": 16}),
    "gemma3": _text("Gemma3Text", gemma_tokenizer, {**_DECODER, "sliding_window": 16}),
    "vit": _image("ViT", lambda: transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}), {**_VISION}),
    "dinov2": _image(
        "Dinov2",
        _cropping_processor,
        {k: v for k, v in _VISION.items() if k != "intermediate_size"} | {"mlp_ratio": 2},
    ),
    "dinov2-registers": _image(
        "Dinov2WithRegisters",
        _cropping_processor,
        {k: v for k, v in _VISION.items() if k != "intermediate_size"} | {"mlp_ratio": 2, "num_register_tokens": 3},
    ),
    "clip": _dual(
        "CLIP",
        lambda: transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    ),
    "siglip": _dual("Siglip", lambda: transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})),
}


def build_checkpoint(family: str, folder: Path) -> Path:
    """Write a tiny checkpoint of a family to a folder and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        _BUILDERS[family](folder)
    return folder
