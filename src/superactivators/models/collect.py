"""Gather the states of content tokens of one batch, while the model runs, into plain rows on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from superactivators.models.batching import ForwardBatch, ForwardPass, Layout
from superactivators.models.capture import ForwardRunner
from superactivators.models.placement import synchronise
from superactivators.models.quiet import quiet_transformers


@final
@dataclass(frozen=True, eq=False)
class Captured:
    """States of one batch, on the CPU and in the model's own dtype.

    Attributes
    ----------
    rows : int64 array of shape (k,)
        Sample numbers within the sequence that was given to ``capture``.
    offsets : int64 array of shape (k + 1,)
        Rows of ``tokens`` that belong to each of them.
    tokens : dict of str to tensor of shape (tokens, d)
        Per site: states of content tokens, in the order of the encoding.
    samples : dict of str to tensor of shape (k, d)
        Per site: the sample state. It is the CLS state where the model has one (of a text in several windows: the mean
        over its windows), otherwise the mean of the sample's token states, summed in float32; zeros for a sample
        without tokens and without CLS.
    """

    rows: Int[np.ndarray, " k"]
    offsets: Int[np.ndarray, " k_plus_1"]
    tokens: dict[str, Tensor]
    samples: dict[str, Tensor]


def to_device(inputs: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Move model inputs to the device; pixels also to the model's dtype."""
    return {
        name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        if isinstance(value, Tensor)
        else value
        for name, value in inputs.items()
    }


class _Sink:
    """Receives the states of one pass and keeps the wanted rows.

    On a GPU the copies run asynchronously into page-locked memory, so the caller must synchronise before it reads.
    """

    def __init__(self, forward: ForwardPass) -> None:
        self._forward = forward
        self._layouts: dict[int, Layout] = {}
        self.tokens: dict[str, Tensor] = {}
        self.pieces: dict[str, Tensor] = {}
        self.devices: set[torch.device] = set()

    @property
    def layout(self) -> Layout:
        return next(iter(self._layouts.values()))

    def receive(self, site: str, states: Float[Tensor, "batch seq d"]) -> None:
        length = states.shape[1]  # in most models the same at all sites
        if length not in self._layouts:
            self._layouts[length] = self._forward.layout(length)
        layout = self._layouts[length]
        self.devices.add(states.device)
        flat = states.detach().reshape(-1, states.shape[-1])
        rows = flat.index_select(0, torch.from_numpy(layout.rows).to(states.device))
        self.tokens[site] = _to_host(rows)
        if layout.cls is not None:
            whole = flat.index_select(0, torch.from_numpy(layout.cls).to(states.device)).float()
        else:
            lengths = torch.from_numpy(layout.counts).to(states.device)
            whole = torch.segment_reduce(rows.float(), "sum", lengths=lengths, axis=0, initial=0)
        self.pieces[site] = _to_host(whole)


def _to_host(states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
    if states.device.type != "cuda":
        return states.cpu()
    host = torch.empty(states.shape, dtype=states.dtype, pin_memory=True)
    host.copy_(states, non_blocking=True)
    return host


def collect(
    runner: ForwardRunner,
    batch: ForwardBatch,
    sites: Sequence[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
    width: int,
    stop_early: bool = True,
) -> Captured:
    """Run the passes of a batch and gather the wanted states.

    Parameters
    ----------
    runner : ForwardRunner
    batch : ForwardBatch
    sites : sequence of str
    device : torch.device
        Where inputs go; the states may be on several.
    dtype : torch.dtype
        Of the model.
    width : int
        Width d of the states.
    stop_early : bool
        See `ForwardRunner.run`.

    Returns
    -------
    Captured

    Raises
    ------
    ModelError
        As `ForwardRunner.run`.
    """
    sinks = []
    for forward in batch.passes:
        sink = _Sink(forward)
        with quiet_transformers():
            runner.run(to_device(forward.inputs, device, dtype), sites, sink.receive, stop_early=stop_early)
        sinks.append(sink)
    synchronise(set().union(*(sink.devices for sink in sinks)))
    if not sinks:
        empty = {site: torch.zeros(0, width, dtype=dtype) for site in sites}
        blank = {site: torch.zeros(len(batch.rows), width, dtype=dtype) for site in sites}
        return Captured(batch.rows, batch.offsets, empty, blank)
    has_cls = sinks[0].layout.cls is not None
    piece = np.concatenate([forward.pieces for forward in batch.passes])
    weights = np.bincount(piece, minlength=len(batch.rows)) if has_cls else np.diff(batch.offsets)
    tokens = {site: _joined([sink.tokens[site] for sink in sinks]) for site in sites}
    samples = {
        site: _per_sample(_joined([sink.pieces[site] for sink in sinks]), piece, weights).to(dtype) for site in sites
    }
    return Captured(batch.rows, batch.offsets, tokens, samples)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _per_sample(
    pieces: Float[Tensor, "pieces d"], piece: Int[np.ndarray, " pieces"], weights: Int[np.ndarray, " k"]
) -> Float[Tensor, "k d"]:
    """Sum the pieces of each sample and divide by its weight."""
    sums = torch.zeros(len(weights), pieces.shape[1], dtype=torch.float32)
    sums.index_add_(0, torch.from_numpy(piece), pieces)
    return sums / torch.from_numpy(np.maximum(weights, 1)).float()[:, None]
