"""Vision transformers of timm, against timm itself."""

from __future__ import annotations

import importlib.util
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
from superactivators.models.failures import optional_package
from superactivators.models.families.pixel_processor import PixelProcessor
from superactivators.models.families.timm import timm_processor
from superactivators.models.quiet import quiet_transformers
from superactivators.models.vision import ImageReader
from support import record

SIZES = ((90, 133), (133, 90), (64, 64), (41, 77), (35, 36), (20, 25))


def pictures(n: int = len(SIZES)) -> list[ImageSample]:
    generator = np.random.default_rng(3)
    return [
        ImageSample(f"i{k}", generator.integers(0, 256, (*SIZES[k % len(SIZES)], 3), dtype=np.uint8)) for k in range(n)
    ]


def captured(backbone: Backbone, samples: list[ImageSample], batch: int = 10**4) -> dict[str, list[torch.Tensor]]:
    encoding = backbone.encode(samples)
    found: dict[str, list[torch.Tensor]] = {}
    for part in backbone.capture(samples, encoding, ["embed", "all", "final_norm"], max_batch_tokens=batch):
        for site, tokens in part.tokens.items():
            for place, row in enumerate(part.rows.tolist()):
                own = tokens[int(part.offsets[place]) : int(part.offsets[place + 1])]
                found.setdefault(site, [None] * len(samples))[row] = torch.cat([part.samples[site][place][None], own])
    return found


# ------------------------------------------------------------------ without timm


def test_without_the_package_the_name_says_what_to_install(monkeypatch):
    real = importlib.import_module

    def gone(name, *more):
        if name in ("timm", "open_clip"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *more)

    monkeypatch.setattr(importlib, "import_module", gone)
    for name, package in (("timm:vit_tiny", "timm"), ("open_clip:ViT-B-32/openai", "open_clip_torch")):
        with pytest.raises(ModelError, match=f"pip install {package}$") as told:
            Backbone.from_pretrained(name, device="cpu")
        assert "\n" not in str(told.value)


def test_a_package_that_cannot_be_imported_is_told(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModelError, match=r"timm cannot be imported \(operator torchvision::nms does not exist\)"):
        optional_package("timm", "timm")


def test_the_data_config_becomes_steps():
    config = {"input_size": (3, 224, 224), "crop_pct": 0.9, "interpolation": "bicubic", "mean": (0.5,), "std": (0.5,)}
    made = timm_processor(config, "m")
    assert (made.size, made.crop_size) == ({"shortest_edge": 248}, {"height": 224, "width": 224})
    made = timm_processor({**config, "crop_mode": "squash", "input_size": (3, 100, 50)}, "m")
    assert (made.size, made.crop_size) == ({"height": 111, "width": 55}, {"height": 100, "width": 50})
    assert PixelProcessor.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    for wrong in ({"crop_mode": "border"}, {"input_size": (3, 100, 50)}):
        with pytest.raises(ModelError, match="is not known here"):
            timm_processor({**config, **wrong}, "m")
    with pytest.raises(ModelError, match="did you mean 'bicubic'"):
        timm_processor({**config, "interpolation": "bicubics"}, "m")


@pytest.mark.parametrize("size", SIZES)
def test_places_of_a_crop_are_exact(size):
    """An oracle without any formula: one white row and one white column of pixels, found again after the crop."""
    processor = PixelProcessor(
        {"shortest_edge": 1}, {"height": 33, "width": 30}, (0.0,) * 3, (1.0,) * 3, do_resize=False
    )
    view = ImageReader(_scheme(processor), geometry="processor", name="p").scheme.place(*size).view
    left, top = round(view[0]), round(view[1])
    image = np.zeros((*size, 3), dtype=np.uint8)
    row, column = size[0] // 2, size[1] // 2
    image[row], image[:, column] = 255, 255
    seen = processor([Image.fromarray(image)])["pixel_values"][0, 0]
    assert seen.shape == (33, 30)
    assert np.flatnonzero(seen[:, 0]).tolist() == [row - top] or seen[row - top].sum() > 1
    assert seen[row - top, max(0, -left) : max(0, -left) + min(30, size[1])].all()
    assert seen[max(0, -top) : max(0, -top) + min(33, size[0]), column - left].all()


def _scheme(processor):
    from superactivators.models.families.pixel_grid import PixelGrid

    return PixelGrid(
        processor,
        patch=(1, 1),
        registers=0,
        trained_size=(33, 30),
        resizes_positions=False,
        squash=False,
        name="p",
    )


# ------------------------------------------------------------------ with timm


@pytest.fixture(scope="module")
def timm():
    return pytest.importorskip("timm", exc_type=Exception)


@pytest.fixture(scope="module")
def tiny(timm, tmp_path_factory):
    """Folder of a tiny checkpoint of timm."""
    from tiny_timm import TIMM

    root, made = tmp_path_factory.mktemp("timm"), {}

    def get(name):
        if name not in made:
            with quiet_transformers(), torch.random.fork_rng():
                TIMM[name](root / name)
            made[name] = root / name
        return made[name]

    return get


NAMES = [
    "timm-vit",
    "timm-squash",
    "timm-registers",
    "timm-no-cls",
    "timm-distilled",
    "timm-eva-rope",
    "timm-beit",
]


