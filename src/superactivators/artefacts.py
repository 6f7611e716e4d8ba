"""Folders on disk: a manifest that says what is inside, safetensors for arrays, Parquet for tables, no pickle.

A folder is written to a sibling whose name ends in ``.partial`` and renamed when it is whole, so that a reader never
sees half of one. ``manifest.json`` holds the format's name and version, the fingerprint of everything the content was
made from, the parameters, the package versions, and the size and SHA-256 of every file. A reader refuses other
formats, other versions and damaged files with one line. `docs/formats.md` specifies each format.

Changing a format: raise its version in the module that writes it, keep a reader for the old one, add a test that
reads the old form.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from superactivators.errors import StoreError

MANIFEST = "manifest.json"
PARTIAL = ".partial"
REPLACED = ".replaced"


def fingerprint(value: object) -> str:
    """SHA-256 of a value made of JSON types; dictionaries count by content, not by order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def array_fingerprint(array: np.ndarray) -> str:
    """SHA-256 over shape, type and bytes of an array."""
    held = np.ascontiguousarray(array)
    return hashlib.sha256(repr((held.shape, held.dtype.str)).encode() + held.tobytes()).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of this package and of those whose numerics it relies on."""
    names = (
        "superactivators",
        "numpy",
        "scipy",
        "scikit-learn",
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
    )
    return {name: metadata.version(name) for name in names}


@final
@dataclass(frozen=True)
class Format:
    """Name and version of one kind of folder.

    Attributes
    ----------
    name : str
        For example ``"superactivators/states"``.
    version : int
        The only version that this release writes and reads.
    """

    name: str
    version: int


def held_format(folder: Path, *formats: Format) -> Format:
    """Format to read a folder as: whichever of the given ones its manifest names, else the first."""
    try:
        version = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        version = None
    return next((each for each in formats if each.version == version), formats[0])


@final
@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes
    ----------
    format : Format
    fingerprint : str
        SHA-256 over all inputs and parameters; equal fingerprints mean equal content.
    parameters : mapping
        What the content was made with, as JSON types.
    files : mapping of str to mapping
        ``{"bytes": int, "sha256": str}`` of each file, by its path within the folder.
    packages : mapping of str to str
        Package versions.
    """

    format: Format
    fingerprint: str
    parameters: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    packages: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into the folder, replacing an older one in one step."""
        content = {
            "format": self.format.name,
            "version": self.format.version,
            "fingerprint": self.fingerprint,
            "parameters": self.parameters,
            "files": self.files,
            "packages": self.packages,
        }
        write_bytes(folder / MANIFEST, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    @staticmethod
    def read(folder: Path, expected: Format) -> Manifest:
        """Read the manifest of a folder.

        Raises
        ------
        StoreError
            If there is none, it is not JSON, or the folder is of another format or version.
        """
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content["version"], int) or not isinstance(content["parameters"], dict):
                raise TypeError("its version must be a whole number and its parameters an object")
            found = Format(content["format"], content["version"])
            manifest = Manifest(
                found, content["fingerprint"], content["parameters"], content["files"], content["packages"]
            )
            for name, record in manifest.files.items():
                if not isinstance(record["bytes"], int) or not isinstance(record["sha256"], str):
                    raise TypeError(f"bad record of file {name!r}")
                if Path(name).is_absolute() or ".." in Path(name).parts:
                    raise StoreError(f"{path}: names a file outside its folder ({name!r}); do not use this folder")
        except FileNotFoundError:
            raise StoreError(
                f"{folder}: no {expected.name} folder here ({MANIFEST} is missing); check the path, or make it again"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{path}: not a readable manifest ({error!r}); make the folder again") from None
        if found.name != expected.name:
            raise StoreError(f"{folder}: holds {found.name!r}, but {expected.name!r} is needed; check the path")
        if found.version != expected.version:
            raise StoreError(
                f"{folder}: is {found.name} version {found.version!r}, but this release reads version "
                f"{expected.version}; make it again, or use the release that wrote it"
            )
        return manifest


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn whatever the file system refuses inside the block into one ``StoreError``."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "mend that or choose another folder, and start again"
        ) from error


def write_bytes(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file in one step (temporary name, flush to disk, rename) and return its manifest record.

    Raises
    ------
    StoreError
        If the file system refuses it, a full disk for example; an older file under that name stays as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    with reported(path):
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def partial_of(folder: Path) -> Path:
    """Where a folder is built before it gets its name."""
    return folder.with_name(folder.name + PARTIAL)


def refuse_foreign(folder: Path, kind: Format) -> None:
    """Refuse to write where something else is: only nothing, an empty folder or one of the same format is replaced.

    Raises
    ------
    StoreError
        If a file, or a folder of other content, is in the place.
    """
    if folder.name in ("", ".."):
        raise StoreError(f"{folder}: cannot be replaced as a whole; choose another folder")
    with reported(folder):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise StoreError(f"{folder}: is a file; choose another folder")
        if not any(folder.iterdir()):
            return
    try:
        found = json.loads((folder / MANIFEST).read_bytes())["format"]
    except OSError:
        raise StoreError(
            f"{folder}: holds other files and is no {kind.name} folder; choose another folder, or empty this one"
        ) from None
    except (ValueError, RecursionError):
        return  # a damaged manifest is made again with the rest
    except (KeyError, TypeError):
        found = "something else"
    if found != kind.name:
        raise StoreError(f"{folder}: holds {found!r}, which {kind.name} may not replace; choose another folder")


def publish(partial: Path, folder: Path) -> None:
    """Give a finished folder its name; an older one under that name is removed only after that."""
    old = folder.with_name(folder.name + REPLACED)
    with reported(folder):
        if old.exists():
            shutil.rmtree(old)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        if old.exists():
            shutil.rmtree(old)


@final
class FolderWriter:
    """Collects the files of a folder that is being written; see `writing`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, dict[str, Any]] = {}

    def bytes(self, name: str, content: bytes) -> None:
        """Write raw bytes."""
        path = self._folder / name
        with reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.files[name] = write_bytes(path, content)

    def arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays as safetensors."""
        self.bytes(name, save_arrays({key: np.ascontiguousarray(value) for key, value in arrays.items()}))

    def table(self, name: str, table: pa.Table) -> None:
        """Write a table as Parquet."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.bytes(name, sink.getvalue().to_pybytes())

    def json(self, name: str, value: object) -> None:
        """Write JSON; numbers that are not finite are an error."""
        self.bytes(name, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


@contextmanager
def writing(folder: Path, kind: Format, made_from: str, parameters: Mapping[str, Any]) -> Iterator[FolderWriter]:
    """Write a folder: it appears under its name, with a manifest, when the block ends without an error.

    Parameters
    ----------
    folder : Path
        Where; an older folder of the same format there is replaced.
    kind : Format
    made_from : str
        Fingerprint of the inputs and parameters.
    parameters : mapping
        What a reader wants to know about the making, as JSON types.

    Raises
    ------
    StoreError
        If something else is in the place, or the file system refuses to write.
    """
    refuse_foreign(folder, kind)
    partial = partial_of(folder)
    with reported(partial):
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
    writer = FolderWriter(partial)
    try:
        yield writer
        Manifest(kind, made_from, parameters, writer.files, package_versions()).write(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    publish(partial, folder)


@final
class FolderReader:
    """Reads the files of a folder and refuses those whose bytes are not what the manifest says.

    Parameters
    ----------
    folder : Path
    expected : Format
        Format and version that the caller understands.

    Raises
    ------
    StoreError
        If the folder is missing, of another format or version, or lacks a file.
    """

    def __init__(self, folder: Path, expected: Format) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder, expected)
        for name, record in self.manifest.files.items():
            path = folder / name
            if not path.is_file():
                raise StoreError(f"{path}: is missing; make {folder} again")
            if path.stat().st_size != record["bytes"]:
                raise StoreError(
                    f"{path}: has {path.stat().st_size} bytes instead of {record['bytes']}; make {folder} again"
                )

    def bytes(self, name: str) -> bytes:
        """Read and verify one file."""
        if name not in self.manifest.files:
            raise StoreError(f"{self.folder}: has no file {name!r}; make it again")
        content = (self.folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name]["sha256"]:
            raise StoreError(f"{self.folder / name}: is damaged (its checksum differs); make {self.folder} again")
        return content

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Read a safetensors file."""
        try:
            return dict(load_arrays(self.bytes(name)))
        except SafetensorError as error:
            raise StoreError(f"{self.folder / name}: is not safetensors ({error}); make it again") from None

    def table(self, name: str) -> pa.Table:
        """Read a Parquet file."""
        try:
            return pq.read_table(pa.BufferReader(self.bytes(name)))
        except pa.ArrowInvalid as error:
            raise StoreError(f"{self.folder / name}: is not Parquet ({error}); make it again") from None

    def json(self, name: str) -> Any:
        """Read a JSON file."""
        try:
            return json.loads(self.bytes(name))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.folder / name}: is not JSON ({error}); make it again") from None


def is_current(folder: Path, expected: Format, made_from: str, *, thorough: bool = True) -> bool:
    """Whether a whole folder of this format and fingerprint is already there.

    ``thorough`` also reads every file, so that a damaged folder is made again instead of being refused later.
    """
    try:
        reader = FolderReader(folder, expected)
        if reader.manifest.fingerprint != made_from:
            return False
        if thorough:
            for name in reader.manifest.files:
                reader.bytes(name)
    except StoreError:
        return False
    return True
