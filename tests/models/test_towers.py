"""SigLIP 2, DINOv3, Pixtral and CLIP towers: states of the real model, patches in their place, refusals in one line."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.utils import is_torchvision_available

from superactivators.data.dataset import ImageSample
from superactivators.errors import DataError, ModelError
from superactivators.models.backbone import Backbone
from superactivators.models.doctor import diagnose
from superactivators.models.families.naflex import most_patches_size
from superactivators.models.families.packed import WholePatches
from superactivators.models.quiet import quiet_transformers
from tiny_models import build_checkpoint
from tiny_towers import BUILDERS, pixtral_processor

WHOLE_SIZES = {  # sizes (height, width) that the processor leaves as they are
    "siglip2": [(32, 48), (16, 96), (64, 24)],
    "siglip2-tower": [(32, 48)],
    "siglip2-fixed": [(32, 32)],
    "dinov3": [(32, 32)],
    "dinov3-gated": [(32, 32)],
    "pixtral-tower": [(24, 56), (48, 16), (8, 40)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, built = tmp_path_factory.mktemp("towers"), {}

    def get(family):
        if family not in built:
            built[family] = root / family
            built[family].mkdir()
            with torch.random.fork_rng(), quiet_transformers():
                BUILDERS[family](built[family])
        return built[family]

    return get


@pytest.fixture
def changed(folder, tmp_path):
    """Copy of a checkpoint with other settings in one of its files."""

    def change(family, file="preprocessor_config.json", **values):
        copy = tmp_path / family
        shutil.copytree(folder(family), copy, dirs_exist_ok=True)
        found = json.loads((copy / file).read_text())
        for name, value in values.items():
            where = found["vision_config"] if file == "config.json" and "vision_config" in found else found
            where[name] = value
        (copy / file).write_text(json.dumps(found))
        return copy

    return change


def noise(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def refused(match, folder, **options):
    with pytest.raises(ModelError, match=match) as caught:
        Backbone.from_pretrained(folder, device="cpu", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("geometry", ["processor", "squash"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", BUILDERS)
def test_every_tower_passes(family, dtype, geometry, folder):
    found = diagnose(Backbone.from_pretrained(folder(family), device="cpu", dtype=dtype, geometry=geometry))
    assert found.passed, str(found)


@pytest.mark.parametrize("family", ["siglip2", "siglip2-fixed"])
def test_the_text_side_passes(family, folder):
    found = diagnose(Backbone.from_pretrained(folder(family), device="cpu", modality="text"))
    assert found.passed, str(found)


@pytest.mark.parametrize("max_batch_tokens", [1, 4096])
@pytest.mark.parametrize("family", BUILDERS)
def test_states_are_bit_equal_to_those_of_transformers(family, max_batch_tokens, folder):
    """The real model on what the real processor makes, alone and in batches of equal grids."""
    backbone = Backbone.from_pretrained(folder(family), device="cpu")
    with quiet_transformers():
        whole = transformers.AutoModel.from_pretrained(folder(family)).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(folder(family))
    real = whole.vision_model if hasattr(whole, "vision_model") else whole
    samples = [
        ImageSample(str(n), noise(n, *size)) for n, size in enumerate([(50, 90), (90, 50), (50, 90), (100, 180)])
    ]
    encoding = backbone.encode(samples)
    seen = 0
    for batch in backbone.capture(samples, encoding, ["embed", "all", "final_norm"], max_batch_tokens=max_batch_tokens):
        inputs = processor([samples[row].load_image() for row in batch.rows], return_tensors="pt")
        with torch.inference_mode():
            output = real(**inputs, output_hidden_states=True)
        # Pixtral packs all images; others may have CLS and registers before and padding after the patches
        cells = int(np.prod(encoding.grids[batch.rows[0]]))
        first = 1 + 4 if "dinov3" in family else 0
        expected = {
            "embed": output.hidden_states[0],
            **{f"block[{n}]": output.hidden_states[n + 1] for n in range(4)},
            "final_norm": output.last_hidden_state,
        }
        for site, states in expected.items():
            states = states.reshape(len(batch.rows), -1, states.shape[-1])
            assert torch.equal(batch.tokens[site], states[:, first : first + cells].reshape(-1, states.shape[-1])), site
            if first:
                assert torch.equal(batch.samples[site], states[:, 0]), site
        seen += len(batch.rows)
    assert seen == len(samples)


@pytest.mark.parametrize("family", BUILDERS)
def test_a_changed_patch_moves_its_own_token_only(family, folder):
    backbone = Backbone.from_pretrained(folder(family), device="cpu")
    for height, width in WHOLE_SIZES[family]:
        plain = noise(5, height, width)
        encoding = backbone.encode([ImageSample("plain", plain)])
        assert encoding.grids.tolist() == [[height // 8, width // 8]]
        images = [plain]
        for cell in range(encoding.n_tokens):
            y, x = divmod(cell, width // 8)
            images.append(plain.copy())
            images[-1][8 * y : 8 * y + 8, 8 * x : 8 * x + 8] ^= 255
        samples = [ImageSample(str(n), image) for n, image in enumerate(images)]
        [batch] = backbone.capture(samples, backbone.encode(samples), ["embed"], max_batch_tokens=10**6)
        states = batch.tokens["embed"].reshape(len(samples), encoding.n_tokens, -1)[np.argsort(batch.rows)]
        moved = (states[1:] - states[:1]).norm(dim=-1) > 1e-4
        assert torch.equal(moved, torch.eye(encoding.n_tokens, dtype=torch.bool))


@pytest.mark.parametrize("family", ["siglip2", "pixtral-tower"])
def test_columns_before_rows_are_noticed(family, folder):
    grid = {"siglip2": (4, 6), "pixtral-tower": (6, 7)}[family]
    cells = grid[0] * grid[1]
    backbone = Backbone.from_pretrained(folder(family), device="cpu")
    assert backbone.encode([ImageSample("i", noise(0, 240, 320))]).grids.tolist() == [list(grid)]
    honest = backbone.runner.run

    def by_columns(states):
        swapped = states.clone()
        for begin in range(0, cells if family == "siglip2" else states.shape[1] - cells + 1, cells):
            part = states[:, begin : begin + cells]
            swapped[:, begin : begin + cells] = part.unflatten(1, grid).transpose(1, 2).flatten(1, 2)
        return swapped

    backbone.runner.run = lambda inputs, sites, receive, **options: honest(
        inputs, sites, lambda site, states: receive(site, by_columns(states)), **options
    )
    found = {check.name for check in diagnose(backbone).checks if not check.passed}
    assert "patches" in found


class ByColumns:
    """A NaFlex processor that flattens column by column."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __call__(self, *args, **kwargs):
        made = self._inner(*args, **kwargs)
        high, wide = made["spatial_shapes"][0].tolist()
        rows = made["pixel_values"]
        rows[:, : high * wide] = rows[:, : high * wide].unflatten(1, (high, wide)).transpose(1, 2).flatten(1, 2)
        return made


