"""Backbones of every family, and a small labelled data set."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mechanism_families import first_inputs, write_checkpoint
from small_survey import Small, make_small
from superactivators.mechanism.anatomy import Anatomy, dissect
from superactivators.models.backbone import Backbone


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    """Backbone of a family; never to be changed."""
    root, loaded = tmp_path_factory.mktemp("mechanism"), {}
    torch.set_num_threads(1)

    def get(family: str) -> Backbone:
        if family not in loaded:
            loaded[family] = Backbone.from_pretrained(write_checkpoint(family, root / family), device="cpu")
        return loaded[family]

    return get


@pytest.fixture(scope="session")
def anatomies(backbones: Callable[[str], Backbone]) -> Callable[[str], list[Anatomy]]:
    """Parts of every block of a family."""
    found: dict[str, list[Anatomy]] = {}

    def get(family: str) -> list[Anatomy]:
        if family not in found:
            found[family] = dissect(backbones(family), first_inputs(backbones(family)))
        return found[family]

    return get


@pytest.fixture(scope="session")
def small(backbones: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Labelled texts with a detector; never to be changed."""
    return make_small(backbones("llama"), tmp_path_factory.mktemp("small"))
