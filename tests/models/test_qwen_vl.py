"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3: states against plain transformers calls, patches against pixels."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.processing_utils import ProcessorMixin
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from superactivators.data.dataset import ImageSample, TextSample
from superactivators.errors import DataError, ModelError
from superactivators.models.backbone import Backbone
from superactivators.models.doctor import diagnose
from superactivators.models.families.qwen_vl import MergedPatches
from superactivators.models.quiet import quiet_transformers
from superactivators.models.weights import stored_names
from tiny_models import N_BLOCKS, gpt2_tokenizer
from tiny_qwen_vl import BUILDERS, PIXELS, qwen_vl_processor, qwen_vl_tokenizer

VERSIONS = {"qwen2-vl": "Qwen2VL", "qwen2.5-vl": "Qwen2_5_VL", "qwen3-vl": "Qwen3VL"}
BLOCK = {"qwen2-vl": 28, "qwen2.5-vl": 28, "qwen3-vl": 32}
PARTS = ["vision", "language", "text"]
OPTIONS = [{}, {"tower": "language"}, {"modality": "text"}]
TEXTS = ["The quick brown fox jumps over the lazy dog.", "Café naïveté, Zürich", "日本語 😀"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("qwen")

    def get(family):
        made = root / family
        if not made.is_dir():
            made.mkdir()
            with torch.random.fork_rng(), quiet_transformers():
                torch.manual_seed(0)
                BUILDERS[family](made)
        return made

    return get


@pytest.fixture(scope="module")
def load(folder):
    loaded = {}

    def get(family, **options):
        key = (family, *sorted(options.items()))
        if key not in loaded:
            loaded[key] = Backbone.from_pretrained(folder(family), device="cpu", **options)
        return loaded[key]

    return get


@pytest.fixture
def copied(folder, tmp_path):
    """Copy of a checkpoint's folder, to be changed."""
    return lambda family: shutil.copytree(folder(family), tmp_path / "copy")


def whole_model(folder):
    with quiet_transformers():
        config = transformers.AutoConfig.from_pretrained(folder)
        return getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def captured(model, samples, sites=("embed", "all", "final_norm")):
    """States of all samples, which must be one batch, by site: (samples, tokens, d)."""
    encoding = model.encode(samples)
    (batch,) = model.capture(samples, encoding, list(sites), max_batch_tokens=10**6)
    assert batch.rows.tolist() == list(range(len(samples)))
    return {site: states.reshape(len(samples), -1, states.shape[-1]) for site, states in batch.tokens.items()}


def hooked(module, blocks, run):
    """Input of the first block, output of every block, by plain hooks around a plain call."""
    seen = {}

    def before(block, args, kwargs):
        seen["embed"] = (args[0] if args else kwargs["hidden_states"]).clone()

    def after(number):
        def keep(block, args, output):
            seen[f"block[{number}]"] = (output[0] if isinstance(output, tuple) else output).clone()

        return keep

    handles = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(after(number)) for number, block in enumerate(blocks)]
    handles.append(module.register_forward_hook(lambda _, args, out: seen.update(final_norm=out.last_hidden_state)))
    with torch.inference_mode():
        run()
    for handle in handles:
        handle.remove()
    return seen


# ---------------------------------------------------------------------- the doctor


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "options", [{}, {"tower": "language"}, {"modality": "text"}], ids=["vision", "language", "text"]
)
@pytest.mark.parametrize("family", [*VERSIONS, "qwen2.5-vl-base"])
def test_every_part_passes_every_check(family, options, dtype, load):
    model = load(family, dtype=dtype, **options)
    assert (model.n_blocks, model.width) == (N_BLOCKS, 32 if options else 16)
    found = diagnose(model)
    assert found.passed, str(found)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["qwen3", "qwen3-embedding"])
def test_qwen3_passes_every_check(family, dtype, load):
    found = diagnose(load(family, dtype=dtype))
    assert found.passed, str(found)


def test_a_wrong_order_of_patches_is_noticed(folder, monkeypatch):
    rows = Backbone.from_pretrained(folder("qwen2-vl"), device="cpu")
    monkeypatch.setattr(rows.reader.scheme, "_order", lambda high, wide: np.arange(high * wide))
    assert [check.name for check in diagnose(rows).checks if not check.passed] == ["patches"]
    unsorted = Backbone.from_pretrained(folder("qwen2.5-vl"), device="cpu")
    unsorted.reader.scheme._window = None
    assert [check.name for check in diagnose(unsorted).checks if not check.passed] == ["patches"]
    inside = Backbone.from_pretrained(folder("qwen2.5-vl"), device="cpu", tower="language")
    positions = inside.reader.scheme.positions

    def down(grid, images, sequence):
        found = positions(grid, images, sequence)
        cells = found.cells.reshape(images, *grid[::-1]).swapaxes(1, 2).reshape(images, -1)
        return type(found)(cells, None)

    monkeypatch.setattr(inside.reader.scheme, "positions", down)
    assert [check.name for check in diagnose(inside).checks if not check.passed] == ["patches"]


