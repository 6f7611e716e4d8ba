"""Tiny checkpoints, built once per session, and backbones loaded from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from superactivators.models.backbone import Backbone
from tiny_models import build_checkpoint


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models run much faster without threads, above all where several test processes share few cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny checkpoint of a family; built when first asked for, never to be changed."""
    root, built = tmp_path_factory.mktemp("tiny"), {}

    def get(family: str) -> Path:
        if family not in built:
            built[family] = build_checkpoint(family, root / family)
        return built[family]

    return get


@pytest.fixture(scope="session")
def backbone(checkpoint: Callable[[str], Path]) -> Callable[[str], Backbone]:
    """Backbone of a family with default settings; never to be changed."""
    loaded: dict[str, Backbone] = {}

    def get(family: str) -> Backbone:
        if family not in loaded:
            loaded[family] = Backbone.from_pretrained(checkpoint(family), device="cpu")
        return loaded[family]

    return get
