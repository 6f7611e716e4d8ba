"""How much memory a backbone takes, known before its weights are read: a sketch is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from PIL import Image
from torch import Tensor, nn

from superactivators.data.dataset import ImageSample, Sample
from superactivators.models.backbone import Backbone
from superactivators.models.encoding import Encoding
from superactivators.models.text import TextReader
from superactivators.models.vision import ImageReader

TEXT_INPUTS = 3
"""Whole numbers of 8 bytes that a text's token has among the inputs: id, mask and position."""


@final
@dataclass(frozen=True)
class Budget:
    """Bytes that a model and one of its forward batches take.

    Attributes
    ----------
    disk : int or None
        Weight files of the checkpoint, all its parts; None if they are not here and nothing says their size.
    weights : dict of str to int
        Parameters and buffers in memory, by part of the model that is loaded.
    inputs : int
        Inputs of the largest forward batch.
    activations : int
        What a block holds while it runs, an estimate; see `measure`.
    captured : int
        States of all wanted sites of two batches: one is captured while the one before it is stored.
    """

    disk: int | None
    weights: dict[str, int]
    inputs: int
    activations: int
    captured: int

    @property
    def forward(self) -> int:
        """Bytes beside the weights while a batch runs."""
        return self.inputs + self.activations + self.captured

    @property
    def spare(self) -> int:
        """Freed memory that an allocator keeps for itself while batches of different lengths come and go.

        Measured with that of glibc: as much as the batch itself. It is less where batches have one length.
        """
        return self.forward

    @property
    def total_weights(self) -> int:
        """Bytes of all loaded parts."""
        return sum(self.weights.values())


def measure(
    backbone: Backbone, samples: Sequence[Sample], encoding: Encoding, *, n_sites: int, batch_tokens: int
) -> Budget:
    """Work out the memory of a backbone that reads these samples.

    Parameters
    ----------
    backbone : Backbone
        Loaded or a sketch.
    samples : sequence of Sample
    encoding : Encoding
        Of the same samples.
    n_sites : int
        Sites whose states are kept.
    batch_tokens : int
        Tokens, padding included, of one forward batch; see `Backbone.batches`.

    Returns
    -------
    Budget

    Notes
    -----
    With T tokens in the batch in sequences of length S, states of width d, the widest weight of a block f, and b bytes
    a number, a block is taken to hold ``T b (6 d + 2 f) + T S b``: the residual stream and its norm, queries, keys,
    values and their mixture; the hidden layer of the MLP before and after its nonlinearity; the attention mask. A model
    that keeps attention matrices (``eager``) holds ``2 T S h (b + 4)`` more for h heads. A vision tower in front of a
    language model is counted alike for the patches of its input, and the larger of both is taken, since one ends before
    the other begins. Captured states take ``T d b`` a site, once for this batch and once for the one before it, which
    is still being stored, and ``8 T d`` for sums in float32. These are bytes in use; an allocator that keeps freed
    memory needs up to as much again, see `Budget.spare`.
    """
    size = _itemsize(backbone)
    reader = backbone.reader
    config = backbone.model.config
    stack = _stack(backbone.blocks, size, backbone.width, config)
    if isinstance(reader, ImageReader):
        tokens, longest, inputs, patches = _image_batch(reader, samples, encoding, batch_tokens, config)
        inputs = int(inputs * (4 + size) / 4)  # prepared in float32, then in the model's dtype
    else:
        tokens, longest = _text_batch(reader, encoding, batch_tokens)
        inputs, patches = TEXT_INPUTS * 8 * tokens, 0
    activations = stack(tokens, longest)
    if patches:
        activations = max(activations, _tower(backbone, size)(patches, patches))
    captured = tokens * backbone.width * (2 * size * n_sites + 8)
    return Budget(backbone.stored_bytes, weight_bytes(backbone.model), inputs, activations, captured)


