"""Transformers with hand-set weights whose answer is known: one concept, in tokens that are known, and nothing else.

Both models live in the same geometry. Every token is a constant part that all tokens share (three units long) plus one
unit of features: a concept token has 0.9 of them along the planted direction, all others none. All directions are
orthogonal to each other and to what layer norms take away; the constant part keeps these norms close to
linear, as large shared components do in trained models.

Attention is real: the first head looks for the planted direction, whoever asks, and adds a little of what it finds to
every token; the second mixes all tokens evenly. Neither is enough to make other tokens look like the concept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from superactivators.concepts.bank import ConceptBank
from superactivators.data.dataset import ImageSample, Sample, TextSample
from superactivators.detection.detector import Detector
from superactivators.detection.thresholds import Threshold
from superactivators.models.backbone import Backbone
from superactivators.models.quiet import quiet_transformers
from superactivators.states.scaling import Scaling

WIDTH, HEADS, N_BLOCKS = 96, 2, 3
CONSTANT = 3.0
"""Length of the part that all tokens share, in units of their features."""
LEFT = 0.5
"""What scaling leaves of it. With nothing left a cosine would not depend on how long the features are, and gradient
times input would be zero wherever a token carries the concept and nothing else."""
UNIT = (WIDTH / (CONSTANT**2 + 1)) ** 0.5
"""Length of a unit after a layer norm."""
MARK, OWN = 0.8, 0.6
"""Shares of a concept token's features along the planted direction and along a direction of its own."""
SHARPNESS = 3.0
"""By how much concept tokens are ahead in the logits of the first head."""
FOUND, MIXED = 0.25, 0.1
"""How much of what attention finds, and of the mean of all tokens, is added to every token."""
LOGIT, COSINE = "marked (logit)", "marked (cosine)"
SITES = {COSINE: "block[1]", LOGIT: "block[2]"}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MARKED_WORDS = ("amber", "basil", "coral", "delta", "ember")
OTHER_WORDS = tuple(f"word{number:02d}" for number in range(36))
PATCH, GRID = 6, 4
N_TEXTURES = 24


def directions() -> torch.Tensor:
    """Orthonormal rows that layer norms leave alone: each is one entry minus the next."""
    entry = torch.eye(WIDTH)
    return (entry[0::2] - entry[1::2]) / 2**0.5


PLANTED, SHARED, *REST = directions()
OTHERS = torch.stack(REST)


@dataclass(frozen=True)
class Planted:
    """A model, detectors of its concept at two sites, and samples with the answer.

    Attributes
    ----------
    backbone : Backbone
    detector : Detector
        One concept twice: by cosine at the second block and by logit at the last one.
    samples : list of Sample
    truth : list of bool arrays of shape (tokens,)
        Which tokens carry the concept.
    """

    backbone: Backbone
    detector: Detector
    samples: list[Sample]
    truth: list[np.ndarray]


def planted_text(folder: Path, n_samples: int) -> Planted:
    """Write a BERT in which five words carry the concept, load it, and make sentences of 10 to 16 words."""
    words = (*SPECIAL, *MARKED_WORDS, *OTHER_WORDS)
    folder.mkdir(parents=True, exist_ok=True)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        num_hidden_layers=N_BLOCKS,
        num_attention_heads=HEADS,
        intermediate_size=WIDTH // 2,
        max_position_embeddings=32,
    )
    with quiet_transformers(), torch.no_grad():
        model = transformers.BertModel(config, add_pooling_layer=False)
        _start(model)
        marked = MARK * PLANTED + OWN * OTHERS[: len(MARKED_WORDS)]
        embeddings = torch.cat([OTHERS[-len(SPECIAL) :], marked, OTHERS[len(MARKED_WORDS) : -len(SPECIAL)]])
        model.embeddings.word_embeddings.weight.copy_(embeddings)
        model.embeddings.token_type_embeddings.weight.copy_(CONSTANT * SHARED.expand(2, -1))
        for layer in model.encoder.layer:
            own = layer.attention.self
            _attention(own.query, own.key, own.value, layer.attention.output.dense, 1.0)
        model.save_pretrained(folder)
        _tokenizer(words).save_pretrained(folder)
    samples, truth = _texts(n_samples)
    return Planted(Backbone.from_pretrained(folder, device="cpu"), _detector(UNIT), samples, truth)