@pytest.mark.parametrize("options", OPTIONS[:2], ids=PARTS[:2])
def test_a_processor_that_flattens_in_another_order_is_refused(options, folder, monkeypatch):
    kind = type(qwen_vl_processor("Qwen2VL"))

    def row_by_row(self, image, patch_size, merge_size, temporal_patch_size):
        return original(self, image, patch_size, 1, temporal_patch_size)

    original = kind.patchify
    monkeypatch.setattr(kind, "patchify", row_by_row)
    with pytest.raises(ModelError, match="geometry is unknown") as caught:
        Backbone.from_pretrained(folder("qwen2-vl"), device="cpu", **options)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- states are those of transformers


@pytest.mark.parametrize("size", [(4, 6), (5, 9), (11, 5)], ids=str)
@pytest.mark.parametrize("family", VERSIONS)
def test_vision_states_are_bit_equal_to_a_plain_call(family, size, folder, load):
    block = BLOCK[family]
    images = [noise(size[0] * block, size[1] * block, seed) for seed in (0, 1)]
    got = captured(load(family), [ImageSample(str(n), image) for n, image in enumerate(images)])
    model = whole_model(folder(family))
    prepared = qwen_vl_processor(VERSIONS[family])(images=[Image.fromarray(x) for x in images], return_tensors="pt")
    grid = prepared["image_grid_thw"]
    visual = model.model.visual
    seen = hooked(visual, visual.blocks, lambda: visual(prepared["pixel_values"], grid_thw=grid))
    # where the patches are, as transformers itself numbers them
    place = get_vision_position_ids(grid, 2)
    if family == "qwen2.5-vl":
        window, _ = get_vision_window_index(grid, spatial_merge_size=2, window_size=112, patch_size=14)
        place = place.reshape(len(window), 4, 2)[window].reshape(-1, 2)
    rows, columns = grid[0, 1:].tolist()
    assert (rows, columns) == (2 * size[0], 2 * size[1])
    half = rows * columns
    assert set(got) == {"embed", *(f"block[{n}]" for n in range(N_BLOCKS)), "final_norm"}
    for site, states in got.items():
        plain = seen[site].reshape(2, half, -1)
        for image in range(2):
            cells = (place[image * half : (image + 1) * half] * torch.tensor([columns, 1])).sum(1)
            expected = torch.empty_like(plain[image])
            expected[cells] = plain[image]
            assert torch.equal(states[image], expected), site


@pytest.mark.parametrize("family", VERSIONS)
def test_language_states_are_bit_equal_to_the_full_forward_with_the_real_processor(family, folder, load, monkeypatch):
    block = BLOCK[family]
    images = [noise(5 * block, 9 * block, seed) for seed in (0, 1)]
    got = captured(load(family, tower="language"), [ImageSample(str(n), image) for n, image in enumerate(images)])
    # the processor for videos, which it wants too, needs torchvision
    monkeypatch.setattr(ProcessorMixin, "check_argument_for_proper_class", lambda self, name, argument: None)
    processor = getattr(transformers, f"{VERSIONS[family]}Processor")(
        image_processor=qwen_vl_processor(VERSIONS[family]), tokenizer=qwen_vl_tokenizer(), video_processor=None
    )
    inputs = processor(
        images=[Image.fromarray(image) for image in images],
        text=["<|vision_start|><|image_pad|><|vision_end|>"] * 2,
        return_tensors="pt",
    )
    model = whole_model(folder(family))
    language = model.model.language_model
    seen = hooked(language, language.layers, lambda: model(**inputs))
    where = inputs["input_ids"] == model.config.image_token_id
    assert where.sum(1).tolist() == [45, 45]
    for site, states in got.items():
        assert torch.equal(states, seen[site][where].reshape(2, 45, -1)), site
    # the marks matter: with plain positions, states would be others
    with torch.inference_mode():
        flat = torch.arange(47).expand(3, 2, -1)
        other = model.model(**inputs, position_ids=flat).last_hidden_state
    assert (other[where] - seen["final_norm"][where]).abs().max() > 1e-2


