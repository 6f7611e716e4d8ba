"""Tiny backbones and data sets, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_data import planted_images, planted_texts, write_texts
from superactivators.data.dataset import ConceptDataset
from superactivators.data.sources import load_dataset
from superactivators.models.backbone import Backbone
from tiny_models import build_checkpoint


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the checkpoints ``bert`` and ``dinov2`` and the data ``texts`` and ``images``; never changed."""
    folder = tmp_path_factory.mktemp("states")
    for family in ("bert", "dinov2"):
        build_checkpoint(family, folder / family)
    write_texts(folder / "texts", planted_texts(36))
    planted_images(folder / "images", 12)
    return folder


@pytest.fixture(scope="session")
def reader(root: Path) -> Backbone:
    """Text backbone: 4 blocks of width 32."""
    return Backbone.from_pretrained(root / "bert", device="cpu")


@pytest.fixture(scope="session")
def viewer(root: Path) -> Backbone:
    """Image backbone that crops: 4 blocks of width 32, 4 x 6 patches."""
    return Backbone.from_pretrained(root / "dinov2", device="cpu")


@pytest.fixture(scope="session")
def texts(root: Path) -> ConceptDataset:
    """36 texts."""
    return load_dataset(root / "texts")


@pytest.fixture(scope="session")
def images(root: Path) -> ConceptDataset:
    """12 images."""
    return load_dataset(root / "images")
