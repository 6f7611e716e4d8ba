"""Image tokens inside LLaVA, Pixtral, Mistral 3 and Gemma 3: states of the whole model, each token at its place."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import is_torchvision_available

from superactivators.data.dataset import ImageSample, TextSample
from superactivators.errors import ModelError
from superactivators.models.backbone import Backbone
from superactivators.models.doctor import diagnose
from superactivators.models.quiet import quiet_transformers
from tiny_llava import BUILDERS

KINDS = [name for name in BUILDERS if not name.endswith("-base")]
CLASSES = {"mistral3": "Mistral3", "gemma3-images": "Gemma3"}
WHOLE_SIZES = {  # sizes (height, width) that the processor leaves as they are, and the pixels of a token
    "llava": ([(32, 32)], 8),
    "llava-siglip": ([(32, 32)], 8),
    "pixtral": ([(24, 56), (48, 16), (56, 56)], 8),
    "mistral3": ([(16, 48), (48, 32)], 16),
    "gemma3-images": ([(64, 64)], 16),
}
PARTS = {"vision": {"tower": "vision"}, "language": {"tower": "language"}, "text": {"modality": "text"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, built = tmp_path_factory.mktemp("llava"), {}

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
    """Copy of a checkpoint with other settings in one of its files; a function changes the JSON object."""

    def change(family, file, edit):
        copy = tmp_path / f"{family}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folder(family), copy)
        found = json.loads((copy / file).read_text())
        edit(found)
        (copy / file).write_text(json.dumps(found))
        return copy

    return change


def noise(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def load(folder, part="language", **options):
    return Backbone.from_pretrained(folder, device="cpu", **PARTS[part], **options)


def refused(match, folder, **options):
    with pytest.raises(ModelError, match=match) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)


def real_model(family, folder):
    name = f"{CLASSES.get(family, 'Llava')}ForConditionalGeneration"
    with quiet_transformers():
        return getattr(transformers, name).from_pretrained(folder).eval()


def real_inputs(family, folder, image):
    """What the real processor gives for one picture without a question."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    images = transformers.AutoImageProcessor.from_pretrained(folder)
    if family == "gemma3-images":
        processor = transformers.Gemma3Processor(image_processor=images, tokenizer=tokenizer, image_seq_length=16)
        return processor(images=[image], text=["<start_of_image>"], return_tensors="pt")
    if family in ("llava", "llava-siglip"):
        strategy = ("default", 1) if family == "llava" else ("full", 0)
        settings = dict(zip(("vision_feature_select_strategy", "num_additional_image_tokens"), strategy, strict=True))
        processor = transformers.LlavaProcessor(image_processor=images, tokenizer=tokenizer, patch_size=8, **settings)
        return processor(images=[image], text=["<image>"], return_tensors="pt")
    merge = 2 if family == "mistral3" else 1
    if is_torchvision_available():
        processor = transformers.PixtralProcessor(
            image_processor=images, tokenizer=tokenizer, patch_size=8, spatial_merge_size=merge
        )
        return processor(images=[image], text=["[IMG]"], return_tensors="pt")
    # PixtralProcessor needs torchvision even to be imported: this is its rule, written out
    step = 8 * merge
    prepared = images(images=[image], patch_size=step, return_tensors="pt")
    high, wide = (int(side) // step for side in prepared["image_sizes"][0])
    tokens = []
    for _ in range(high):
        tokens += ["[IMG]"] * wide + ["[IMG_BREAK]"]
    tokens[-1] = "[IMG_END]"
    return {**prepared, **tokenizer(["".join(tokens)], return_tensors="pt")}


def real_states(model, inputs):
    """States at image tokens by hooks on the model with its head."""
    blocks, states = model.model.language_model.layers, {}

    def keep(site):
        return lambda module, args, output: states.__setitem__(site, output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep(f"block[{number}]")) for number, block in enumerate(blocks)]
    handles.append(model.model.language_model.norm.register_forward_hook(keep("final_norm")))
    handles.append(
        blocks[0].register_forward_pre_hook(
            lambda module, args, kwargs: states.__setitem__("embed", args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    )
    with torch.inference_mode():
        model(**inputs)
    for handle in handles:
        handle.remove()
    tokens = inputs["input_ids"][0] == model.config.image_token_id
    return {site: found[0, tokens] for site, found in states.items()}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", KINDS)
def test_every_part_passes(family, dtype, part, folder):
    found = diagnose(load(folder(family), part, dtype=dtype))
    assert found.passed, str(found)


@pytest.mark.parametrize("family", KINDS)
def test_squashed_pictures_pass(family, folder):
    backbone = load(folder(family), geometry="squash")
    assert backbone.encode([ImageSample("i", noise(0, 90, 200))]).views.tolist() == [[0, 0, 200, 90]]
    found = diagnose(backbone)
    assert found.passed, str(found)


@pytest.mark.parametrize("family", KINDS)
def test_states_are_bit_equal_to_those_of_the_whole_model(family, folder):
    backbone, model = load(folder(family)), real_model(family, folder(family))
    samples = [ImageSample(str(n), noise(n, *size)) for n, size in enumerate([(50, 90), (90, 50), (30, 30)])]
    encoding = backbone.encode(samples)
    for batch in backbone.capture(samples, encoding, ["embed", "all", "final_norm"], max_batch_tokens=1):
        [row] = batch.rows
        expected = real_states(model, real_inputs(family, folder(family), samples[row].load_image()))
        assert set(expected) == set(batch.tokens)
        for site, states in expected.items():
            assert torch.equal(batch.tokens[site], states), site


@pytest.mark.parametrize("family", KINDS)
def test_batches_of_equal_grids_give_the_same_states(family, folder):
    backbone = load(folder(family))
    samples = [
        ImageSample(str(n), noise(n, *size)) for n, size in enumerate([(50, 90), (90, 50), (50, 90), (100, 180)])
    ]
    encoding = backbone.encode(samples)
    alone, together = {}, {}
    for found, limit in ((alone, 1), (together, 4096)):
        for batch in backbone.capture(samples, encoding, "final_norm", max_batch_tokens=limit):
            for place, row in enumerate(batch.rows.tolist()):
                found[row] = batch.tokens["final_norm"][int(batch.offsets[place]) : int(batch.offsets[place + 1])]
    for row, states in alone.items():
        assert torch.allclose(together[row], states, atol=1e-4)
    assert not torch.allclose(alone[0], alone[2], atol=1e-2)


def silence_attention(backbone):
    """Patches no longer see each other in the vision tower."""
    with torch.no_grad():
        for name, parameter in backbone.model.vision_tower.named_parameters():
            if ".out_proj." in name or ".o_proj." in name:
                parameter.zero_()


def moved_cells(backbone, family, size, site):
    """Whether changing the picture under one cell (rows) moves the state of another (columns)."""
    (height, width), step = size, WHOLE_SIZES[family][1]
    plain = noise(5, height, width)
    encoding = backbone.encode([ImageSample("plain", plain)])
    assert encoding.grids.tolist() == [[height // step, width // step]]
    images = [plain]
    for cell in range(encoding.n_tokens):
        y, x = divmod(cell, width // step)
        images.append(plain.copy())
        images[-1][step * y : step * y + step, step * x : step * x + step] ^= 255
    samples = [ImageSample(str(n), image) for n, image in enumerate(images)]
    [batch] = backbone.capture(samples, backbone.encode(samples), [site], max_batch_tokens=10**6)
    states = batch.tokens[site].reshape(len(samples), encoding.n_tokens, -1)[np.argsort(batch.rows)]
    return (states[1:] - states[:1]).norm(dim=-1) > 1e-4


@pytest.mark.parametrize("family", KINDS)
def test_a_changed_cell_moves_its_own_image_token_only(family, folder):
    backbone = load(folder(family))
    silence_attention(backbone)
    for size in WHOLE_SIZES[family][0]:
        moved = moved_cells(backbone, family, size, "embed")
        assert torch.equal(moved, torch.eye(len(moved), dtype=torch.bool))


@pytest.mark.parametrize("family", KINDS)
def test_only_in_gemma_does_an_image_token_see_later_ones(family, folder):
    backbone = load(folder(family))
    silence_attention(backbone)
    moved = moved_cells(backbone, family, WHOLE_SIZES[family][0][0], "block[0]")
    assert moved[0].all()  # what changes at the first token is seen by all
    if family == "gemma3-images":
        assert moved.all()
    else:
        assert torch.equal(moved, torch.ones_like(moved).triu())


@pytest.mark.parametrize("family", ["pixtral", "mistral3", "gemma3-images"])
def test_tokens_column_by_column_are_noticed(family, folder):
    backbone = load(folder(family))
    grid = {"pixtral": (6, 7), "mistral3": (3, 4), "gemma3-images": (4, 4)}[family]
    honest = backbone.model.get_image_features

    def by_columns(*args, **kwargs):
        output = honest(*args, **kwargs)
        output.pooler_output = [
            rows.unflatten(0, grid).transpose(0, 1).flatten(0, 1) if len(rows) == grid[0] * grid[1] else rows
            for rows in output.pooler_output
        ]
        if family == "gemma3-images":
            output.pooler_output = torch.stack(output.pooler_output)
        return output

    backbone.model.get_image_features = by_columns
    assert "patches" in {check.name for check in diagnose(backbone).checks if not check.passed}


def states_of(folder, part):
    backbone = load(folder, part)
    text = [TextSample("t", "The quick brown fox jumps over the lazy dog.")]
    samples = text if part == "text" else [ImageSample("i", noise(0, 50, 90))]
    return next(backbone.capture(samples, backbone.encode(samples), ["embed", "last", "final_norm"])).tokens


def hub_names(name):
    """As checkpoints on the hub were saved at first: ``language_model.model`` and ``vision_tower.vision_model``."""
    return name.replace("vision_tower.", "vision_tower.vision_model.", 1)


def new_names(name):
    """As later versions save them: everything but the head under ``model``."""
    name = name.replace("language_model.model.", "language_model.").replace("language_model.lm_head", "lm_head")
    return name if name.startswith("lm_head") else f"model.{name}"


@pytest.mark.parametrize("family", KINDS)
def test_older_and_newer_weight_names_give_the_same_states(family, folder, tmp_path):
    weights = load_file(folder(family) / "model.safetensors")
    assert any(name.startswith("language_model.model.layers.0.") for name in weights)
    namings = {"new": new_names}
    if "vision_tower.encoder.layers.0.mlp.fc1.weight" in weights:  # not in Pixtral
        namings |= {"hub": hub_names, "newer": lambda name: new_names(hub_names(name))}
    copies = [folder(f"{family}-base")]
    for naming, rename in namings.items():
        copies.append(tmp_path / naming)
        shutil.copytree(folder(family), copies[-1])
        renamed = {rename(name): value for name, value in weights.items()}
        assert len(set(renamed) ^ set(weights)) > 10
        save_file(renamed, copies[-1] / "model.safetensors", metadata={"format": "pt"})
    for part in PARTS:
        expected = states_of(folder(family), part)
        for copy in copies[1:]:
            found = states_of(copy, part)
            assert all(torch.equal(found[site], states) for site, states in expected.items()), (part, copy.name)
        base = states_of(copies[0], part)  # other random weights, since parameters have other names
        assert {site: states.shape for site, states in base.items()} == {s: v.shape for s, v in expected.items()}


@pytest.mark.parametrize("family", KINDS)
def test_base_checkpoints_give_the_states_of_the_whole_model(family, folder, tmp_path):
    model = real_model(family, folder(family))
    copy = tmp_path / "base"
    shutil.copytree(folder(family), copy)
    with quiet_transformers():
        model.model.save_pretrained(copy)
    for part in PARTS:
        expected, found = states_of(folder(family), part), states_of(copy, part)
        assert all(torch.equal(found[site], states) for site, states in expected.items()), part


@pytest.mark.parametrize("family", KINDS)
def test_texts_are_read_by_the_language_model(family, folder):
    backbone, model = load(folder(family), "text"), real_model(family, folder(family))
    sample = TextSample("t", "The quick brown fox jumps over the lazy dog.")
    encoding = backbone.encode([sample])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder(family))
    ids = tokenizer(sample.text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = model.model.language_model(input_ids=ids).last_hidden_state[0]
    [batch] = backbone.capture([sample], encoding, "final_norm")
    assert torch.equal(batch.tokens["final_norm"], expected[1:])  # after the begin-of-text token


def test_the_vision_tower_alone_is_the_one_inside(folder):
    for family in KINDS:
        backbone, model = load(folder(family), "vision"), real_model(family, folder(family))
        alone, inside = backbone.model.state_dict(), model.model.vision_tower.state_dict()
        assert alone.keys() == inside.keys()
        assert all(torch.equal(alone[name], value) for name, value in inside.items())


def test_pictures_become_whole_tokens_of_merged_patches(folder):
    sample = ImageSample("i", noise(0, 50, 20))
    assert load(folder("mistral3")).encode([sample]).grids.tolist() == [[4, 2]]
    # by itself the tower rounds up to its own patches, as its image processor says; a setting makes it the same
    assert load(folder("mistral3"), "vision").encode([sample]).grids.tolist() == [[7, 3]]
    assert load(folder("mistral3"), "vision", processor={"patch_size": 16}).encode([sample]).grids.tolist() == [[8, 4]]
    assert load(folder("gemma3-images")).encode([sample]).grids.tolist() == [[4, 4]]
    assert load(folder("gemma3-images"), "vision").encode([sample]).grids.tolist() == [[8, 8]]


def test_models_that_cannot_be_used_are_refused_in_one_line(changed, folder):
    preprocessor, config = "preprocessor_config.json", "config.json"
    crops = {"min_crop_size": 16, "max_num_crops": 4, "min_ratio_to_activate": 1.2}
    crops = {"do_pan_and_scan": True} | {f"pan_and_scan_{name}": value for name, value in crops.items()}
    scanning = changed("gemma3-images", preprocessor, lambda found: found.update(crops))
    refused("set processor={'do_pan_and_scan': False}", scanning)
    refused(r"makes 3 pictures of 1, .* processor={'do_pan_and_scan': False}", scanning, part="vision")
    load(scanning, processor={"do_pan_and_scan": False})
    refused(
        "makes pictures of 48 x 48 pixels, but its vision tower reads 64 x 64 only",
        changed("gemma3-images", preprocessor, lambda found: found.update(size={"height": 48, "width": 48})),
    )
    refused("no square of whole blocks", changed("gemma3-images", config, lambda f: f.update(mm_tokens_per_image=9)))
    uncropped = changed("llava", preprocessor, lambda found: found.update(do_center_crop=False))
    refused("its vision tower reads 32 x 32 only", uncropped)
    load(uncropped, geometry="squash")
    full = changed("llava", config, lambda found: found.update(vision_feature_select_strategy="full"))
    refused("which keeps CLS", full)
    first = changed("llava-siglip", config, lambda found: found.update(vision_feature_select_strategy="default"))
    refused("which leaves out the first patch", first)
    for token in (7, 10**6):
        wrong = changed("llava", config, lambda found, token=token: found.update(image_token_index=token))
        refused(f"token {token} stands for pictures, but the tokenizer has no such added token", wrong)
    other = changed("pixtral", config, lambda found: None)
    for file in folder("llava").glob("tokenizer*"):
        shutil.copy(file, other)
    refused(r"does not know \[IMG_BREAK\] and \[IMG_END\]", other)
