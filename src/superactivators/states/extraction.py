"""From a backbone and a data set to a states store, resumable, with bounded memory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from superactivators.artefacts import fingerprint, is_current
from superactivators.data.dataset import ConceptDataset, Sample, TextSample
from superactivators.data.pixels import content_hash
from superactivators.errors import DataError, ModelError, StoreError, StudyError, allowed
from superactivators.models.backbone import Backbone
from superactivators.models.budget import Budget, measure
from superactivators.models.encoding import Encoding
from superactivators.ragged import cut_into_runs
from superactivators.states.labels import FORMAT as LABELS_FORMAT
from superactivators.states.labels import Labels, TextRule, label, labels_fingerprint
from superactivators.states.states import States
from superactivators.states.store import (
    DTYPES,
    FORMAT,
    Shard,
    StateStore,
    StoreLayout,
    StoreWriter,
)

LABELS = "labels"
SHARD_BYTES = 48 * 2**20
"""Bytes of all sites of one shard: what is held while a shard is filled; one more may wait to be written."""

BATCH_TOKENS = 4096


@final
@dataclass(frozen=True, eq=False)
class ExtractionPlan:
    """What an extraction will do, known before any forward pass.

    Attributes
    ----------
    layout : StoreLayout
        Samples, tokens, sites and shards.
    batch_tokens : int
        Tokens, padding included, of one forward batch.
    fingerprint : str or None
        SHA-256 of model, inputs, sites and type of number; None if the model is a sketch.
    budget : Budget
        Memory of the model and of a forward batch.
    """

    layout: StoreLayout
    batch_tokens: int
    fingerprint: str | None
    budget: Budget

    def as_dict(self) -> dict[str, Any]:
        """Tokens, bytes and memory, as JSON types.

        ``memory_bytes`` is what is needed beside the model: three shards (one is filled, one waits to be written, one
        is written), one forward batch, and what an allocator keeps; ``total_bytes`` adds the weights. What Python and
        its libraries take by themselves (about 0.5 GiB) comes on top.
        """
        layout, itemsize, budget = self.layout, DTYPES[self.layout.dtype].itemsize, self.budget
        longest = int(np.diff(layout.encoding.offsets[layout.shards]).max())
        shards = 3 * longest * layout.width * itemsize * len(layout.sites)
        memory = shards + budget.forward + budget.spare
        return {
            "samples": layout.encoding.n_samples,
            "tokens": layout.encoding.n_tokens,
            "tokens_cut": int(layout.encoding.cut.sum()),
            "sites": list(layout.sites),
            "width": layout.width,
            "dtype": layout.dtype,
            "shards": layout.n_shards,
            "bytes": layout.n_bytes,
            "shard_memory_bytes": shards,
            "input_bytes": budget.inputs,
            "activation_bytes": budget.activations,
            "captured_bytes": budget.captured,
            "spare_bytes": budget.spare,
            "memory_bytes": memory,
            "weights_disk_bytes": budget.disk,
            "weights_parts": dict(budget.weights),
            "weights_bytes": budget.total_weights,
            "total_bytes": budget.total_weights + memory,
            "fingerprint": self.fingerprint,
        }


def plan_extraction(
    backbone: Backbone,
    dataset: ConceptDataset,
    layers: Any = "all",
    *,
    dtype: str = "float16",
    batch_tokens: int = BATCH_TOKENS,
    shard_bytes: int = SHARD_BYTES,
) -> ExtractionPlan:
    """Work out what `extract` would do; parameters as there. The backbone may be a sketch, which reads no weights."""
    if dtype not in DTYPES:
        raise StudyError(f"unknown store dtype {dtype!r}; {allowed(dtype, DTYPES)}")
    if dataset.modality != backbone.modality:
        raise StudyError(
            f"data set {dataset.name!r} holds {dataset.modality}s, but {backbone.name} reads {backbone.modality}s; "
            "choose a model for the data"
        )
    if batch_tokens < 1 or shard_bytes < 1:
        raise StudyError(f"batch_tokens and shard_bytes must be positive; got {batch_tokens} and {shard_bytes}")
    sites = backbone.resolve_layers(layers)
    encoding = backbone.encode(dataset.samples)
    empty = np.flatnonzero(np.diff(encoding.offsets) == 0)
    if len(empty):
        raise DataError(f"sample {dataset.ids[int(empty[0])]!r} has no tokens for {backbone.name}; leave it out")
    token_bytes = backbone.width * DTYPES[dtype].itemsize * len(sites)
    shards = cut_into_runs(encoding.offsets, max(1, shard_bytes // token_bytes))
    own = None if backbone.is_sketch else backbone.fingerprint
    model = {"name": backbone.name, "fingerprint": own, "options": backbone.options}
    layout = StoreLayout(dataset.ids, encoding, sites, backbone.width, dtype, shards, model)
    made_from = None
    if own is not None:
        made_from = fingerprint([FORMAT.version, own, inputs_fingerprint(dataset), sites, dtype])
    budget = measure(backbone, dataset.samples, encoding, n_sites=len(sites), batch_tokens=batch_tokens)
    return ExtractionPlan(layout, batch_tokens, made_from, budget)


def inputs_fingerprint(dataset: ConceptDataset) -> str:
    """SHA-256 over ids and texts or pixels: all that states depend on, so that new labels need no new states."""
    digest = hashlib.sha256()
    for sample in dataset.samples:
        content = sample.text if isinstance(sample, TextSample) else content_hash(sample.image).hex()
        digest.update(json.dumps([sample.id, content]).encode())
    return digest.hexdigest()


def extract(
    backbone: Backbone,
    dataset: ConceptDataset,
    layers: Any = "all",
    *,
    out: str | Path,
    dtype: str = "float16",
    text_rule: TextRule = "overlap",
    patch_rule: Any = "any",
    batch_tokens: int = BATCH_TOKENS,
    shard_bytes: int = SHARD_BYTES,
    progress: bool = False,
) -> States:
    """Run a backbone over a data set once and store the states of all wanted layers.

    Interrupted at any moment, the same call goes on after the last whole shard, and the files end up byte for byte as
    if it had never been interrupted. A finished store of the same model, inputs and settings is used as it is.

    Parameters
    ----------
    backbone : Backbone
    dataset : ConceptDataset
        Of the backbone's modality, with splits.
    layers : layer specification
        Such as ``"all"``, ``-1``, ``0.5``, ``"every:2"`` or a list; see `superactivators.models.layers`.
    out : str or Path
        Folder of the store.
    dtype : str
        ``"float16"``, ``"bfloat16"`` or ``"float32"``: how states are kept.
    text_rule, patch_rule
        See `superactivators.states.labels.label`.
    batch_tokens : int
        Tokens, padding included, of one forward batch.
    shard_bytes : int
        Bytes of all sites of one shard; about three times this is held in memory.
    progress : bool
        Show a progress bar with the time left.

    Returns
    -------
    States
        Opened from the store.

    Raises
    ------
    StudyError
        If modality, layers, dtype or a rule do not fit.
    ModelError
        If the backbone is a sketch.
    StoreError
        If the store cannot be written, or a state does not fit the dtype.
    """
    folder = Path(out)
    plan = plan_extraction(backbone, dataset, layers, dtype=dtype, batch_tokens=batch_tokens, shard_bytes=shard_bytes)
    made_of = plan.fingerprint
    if made_of is None:
        raise ModelError(f"{backbone.name}: this is a sketch without weights; load it with Backbone.from_pretrained")
    if not is_current(folder, FORMAT, made_of, thorough=False):
        _fill(backbone, dataset, plan, folder, made_of, progress)
    store = StateStore(folder)
    made_from = labels_fingerprint(dataset, made_of, text_rule, patch_rule)
    if not is_current(folder / LABELS, LABELS_FORMAT, made_from):
        label(dataset, store.encoding, text_rule=text_rule, patch_rule=patch_rule).save(folder / LABELS, made_from)
    return States(store, Labels.load(folder / LABELS))


def open_states(folder: str | Path) -> States:
    """Open a store that `extract` made; raises ``StoreError`` if it is missing, unfinished, foreign or damaged."""
    path = Path(folder)
    return States(StateStore(path), Labels.load(path / LABELS))


def _fill(
    backbone: Backbone, dataset: ConceptDataset, plan: ExtractionPlan, folder: Path, made_of: str, progress: bool
) -> None:
    layout = plan.layout
    writer = StoreWriter(folder, layout, made_of)
    offsets = layout.encoding.offsets
    bar = tqdm(
        total=layout.encoding.n_tokens,
        initial=int(offsets[layout.shards[writer.done]]),
        unit="tok",
        unit_scale=True,
        desc="states",
        disable=not progress,
    )
    try:
        for number in range(writer.done, layout.n_shards):
            rows = np.arange(layout.shards[number], layout.shards[number + 1])
            samples = [dataset.samples[int(row)] for row in rows]
            writer.put(number, _shard(backbone, samples, layout.encoding.subset(rows), plan, bar))
        writer.finish()
    finally:
        writer.stop()
        bar.close()


def _shard(
    backbone: Backbone, samples: list[Sample], encoding: Encoding, plan: ExtractionPlan, bar: tqdm[Any]
) -> Shard:
    """States of one shard's samples, in order, in the store's type of number."""
    layout, dtype = plan.layout, DTYPES[plan.layout.dtype]
    shard = {
        site: {
            "states": torch.empty((encoding.n_tokens, layout.width), dtype=dtype),
            "sample_states": torch.empty((encoding.n_samples, layout.width), dtype=dtype),
        }
        for site in layout.sites
    }
    for batch in backbone.capture(samples, encoding, layout.sites, max_batch_tokens=plan.batch_tokens):
        lengths = np.diff(batch.offsets)
        starts = np.repeat(encoding.offsets[batch.rows] - batch.offsets[:-1], lengths)
        places = torch.from_numpy(starts + np.arange(batch.offsets[-1]))
        rows = torch.from_numpy(batch.rows)
        for site in layout.sites:
            shard[site]["states"][places] = _converted(batch.tokens[site], dtype, site)
            shard[site]["sample_states"][rows] = _converted(batch.samples[site], dtype, site)
        bar.update(int(batch.offsets[-1]))
    return shard


def _converted(states: Tensor, dtype: torch.dtype, site: str) -> Tensor:
    converted = states.to(dtype)
    # A sum is not finite as soon as one of its terms is not.
    if not bool(torch.isfinite(converted.sum(dtype=torch.float32))):
        name = str(dtype).removeprefix("torch.")
        if not bool(torch.isfinite(states).all()):
            raise StoreError(f"the model's states at {site} are not finite; load it in another dtype")
        if not bool(torch.isfinite(converted).all()):
            largest = float(states.abs().max())
            raise StoreError(
                f"a state at {site} ({largest:.3g}) does not fit {name} (largest {torch.finfo(dtype).max:.3g}); "
                "store bfloat16 or float32 instead"
            )
    return converted