def test_patches_in_another_order_are_refused_at_loading(folder, monkeypatch):
    honest = transformers.AutoImageProcessor.from_pretrained
    monkeypatch.setattr(
        transformers.AutoImageProcessor, "from_pretrained", lambda *args, **kwargs: ByColumns(honest(*args, **kwargs))
    )
    refused("geometry is unknown", folder("siglip2"))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([14, 16]), st.sampled_from([16, 24, 256, 1024]))
def test_sizes_are_those_of_the_naflex_processor(height, width, patch, most):
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    expected = get_image_size_for_max_num_patches(height, width, patch, most)
    assert most_patches_size(height, width, patch, most) == expected
    assert (expected[0] // patch) * (expected[1] // patch) <= most


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([14, 16, 28]), st.integers(50, 1600))
def test_sizes_are_those_of_the_pixtral_processor(height, width, step, edge):
    from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

    processor = transformers.PixtralImageProcessorPil(size={"longest_edge": edge}, patch_size=step)
    rule = WholePatches(processor, cell=(step, step), step=None, name="it")
    blank = np.empty((3, height, width), dtype=np.uint8)
    expected = get_resize_output_image_size(blank, edge, step, "channels_first")
    if min(expected) == 0:
        with pytest.raises(DataError, match="so thin"):
            rule.size(height, width)
    else:
        assert rule.size(height, width) == expected
    doubled = WholePatches(processor, cell=(step, step), step=(2 * step, 2 * step), name="it")
    if min(expected) > 0:
        assert doubled.size(height, width) == get_resize_output_image_size(blank, edge, 2 * step, "channels_first")