def test_what_deepstack_adds_is_seen_one_block_later(folder, load):
    """In Qwen3-VL vision features are added between blocks: ``block[0]`` is before it, the next block reads the sum."""
    block = BLOCK["qwen3-vl"]
    model = load("qwen3-vl", tower="language")
    sample = ImageSample("i", noise(3 * block, 4 * block))
    inputs = next(model.batches([sample], model.encode([sample]))).passes[0].inputs
    seen, added = {}, []
    layers = model.model.language_model.layers
    handles = [
        layers[0].register_forward_hook(lambda _, args, output: seen.update(out=output.clone())),
        layers[1].register_forward_pre_hook(lambda _, args: seen.update(into=args[0].clone())),
        model.model.visual.deepstack_merger_list[0].register_forward_hook(lambda _, args, out: added.append(out)),
    ]
    with torch.inference_mode():
        model.model(**inputs)
    for handle in handles:
        handle.remove()
    where = inputs["input_ids"][0] == model.model.config.image_token_id
    assert torch.equal(captured(model, [sample], ["block[0]"])["block[0]"][0], seen["out"][0, where])
    assert torch.equal(seen["into"][0, where], seen["out"][0, where] + added[0])
    assert torch.equal(seen["into"][0, ~where], seen["out"][0, ~where])
    assert added[0].abs().max() > 0.1


@pytest.mark.parametrize("family", VERSIONS)
def test_text_states_are_bit_equal_to_the_whole_model_on_texts(family, folder, load):
    model, whole = load(family, modality="text"), whole_model(folder(family))
    tokenizer = qwen_vl_tokenizer()
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")
        language = whole.model.language_model
        seen = hooked(language, language.layers, lambda ids=ids: whole(**ids))
        for site, states in captured(model, [TextSample("t", text)]).items():
            assert torch.equal(states, seen[site]), site


@pytest.mark.parametrize("family", ["qwen3", "qwen3-embedding"])
def test_qwen3_states_are_bit_equal_and_the_token_behind_every_text_is_not_scored(family, folder, load):
    model = load(family)
    with quiet_transformers():
        plain = transformers.AutoModel.from_pretrained(folder(family)).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder(family))
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")
        content = ids["input_ids"].shape[1]
        if family == "qwen3-embedding":
            content -= 1
            assert ids["input_ids"][0, -1] == end
        encoding = model.encode([TextSample("t", text)])
        assert encoding.token_ids.tolist() == ids["input_ids"][0, :content].tolist()
        assert end not in encoding.token_ids
        seen = hooked(plain, plain.layers, lambda ids=ids: plain(**ids))
        for site, states in captured(model, [TextSample("t", text)]).items():
            assert torch.equal(states, seen[site][:, :content]), site


def test_qwen3_saved_with_its_head_gives_the_same_states(folder, load, copied):
    copy = copied("qwen3-embedding")
    weights = load_file(copy / "model.safetensors")
    save_file({f"model.{name}": value for name, value in weights.items()}, copy / "model.safetensors")
    same_states(Backbone.from_pretrained(copy, device="cpu"), load("qwen3-embedding"), {"modality": "text"})


# ---------------------------------------------------------------------- places of patches