def planted_images(folder: Path, n_samples: int) -> Planted:
    """Write a ViT in which striped patches carry the concept, load it, and make images of 4 x 4 textured patches."""
    folder.mkdir(parents=True, exist_ok=True)
    size = PATCH * GRID
    config = transformers.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=N_BLOCKS,
        num_attention_heads=HEADS,
        intermediate_size=WIDTH // 2,
        image_size=size,
        patch_size=PATCH,
    )
    stripes, textures = _patterns()
    with quiet_transformers(), torch.no_grad():
        model = transformers.ViTModel(config, add_pooling_layer=False)
        _start(model)
        # pixels reach the model as (value / 255 - 0.5) / 0.5
        seen = torch.from_numpy(np.concatenate([stripes[None], textures]) / 127.5).flatten(1)
        features = torch.cat([MARK * PLANTED[None], OTHERS[: len(textures)]])
        reads = (features.T @ (seen / seen.square().sum(dim=1, keepdim=True))).reshape(WIDTH, 3, PATCH, PATCH)
        model.embeddings.patch_embeddings.projection.weight.copy_(reads)
        model.embeddings.position_embeddings.copy_(CONSTANT * SHARED.expand(1, GRID**2 + 1, -1))
        model.embeddings.cls_token.copy_(OTHERS[-1].expand(1, 1, -1))
        for layer in model.layers:
            own = layer.attention
            _attention(own.q_proj, own.k_proj, own.v_proj, own.o_proj, 1 / UNIT)
        model.save_pretrained(folder)
        transformers.ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    samples, truth = _images(n_samples, stripes, textures)
    return Planted(Backbone.from_pretrained(folder, device="cpu"), _detector(1.0), samples, truth)


def planted_rows(folder: Path, n_samples: int) -> Planted:
    """Write a SigLIP 2 that reads rows of patches, eight of them padding, and make the same images."""
    folder.mkdir(parents=True, exist_ok=True)
    config = transformers.Siglip2VisionConfig(
        hidden_size=WIDTH,
        num_hidden_layers=N_BLOCKS,
        num_attention_heads=HEADS,
        intermediate_size=WIDTH // 2,
        num_patches=GRID**2,
        patch_size=PATCH,
        vision_use_head=False,
    )
    stripes, textures = _patterns()
    with quiet_transformers(), torch.no_grad():
        model = transformers.Siglip2VisionModel(config)
        _start(model)
        # pixels reach the model as (value / 255 - 0.5) / 0.5, the channels of a pixel side by side
        seen = torch.from_numpy(np.concatenate([stripes[None], textures]) / 127.5).permute(0, 2, 3, 1).flatten(1)
        features = torch.cat([MARK * PLANTED[None], OTHERS[: len(textures)]])
        model.embeddings.patch_embedding.weight.copy_(features.T @ (seen / seen.square().sum(dim=1, keepdim=True)))
        model.embeddings.position_embedding.weight.copy_(CONSTANT * SHARED.expand(GRID**2, -1))
        for layer in model.encoder.layers:
            own = layer.self_attn
            _attention(own.q_proj, own.k_proj, own.v_proj, own.out_proj, 1 / UNIT)
        model.save_pretrained(folder)
        transformers.Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=GRID**2 + 8).save_pretrained(folder)
    samples, truth = _images(n_samples, stripes, textures)
    return Planted(Backbone.from_pretrained(folder, device="cpu"), _detector(1.0), samples, truth)