def test_the_number_of_patches_can_be_set(folder):
    sample = ImageSample("i", noise(0, 100, 160))
    few = Backbone.from_pretrained(folder("siglip2"), device="cpu")
    many = Backbone.from_pretrained(folder("siglip2"), device="cpu", processor={"max_num_patches": 256})
    assert few.encode([sample]).grids.tolist() == [[4, 6]]
    assert many.encode([sample]).grids.tolist() == [[12, 20]]
    assert few.fingerprint != many.fingerprint
    states = [next(model.capture([sample], model.encode([sample]), "last")).tokens["block[3]"] for model in (few, many)]
    assert [len(rows) for rows in states] == [24, 240]


def test_padding_does_not_move_naflex_states(folder):
    """Four patches more at the end, all of them padding, change nothing beyond rounding."""
    backbone = Backbone.from_pretrained(folder("siglip2"), device="cpu")
    sample = ImageSample("i", noise(0, 32, 48))
    [batch] = backbone.batches([sample], backbone.encode([sample]))
    inputs, states = batch.passes[0].inputs, []
    padded = dict(inputs) | {
        "pixel_values": torch.nn.functional.pad(inputs["pixel_values"], (0, 0, 0, 4), value=9.0),
        "pixel_attention_mask": torch.nn.functional.pad(inputs["pixel_attention_mask"], (0, 4)),
    }
    for given_inputs in (inputs, padded):
        backbone.runner.run(given_inputs, ("final_norm",), lambda site, rows: states.append(rows[0, :24].clone()))
    assert torch.allclose(*states, atol=1e-5)


def test_squashed_pictures_are_whole_squares(folder):
    sample = ImageSample("i", noise(0, 90, 200))
    for family, side in (("siglip2", 4), ("pixtral-tower", 7), ("dinov3", 4)):
        encoding = Backbone.from_pretrained(folder(family), device="cpu", geometry="squash").encode([sample])
        assert encoding.grids.tolist() == [[side, side]]
        assert encoding.views.tolist() == [[0, 0, 200, 90]]


def test_configs_that_cannot_be_used_are_refused_in_one_line(changed, folder, tmp_path):
    refused("patches of 4 pixels, but the model reads patches of 8", changed("siglip2", patch_size=4))
    refused("must resize to a patch_size", changed("siglip2", do_resize=False))
    refused(
        "num_patches=15, but the positions must form a square", changed_positions(folder("siglip2-tower"), tmp_path)
    )
    wrong = tmp_path / "wrong"
    shutil.copytree(folder("siglip2"), wrong)
    transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(wrong)
    refused(r"\(SiglipImageProcessor(Pil)?\) must resize to a patch_size", wrong)
    refused("whole patches of 12 x 12 pixels", changed("pixtral-tower", patch_size={"height": 12, "width": 12}))
    refused("must not crop", changed("pixtral-tower", do_center_crop=True, crop_size={"height": 8, "width": 8}))
    refused("resizes to {'shortest_edge': 9", changed("pixtral-tower", do_center_crop=False, size={"shortest_edge": 9}))
    thin = ImageSample("i", np.zeros((1, 300, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="300 x 1 pixels is so thin"):
        Backbone.from_pretrained(folder("pixtral-tower"), device="cpu").encode([thin])


def changed_positions(folder, tmp_path):
    copy = tmp_path / "fifteen"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text()) | {"num_patches": 15}
    (copy / "config.json").write_text(json.dumps(config))
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if "position_embedding" in name)
    weights[name] = weights[name][:15].clone()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def states_of(folder, **options):
    backbone = Backbone.from_pretrained(folder, device="cpu", **options)
    samples = [ImageSample("i", noise(0, 50, 90))]
    return next(backbone.capture(samples, backbone.encode(samples), ["embed", "last", "final_norm"])).tokens


