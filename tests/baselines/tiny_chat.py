"""Tiny chat models with random weights, real tokenizers and real processors, saved as checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from superactivators.models.quiet import quiet_transformers
from tiny_models import SENTENCES

_TURNS = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>CONTENT<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXT_TEMPLATE = _TURNS.replace("CONTENT", "{{ message['content'] }}")
NO_SYSTEM_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + TEXT_TEMPLATE
)
FORGETS_SYSTEM_TEMPLATE = TEXT_TEMPLATE.replace("in messages", "in messages if message['role'] != 'system'")
IMAGE_TEMPLATE = _TURNS.replace(
    "CONTENT",
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}",
)
SPECIAL = ["<s>", "<pad>", "<|end|>", "<image>", "<|system|>", "<|user|>", "<|assistant|>"]
_DECODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 1024,
}
_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


def chat_tokenizer(template: str | None = TEXT_TEMPLATE, *, pad: bool = True) -> Any:
    """Byte-level pieces after <s>, with marks of turns, and padding on the right unless told otherwise."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|end|>",
        chat_template=template,
        padding_side="right",
        **({"pad_token": "<pad>"} if pad else {}),
    )


def _randomise(model: Any, scale: float) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            # larger than the usual start, so that every token of the question matters
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def build_chat_model(
    folder: Path, template: str | None = TEXT_TEMPLATE, *, pad: bool = True, longest: int = 1024
) -> Path:
    """Write a tiny Llama with a language head, and settings that sampled chat models bring along."""
    tokenizer = chat_tokenizer(template, pad=pad)
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **_DECODER | {"max_position_embeddings": longest},
        )
        model = _randomise(transformers.LlamaForCausalLM(config), 0.15)
        model.generation_config.update(
            do_sample=True, temperature=0.7, top_p=0.8, repetition_penalty=1.5, max_length=20, use_cache=True
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def build_vision_chat_model(folder: Path, template: str | None = IMAGE_TEMPLATE) -> Path:
    """Write a tiny LLaVA: CLIP vision tower, Llama, and their processor."""
    tokenizer = chat_tokenizer(template)
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        text = transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **_DECODER,
        )
        config = transformers.LlavaConfig(
            vision_config=transformers.CLIPVisionConfig(**_VISION),
            text_config=text,
            image_token_index=SPECIAL.index("<image>"),
            vision_feature_select_strategy="default",
            vision_feature_layer=-2,
        )
        _randomise(transformers.LlavaForConditionalGeneration(config), 0.15).save_pretrained(folder)
        images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        transformers.LlavaProcessor(
            image_processor=images,
            tokenizer=tokenizer,
            patch_size=8,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=template,
        ).save_pretrained(folder)
    return folder
