"""Every supported part of every family passes the doctor in both precisions; the table in docs/models.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from superactivators.models.backbone import Backbone
from superactivators.models.budget import weight_bytes
from superactivators.models.doctor import diagnose
from support import FAMILIES, Family, build, record


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory):
    root, built = tmp_path_factory.mktemp("families"), {}

    def get(checkpoint: str) -> Path:
        if checkpoint not in built:
            built[checkpoint] = build(checkpoint, root / checkpoint)
        return built[checkpoint]

    return get


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f"{f.checkpoint}-{f.modality}-{f.tower}")
def test_the_doctor_passes(family: Family, dtype: str, folders) -> None:
    backbone = Backbone.from_pretrained(
        folders(family.checkpoint), device="cpu", dtype=dtype, modality=family.modality, tower=family.tower
    )
    found = diagnose(backbone)
    record(
        table="models",
        family=family.title,
        reads=family.reads,
        dtype=dtype,
        checks={check.name: check.passed for check in found.checks},
    )
    assert found.passed, str(found)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f"{f.checkpoint}-{f.modality}-{f.tower}")
def test_a_sketch_weighs_what_the_model_does(family: Family, folders) -> None:
    options = {"modality": family.modality, "tower": family.tower, "dtype": "bfloat16"}
    sketch = Backbone.sketch(folders(family.checkpoint), **options)
    loaded = Backbone.from_pretrained(folders(family.checkpoint), device="cpu", **options)
    held = {id(value): value for value in (*loaded.model.parameters(), *loaded.model.buffers())}
    assert sum(weight_bytes(sketch.model).values()) == sum(v.numel() * v.element_size() for v in held.values())
    assert (sketch.blocks_path, sketch.n_blocks, sketch.width) == (loaded.blocks_path, loaded.n_blocks, loaded.width)