def _start(model: Any) -> None:
    """Small random matrices, norms that only normalise, no biases."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)
        else:
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    if hasattr(model.embeddings, "position_embeddings") and not isinstance(
        model.embeddings.position_embeddings, torch.nn.Parameter
    ):
        model.embeddings.position_embeddings.weight.zero_()


def _attention(query: Any, key: Any, value: Any, output: Any, length: float) -> None:
    """Set the two heads; ``length`` is that of a unit of the stream that they write to, over the one that they read."""
    size = WIDTH // HEADS
    for part in (query, key, value, output):
        part.weight.zero_()
    query.bias[0] = SHARPNESS * size**0.5 / (MARK * UNIT)
    key.weight[0] = PLANTED
    value.weight[0] = PLANTED
    output.weight[:, 0] = FOUND * length * PLANTED
    mixed = torch.cat([PLANTED[None], OTHERS])
    value.weight[size : size + len(mixed)] = mixed
    output.weight[:, size : size + len(mixed)] = MIXED * length * mixed.T


def _tokenizer(words: tuple[str, ...]) -> Any:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name.strip('[]').lower()}_token": name for name in SPECIAL}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names)


def _detector(length: float) -> Detector:
    """Concept vectors along the planted direction; ``length`` is that of a unit in raw states."""
    banks = {}
    for name, site in SITES.items():
        cosine = name == COSINE
        banks[site] = ConceptBank(
            kind="mean" if cosine else "linear",
            site=site,
            level="token",
            concepts=(name,),
            vectors=(0.7 if cosine else 2.0) * PLANTED[None],
            bias=torch.tensor([0.0 if cosine else -1.0]),
            scaling=Scaling((CONSTANT - LEFT) * length * SHARED, length),
            activation="cosine" if cosine else "logit",
            estimable=np.ones(1, dtype=bool),
        )
    values = {COSINE: 0.6, LOGIT: 1.2}
    thresholds = [
        Threshold(
            value=values[name], delta=0.5, concept=name, kind=banks[site].kind, method="superactivators", site=site, n=9
        )
        for name, site in SITES.items()
    ]
    return Detector.of(banks, thresholds)


def _texts(n_samples: int) -> tuple[list[Sample], list[np.ndarray]]:
    generator = np.random.default_rng(1)
    samples: list[Sample] = []
    truth = []
    for number in range(n_samples):
        n_words = int(generator.integers(10, 17))
        marked = np.zeros(n_words, dtype=bool)
        marked[generator.choice(n_words, int(generator.integers(2, 5)), replace=False)] = True
        words = np.where(marked, generator.choice(MARKED_WORDS, n_words), generator.choice(OTHER_WORDS, n_words))
        samples.append(TextSample(f"text {number}", " ".join(words)))
        truth.append(marked)
    return samples, truth


def _patterns() -> tuple[np.ndarray, np.ndarray]:
    """Red and green stripes of shape (3, side, side), and grey textures of shape (n, 3, side, side), around zero."""
    generator = np.random.default_rng(2)
    wave = np.where(np.arange(PATCH) % 2 == 0, 60.0, -60.0)
    stripes = np.stack([np.tile(wave, (PATCH, 1)), np.tile(-wave, (PATCH, 1)), np.zeros((PATCH, PATCH))])
    noise = generator.standard_normal((PATCH**2, N_TEXTURES + 1))
    noise[:, 0] = 1.0
    grey = np.linalg.qr(noise)[0].T[1:].reshape(-1, 1, PATCH, PATCH) * 40.0 * PATCH
    return stripes.astype(np.float32), np.repeat(grey, 3, axis=1).astype(np.float32)


def _images(n_samples: int, stripes: np.ndarray, textures: np.ndarray) -> tuple[list[Sample], list[np.ndarray]]:
    generator = np.random.default_rng(3)
    samples: list[Sample] = []
    truth = []
    for number in range(n_samples):
        marked = np.zeros(GRID**2, dtype=bool)
        marked[generator.choice(GRID**2, int(generator.integers(2, 5)), replace=False)] = True
        others = textures[generator.integers(0, len(textures), GRID**2)]
        patches = np.where(marked[:, None, None, None], stripes, others) + generator.normal(0, 3, others.shape)
        rows = patches.reshape(GRID, GRID, 3, PATCH, PATCH).transpose(0, 3, 1, 4, 2)
        pixels = np.clip(127.5 + rows.reshape(GRID * PATCH, GRID * PATCH, 3), 0, 255)
        samples.append(ImageSample(f"image {number}", pixels.round().astype(np.uint8)))
        truth.append(marked)
    return samples, truth