def weight_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of parameters and buffers by part, each counted once; those outside any part are called ``own``.

    Parameters
    ----------
    model : nn.Module
        On any device, the meta device included.
    """
    seen: set[int] = set()
    found: dict[str, int] = {}
    for name, child in [*model.named_children(), ("own", model)]:
        size = 0
        for tensor in (*child.parameters(), *child.buffers()):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                size += tensor.numel() * tensor.element_size()
        if size:
            found[name] = size
    return found


def _itemsize(backbone: Backbone) -> int:
    return int(backbone.dtype.itemsize)


def _stack(blocks: Iterable[nn.Module], size: int, width: int, config: Any) -> Callable[[int, int], int]:
    """Give the function of tokens and longest sequence that says what a block of this stack holds."""
    sides = [side for value in next(iter(blocks)).parameters() for side in value.shape]
    widest = max(sides, default=width)
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    eager = getattr(config, "_attn_implementation", None) == "eager"

    def held(tokens: int, longest: int) -> int:
        mask = tokens * longest * size
        matrices = 2 * tokens * longest * heads * (size + 4) if eager else 0
        return tokens * size * (6 * width + 2 * widest) + mask + matrices

    return held


def _tower(backbone: Backbone, size: int) -> Callable[[int, int], int]:
    """Likewise for the vision tower of a model whose language model is read."""
    config = backbone.model.config.vision_config
    parts = [
        module
        for module in backbone.model.modules()
        if getattr(getattr(module, "config", None), "model_type", None) == config.model_type
    ]
    lists = [module for module in parts[0].modules() if isinstance(module, nn.ModuleList)] if parts else []
    blocks = max(lists, key=len, default=None)
    width = next(
        (int(getattr(config, name)) for name in ("hidden_size", "embed_dim", "dim") if hasattr(config, name)), 0
    )
    return _stack(backbone.blocks if blocks is None else blocks, size, width or backbone.width, config)


def _text_batch(reader: Any, encoding: Encoding, batch_tokens: int) -> tuple[int, int]:
    """Tokens of the largest batch, and its longest sequence."""
    assert isinstance(reader, TextReader)  # noqa: S101  (there are two kinds of readers)
    added = len(reader.prefix) + len(reader.suffix)
    lengths = np.minimum(np.diff(encoding.offsets), reader.capacity) + added
    longest = int(lengths.max(initial=0))
    whole = int(encoding.n_samples * longest)
    return max(min(batch_tokens, whole), longest), longest


def _image_batch(
    reader: ImageReader, samples: Sequence[Sample], encoding: Encoding, batch_tokens: int, config: Any
) -> tuple[int, int, int, int]:
    """Tokens and longest sequence of the largest batch, bytes of its inputs, and patches of its vision tower if any.

    One blank image of the size of the largest one is prepared to learn it.
    """
    assert encoding.grids is not None  # noqa: S101
    cells = encoding.grids.astype(np.int64).prod(axis=1)
    place = int(cells.argmax())
    sample = samples[place]
    assert isinstance(sample, ImageSample)  # noqa: S101
    same = int((encoding.grids == encoding.grids[place]).all(axis=1).sum())
    each = reader.scheme.length((int(encoding.grids[place, 0]), int(encoding.grids[place, 1])))
    images = min(max(batch_tokens // each, 1), same)
    given = reader.scheme.inputs([Image.new("RGB", sample.size())])
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    ids = tensors.get("input_ids")
    longest = each if ids is None else int(ids.shape[-1])
    inputs = images * sum(value.numel() * value.element_size() for value in tensors.values())
    patches = 0
    vision = getattr(config, "vision_config", None)
    if ids is not None and vision is not None:
        pixels = sum(value.numel() for name, value in tensors.items() if name.startswith("pixel_values"))
        side = getattr(vision, "patch_size", 14)
        area = side * side if isinstance(side, int) else int(np.prod(side))
        patches = images * pixels // (3 * area)
    return images * longest, longest, inputs, patches
