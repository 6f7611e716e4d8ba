"""Attribution for every family of image models: which pixels a token owns, states of variants, and every explainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_llava
import tiny_mllama
import tiny_qwen_vl
import tiny_towers
from attribution.conftest import CONCEPTS
from superactivators.attribution.activation import Activation
from superactivators.attribution.catalogue import build_explainers, usable
from superactivators.attribution.explainer import Explainer
from superactivators.attribution.full_grad import FullGrad
from superactivators.attribution.grad_cam import GradCam
from superactivators.attribution.hiding import HIDINGS
from superactivators.attribution.input_gradient import InputGradient
from superactivators.attribution.integrated_gradients import IntegratedGradients
from superactivators.attribution.lime import Lime
from superactivators.attribution.mfaba import Mfaba
from superactivators.attribution.occlusion import Occlusion
from superactivators.attribution.rise import Rise
from superactivators.attribution.rollout import Rollout, eager_attention
from superactivators.attribution.sanity import with_random_model
from superactivators.attribution.scene import Scene
from superactivators.concepts.bank import ConceptBank
from superactivators.data.dataset import ImageSample
from superactivators.detection.detector import Detector
from superactivators.detection.thresholds import Threshold
from superactivators.errors import ModelError
from superactivators.models.backbone import Backbone
from superactivators.models.families.naflex import PatchRow
from superactivators.models.families.pixel_grid import PixelGrid
from superactivators.models.families.qwen_vl import MergedPatches
from superactivators.models.quiet import quiet_transformers
from superactivators.states.scaling import Scaling

BUILDERS: dict[str, Callable[[Path], None]] = {
    **tiny_towers.BUILDERS,
    **tiny_mllama.BUILDERS,
    **tiny_qwen_vl.BUILDERS,
    **tiny_llava.BUILDERS,
}
QWEN = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl")
TOWERS = ("siglip2-tower", "dinov3", "pixtral-tower", "mllama", *QWEN)
LANGUAGES = (*QWEN, "llava", "llava-siglip", "pixtral", "mistral3", "gemma3-images")
CASES = [(name, "vision", "processor") for name in TOWERS]
CASES += [(name, "vision", "squash") for name in ("siglip2-tower", "pixtral-tower", "mllama", "qwen3-vl")]
CASES += [(name, "language", "processor") for name in LANGUAGES]
SITES = ("block[0]", "block[1]")
SAMPLING = (Lime(budget=24), Rise(budget=24), Occlusion())
GRADIENTS = (
    InputGradient(),
    IntegratedGradients(steps=6, max_steps=6),
    GradCam(signed=True),
    FullGrad(biases=False),
    Mfaba(steps=2),
)

Case = tuple[str, str, str]
Load = Callable[[Case], Backbone]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Backbone of a case; never to be changed."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("families")
    loaded: dict[Case, Backbone] = {}

    def get(case: Case) -> Backbone:
        name, tower, geometry = case
        folder = root / name
        if not folder.exists():
            folder.mkdir()
            with torch.random.fork_rng(), quiet_transformers():
                BUILDERS[name](folder)
        if case not in loaded:
            loaded[case] = Backbone.from_pretrained(
                folder, device="cpu", modality="image", tower=tower, geometry=geometry
            )
        return loaded[case]

    return get


def detector_of(width: int) -> Detector:
    """Three random concepts at two sites that every tiny model has."""
    generator = torch.Generator().manual_seed(1)
    banks, thresholds = {}, []
    for site, names in zip(SITES, (CONCEPTS[:1], CONCEPTS[1:]), strict=True):
        banks[site] = ConceptBank(
            kind="linear",
            site=site,
            level="token",
            concepts=names,
            vectors=torch.randn(len(names), width, generator=generator),
            bias=torch.zeros(len(names)),
            scaling=Scaling(torch.zeros(width), 3.0),
            activation="logit",
            estimable=np.ones(len(names), dtype=bool),
        )
        thresholds += [
            Threshold(value=0.1, delta=0.1, concept=name, kind="linear", method="superactivators", site=site, n=9)
            for name in names
        ]
    return Detector.of(banks, thresholds)


def noisy(name: str, number: int = 0) -> ImageSample:
    """An image that is not square; for Qwen larger than a window of attention."""
    size = (150, 200) if name in QWEN else (60, 90)
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return ImageSample(f"image {number}", pixels)


def scene_of(model: Backbone, case: Case, **options: Any) -> Scene:
    return Scene.of(model, detector_of(model.width), noisy(case[0]), **options)


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


# ------------------------------------------------------------------ pixels


def slow_owner(name: str, scene: Scene) -> np.ndarray:
    """Token of each entry of the input, one patch of the layout at a time, written down from what the families say."""
    reader = scene.backbone.reader
    config = scene.backbone.model.config
    vision = getattr(config, "vision_config", config)
    assert scene.grid is not None
    rows, columns = scene.grid
    token_of = np.full((rows, columns), -1)
    token_of.flat[scene.cells] = np.arange(scene.n_tokens)
    high, wide = reader.scheme.cell  # of a token; a patch of the vision tower may be smaller

    def at(y: int, x: int) -> int:
        """Token of a pixel of the picture."""
        return int(token_of[y // high, x // wide])

    shape = tuple(scene.leaf().shape)
    if name in QWEN:
        merge, patch = vision.spatial_merge_size, vision.patch_size
        result = np.full(shape, -2)
        height, width = rows * high // patch, columns * wide // patch
        places = [
            (block_y * merge + y, block_x * merge + x)
            for block_y in range(height // merge)
            for block_x in range(width // merge)
            for y in range(merge)
            for x in range(merge)
        ]
        for number, (y, x) in enumerate(places):
            result[number] = at(y * patch, x * patch)
        return result
    if name == "siglip2-tower":
        result = np.full(shape, -1)
        for cell in range(rows * columns):
            result[0, cell] = at(cell // columns * high, cell % columns * wide)
        return result
    if name == "mllama":
        result = np.full(shape, -1)
        tile = tiny_mllama.TILE
        for y in range(rows * high):
            for x in range(columns * wide):
                number = (y // tile) * (columns * wide // tile) + x // tile
                result[0, 0, number, :, y % tile, x % tile] = at(y, x)
        return result
    result = np.full(shape, -2)
    for y in range(shape[2]):
        for x in range(shape[3]):
            result[0, :, y, x] = at(y, x)
    return result


def test_every_pixel_has_its_token(load: Load, case: Case) -> None:
    scene = scene_of(load(case), case)
    owner = scene.hidden.owner.numpy()
    np.testing.assert_array_equal(owner, slow_owner(case[0], scene))
    shares = np.bincount(owner[owner >= 0], minlength=scene.n_tokens)
    assert len(set(shares.tolist())) == 1
    assert (owner == -1).any() == (case[0] == "mllama" or case == ("siglip2-tower", "vision", "squash"))  # padding


def test_flattened_pictures_are_the_input(load: Load, case: Case) -> None:
    scheme = load(case).reader.scheme
    images = [noisy(case[0], number).load_image() for number in range(2)]
    picture = torch.from_numpy(scheme.picture(images))
    given = scheme.inputs(images)[scheme.field]
    assert torch.equal(scheme.flatten(picture), given)
    numbers = torch.arange(1, picture.numel() + 1).reshape(picture.shape)
    flat = scheme.flatten(numbers)
    assert flat.dtype == torch.int64
    assert flat.shape == given.shape
    assert torch.equal(picture.flatten()[flat[flat > 0] - 1], given[flat > 0])


def test_gradients_are_summed_by_token(load: Load, case: Case) -> None:
    scene = scene_of(load(case), case)
    field = torch.randn(2, *scene.leaf().shape, generator=torch.Generator().manual_seed(0))
    expected = np.zeros((2, scene.n_tokens))
    for place, token in np.ndenumerate(slow_owner(case[0], scene)):
        if token >= 0:
            expected[:, token] += field[(slice(None), *place)].numpy()
    np.testing.assert_allclose(scene.per_token(field), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hiding", HIDINGS["image"])
def test_what_hidden_tokens_look_like(load: Load, case: Case, hiding: str) -> None:
    scene = scene_of(load(case), case, hiding=hiding)
    scheme = scene.backbone.reader.scheme
    picture = scheme.picture([scene.sample.load_image()])[0].astype(np.float64)
    mean, spread = picture.mean(axis=(1, 2)), picture.std(axis=(1, 2))
    filled, owner = scene.hidden.filled, scene.hidden.owner
    assert torch.equal(filled[owner < 0], scene.leaf()[owner < 0])
    channel = scheme.flatten(torch.arange(3)[None, :, None, None].expand(1, *picture.shape))
    for number in range(3):
        seen = filled[(owner >= 0) & (channel == number)].double()
        if hiding == "mean":
            np.testing.assert_allclose(seen, mean[number], atol=1e-5)
        elif hiding == "noise":
            assert abs(float(seen.mean()) - mean[number]) < 4 * spread[number] / len(seen) ** 0.5 + 0.05
            assert float(seen.std()) == pytest.approx(spread[number], rel=0.1)
        else:
            assert float(seen.std()) < 0.9 * spread[number]


# ------------------------------------------------------------------ states


def states_of(scene: Scene, keep: np.ndarray, site: str) -> torch.Tensor:
    """States of variants, of shape (variants, tokens, width)."""
    held: dict[str, torch.Tensor] = {}
    scene._run(
        scene.hidden.variants(keep),
        [site],
        lambda name, raw: held.update({name: scene.token_rows(raw, len(keep)).clone()}),
        False,
    )
    return held[site]


def test_hiding_nothing_changes_nothing(load: Load, case: Case) -> None:
    scene = scene_of(load(case), case)
    keep = np.ones((1, scene.n_tokens), dtype=bool)
    inputs = scene.hidden.variants(keep)
    assert inputs.keys() == scene.hidden.inputs.keys()
    for name, value in scene.hidden.inputs.items():
        assert torch.equal(inputs[name], value) if isinstance(value, torch.Tensor) else inputs[name] == value
    for site in SITES:
        assert torch.equal(states_of(scene, keep, site)[0], scene.states[site])


def test_a_hidden_token_changes_its_own_state(load: Load, case: Case) -> None:
    """Each token hidden in a variant of its own: in a vision tower no other state changes before the first block."""
    scene = scene_of(load(case), case)
    n = scene.n_tokens
    plain = states_of(scene, np.ones((1, n), dtype=bool), "embed")
    changed = (states_of(scene, ~np.eye(n, dtype=bool), "embed") - plain).norm(dim=2).numpy()
    assert (np.diag(changed) > 1e-3).all()
    np.testing.assert_array_equal(changed.argmax(axis=1), np.arange(n))
    if case[1] == "vision":
        others = changed - np.diag(np.diag(changed))
        assert others.max() < 1e-5
    pair = np.ones((3, n), dtype=bool)
    pair[1, [0, n - 1]] = False
    pair[2, n // 2] = False
    moved = (states_of(scene, pair, "embed") - plain).norm(dim=2).numpy()
    assert moved[0].max() < 1e-5
    if case[1] == "vision":
        assert np.flatnonzero(moved[1] > 1e-5).tolist() == [0, n - 1]
        assert np.flatnonzero(moved[2] > 1e-5).tolist() == [n // 2]


def test_variants_equal_inputs_made_by_hand(load: Load, case: Case) -> None:
    """Patches are changed in the picture, which goes into the model alone, and its states are looked up by position."""
    scene = scene_of(load(case), case)
    scheme = scene.backbone.reader.scheme
    image = scene.sample.load_image()
    picture = torch.from_numpy(scheme.picture([image]))
    mean = picture.mean(dim=(2, 3), keepdim=True)
    keep = np.random.default_rng(0).random((4, scene.n_tokens)) < 0.5
    high, wide = scheme.cell
    assert scene.grid is not None
    for variant, found in zip(keep, states_of(scene, keep, SITES[1]), strict=True):
        changed = picture.clone()
        for token in np.flatnonzero(~variant):
            row, column = divmod(int(scene.cells[token]), scene.grid[1])
            part = (0, slice(None), slice(row * high, (row + 1) * high), slice(column * wide, (column + 1) * wide))
            changed[part] = mean[0]
        inputs = {**scheme.inputs([image]), scheme.field: scheme.flatten(changed)}
        held: dict[str, torch.Tensor] = {}
        scene._run(inputs, SITES[1:], lambda site, raw, held=held: held.update({site: raw.clone()}), False)
        raw = held[SITES[1]]
        rows = scheme.positions(scene.grid, 1, raw.shape[1]).cells[0, scene.cells]
        torch.testing.assert_close(found, raw.flatten(0, 1)[rows], atol=2e-5, rtol=1e-4)


# ------------------------------------------------------------------ explainers


def test_explainers_give_the_same_whatever_the_batches(load: Load, case: Case) -> None:
    scene, by_one = (scene_of(load(case), case, **given) for given in ({}, {"max_batch_tokens": 1}))
    explainers: tuple[Explainer, ...] = (*SAMPLING, *GRADIENTS, Activation())
    for explainer in explainers:
        maps = explainer.maps(scene)
        assert maps.shape == (scene.n_tokens, scene.n_columns)
        assert np.isfinite(maps).all()
        assert (np.abs(maps).max(axis=0) > 0).all()
        scale = np.abs(maps).max(axis=0)
        np.testing.assert_allclose(explainer.maps(by_one) / scale, maps / scale, atol=2e-3, err_msg=repr(explainer))


def test_gradients_are_complete(load: Load, case: Case) -> None:
    scene = scene_of(load(case), case)
    found = IntegratedGradients(steps=48, max_steps=96).integrate(scene)
    full, empty = scene.values(np.array([[True], [False]]).repeat(scene.n_tokens, axis=1))
    atol = 0.02 * np.abs(found.maps).sum(axis=0).max()
    np.testing.assert_allclose(found.maps.sum(axis=0), full - empty, atol=atol)


def test_gradients_of_states_equal_finite_differences(load: Load, case: Case) -> None:
    """What grad-cam takes: a state is moved behind its block, and the objective is looked at."""
    scene = scene_of(load(case), case)
    leaf = scene.leaf()[None].requires_grad_(True)
    recorded = scene.record(leaf, ["block[0]"])
    columns = [number for number, site in enumerate(scene.objectives.sites) if site == "block[1]"]
    (gradient,) = torch.autograd.grad(recorded.values[0, columns[0]], recorded.states["block[0]"])
    direction = torch.nn.functional.normalize(gradient.flatten(), dim=0).reshape(gradient.shape)

    def moved(step: float) -> float:
        def add(module: Any, args: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            first = first + step * direction.reshape(first.shape)
            return (first, *output[1:]) if isinstance(output, tuple) else first

        handle = scene.backbone.blocks[0].register_forward_hook(add)
        try:
            with torch.no_grad():
                return float(scene.record(leaf.detach()).values[0, columns[0]])
        finally:
            handle.remove()

    slope = (moved(0.05) - moved(-0.05)) / 0.1
    assert slope == pytest.approx(float(gradient.norm()), rel=0.02)


# ------------------------------------------------------------------ explainers that look inside


def slow_attention(scene: Scene, name: str) -> list[np.ndarray]:
    """Mean attention of the first two blocks: what the model gives, or by hand from caught queries, keys and masks."""
    model = scene.backbone.model
    if name != "mllama":
        with torch.no_grad(), eager_attention(scene.backbone):
            given = model(**scene.hidden.inputs, output_attentions=True).attentions
        return [weights[0].mean(dim=0).double().numpy() for weights in given[:2]]
    caught: list[Any] = []
    handles = []
    for block in scene.backbone.blocks[:2]:
        own = block.self_attn
        handles += [
            part.register_forward_hook(lambda *args: caught.append(args[2])) for part in (own.q_proj, own.k_proj)
        ]
        handles.append(
            own.register_forward_hook(lambda *args: caught.append(args[2]["attention_mask"]), with_kwargs=True)
        )
    with torch.no_grad():
        model(**scene.hidden.inputs)
    for handle in handles:
        handle.remove()
    result = []
    for query, key, mask in (caught[:3], caught[3:]):
        heads = [
            torch.softmax(query[0, :, part] @ key[0, :, part].T / 8**0.5 + mask[0, 0], dim=1)
            for part in (slice(8 * head, 8 * head + 8) for head in range(4))
        ]
        result.append((sum(heads) / 4).double().numpy())
    return result


@pytest.mark.parametrize("name", ["siglip2-tower", "dinov3", "pixtral-tower", "mllama"])
def test_rollout_equals_a_loop(load: Load, name: str) -> None:
    case = (name, "vision", "processor")
    scene = scene_of(load(case), case)
    attention = slow_attention(scene, name)
    sequence = len(attention[0])
    rows = scene.forward.layout(sequence).rows
    maps = Rollout().maps(scene)
    assert scene.backbone.model.config._attn_implementation != "eager"
    for column, site in enumerate(scene.objectives.sites):
        product = np.eye(sequence)
        for weights in attention[: 1 + SITES.index(site)]:
            product = (0.5 * weights + 0.5 * np.eye(sequence)) @ product
        local = scene.objectives.objectives[column] == "superactivators"
        chosen = np.flatnonzero(scene.objectives.fired[:, column]) if local else range(scene.n_tokens)
        expected = np.zeros(scene.n_tokens)
        for token in chosen:
            for other in range(scene.n_tokens):
                expected[other] += product[rows[token], rows[other]] / len(chosen)
        np.testing.assert_allclose(maps[:, column], expected, atol=1e-5)


def test_full_grad_of_padded_rows_equals_a_loop(load: Load) -> None:
    """Biases as leaves of their own, one copy for each row; padding stands behind the patches."""
    case = ("siglip2-tower", "vision", "processor")
    model = load(case)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    scene = Scene.of(model, detector_of(model.width), ImageSample("square", pixels))
    assert scene.n_tokens == 16  # of 24 rows that the model gets
    maps = FullGrad().maps(scene)
    for column in range(scene.n_columns):
        leaf = scene.leaf()[None].requires_grad_(True)
        copies: list[tuple[torch.Tensor, torch.Tensor]] = []

        def add(module: Any, args: Any, output: torch.Tensor, copies: list[Any] = copies) -> torch.Tensor:
            copy = torch.zeros_like(output).requires_grad_(True)
            copies.append((copy, module.bias.detach()))
            return output + copy

        biased = [module for module in model.model.modules() if getattr(module, "bias", None) is not None]
        handles = [module.register_forward_hook(add) for module in biased]
        value = scene.record(leaf).values[0, column]
        for handle in handles:
            handle.remove()
        gradient, *others = torch.autograd.grad(value, [leaf, *(copy for copy, _ in copies)], allow_unused=True)
        products = (gradient * leaf).detach().abs()
        expected = np.array([float(products[0, 0, row].sum()) for row in range(scene.n_tokens)])
        for (_, bias), other in zip(copies, others, strict=True):
            if other is not None:
                expected += (other * bias).abs()[0, : scene.n_tokens].sum(dim=1).numpy()
        np.testing.assert_allclose(maps[:, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", QWEN)
def test_towers_without_a_batch_refuse_what_cannot_be(load: Load, name: str) -> None:
    case = (name, "vision", "processor")
    scene = scene_of(load(case), case)
    with pytest.raises(ModelError, match=r"attention of 0 of its first 2 blocks.*'integrated-gradients'") as rollout:
        Rollout().maps(scene)
    with pytest.raises(ModelError, match=r"not one row for each token.*FullGrad\(biases=False\)") as full:
        FullGrad().maps(scene)
    assert "\n" not in str(rollout.value) + str(full.value)


def test_tiles_have_no_place_for_biases(load: Load) -> None:
    case = ("mllama", "vision", "processor")
    with pytest.raises(ModelError, match=r"gives \(1, 4, 17, 32\), which is not one row.*FullGrad\(biases=False\)"):
        FullGrad().maps(scene_of(load(case), case))


@pytest.mark.parametrize("name", LANGUAGES)
def test_image_tokens_refuse_what_looks_at_blocks(load: Load, name: str) -> None:
    case = (name, "language", "processor")
    scene = scene_of(load(case), case)
    with pytest.raises(ModelError, match=r"vision tower mixes image tokens.*'rise', or tower='vision'") as rollout:
        Rollout().maps(scene)
    with pytest.raises(ModelError, match=r"belong to patches.*FullGrad\(biases=False\)") as full:
        FullGrad().maps(scene)
    assert "\n" not in str(rollout.value) + str(full.value)


# ------------------------------------------------------------------ wrong layouts


@pytest.fixture
def wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    right = MergedPatches.flatten

    def row_by_row(self: MergedPatches, picture: torch.Tensor) -> torch.Tensor:
        flat = right(self, picture)
        wide = picture.shape[3] // self.cell[1]
        cells = torch.arange(len(flat)).reshape(-1, 2, wide // 2, 2).transpose(1, 2).flatten()
        return flat[cells]

    monkeypatch.setattr(MergedPatches, "flatten", row_by_row)


@pytest.mark.usefixtures("wrong_order")
@pytest.mark.parametrize("tower", ["vision", "language"])
def test_a_wrong_order_is_noticed(load: Load, tower: str) -> None:
    case = ("qwen2-vl", tower, "processor")
    with pytest.raises(ModelError, match=r"flattened, is not the (hidden_states|pixel_values)") as caught:
        scene_of(load(case), case)
    assert "\n" not in str(caught.value)


def test_a_lost_pixel_is_noticed(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    case = ("dinov3", "vision", "processor")
    scene = scene_of(load(case), case)

    def lossy(self: PixelGrid, picture: torch.Tensor) -> torch.Tensor:
        return torch.cat([picture[..., :-1], picture[..., :1]], dim=3)

    monkeypatch.setattr(PixelGrid, "flatten", lossy)
    with pytest.raises(ModelError, match=r"does not hold every pixel, each equally often.*'rise'"):
        scene.per_token(scene.leaf()[None])


# ------------------------------------------------------------------ dtypes, batches, random models


@pytest.mark.parametrize("name", ["siglip2-tower", "qwen3-vl", "mllama", "pixtral-tower"])
def test_bfloat16(load: Load, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with torch.random.fork_rng(), quiet_transformers():
        BUILDERS[name](folder)
    model = Backbone.from_pretrained(folder, device="cpu", modality="image", dtype="bfloat16")
    case = (name, "vision", "processor")
    exact = scene_of(load(case), case)
    scene = scene_of(model, case)
    keep = np.random.default_rng(0).random((5, scene.n_tokens)) < 0.5
    scale = np.abs(exact.values(keep)).max()
    np.testing.assert_allclose(scene.values(keep) / scale, exact.values(keep) / scale, atol=0.1)
    assert np.isfinite(InputGradient().maps(scene)).all()


def test_the_length_of_an_image_is_what_the_model_makes(load: Load, case: Case) -> None:
    model = load(case)
    scheme = model.reader.scheme
    scene = scene_of(model, case)
    assert scene.grid is not None
    seen: list[int] = []
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, given: seen.append((args[0] if args else given["hidden_states"]).shape[-2]),
            with_kwargs=True,
        )
        for name, module in model.model.named_modules()
        if name.rsplit(".", 2)[-2:] in (["layers", "0"], ["layer", "0"], ["blocks", "0"])
        if "deepstack" not in name
    ]
    try:
        states_of(scene, np.ones((1, scene.n_tokens), dtype=bool), "block[1]")
    finally:
        for handle in handles:
            handle.remove()
    assert seen
    # one grid of patches is counted with CLS and without registers, whatever the model has
    plain = {"dinov3": -4, "gemma3-images": 1}
    assert scheme.length(scene.grid) == max(seen) + plain.get(case[0], 0)


def test_batches_are_cut_by_the_length_of_an_image(load: Load) -> None:
    case = ("mllama", "vision", "processor")
    model = load(case)
    samples = [noisy("mllama", number) for number in range(5)]
    encoding = model.encode(samples)
    each = 4 * 24  # four tiles of 16 patches and CLS, padded to a multiple of 8
    for most, expected in ((2 * each, [2, 2, 1]), (2 * each - 1, [1] * 5), (5 * each, [5])):
        sizes = [len(batch.rows) for batch in model.batches(samples, encoding, max_batch_tokens=most)]
        assert sizes == expected
    row = load(("siglip2-tower", "vision", "processor")).reader.scheme
    assert isinstance(row, PatchRow)
    assert row.length((1, 3)) == row.length((4, 6)) == 24


@pytest.mark.parametrize(
    "case",
    [
        ("qwen2.5-vl", "vision", "processor"),
        ("qwen2.5-vl", "language", "processor"),
        ("mllama", "vision", "processor"),
        ("siglip2-tower", "vision", "processor"),
        ("llava", "language", "processor"),
    ],
    ids="-".join,
)
def test_random_models(load: Load, case: Case) -> None:
    original = load(case)
    before = {name: value.clone() for name, value in original.model.state_dict().items()}
    last = original.n_blocks - 1
    drawn = with_random_model(original, seed=2, first_block=last)
    inside = {id(module) for module in drawn.model.modules()}
    assert all(id(block) in inside for block in drawn.blocks)
    assert not any(block is mine for block, mine in zip(drawn.blocks, original.blocks, strict=True))
    blocks = {id(parameter) for parameter in drawn.blocks[last].parameters()}
    for name, parameter in drawn.model.named_parameters():
        if parameter.numel() > 1:  # a single number has no spread
            assert torch.equal(parameter, before[name]) == (id(parameter) not in blocks), name
    assert all(torch.equal(value, before[name]) for name, value in original.model.state_dict().items())
    sample = noisy(case[0])
    sites = [f"block[{last - 1}]", f"block[{last}]", "final_norm"]
    encoding = original.encode([sample])
    held, other = (next(model.capture([sample], encoding, sites)).tokens for model in (original, drawn))
    assert torch.equal(held[sites[0]], other[sites[0]])
    assert not torch.allclose(held[sites[1]], other[sites[1]])
    assert not torch.allclose(held["final_norm"], other["final_norm"])


@pytest.mark.parametrize(
    ("case", "refused"),
    [
        (("qwen2.5-vl", "vision", "processor"), {"full-grad", "rollout"}),
        (("mllama", "vision", "processor"), {"full-grad"}),
        (("dinov3", "vision", "processor"), set()),
    ],
)
def test_all_leaves_out_what_a_model_refuses(load: Load, case: Case, refused: set[str]) -> None:
    built = build_explainers("all", budget=8)
    assert set(built) - set(usable(built, scene_of(load(case), case))) == refused
