"""Llama 3.2 Vision: tiles on their canvas, two stacks of vision blocks, and text without images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.mllama import image_processing_pil_mllama as published

import tiny_mllama
from superactivators.data.dataset import ImageSample, TextSample
from superactivators.errors import ModelError
from superactivators.models.backbone import Backbone
from superactivators.models.doctor import diagnose
from superactivators.models.families.family import Positions
from superactivators.models.families.mllama import TileCanvas, fit_to_tiles, tile_arrangements
from superactivators.models.layers import block_at_percent
from superactivators.models.quiet import quiet_transformers
from tiny_mllama import BUILDERS, CROSS_ATTENTION, N_GLOBAL, N_LOCAL, N_TEXT, PATCH, SLOTS, TILE, mllama_image_processor

WIDTH = 32
SIDE = TILE // PATCH
CANVASES = {(20, 20): (1, 1), (30, 60): (1, 2), (60, 25): (2, 1), (50, 50): (2, 2), (25, 90): (1, 3), (110, 25): (4, 1)}
"""Height and width of an image, and the tiles that it is put on."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    built = {}

    def get(name="mllama"):
        if name not in built:
            built[name] = tmp_path_factory.mktemp(name)
            with torch.random.fork_rng(), quiet_transformers():
                torch.manual_seed(0)
                BUILDERS[name](built[name])
        return built[name]

    return get


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder(), tmp_path / "copy"))


def load(folder, **options):
    return Backbone.from_pretrained(folder, device="cpu", **options)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def states_of(model, samples, sites=("embed", "all", "final_norm"), max_batch_tokens=10**6):
    """States of the tokens and of the whole, per site and sample."""
    encoding = model.encode(samples)
    found = {}
    for batch in model.capture(samples, encoding, list(sites), max_batch_tokens=max_batch_tokens):
        for site, tokens in batch.tokens.items():
            for place, row in enumerate(batch.rows.tolist()):
                own = tokens[int(batch.offsets[place]) : int(batch.offsets[place + 1])]
                found.setdefault(site, {})[row] = own, batch.samples[site][place]
    return {site: [rows[number] for number in range(len(samples))] for site, rows in found.items()}


# ------------------------------------------------------------------ the self-check


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", BUILDERS)
def test_the_doctor_passes(name, dtype, folder):
    for options in ({"tower": "vision"}, {"modality": "text"}, {"processor": {"max_image_tiles": 1}}):
        found = diagnose(load(folder(name), dtype=dtype, **options))
        assert found.passed, str(found)


def test_both_stacks_are_one(folder):
    vision, text = load(folder()), load(folder(), modality="text")
    assert (vision.n_blocks, vision.width, vision.tower) == (N_LOCAL + N_GLOBAL, WIDTH, "vision")
    assert vision.blocks_path == "transformer.layers + global_transformer.layers"
    assert list(vision.blocks) == [*vision.model.transformer.layers, *vision.model.global_transformer.layers]
    assert (text.n_blocks, text.tower) == (N_TEXT - len(CROSS_ATTENTION), "language")
    assert [block.layer_idx for block in text.blocks] == [0, 2, 3, 5]
    assert sum(weight.numel() for weight in vision.model.parameters()) < sum(
        weight.numel() for weight in transformers.MllamaModel(tiny_mllama.mllama_config()).parameters()
    )


def test_the_depths_of_the_paper():
    percents = (2, 15, 28, 40, 52, 65, 78, 90, 100)
    assert [block_at_percent(percent, 32 + 8) for percent in percents] == [0, 5, 10, 15, 19, 25, 30, 35, 39]


# ------------------------------------------------------------------ inside the whole model


def whole(folder, dtype):
    with quiet_transformers():
        model = transformers.MllamaForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
        return model, transformers.AutoProcessor.from_pretrained(folder)


def hooked(modules, run):
    """Inputs of the first module and outputs of all, in one forward pass."""
    seen = []
    handles = [
        modules[0].register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ),
        *(module.register_forward_hook(lambda module, args, output: seen.append(output)) for module in modules),
    ]
    with torch.inference_mode(), quiet_transformers():
        output = run()
    for handle in handles:
        handle.remove()
    return seen, output


