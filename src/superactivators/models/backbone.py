"""The backbone: one object for any transformer encoder or decoder of texts or images, from samples to token states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import nn

from superactivators.data.dataset import Modality, Sample
from superactivators.errors import ModelError
from superactivators.models.batching import ForwardBatch, SampleReader
from superactivators.models.blocks import find_blocks, state_width
from superactivators.models.capture import ForwardRunner
from superactivators.models.collect import Captured, collect, to_device
from superactivators.models.encoding import Encoding
from superactivators.models.families.catalogue import image_family
from superactivators.models.families.family import ImageParts
from superactivators.models.identity import fingerprint_of
from superactivators.models.layers import FINAL_NORM, LayerSpec, resolve_layers
from superactivators.models.loading import Checkpoint, Tower, Wanted, load_checkpoint, torch_dtype
from superactivators.models.placement import input_device, placement_of, synchronise
from superactivators.models.quiet import quiet_transformers
from superactivators.models.text import TextReader
from superactivators.models.vision import ImageReader, check_geometry

MAX_BATCH_TOKENS = 4096
"""Tokens, padding included, that run in one forward pass unless told otherwise."""

_SANE_LENGTH = 10**6  # tokenizers without a limit give an astronomic one


@final
class Backbone:
    """A transformer with what prepares its inputs; make one with `from_pretrained`.

    Parameters
    ----------
    name : str
        How reports call it.
    checkpoint : Checkpoint
        The loaded model and its tokenizer or image processor.
    geometry, long_texts, window_overlap
        See `from_pretrained`.

    Attributes
    ----------
    name : str
    modality : str
        ``"text"`` or ``"image"``.
    tower : str
        Which part of a checkpoint with several is read: ``"vision"`` or ``"language"``.
    stored_bytes : int or None
        Size of the checkpoint's weight files; None if they are not here.
    is_sketch : bool
        Whether the model has no weights; see `sketch`.
    n_blocks : int
        Number of transformer blocks L.
    width : int
        Width d of the token states.
    blocks_path : str
        Where the blocks are in the model, such as ``"encoder.layer"``.
    model : transformers model
        The base model, in evaluation mode.
    reader : TextReader or ImageReader
        Turns samples into model inputs; holds the tokenizer or the image processor.
    options : dict
        Arguments with which `from_pretrained` loads the same backbone again, as JSON values.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        *,
        geometry: str = "processor",
        long_texts: str = "window",
        window_overlap: float = 0.25,
    ) -> None:
        self.name = name
        self.modality: Modality = checkpoint.modality
        self.tower: Tower = checkpoint.tower
        self.stored_bytes = checkpoint.stored_bytes
        self.is_sketch = checkpoint.is_sketch
        self.options: dict[str, Any] = (
            {"geometry": geometry}
            if checkpoint.modality == "image"
            else {"long_texts": long_texts, "window_overlap": window_overlap}
        )
        self.model = checkpoint.model.eval()
        config = self.model.config
        self.blocks: Sequence[nn.Module]
        self.reader: SampleReader
        if checkpoint.modality == "text":
            self.blocks_path, self.blocks = find_blocks(self.model, config)
            self.width = state_width(config)
            self.runner = ForwardRunner(self.model, self.blocks, self.width)
            self.reader = self._text_reader(checkpoint.preparer, long_texts, window_overlap)
        else:
            check_geometry(geometry)
            family = image_family(config, language=checkpoint.tower == "language")
            self.blocks_path, self.blocks = family.blocks(self.model, config)
            self.width = family.width(config)
            self.runner = ForwardRunner(self.model, self.blocks, self.width, family.final)
            parts = ImageParts(self.model, checkpoint.preparer, checkpoint.tokenizer, geometry, name)
            self.reader = ImageReader(family.scheme(parts), geometry=geometry, name=f"the image processor of {name}")
        self.n_blocks = len(self.blocks)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        max_memory: Mapping[int | str, int | str] | None = None,
        offload_folder: str | Path | None = None,
        dtype: str | torch.dtype | None = None,
        geometry: str = "processor",
        long_texts: str = "window",
        window_overlap: float = 0.25,
        modality: str | None = None,
        tower: str | None = None,
        processor: Mapping[str, Any] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Backbone:
        """Load a backbone.

        Parameters
        ----------
        name : str or Path
            Folder of a saved model, hub id, ``"bundled:minilm"``, ``"bundled:dinov2-small"``, or a vision model of
            another library: ``"timm:NAME"`` or ``"open_clip:ARCHITECTURE/TAG"``; a folder may stand behind the colon.
        device : str or torch.device, optional
            Default: the GPU if there is one, else the CPU. ``"auto"`` spreads the model over all devices, for models
            that one does not hold (needs accelerate).
        max_memory : mapping, optional
            With ``"auto"``: most that each device may take, such as ``{0: "20GiB", "cpu": "60GiB"}``.
        offload_folder : str or Path, optional
            With ``"auto"``: where weights go that fit nowhere else.
        dtype : str or torch.dtype, optional
            Default: as the checkpoint says.
        geometry : str
            Images: ``"processor"`` prepares them as the model's processor says, which may crop; ``"squash"`` resizes
            the whole image to the model's square.
        long_texts : str
            Texts beyond the model's window: ``"window"`` (overlapping windows), ``"truncate"`` or ``"error"``.
        window_overlap : float
            Share of a window that the next one repeats.
        modality : str, optional
            ``"text"`` or ``"image"`` for a checkpoint that reads both; default: images if its folder holds an image
            processor.
        tower : str, optional
            Where images are looked at in a checkpoint with several parts: ``"vision"`` (default), the tokens of its
            vision tower, or ``"language"``, the image tokens inside its language model.
        processor : mapping, optional
            Settings of the image processor that replace the checkpoint's, such as ``{"max_image_tiles": 1}``.
        revision : str, optional
            Branch, tag or commit of a hub id.
        local_files_only : bool
            Never ask the hub.

        Returns
        -------
        Backbone

        Raises
        ------
        ModelError
            If the model cannot be loaded, or does not behave as its files claim.
        StudyError
            If a setting is none of the allowed ones.
        """
        wanted = Wanted(
            placement_of(device, max_memory, offload_folder),
            torch_dtype(dtype),
            modality,
            tower,
            processor,
            revision,
            local_files_only,
        )
        return cls._of(name, wanted, geometry, long_texts, window_overlap)

    @classmethod
    def sketch(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        max_memory: Mapping[int | str, int | str] | None = None,
        offload_folder: str | Path | None = None,
        dtype: str | torch.dtype | None = None,
        geometry: str = "processor",
        long_texts: str = "window",
        window_overlap: float = 0.25,
        modality: str | None = None,
        tower: str | None = None,
        processor: Mapping[str, Any] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Backbone:
        """Open a backbone without its weights, to know its tokens, sites and memory before it is loaded.

        Nothing of a weight file is read but a header, and of a hub id no weights are fetched. Such a backbone encodes
        samples and resolves layers; it can neither run nor give a fingerprint. Parameters and errors are those of
        `from_pretrained`; whether ``device`` is there is not looked at.
        """
        placement = placement_of(device, max_memory, offload_folder, to_run=False)
        wanted = Wanted(
            placement, torch_dtype(dtype), modality, tower, processor, revision, local_files_only, weights=False
        )
        return cls._of(name, wanted, geometry, long_texts, window_overlap)

    @classmethod
    def _of(cls, name: str | Path, wanted: Wanted, geometry: str, long_texts: str, window_overlap: float) -> Backbone:
        checkpoint = load_checkpoint(name, wanted)
        backbone = cls(str(name), checkpoint, geometry=geometry, long_texts=long_texts, window_overlap=window_overlap)
        given = {
            "dtype": str(wanted.dtype).removeprefix("torch.") if wanted.dtype else None,
            "modality": wanted.modality,
            "tower": wanted.tower,
            "processor": dict(wanted.processor) if wanted.processor else None,
            "revision": wanted.revision,
        }
        backbone.options |= {key: value for key, value in given.items() if value is not None}
        return backbone

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        size = f"{self.n_blocks} blocks of width {self.width}"
        return f"Backbone({self.name!r}, {self.modality}, {size}, {dtype}, {self.device})"

    @property
    def device(self) -> torch.device:
        """Device to which the model's inputs go; of a spread model the first."""
        return input_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the model's parameters; states have it too."""
        dtypes: list[torch.dtype] = [value.dtype for value in self.model.parameters() if value.is_floating_point()]
        return dtypes[0]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over config, sampled weights, tokenizer or processor, and settings; see `identity`.

        Raises
        ------
        ModelError
            If this is a sketch: its weights are not known.
        """
        self._needs_weights()
        reader = self.reader
        preparer = reader.tokenizer if isinstance(reader, TextReader) else None
        return fingerprint_of(self.model, self.model.config.to_dict(), preparer, reader.settings())

    def resolve_layers(self, spec: LayerSpec) -> tuple[str, ...]:
        """Name the sites that a user means; see `superactivators.models.layers.parse_layers`."""
        return resolve_layers(spec, self.n_blocks)

    def encode(self, samples: Sequence[Sample]) -> Encoding:
        """Find the tokens of samples and where they are, without a forward pass.

        Parameters
        ----------
        samples : sequence of TextSample or of ImageSample

        Returns
        -------
        Encoding
            A text without any token (signs that the tokenizer drops) has an empty row.

        Raises
        ------
        DataError
            If a sample is of the wrong modality, blank, unreadable, or too long under ``long_texts="error"``.
        ModelError
            If the tokenizer's character offsets are wrong beyond repair.
        """
        return self.reader.encode(samples)

    def batches(
        self, samples: Sequence[Sample], encoding: Encoding, *, max_batch_tokens: int = MAX_BATCH_TOKENS
    ) -> Iterator[ForwardBatch]:
        """Form forward batches of samples of similar length; the same samples always make the same batches.

        Parameters
        ----------
        samples : sequence of Sample
        encoding : Encoding
            Of the same samples.
        max_batch_tokens : int
            Most tokens in one forward pass, padding included; a single sample may be longer.

        Yields
        ------
        ForwardBatch
        """
        if max_batch_tokens < 1:
            raise ModelError(f"max_batch_tokens is {max_batch_tokens}, but must be at least 1")
        yield from self.reader.batches(samples, encoding, max_batch_tokens)

    def capture(
        self,
        samples: Sequence[Sample],
        encoding: Encoding,
        sites: LayerSpec,
        *,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        stop_early: bool = True,
    ) -> Iterator[Captured]:
        """Run the model over samples and give the states of their tokens at the wanted sites, batch by batch.

        Parameters
        ----------
        samples : sequence of Sample
        encoding : Encoding
            Of the same samples.
        sites : sequence of str
            Site names, or anything else that `resolve_layers` reads.
        max_batch_tokens : int
            See `batches`. Memory grows with it, with the number of sites and with the width.
        stop_early : bool
            Leave out the blocks behind the deepest wanted one.

        Yields
        ------
        Captured
            Every sample is in exactly one batch; batches come in order of length.

        Raises
        ------
        ModelError
            If a site did not arise exactly once in a forward pass, states do not have the expected shape, or this is
            a sketch.
        """
        self._needs_weights()
        wanted = self.resolve_layers(sites)
        for batch in self.batches(samples, encoding, max_batch_tokens=max_batch_tokens):
            yield collect(
                self.runner,
                batch,
                wanted,
                device=self.device,
                dtype=self.dtype,
                width=self.width,
                stop_early=stop_early,
            )

    def forward_plain(
        self, samples: Sequence[Sample], encoding: Encoding, *, max_batch_tokens: int = MAX_BATCH_TOKENS
    ) -> int:
        """Run the very same batches as `capture` without any hook, to have a time to compare with.

        Parameters
        ----------
        samples, encoding, max_batch_tokens
            As for `capture`.

        Returns
        -------
        int
            Number of forward passes.
        """
        self._needs_weights()
        passes = 0
        for batch in self.batches(samples, encoding, max_batch_tokens=max_batch_tokens):
            for forward in batch.passes:
                with quiet_transformers():
                    self.runner.run(to_device(forward.inputs, self.device, self.dtype), (), _ignore)
                passes += 1
        synchronise({parameter.device for parameter in self.model.parameters()})
        return passes

    # ------------------------------------------------------------------ building

    def _needs_weights(self) -> None:
        if self.is_sketch:
            raise ModelError(f"{self.name}: this is a sketch without weights; load it with Backbone.from_pretrained")

    def _text_reader(self, tokenizer: Any, long_texts: str, window_overlap: float) -> TextReader:
        config = self.model.config
        # RoBERTa and its kin number positions from padding_idx + 1 on and find them from the ids by themselves
        counts_from_padding = any(
            hasattr(module, "create_position_ids_from_input_ids")
            or hasattr(module, "create_position_ids_from_inputs_embeds")
            for module in self.model.modules()
        )
        limits = [int(length) for length in (tokenizer.model_max_length,) if length < _SANE_LENGTH]
        positions = getattr(config, "max_position_embeddings", None)
        if isinstance(positions, int) and positions > 0:
            limits.append(positions - ((config.pad_token_id or 0) + 1 if counts_from_padding else 0))
        reader = TextReader(
            tokenizer,
            window=min(limits, default=None),
            vocabulary=int(self.model.get_input_embeddings().weight.shape[0]),
            long_texts=long_texts,
            window_overlap=window_overlap,
            position_ids="position_ids" in self.runner.accepts and not counts_from_padding,
            name=self.name,
        )
        if reader.cls_place is not None and not self.is_sketch:
            reader.cls_sees_text = self._cls_sees_text(reader)
        return reader

    def _cls_sees_text(self, reader: TextReader) -> bool:
        """Whether the CLS state depends on the text; in a causal model a token in front does not."""
        part, number = reader.cls_place or ("prefix", 0)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        others = np.setdiff1d(np.arange(min(vocabulary, 4096)), reader.special_ids)
        if len(others) < 2:
            return True
        rows = [np.concatenate([reader.prefix, [token], reader.suffix]) for token in (others[0], others[-1])]
        place = number if part == "prefix" else len(reader.prefix) + 1 + number
        ids = torch.from_numpy(np.stack(rows)).to(self.device)
        seen: list[torch.Tensor] = []
        with quiet_transformers():
            self.runner.run(
                {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
                (FINAL_NORM,),
                lambda site, states: seen.append(states[:, place]),
            )
        return not torch.equal(seen[0][0], seen[0][1])


def _ignore(site: str, states: torch.Tensor) -> None:
    """Receive nothing: a plain pass has no sites."""