@pytest.mark.parametrize("size", [(2, 3), (5, 9), (9, 4)], ids=str)
@pytest.mark.parametrize("family", VERSIONS)
def test_each_patch_moves_its_own_state_only(family, size, load):
    step = BLOCK[family] // 2
    pixels = noise(2 * size[0] * step, 2 * size[1] * step)
    model = load(family)
    rng = np.random.default_rng(3)
    chosen = rng.choice(4 * size[0] * size[1], size=min(24, 4 * size[0] * size[1]), replace=False)
    samples = [ImageSample("plain", pixels)]
    for cell in chosen:
        y, x = divmod(int(cell), 2 * size[1])
        changed = pixels.copy()
        changed[y * step : (y + 1) * step, x * step : (x + 1) * step] ^= 255
        samples.append(ImageSample(str(cell), changed))
    states = captured(model, samples, ["embed"])["embed"]
    moved = (states[1:] - states[:1]).norm(dim=-1) > 1e-4
    assert [row.nonzero().ravel().tolist() for row in moved] == [[int(cell)] for cell in chosen]
    inside = captured(load(family, tower="language"), samples, ["embed"])["embed"]
    shift = (inside[1:] - inside[:1]).norm(dim=-1).argmax(1)
    y, x = np.divmod(chosen, 2 * size[1])
    assert shift.tolist() == (y // 2 * size[1] + x // 2).tolist()


@pytest.mark.parametrize("window", [1, 3, 4])
def test_windows_are_ordered_as_transformers_orders_them(window):
    scheme = MergedPatches(qwen_vl_processor("Qwen2_5_VL"), patch=14, merge=2, window=window, name="it")
    for high in range(1, 10):
        for wide in range(1, 10):
            grid = torch.tensor([[1, 2 * high, 2 * wide]] * 2)
            index, _ = get_vision_window_index(grid, spatial_merge_size=2, window_size=28 * window, patch_size=14)
            place = get_vision_position_ids(grid, 2).reshape(len(index), 4, 2)[index].reshape(-1, 2).numpy()
            found = scheme.positions((2 * high, 2 * wide), 2, len(place)).cells
            for image in range(2):
                y, x = place[found[image]].T
                assert (y * 2 * wide + x).tolist() == list(range(4 * high * wide))
                assert (found[image] // (4 * high * wide) == image).all()


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from([(14, 56 * 56, 28 * 28 * 260), (14, 56 * 56, 28 * 28 * 1280), (16, 65536, 1 << 24), (16, 1, 2000)]),
)
def test_sizes_are_those_of_the_processors_rule(height, width, settings):
    patch, fewest, most = settings
    processor = transformers.Qwen2VLImageProcessorPil(
        size={"shortest_edge": fewest, "longest_edge": most}, patch_size=patch
    )
    scheme = MergedPatches(processor, patch=patch, merge=2, window=None, name="the processor")
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(DataError, match="differ more than 200 times; leave it out"):
            scheme.place(height, width)
        return
    expected = smart_resize(height, width, 2 * patch, fewest, most)
    if 0 in expected:  # a rule that can give nothing, where so few pixels are allowed
        assert fewest == 1
    placed = scheme.place(height, width)
    assert (placed.height, placed.width) == expected
    assert placed.view == (0, 0, width, height)


def test_a_square_exists_in_qwen3_vl_only(load, folder):
    model = load("qwen3-vl", geometry="squash")
    encoding = model.encode([ImageSample("i", noise(90, 200))])
    assert encoding.grids.tolist() == [[12, 12]]
    assert encoding.views.tolist() == [[0, 0, 200, 90]]
    assert diagnose(model).passed
    inside = load("qwen3-vl", geometry="squash", tower="language")
    assert inside.encode([ImageSample("i", noise(90, 200))]).grids.tolist() == [[6, 6]]
    for family in ("qwen2-vl", "qwen2.5-vl"):
        refused(folder(family), "has no square of its own; set geometry='processor'", geometry="squash")


# ---------------------------------------------------------------------- checkpoints as they are on the hub


def as_on_the_hub(folder):
    """Write config and image processor as the hub's checkpoints of Qwen2-VL and Qwen2.5-VL have them."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    text, vision = config.pop("text_config"), config["vision_config"]
    rope = text.pop("rope_parameters")
    for unknown in ("layer_types", "model_type", "pad_token_id"):
        text.pop(unknown)
    config |= text
    config["rope_theta"] = rope["rope_theta"]
    config["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    config["torch_dtype"] = config.pop("dtype")
    vision.pop("rope_parameters")
    vision["in_chans"] = vision.pop("in_channels")
    vision["spatial_patch_size"] = vision["patch_size"]
    if vision.pop("model_type") == "qwen2_5_vl_vision":
        vision["model_type"] = "qwen2_5_vl"
    file.write_text(json.dumps(config))
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    size = settings.pop("size")
    kept = {name: settings[name] for name in ("image_mean", "image_std", "merge_size", "patch_size")}
    pixels = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    own = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"}
    file.write_text(json.dumps({**kept, **pixels, **own, "temporal_patch_size": settings["temporal_patch_size"]}))


def same_states(one, other, options):
    samples = [TextSample("t", TEXTS[0])] if "modality" in options else [ImageSample("i", noise(150, 220))]
    first, second = captured(one, samples), captured(other, samples)
    assert all(torch.equal(first[site], second[site]) for site in first)


@pytest.mark.parametrize("options", OPTIONS, ids=PARTS)
@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl"])
def test_the_hubs_flat_config_and_names(family, options, copied, load):
    folder = copied(family)
    assert {".".join(name.split(".")[:2]) for name in stored_names(folder)} >= {"visual.blocks", "model.layers"}
    as_on_the_hub(folder)
    same_states(Backbone.from_pretrained(folder, device="cpu", **options), load(family, **options), options)


@pytest.mark.parametrize("options", OPTIONS, ids=PARTS)
@pytest.mark.parametrize("family", VERSIONS)
def test_the_names_of_other_versions_of_transformers(family, options, copied, load):
    folder = copied(family)
    weights = load_file(folder / "model.safetensors")
    if family == "qwen3-vl":  # on the hub as transformers has them; here with the language model first
        renamed = {name.replace("model.language_model", "language_model"): value for name, value in weights.items()}
        renamed = {name.replace("model.visual", "visual"): value for name, value in renamed.items()}
        renamed.pop("lm_head.weight")
    else:
        renamed = {
            f"model.{name}" if name.startswith("visual") else name.replace("model.", "model.language_model."): value
            for name, value in weights.items()
        }
    assert set(renamed) != set(weights)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    if family != "qwen3-vl" and "tower" in options:  # transformers itself cannot read its base class from these
        refused(folder, "missing or of another shape .*they would be random numbers", **options)
        return
    same_states(Backbone.from_pretrained(folder, device="cpu", **options), load(family, **options), options)


def test_processor_settings_win_over_older_names_in_the_checkpoint(copied):
    folder = copied("qwen2.5-vl")
    as_on_the_hub(folder)
    image = ImageSample("i", noise(200, 250))
    plain = Backbone.from_pretrained(folder, device="cpu").encode([image])
    size = {"shortest_edge": 56 * 56, "longest_edge": 30 * 28 * 28}
    fewer = Backbone.from_pretrained(folder, device="cpu", processor={"size": size})
    assert plain.grids.tolist() == [[14, 18]]
    assert fewer.encode([image]).grids.tolist() == [[8, 12]]
    assert fewer.options["processor"] == {"size": size}


# ---------------------------------------------------------------------- refused


def refused(folder, match, **options):
    with pytest.raises(ModelError, match=match) as caught:
        Backbone.from_pretrained(folder, device="cpu", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", OPTIONS[:2], ids=PARTS[:2])
def test_a_processor_that_does_not_belong_to_the_model_is_refused(options, folder):
    made = folder("qwen2.5-vl")
    refused(made, "has patch_size 16, but the model's config says 14", processor={"patch_size": 16}, **options)
    refused(made, "has merge_size 1, but the model's config says 2", processor={"merge_size": 1}, **options)
    refused(made, "has temporal_patch_size 1, but", processor={"temporal_patch_size": 1}, **options)
    refused(made, "resizes to nothing; it needs do_resize", processor={"do_resize": False}, **options)
    square = {"size": {"height": 56, "width": 56}}
    refused(made, r"resizes to .*height.*; it needs do_resize and a size with", processor=square, **options)


def test_a_config_that_does_not_fit_is_refused(copied):
    folder = copied("qwen2.5-vl")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["vision_config"]["window_size"] = 20
    file.write_text(json.dumps(config))
    refused(folder, "window_size of 20 pixels is smaller than a block of 28")


def test_a_tokenizer_that_does_not_belong_to_the_model_is_refused(copied):
    folder = copied("qwen2-vl")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    gpt2_tokenizer().save_pretrained(folder)
    refused(folder, "names tokens .* for pictures, but its tokenizer has only", tower="language")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config |= {"vision_start_token_id": 60, "image_token_id": 60, "vision_end_token_id": 70}
    file.write_text(json.dumps(config))
    refused(folder, r"makes 7 image tokens \(id 60\) of a text that has 6; save the tokenizer", tower="language")


def test_a_sequence_of_another_length_is_an_error(load):
    sample = ImageSample("i", noise(112, 140))
    for options, right in (({}, 80), ({"tower": "language"}, 22)):
        model = load("qwen2-vl", **options)
        forward = next(model.batches([sample], model.encode([sample]))).passes[0]
        forward.layout(right)
        with pytest.raises(ModelError, match=f"returns {right + 1} states"):
            forward.layout(right + 1)


def test_extreme_shapes_are_refused_in_one_line(load):
    model = load("qwen2-vl")
    with pytest.raises(DataError, match="an image of 900 x 4 pixels is refused"):
        model.encode([ImageSample("i", noise(4, 900))])


def test_settings_change_with_what_changes_states(load, folder):
    plain, inside = load("qwen2-vl"), load("qwen2-vl", tower="language")
    fewer = {"shortest_edge": PIXELS["shortest_edge"], "longest_edge": 28 * 28 * 16}
    less = Backbone.from_pretrained(folder("qwen2-vl"), device="cpu", processor={"size": fewer})
    assert len({plain.fingerprint, inside.fingerprint, less.fingerprint}) == 3
    json.dumps(inside.reader.settings())
    assert inside.reader.settings()["image_text"].startswith("<|vision_start|><|image_pad|>")