def cells_by_loops(states, grid, visible, per_tile):
    """Patches of (tiles * per_tile, d) states in the order of the canvas."""
    rows = []
    for cell in visible:
        row, column = divmod(int(cell), grid[1])
        tile = (row // SIDE) * (grid[1] // SIDE) + column // SIDE
        rows.append(states[tile * per_tile + 1 + (row % SIDE) * SIDE + column % SIDE])
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", CANVASES)
def test_states_are_those_of_the_vision_model_inside_the_multimodal_forward(size, dtype, folder):
    model, processor = whole(folder(), dtype)
    samples = [ImageSample(str(seed), noise(*size, seed)) for seed in (1, 2)]
    own = load(folder(), dtype=dtype)
    encoding = own.encode(samples)
    grid = tuple(encoding.grids[0].tolist())
    assert grid == tuple(tiles * SIDE for tiles in CANVASES[size])
    visible = encoding.cells[: encoding.offsets[1]]
    inputs = processor(
        images=[[sample.load_image()] for sample in samples],
        text=["<|image|>A walk in the park", "<|image|>The lazy dog"],
        padding=True,
        return_tensors="pt",
    )
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    tower = model.model.vision_model
    seen, output = hooked([*tower.transformer.layers, *tower.global_transformer.layers], lambda: model(**inputs))
    assert output.logits.shape[:2] == inputs["input_ids"].shape  # no position of the language model is a patch
    with torch.inference_mode():
        last = tower(**{name: inputs[name] for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")})
    final = last.last_hidden_state[:, 0, ..., :WIDTH]  # (images, tiles, 1 + patches, d)
    found = states_of(own, samples)
    assert list(found) == ["embed", *(f"block[{number}]" for number in range(N_LOCAL + N_GLOBAL)), "final_norm"]
    for site, states in zip(found, [*seen, final.reshape(2, -1, WIDTH)], strict=True):
        for number, (patches, cls) in enumerate(found[site]):
            assert torch.equal(cls, states[number, 0]), site
            expected = cells_by_loops(states[number], grid, visible, states.shape[1] // SLOTS)
            assert torch.equal(patches, expected), site


def test_the_last_site_is_the_last_block_without_padding(folder):
    found = states_of(load(folder()), [ImageSample("a", noise(50, 50))])
    for one, other in zip(found["final_norm"][0], found[f"block[{N_LOCAL + N_GLOBAL - 1}]"][0], strict=True):
        assert torch.equal(one, other)


TEXTS = ["The lazy dog.", "A model of language reads tokens; each token has a state in every layer.", "Short words"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_texts_have_the_states_of_the_whole_model(side, dtype, folder):
    model, _ = whole(folder(), dtype)
    own = load(folder(), modality="text", dtype=dtype)
    own.reader.padding_side = side
    samples = [TextSample(str(number), text) for number, text in enumerate(TEXTS)]
    encoding = own.encode(samples)
    batches = list(own.batches(samples, encoding, max_batch_tokens=10**6))
    assert len(batches) == 1
    batch = batches[0]
    inputs = dict(batch.passes[0].inputs)
    assert (inputs["attention_mask"][:, 0 if side == "left" else -1] == 0).sum() == 2
    blocks = [block for number, block in enumerate(model.model.language_model.layers) if number not in CROSS_ATTENTION]
    seen, output = hooked(blocks, lambda: model(**inputs, output_hidden_states=True))
    layout = batch.passes[0].layout(inputs["input_ids"].shape[1])
    found = states_of(own, samples)
    for site, states in zip(found, [*seen, output.hidden_states[-1]], strict=True):
        expected = states.reshape(-1, WIDTH)[torch.from_numpy(layout.rows)]
        assert torch.equal(torch.cat([found[site][row][0] for row in batch.rows]), expected), site


def test_one_text_has_the_states_of_the_whole_model_called_plainly(folder):
    model, processor = whole(folder(), torch.float32)
    own = load(folder(), modality="text")
    for text in TEXTS:
        inputs = processor(text=text, add_special_tokens=False, return_tensors="pt")  # it begins texts by itself
        _, output = hooked([model.lm_head], lambda given=inputs: model(**given, output_hidden_states=True))
        states = output.hidden_states  # the input of each block that is run, and the last one after the norm
        assert len(states) == own.n_blocks + 1
        found = states_of(own, [TextSample("a", text)])
        for site, expected in zip([s for s in found if s != f"block[{own.n_blocks - 1}]"], states, strict=True):
            assert torch.equal(found[site][0][0], expected[0, 1:]), site  # without <|begin_of_text|>


def test_ignoring_the_padding_of_texts_is_noticed(folder):
    model = load(folder(), modality="text")
    honest = model.runner.run
    model.runner.run = lambda inputs, *args, **kwargs: honest(
        {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}, *args, **kwargs
    )
    assert "padding" in {check.name for check in diagnose(model).checks if not check.passed}


# ------------------------------------------------------------------ canvases


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([32, 224, 560]), st.integers(1, 6))
def test_canvases_are_chosen_as_published(height, width, tile, tiles):
    canvas = published.get_optimal_tiled_canvas(height, width, tiles, tile)
    size = published.get_image_size_fit_to_canvas(height, width, *canvas, tile)
    ours = fit_to_tiles(height, width, tile, tiles)
    assert ours == (tuple(int(side) // tile for side in canvas), tuple(int(side) for side in size))


def test_arrangements_are_numbered_as_published():
    for tiles in range(1, 8):
        assert tile_arrangements(tiles) == published.get_all_supported_aspect_ratios(tiles)


@pytest.mark.parametrize("canvas", tile_arrangements(SLOTS))
def test_every_patch_stands_in_its_cell(canvas, folder):
    """A patch that changes moves its own state and no other, before the first block; all of them in one batch."""
    model = load(folder())
    height, width = canvas[0] * TILE, canvas[1] * TILE  # fits its canvas as it is
    plain = noise(height, width)
    samples = [ImageSample("plain", plain)]
    for cell in range(canvas[0] * canvas[1] * SIDE**2):
        top, left = (PATCH * place for place in divmod(cell, canvas[1] * SIDE))
        changed = plain.copy()
        changed[top : top + PATCH, left : left + PATCH] = 255 - changed[top : top + PATCH, left : left + PATCH]
        samples.append(ImageSample(str(cell), changed))
    encoding = model.encode(samples)
    lefts = encoding.boxes()[: encoding.offsets[1], 0]
    assert np.array_equal(lefts // PATCH, np.tile(np.arange(canvas[1] * SIDE), canvas[0] * SIDE))
    (before, cls), *others = states_of(model, samples, ["embed"])["embed"]
    for cell, (after, own_cls) in enumerate(others):
        assert torch.nonzero((after != before).any(dim=1)).ravel().tolist() == [cell]
        assert torch.equal(own_cls, cls)


@pytest.mark.parametrize("size", [*CANVASES, (33, 70), (47, 61), (3, 300)])
def test_cells_that_show_padding_only_are_no_tokens(size, folder):
    model = load(folder())
    scheme = model.reader.scheme
    black, white = (scheme.picture([Image.new("RGB", size[::-1], (level,) * 3)])[0] for level in (0, 255))
    high, wide = (side // PATCH for side in black.shape[1:])
    shown = (white != black).any(axis=0).reshape(high, PATCH, wide, PATCH).any(axis=(1, 3)).ravel()
    encoding = model.encode([ImageSample("a", noise(*size))])
    assert encoding.grids.tolist() == [[high, wide]]
    assert encoding.cells.tolist() == np.flatnonzero(shown).tolist()


def test_batches_do_not_matter(folder):
    model = load(folder())
    sizes = [*CANVASES, *CANVASES, (48, 60), (33, 40)]
    samples = [ImageSample(str(number), noise(*size, number)) for number, size in enumerate(sizes)]
    together, alone = states_of(model, samples), states_of(model, samples, max_batch_tokens=1)
    for site in together:
        for one, other in zip(together[site], alone[site], strict=True):
            torch.testing.assert_close(one[0], other[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(one[1], other[1], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ fewer tiles


@pytest.mark.parametrize("size", [(20, 20), (30, 61), (60, 25), (211, 97)])
def test_one_tile_is_what_the_paper_gives_the_model(size, folder):
    """Longest side resized to the tile first, then the checkpoint's own processor: one tile and three empty ones."""
    image = Image.fromarray(noise(*size))
    height, width = (int(side * TILE / max(size)) for side in size)
    first = image.resize((width, height), Image.Resampling.LANCZOS)
    expected = mllama_image_processor()(images=[[first]], return_tensors="pt")
    model = load(folder(), processor={"max_image_tiles": 1, "resample": int(Image.Resampling.LANCZOS)})
    inputs = model.reader.scheme.inputs([image])
    assert inputs["pixel_values"].shape == (1, 1, SLOTS, 3, TILE, TILE)
    for name, value in inputs.items():
        assert torch.equal(value, expected[name]), name
    encoding = model.encode([ImageSample("a", noise(*size))])
    assert encoding.grids.tolist() == [[SIDE, SIDE]]
    assert encoding.n_tokens == -(-height // PATCH) * -(-width // PATCH)


def test_canvases_have_the_numbers_of_the_tower(folder):
    """With two tiles the processor numbers 2 x 1 as 3; the tower was trained with 5."""
    image = Image.fromarray(noise(64, 32))
    full = mllama_image_processor()(images=[[image]], return_tensors="pt")
    few = mllama_image_processor(max_image_tiles=2)(images=[[image]], return_tensors="pt")
    assert (int(few["aspect_ratio_ids"][0, 0]), int(full["aspect_ratio_ids"][0, 0])) == (3, 5)
    two, four = load(folder(), processor={"max_image_tiles": 2}), load(folder())
    for model in (two, four):
        for name, value in model.reader.scheme.inputs([image]).items():
            assert torch.equal(value, full[name]), name
    assert two.fingerprint != four.fingerprint


def test_squashed_images_fill_one_tile(folder):
    model = load(folder(), geometry="squash")
    encoding = model.encode([ImageSample("a", noise(90, 200))])
    assert encoding.grids.tolist() == [[SIDE, SIDE]]
    assert encoding.n_tokens == SIDE**2
    assert encoding.views.tolist() == [[0, 0, 200, 90]]
    assert diagnose(model).passed


# ------------------------------------------------------------------ what must be noticed


def test_states_in_the_order_of_the_picture_are_noticed(folder):
    """A reader that takes the tiles for one grid has the right patches in one tile only."""
    model = load(folder())
    scheme = model.reader.scheme
    honest = scheme.positions

    def in_raster_order(grid, images, sequence):
        right = honest(grid, images, sequence)
        return Positions(np.sort(right.cells, axis=1), right.cls)

    scheme.positions = in_raster_order
    assert {check.name for check in diagnose(model).checks if not check.passed} == {"patches"}


class Shuffled:
    """A processor whose tiles come in another order."""

    def __init__(self, inner, change):
        self._inner, self._change = inner, change

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __call__(self, *args, **kwargs):
        return self._change(dict(self._inner(*args, **kwargs)))


def proven(processor, monkeypatch, folder):
    honest = transformers.AutoImageProcessor.from_pretrained
    monkeypatch.setattr(
        transformers.AutoImageProcessor, "from_pretrained", lambda *args, **kwargs: processor(honest(*args, **kwargs))
    )
    return load(folder)


def columns_first(given):
    """Tiles of a 2 x 2 canvas column by column."""
    if int(given["aspect_ratio_ids"][0, 0]) == tile_arrangements(SLOTS).index((2, 2)) + 1:
        given["pixel_values"] = given["pixel_values"][:, :, [0, 2, 1, 3]]
    return given


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (columns_first, "geometry is unknown"),
        (lambda given: given | {"pixel_values": given["pixel_values"][:, :, ::-1]}, "shows no pixels"),
        (lambda given: given | {"aspect_ratio_ids": given["aspect_ratio_ids"] + 1}, "tiles as its settings say"),
    ],
)
def test_tiles_in_another_order_are_refused(change, match, folder, monkeypatch):
    assert proven(lambda processor: Shuffled(processor, dict), monkeypatch, folder()).n_blocks == 6
    monkeypatch.undo()
    with pytest.raises(ModelError, match=match) as caught:
        proven(lambda processor: Shuffled(processor, change), monkeypatch, folder())
    assert "\n" not in str(caught.value)


def test_sequences_that_cannot_be_are_refused():
    scheme = TileCanvas(None, patch=PATCH, tile=TILE, slots=SLOTS, ratios=[(1, 1)], tiles=1, name="it")
    assert scheme.positions((SIDE, SIDE), 2, SLOTS * 24).cells[1, 0] == SLOTS * 24 + 1
    for sequence in (SLOTS * 24 + 1, SLOTS * 16, 24, 17):
        with pytest.raises(ModelError, match=f"returns {sequence} states for 4 tiles; expected 96, or 68"):
            scheme.positions((SIDE, SIDE), 1, sequence)


def refused(folder, match, **options):
    with pytest.raises(ModelError, match=match) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)


def test_images_in_the_language_model_are_refused_before_weights_are_read(copy):
    refused(copy, "images are no tokens of its language model.*use tower='vision'", tower="language")
    (copy / "model.safetensors").unlink()
    refused(copy, "images are no tokens of its language model", tower="language")
    refused(copy, "no weights")


def test_processors_that_do_not_fit_are_refused(copy):
    refused(copy, "up to 5 tiles.*set max_image_tiles to at most 4", processor={"max_image_tiles": 5})
    refused(copy, r"reads tiles of 32 x 32 pixels; set size to", processor={"size": {"height": 40, "width": 40}})
    refused(copy, "image processor cannot take", processor={"max_image_tiles": 0})
    refused(copy, "no setting 'max_tiles'; did you mean 'max_image_tiles'", processor={"max_tiles": 1})
    (copy / "processor_config.json").unlink()
    transformers.CLIPImageProcessorPil().save_pretrained(copy)
    refused(copy, "which makes no tiles; save the model's own image processor")


def test_configs_that_do_not_fit_are_refused(copy, monkeypatch):
    config = json.loads((copy / "config.json").read_text())
    vision = config["vision_config"]
    vision["supported_aspect_ratios"] = [[1, 1], [1, 2], [2, 1], [2, 2], [1, 3], [3, 1], [1, 4], [1, 4]]
    (copy / "config.json").write_text(json.dumps(config))
    refused(copy, r"does not know one of 4 x 1")
    vision["supported_aspect_ratios"] = None
    vision["image_size"] = 35  # as many patches as 32 pixels have
    (copy / "config.json").write_text(json.dumps(config))
    refused(copy, "tiles of 35 pixels are not whole patches of 8")
    vision["image_size"] = TILE
    (copy / "config.json").write_text(json.dumps(config))
    model = load(copy)
    monkeypatch.setattr(model.model.config, "num_global_layers", 3)
    from superactivators.models.families.mllama import local_and_global_blocks

    with pytest.raises(ModelError, match="4 local and 2 global blocks, but its config says 4 and 3"):
        local_and_global_blocks(model.model, model.model.config)


# ------------------------------------------------------------------ files as on the hub


def test_names_of_weights_and_files_do_not_matter(copy, folder):
    """Published with the names of older versions; newer ones put everything under ``model``."""
    file = copy / "model.safetensors"
    weights = load_file(file)
    older = ("language_model.model.", "language_model.lm_head.", "vision_model.", "multi_modal_projector.")
    assert all(name.startswith(older) for name in weights)
    shorter = {name.replace("language_model.model.", "language_model."): value for name, value in weights.items()}
    newer = {f"model.{name}": value for name, value in shorter.items() if "lm_head" not in name}
    newer["lm_head.weight"] = weights["language_model.lm_head.weight"]
    save_file(newer, file, metadata={"format": "pt"})
    (copy / "processor_config.json").unlink()
    mllama_image_processor().save_pretrained(copy)
    described = json.loads((copy / "preprocessor_config.json").read_text())
    described["image_processor_type"] = "MllamaImageProcessor"
    (copy / "preprocessor_config.json").write_text(json.dumps(described))
    image, text = ImageSample("a", noise(50, 50)), TextSample("a", TEXTS[1])
    for options, sample in (({}, image), ({"modality": "text"}, text)):
        expected, found = (states_of(load(where, **options), [sample]) for where in (folder(), copy))
        assert list(found) == list(expected)
        for site, rows in expected.items():
            assert all(torch.equal(*pair) for pair in zip(found[site][0], rows[0], strict=True)), site


@pytest.mark.parametrize("name", BUILDERS)
def test_every_weight_is_that_of_the_file(name, folder):
    stored = load_file(folder(name) / "model.safetensors")
    for options, prefix in (({}, "vision_model."), ({"modality": "text"}, "language_model.model.")):
        weights = load(folder(name), **options).model.state_dict()
        assert {f"{prefix}{own}" for own in weights} == {own for own in stored if own.startswith(prefix)}
        assert all(torch.equal(stored[f"{prefix}{own}"], value) for own, value in weights.items())
