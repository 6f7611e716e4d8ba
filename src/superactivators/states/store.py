"""The states store: a folder of shards that is memory-mapped, checksummed and resumable (docs/formats.md).

::

    manifest.json                          format, fingerprint, sites, dtype, shards; bytes and SHA-256 of every file
    encoding.safetensors                   offsets; token ids and characters, or grids, cells and views
    samples.parquet                        id, tokens and shard of every sample
    layer=<site>/shard-00000.safetensors   states [tokens, width] and sample_states [samples, width]

While it is being written the folder is called ``<name>.partial``; its manifest lists the shards that are whole.
"""

from __future__ import annotations

import hashlib
import queue
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from superactivators.artefacts import (
    MANIFEST,
    FolderReader,
    FolderWriter,
    Format,
    Manifest,
    package_versions,
    partial_of,
    publish,
    refuse_foreign,
    reported,
)
from superactivators.errors import StoreError
from superactivators.models.encoding import Encoding

FORMAT = Format("superactivators/states", 1)
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
ENCODING, SAMPLES = "encoding.safetensors", "samples.parquet"

Shard: TypeAlias = Mapping[str, Mapping[str, Tensor]]
"""``states`` and ``sample_states`` by site."""


@final
@dataclass(frozen=True, eq=False)
class StoreLayout:
    """What a store will hold, known before any forward pass.

    Attributes
    ----------
    ids : list of str
        Sample ids.
    encoding : Encoding
        Tokens of the samples.
    sites : tuple of str
    width : int
    dtype : str
        ``"float16"``, ``"bfloat16"`` or ``"float32"``.
    shards : int64 array of shape (shards + 1,)
        Shard ``k`` holds the samples ``shards[k]:shards[k + 1]``.
    model : mapping
        ``name``, ``fingerprint`` and ``options`` of the backbone, as JSON types.
    """

    ids: list[str]
    encoding: Encoding
    sites: tuple[str, ...]
    width: int
    dtype: str
    shards: Int[np.ndarray, " k_plus_1"]
    model: Mapping[str, Any]

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return len(self.shards) - 1

    @property
    def n_bytes(self) -> int:
        """Bytes of all states on disk."""
        rows = self.encoding.n_tokens + self.encoding.n_samples
        return rows * self.width * DTYPES[self.dtype].itemsize * len(self.sites)

    def parameters(self) -> dict[str, Any]:
        """Give the part of the manifest that a reader needs first."""
        return {
            "sites": list(self.sites),
            "width": self.width,
            "dtype": self.dtype,
            "modality": self.encoding.modality,
            "shards": self.shards.tolist(),
            "model": dict(self.model),
        }


def shard_name(site: str, number: int) -> str:
    """Path of one shard within the store."""
    return f"layer={site}/shard-{number:05d}.safetensors"


