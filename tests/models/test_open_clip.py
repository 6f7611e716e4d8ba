"""Vision towers of open_clip, against open_clip itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from superactivators.data.dataset import ImageSample
from superactivators.errors import ModelError
from superactivators.models.backbone import Backbone
from superactivators.models.budget import weight_bytes
from superactivators.models.doctor import diagnose
from superactivators.models.quiet import quiet_transformers
from support import record

pytestmark = pytest.mark.vision_extra

NAMES = [
    "open_clip-vit",
    "open_clip-attention-pool",
    "open_clip-norm-after-pool",
    "open_clip-custom-blocks",
    "open_clip-half",
    "open_clip-timm",
]


@pytest.fixture(scope="module")
def open_clip():
    return pytest.importorskip("open_clip", exc_type=Exception)


@pytest.fixture(scope="module")
def tiny(open_clip, tmp_path_factory):
    """Folder of a tiny checkpoint of open_clip."""
    from tiny_timm import OPEN_CLIP

    root, made = tmp_path_factory.mktemp("open_clip"), {}

    def get(name):
        if name not in made:
            with quiet_transformers(), torch.random.fork_rng():
                OPEN_CLIP[name](root / name)
            made[name] = root / name
        return made[name]

    return get


@pytest.mark.parametrize("name", NAMES)
def test_states_are_those_of_open_clip_with_its_own_preprocessing(name, tiny, open_clip):
    folder = tiny(name)
    with quiet_transformers():
        whole, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        backbone = Backbone.from_pretrained(f"open_clip:{folder}", device="cpu")
    dtype = torch.bfloat16 if name == "open_clip-half" else torch.float32
    assert backbone.dtype == dtype
    tower = whole.visual.eval().to(dtype)
    trunk = hasattr(tower, "trunk")
    blocks = tower.trunk.blocks if trunk else tower.transformer.resblocks
    outputs: list[torch.Tensor] = []
    blocks[0].register_forward_pre_hook(lambda module, given: outputs.append(given[0]))
    for block in blocks:
        block.register_forward_hook(lambda module, given, out: outputs.append(out))
    generator = np.random.default_rng(5)
    for size in ((90, 133), (133, 90), (64, 64), (35, 50)):
        outputs.clear()
        sample = ImageSample("i", generator.integers(0, 256, (*size, 3), dtype=np.uint8))
        image = Image.fromarray(sample.image)
        pixels = transform(image)[None]
        assert torch.equal(backbone.reader.scheme.inputs([image])["pixel_values"], pixels)
        with torch.inference_mode():
            if trunk:
                final = tower.trunk.forward_features(pixels)
            else:
                tower(pixels.to(dtype))
                after = tower.attn_pool is not None or tower.final_ln_after_pool
                final = outputs[-1] if after else tower.ln_post(outputs[-1])
        outputs.append(final)
        (found,) = backbone.capture([sample], backbone.encode([sample]), ["embed", "all", "final_norm"])
        for site, states in zip(found.tokens, outputs, strict=True):
            assert torch.equal(found.tokens[site], states[0, 1:]), site
            assert torch.equal(found.samples[site][0], states[0, 0]), site


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_doctor_finds_nothing(name, dtype, tiny):
    backbone = Backbone.from_pretrained(f"open_clip:{tiny(name)}", device="cpu", dtype=dtype)
    diagnosis = diagnose(backbone)
    record(
        table="models",
        family=f"open_clip: {name.removeprefix('open_clip-')}",
        reads="images",
        dtype=dtype,
        checks={check.name: check.passed for check in diagnosis.checks},
    )
    assert diagnosis.passed, str(diagnosis)
    squashed = diagnose(
        Backbone.from_pretrained(f"open_clip:{tiny(name)}", device="cpu", dtype=dtype, geometry="squash")
    )
    assert squashed.passed, str(squashed)


@pytest.mark.parametrize("name", NAMES)
def test_a_sketch_weighs_what_the_model_does_and_no_text_tower_is_loaded(name, tiny):
    sketch = Backbone.sketch(f"open_clip:{tiny(name)}", dtype="float32")
    loaded = Backbone.from_pretrained(f"open_clip:{tiny(name)}", device="cpu", dtype="float32")
    assert weight_bytes(sketch.model) == weight_bytes(loaded.model)
    stored = load_file(tiny(name) / "open_clip_model.safetensors")
    vision = sum(value.numel() * 4 for key, value in stored.items() if key.startswith("visual."))
    assert sum(weight_bytes(loaded.model).values()) <= vision
    assert sketch.stored_bytes == (tiny(name) / "open_clip_model.safetensors").stat().st_size


def test_what_cannot_be_used_is_told_in_one_line(tiny, tmp_path):
    def refused(name, match, **options):
        with pytest.raises(ModelError, match=match) as told:
            Backbone.from_pretrained(name, device="cpu", **options)
        assert "\n" not in str(told.value)

    folder = Path(shutil.copytree(tiny("open_clip-vit"), tmp_path / "vit"))
    name, file = f"open_clip:{folder}", folder / "open_clip_config.json"
    settings = json.loads(file.read_text())
    refused(name, "reads images", modality="text")
    refused(name, "takes images of 32 x 32 only", processor={"crop_size": {"height": 64, "width": 64}})
    refused("open_clip:ViT-B-32/laion2b_s34b_b79", "did you mean 'laion2b_s34b_b79k'")
    refused("open_clip:ViT-B-33", "did you mean 'ViT-B-32'")
    refused("open_clip:ViT-B-32/laion2b_s34b_b79k", "neither a folder here", local_files_only=True)
    changed = {**settings, "preprocess_cfg": {"resize_mode": "longest"}}
    file.write_text(json.dumps(changed))
    refused(name, "resizes by 'longest'")
    vision = {**settings["model_cfg"]["vision_cfg"], "layers": [1, 1, 1, 1]}
    file.write_text(json.dumps({**settings, "model_cfg": {**settings["model_cfg"], "vision_cfg": vision}}))
    refused(name, "no vision transformer that runs with the batch first")
    vision = {**settings["model_cfg"]["vision_cfg"], "no_such": 1}
    file.write_text(json.dumps({**settings, "model_cfg": {**settings["model_cfg"], "vision_cfg": vision}}))
    refused(name, "architecture cannot be loaded")
    file.write_text('{"model_cfg": {}}')
    refused(name, "is no config of open_clip")
    file.write_text(json.dumps(settings))
    weights = load_file(folder / "open_clip_model.safetensors")
    kept = {key: value for key, value in weights.items() if "resblocks.1.ln_1" not in key}
    save_file(kept, folder / "open_clip_model.safetensors")
    refused(name, "2 weights of VisionTransformer are missing")
    (folder / "open_clip_model.safetensors").unlink()
    refused(name, r"no open_clip_model\.safetensors")
