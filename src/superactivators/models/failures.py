"""What goes wrong while a checkpoint is loaded, told in one line."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers.utils import is_torchvision_available

from superactivators.errors import ModelError
from superactivators.models.quiet import quiet_transformers


def first_line(error: BaseException) -> str:
    """Give what an error says in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__


def calling(load: Callable[[], Any], folder: Path, what: str) -> Any:
    """Run a loader of another library; whatever it raises becomes one line."""
    try:
        with quiet_transformers():
            return load()
    except ModelError:
        raise
    except Exception as error:  # transformers, tokenizers, safetensors and json raise many kinds
        if not is_torchvision_available() and "torchvision" in str(error).lower():
            raise ModelError(
                f"{folder}: the {what} of this model exists only for torchvision, which is not installed; "
                "pip install torchvision, in the version that belongs to the installed torch"
            ) from None
        raise ModelError(f"{folder}: the {what} cannot be loaded ({first_line(error)}); save the model again") from None


def optional_package(module: str, package: str) -> Any:
    """Import a module of an optional package; raises ``ModelError`` if it is missing or broken."""
    try:
        with quiet_transformers():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModelError(f"{package} is needed ({first_line(error)}); run: pip install {package}") from None
    except Exception as error:  # a broken torchvision raises a RuntimeError
        raise ModelError(
            f"{package} cannot be imported ({first_line(error)}); reinstall it, with the torchvision that belongs to "
            "the installed torch"
        ) from None


def refuse_random(folder: Path, kind: str, names: Sequence[str], count: int) -> None:
    """Raise ``ModelError`` if weights would stay as they were drawn at random."""
    if count:
        raise ModelError(
            f"{folder}: {count} weights of {kind} are missing or of another shape "
            f"({', '.join(names[:4])}{', ...' if count > 4 else ''}); they would be random numbers, "
            "so the model is not used"
        )