@final
class StoreWriter:
    """Writes shards in the background, at most one waiting, and remembers which are whole.

    A writer that finds a partial store of the same fingerprint and layout verifies its shards and goes on after the
    last whole one; any other partial store under that name is replaced.

    Parameters
    ----------
    folder : Path
        Name of the finished store.
    layout : StoreLayout
    made_from : str
        Fingerprint of model, inputs and settings.

    Raises
    ------
    StoreError
        If something that is no store is in the place, or nothing can be written there.
    """

    def __init__(self, folder: Path, layout: StoreLayout, made_from: str) -> None:
        refuse_foreign(folder, FORMAT)
        self._folder = folder
        self._layout = layout
        self._made_from = made_from
        self._partial = partial_of(folder)
        self._files: dict[str, dict[str, Any]] = {}
        self.done = self._resume()
        self._failure: BaseException | None = None
        self._queue: queue.Queue[tuple[int, Shard] | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._work, name="superactivators-store", daemon=True)
        self._thread.start()

    def put(self, number: int, shard: Shard) -> None:
        """Hand over a shard; waits while another one is waiting.

        Raises
        ------
        StoreError
            If an earlier shard could not be written. Shards that are whole stay for the next try.
        """
        self._check()
        self._queue.put((number, shard))

    def finish(self) -> None:
        """Wait for the last shard and give the folder its name; raises as `put` does."""
        self.stop()
        self._check()
        if self.done != self._layout.n_shards:
            raise StoreError(f"{self._folder}: only {self.done} of {self._layout.n_shards} shards were handed over")
        publish(self._partial, self._folder)

    def stop(self) -> None:
        """Wait for the shards that were handed over, and write no more."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _check(self) -> None:
        if self._failure is not None:
            self.stop()
            failure = self._failure
            what = (
                str(failure) if isinstance(failure, StoreError) else f"{self._partial}: cannot be written ({failure!r})"
            )
            raise StoreError(f"{what}: {self.done} of {self._layout.n_shards} shards are kept") from failure

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._failure is not None:
                continue
            try:
                self._write(*item)
            except Exception as error:  # any failure must reach the thread that extracts
                self._failure = error

    def _write(self, number: int, shard: Shard) -> None:
        writer = FolderWriter(self._partial)
        for site, tensors in shard.items():
            writer.bytes(shard_name(site, number), save_tensors(dict(tensors)))
        self._files |= writer.files
        self._write_manifest()
        self.done = number + 1

    def _write_manifest(self) -> None:
        parameters = self._layout.parameters()
        Manifest(FORMAT, self._made_from, parameters, self._files, package_versions()).write(self._partial)

    def _resume(self) -> int:
        """Verify what an interrupted run left, or begin; return the number of whole shards."""
        try:
            manifest = Manifest.read(self._partial, FORMAT)
        except StoreError:
            return self._begin()
        same = manifest.fingerprint == self._made_from and manifest.parameters == self._layout.parameters()
        if not same or not all(self._is_whole(manifest, name) for name in (ENCODING, SAMPLES)):
            return self._begin()
        names = [[shard_name(site, k) for site in self._layout.sites] for k in range(self._layout.n_shards)]
        done = 0
        while done < len(names) and all(self._is_whole(manifest, name) for name in names[done]):
            done += 1
        kept = {ENCODING, SAMPLES, *(name for shard in names[:done] for name in shard)}
        self._files = {name: dict(record) for name, record in manifest.files.items() if name in kept}
        for path in self._partial.rglob("*"):
            if path.is_file() and path.relative_to(self._partial).as_posix() not in {*kept, MANIFEST}:
                path.unlink()  # damaged, or half written when the run was killed
        return done

    def _is_whole(self, manifest: Manifest, name: str) -> bool:
        record, path = manifest.files.get(name), self._partial / name
        if record is None or not path.is_file() or path.stat().st_size != record["bytes"]:
            return False
        return bool(_file_hash(path) == record["sha256"])

    def _begin(self) -> int:
        with reported(self._partial):
            if self._partial.exists():
                shutil.rmtree(self._partial)
            self._partial.mkdir(parents=True)
        encoding, writer = self._layout.encoding, FolderWriter(self._partial)
        parts = ("offsets", "token_ids", "chars", "grids", "cells", "views", "cut")
        arrays = {name: getattr(encoding, name) for name in parts}
        writer.arrays(ENCODING, {name: array for name, array in arrays.items() if array is not None})
        shard = np.repeat(np.arange(self._layout.n_shards), np.diff(self._layout.shards))
        tokens = np.diff(encoding.offsets)
        writer.table(SAMPLES, pa.table({"id": self._layout.ids, "tokens": tokens, "shard": shard}))
        self._files = writer.files
        self._write_manifest()
        return 0


@final
class StateStore:
    """Reads a store; implements `superactivators.states.states.StateValues`.

    Opening checks names and sizes of all files. A shard's checksum is checked when it is first read.

    Parameters
    ----------
    folder : Path
        A finished store.

    Raises
    ------
    StoreError
        If the folder is missing, unfinished, of another format or version, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.exists() and partial_of(folder).exists():
            raise StoreError(f"{folder}: extraction was interrupted; run the same command again to finish it")
        self._reader = FolderReader(folder, FORMAT)
        self._verified: set[str] = set()
        parameters = self._reader.manifest.parameters
        try:
            self._sites = tuple(str(site) for site in parameters["sites"])
            self._width = int(parameters["width"])
            self._shards = np.array(parameters["shards"], dtype=np.int64)
            self.dtype = str(parameters["dtype"])
            self.model: Mapping[str, Any] = parameters["model"]
            modality = parameters["modality"]
            arrays = self._reader.arrays(ENCODING)
            parts = ("token_ids", "chars", "grids", "cells", "views")
            offsets, cut = arrays["offsets"], arrays["cut"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StoreError(f"{folder}: its manifest lacks a needed entry ({error}); extract again") from None
        self.encoding = Encoding(modality, offsets, **{part: arrays.get(part) for part in parts}, cut=cut)

    @property
    def sites(self) -> tuple[str, ...]:
        """Site names, in depth order."""
        return self._sites

    @property
    def width(self) -> int:
        """Number of columns of every state."""
        return self._width

    @property
    def offsets(self) -> Int[np.ndarray, " n_plus_1"]:
        """Token offsets of the samples."""
        return self.encoding.offsets

    @property
    def fingerprint(self) -> str:
        """SHA-256 of model, inputs and settings."""
        return self._reader.manifest.fingerprint

    @property
    def has_sample_states(self) -> bool:
        """Whether `samples` can be called."""
        return True

    @cached_property
    def ids(self) -> list[str]:
        """Sample ids."""
        ids: list[str] = self._reader.table(SAMPLES)["id"].to_pylist()
        return ids

    def blocks(self, site: str) -> Iterator[tuple[int, Tensor]]:
        """Yield the first token number and the states of each shard; only one shard is mapped at a time."""
        for number in range(len(self._shards) - 1):
            yield int(self.offsets[self._shards[number]]), self._read(site, number, "states")

    def samples(self, site: str) -> Float[Tensor, "n d"]:
        """Sample states, float32."""
        parts = [self._read(site, number, "sample_states").float() for number in range(len(self._shards) - 1)]
        return torch.cat(parts)

    def _read(self, site: str, number: int, name: str) -> Tensor:
        file = shard_name(site, number)
        path = self._reader.folder / file
        if file not in self._verified:
            record = self._reader.manifest.files.get(file)
            if record is None:
                raise StoreError(f"{path}: is not in the manifest; extract again")
            if _file_hash(path) != record["sha256"]:
                raise StoreError(f"{path}: is damaged (its checksum differs); delete its store and extract again")
            self._verified.add(file)
        try:
            with safe_open(path, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise StoreError(f"{path}: cannot be read ({error}); extract again") from None
        return tensor


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