def renamed(folder, to, change):
    shutil.copytree(folder, to)
    weights = {change(name): value for name, value in load_file(to / "model.safetensors").items()}
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_dinov3_weights_have_two_sets_of_names(folder, tmp_path):
    expected = states_of(folder("dinov3"))
    plain = {name.removeprefix("model.") for name in load_file(folder("dinov3") / "model.safetensors")}
    assert "layer.0.norm1.weight" in plain
    old = renamed(folder("dinov3"), tmp_path / "old", lambda name: name.removeprefix("model."))
    new = renamed(old, tmp_path / "new", lambda name: re.sub(r"^layer\.", "model.layer.", name))
    for found in (states_of(old), states_of(new)):
        assert all(torch.equal(found[site], states) for site, states in expected.items())


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed")
def test_dinov3_without_torchvision_says_what_to_install(folder, tmp_path):
    copy = tmp_path / "dinov3"
    shutil.copytree(folder("dinov3"), copy)
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    for kind in ("DINOv3ViTImageProcessorFast", "DINOv3ViTImageProcessor"):
        (copy / "preprocessor_config.json").write_text(json.dumps(settings | {"image_processor_type": kind}))
        refused("pip install torchvision", copy)


@pytest.mark.skipif(not is_torchvision_available(), reason="torchvision is not installed")
def test_dinov3_with_torchvision_uses_its_own_processor(folder):
    backbone = Backbone.from_pretrained(folder("dinov3"), device="cpu")
    assert type(backbone.reader.scheme.processor).__name__.startswith("DINOv3ViTImageProcessor")


@pytest.mark.parametrize("nested", [False, True])
def test_clip_towers_of_whole_and_of_vision_checkpoints_are_the_same(nested, tmp_path):
    """Also under the names that the hub's checkpoints have, where the tower is called vision_model once more."""
    whole = build_checkpoint("clip", tmp_path / "clip")
    alone = tmp_path / "alone"
    with quiet_transformers():
        model = transformers.CLIPModel.from_pretrained(whole).eval()
        tower = model.vision_model
        expected_type = type(tower)
        transformers.CLIPVisionModel.from_pretrained(whole).save_pretrained(alone)
        transformers.AutoImageProcessor.from_pretrained(whole).save_pretrained(alone)
    assert expected_type.__name__ in ("CLIPVisionModel", "CLIPVisionTransformer")
    if nested:
        prefix = "vision_model."
        alone = renamed(alone, tmp_path / "nested", lambda name: prefix + name.removeprefix(prefix))
    pixels = transformers.AutoImageProcessor.from_pretrained(whole)(
        Image.fromarray(noise(0, 50, 90)), return_tensors="pt"
    )
    with torch.inference_mode():
        output = tower(**pixels, output_hidden_states=True)
    for folder in (whole, alone):
        found = states_of(folder)
        assert torch.equal(found["embed"], output.hidden_states[0][0, 1:])
        assert torch.equal(found["block[3]"], output.hidden_states[4][0, 1:])
        assert torch.equal(found["final_norm"], output.last_hidden_state[0, 1:])


def test_pixtral_pictures_are_rounded_up_to_whole_patches(folder):
    backbone = Backbone.from_pretrained(folder("pixtral-tower"), device="cpu")
    samples = [ImageSample(str(n), noise(n, *size)) for n, size in enumerate([(50, 20), (112, 60), (9, 9), (56, 56)])]
    encoding = backbone.encode(samples)
    assert encoding.grids.tolist() == [[7, 3], [7, 4], [2, 2], [7, 7]]
    assert encoding.views.tolist() == [[0, 0, 20, 50], [0, 0, 60, 112], [0, 0, 9, 9], [0, 0, 56, 56]]
    wide = Backbone.from_pretrained(folder("pixtral-tower"), device="cpu", processor={"patch_size": 16})
    assert wide.encode(samples).grids.tolist() == [[8, 4], [8, 4], [2, 2], [8, 8]]
    assert pixtral_processor(16).patch_size == {"height": 16, "width": 16}