@pytest.mark.vision_extra
@pytest.mark.parametrize("name", NAMES)
def test_states_are_those_of_timm_with_its_own_preprocessing(name, tiny, timm):
    folder = tiny(name)
    with quiet_transformers():
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    backbone = Backbone.from_pretrained(f"timm:{folder}", device="cpu")
    samples = pictures()
    found = captured(backbone, samples, batch=1)
    outputs: list[torch.Tensor] = []
    handles = [block.register_forward_hook(lambda module, given, out: outputs.append(out)) for block in model.blocks]
    before = model.blocks[0].register_forward_pre_hook(lambda module, given: outputs.append(given[0]))
    for number, sample in enumerate(samples):
        outputs.clear()
        pixels = transform(Image.fromarray(sample.image))[None]
        prepared = backbone.reader.scheme.inputs([Image.fromarray(sample.image)])["pixel_values"]
        assert torch.equal(prepared, pixels), "the same bits of pixels"
        with torch.inference_mode():
            outputs.append(model.forward_features(pixels))
        sites = ["embed", *(f"block[{k}]" for k in range(4)), "final_norm"]
        prefix = model.num_prefix_tokens
        for site, states in zip(sites, outputs, strict=True):
            assert torch.equal(found[site][number][1:], states[0, prefix:]), site
            if prefix:
                assert torch.equal(found[site][number][0], states[0, 0]), site
    for handle in (*handles, before):
        handle.remove()


@pytest.mark.vision_extra
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_doctor_finds_nothing(name, dtype, tiny):
    backbone = Backbone.from_pretrained(f"timm:{tiny(name)}", device="cpu", dtype=dtype)
    diagnosis = diagnose(backbone)
    record(
        table="models",
        family=f"timm: {name.removeprefix('timm-')}",
        reads="images",
        dtype=dtype,
        checks={check.name: check.passed for check in diagnosis.checks},
    )
    assert diagnosis.passed, str(diagnosis)
    squashed = diagnose(Backbone.from_pretrained(f"timm:{tiny(name)}", device="cpu", dtype=dtype, geometry="squash"))
    assert squashed.passed, str(squashed)


@pytest.mark.vision_extra
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_sketch_weighs_what_the_model_does(name, dtype, tiny):
    sketch = Backbone.sketch(f"timm:{tiny(name)}", dtype=dtype)
    loaded = Backbone.from_pretrained(f"timm:{tiny(name)}", device="cpu", dtype=dtype)
    assert weight_bytes(sketch.model) == weight_bytes(loaded.model)
    assert sketch.stored_bytes == (tiny(name) / "model.safetensors").stat().st_size
    assert sketch.encode(pictures()).n_tokens == loaded.encode(pictures()).n_tokens
    again = Backbone.from_pretrained(loaded.name, device="cpu", **loaded.options)
    assert again.fingerprint == loaded.fingerprint


@pytest.mark.vision_extra
@pytest.mark.parametrize("name", ["timm-vit", "timm-registers", "timm-no-cls", "timm-eva-rope"])
def test_another_size_resamples_positions_as_timm_does(name, tiny, timm):
    folder = tiny(name)
    side = 64
    given = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    backbone = Backbone.from_pretrained(f"timm:{folder}", device="cpu", processor=given)
    with quiet_transformers():
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        model.set_input_size(img_size=(side, side))
    sample = pictures(1)
    assert backbone.encode(sample).grids.tolist() == [[8, 8]]
    pixels = backbone.reader.scheme.inputs([Image.fromarray(sample[0].image)])["pixel_values"]
    with torch.inference_mode():
        expected = model.forward_features(pixels)[0, model.num_prefix_tokens :]
    assert torch.equal(captured(backbone, sample)["final_norm"][0][1:], expected)
    assert diagnose(backbone).passed


@pytest.mark.vision_extra
def test_what_cannot_be_used_is_told_in_one_line(tiny, tmp_path):
    def refused(name, match, **options):
        with pytest.raises(ModelError, match=match) as told:
            Backbone.from_pretrained(name, device=options.pop("device", "cpu"), **options)
        assert "\n" not in str(told.value)

    folder = Path(shutil.copytree(tiny("timm-vit"), tmp_path / "vit"))
    name, config = f"timm:{folder}", json.loads((folder / "config.json").read_text())
    refused(name, "has no language tower", tower="language")
    refused(name, "reads images", modality="text")
    refused(name, "spreads models of transformers only", device="auto")
    refused(name, "no setting 'sise'", processor={"sise": 3})
    refused("timm:vit_none_such", "timm knows no such model")
    refused("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", "neither a folder here", local_files_only=True)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "blocks.2.mlp" not in k}, folder / "model.safetensors")
    refused(name, r"4 weights of VisionTransformer are missing .*blocks\.2\.mlp")
    save_file({k: v[..., :7].contiguous() for k, v in weights.items()}, folder / "model.safetensors")
    refused(name, "missing or of another shape")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    refused(name, "are a pickle")
    config["pretrained_cfg"]["fixed_input_size"] = False
    for architecture, match in (("resnet18", "none of timm's plain vision"), ("vit_nothing", "cannot be loaded")):
        (folder / "config.json").write_text(json.dumps({**config, "architecture": architecture, "model_args": {}}))
        refused(name, match)
    (folder / "config.json").write_text('{"model_type": "vit"}')
    refused(name, "is no config of timm")
