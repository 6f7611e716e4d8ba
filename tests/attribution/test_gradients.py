"""Gradient explainers against plain loops of autograd, one column at a time, and against Captum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from attribution.conftest import SENTENCE, random_detector
from superactivators.attribution.explainer import Explainer, explainers
from superactivators.attribution.full_grad import FullGrad
from superactivators.attribution.grad_cam import GradCam
from superactivators.attribution.input_gradient import InputGradient
from superactivators.attribution.integrated_gradients import IntegratedGradients
from superactivators.attribution.mfaba import Mfaba
from superactivators.attribution.rollout import Rollout
from superactivators.attribution.scene import Scene
from superactivators.data.dataset import TextSample
from superactivators.detection.detector import Detector
from superactivators.errors import ModelError, StudyError
from superactivators.models.backbone import Backbone
from tiny_models import IMAGE_FAMILIES, TEXT_FAMILIES

Make = Callable[..., Scene]
GRADIENTS = (
    IntegratedGradients(steps=8, max_steps=8),
    InputGradient(),
    GradCam(signed=True),
    FullGrad(),
    Mfaba(steps=3),
)
LONG = " ".join([SENTENCE] * 8)
"""Two windows of the tiny BERT."""


def gradient_of(scene: Scene, leaf: torch.Tensor, column: int) -> torch.Tensor:
    """By a pass of its own."""
    inputs = leaf.clone()[None].requires_grad_(True)
    (gradient,) = torch.autograd.grad(scene.record(inputs).values[0, column], inputs)
    return gradient[0]


def by_token(scene: Scene, field: torch.Tensor) -> np.ndarray:
    """Sum the entries of each token, one place at a time."""
    result = np.zeros(scene.n_tokens)
    for place, token in np.ndenumerate(scene.forward.shows()):
        if token < 0:
            continue
        if scene.grid is None:
            part = field[place[0], place[1]]
        else:
            high, wide = scene.substitute.patch
            row, column = place[1] * high, place[2] * wide
            part = field[0, :, row : row + high, column : column + wide]
        result[token] += float(part.double().sum())
    return result


def hooks_of(model: torch.nn.Module) -> list[tuple[int, int]]:
    """How many hooks each module has; transformers leaves some of its own once hidden states were asked for."""
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]


def scenes(text_scene: Make, image_scene: Make) -> list[Scene]:
    return [text_scene("gpt2", text=LONG), image_scene("dinov2")]


@pytest.mark.parametrize("origin", ["zero", "hidden"])
def test_input_gradients_equal_a_loop(text_scene: Make, image_scene: Make, origin: str) -> None:
    for scene in scenes(text_scene, image_scene):
        leaf = scene.leaf()
        away = leaf - scene.hidden_leaf() if origin == "hidden" else leaf
        maps = InputGradient(origin).maps(scene)
        for column in range(scene.n_columns):
            expected = by_token(scene, gradient_of(scene, leaf, column) * away)
            np.testing.assert_allclose(maps[:, column], expected, atol=2e-5)


@pytest.mark.parametrize("rule", ["gausslegendre", "riemann_middle"])
def test_integrated_gradients_equal_those_of_captum(text_scene: Make, image_scene: Make, rule: str) -> None:
    captum = pytest.importorskip("captum.attr")
    for scene in (text_scene(concepts=["red"]), image_scene(concepts=["loud"])):
        theirs = captum.IntegratedGradients(lambda leaves, scene=scene: scene.record(leaves).values)
        maps = IntegratedGradients(steps=8, max_steps=8, rule=rule).maps(scene)
        for column in range(scene.n_columns):
            found = theirs.attribute(
                scene.leaf()[None], scene.hidden_leaf()[None], target=column, n_steps=8, method=rule
            )
            np.testing.assert_allclose(maps[:, column], by_token(scene, found[0].detach()), atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2", "gemma3", "dinov2", "siglip"])
@pytest.mark.parametrize("activation", ["logit", "cosine"])
def test_integrated_gradients_are_complete(text_scene: Make, image_scene: Make, family: str, activation: str) -> None:
    scene = (text_scene if family in TEXT_FAMILIES else image_scene)(family, activation=activation)
    found = IntegratedGradients().integrate(scene)
    ends = scene.values(np.array([[True], [False]]).repeat(scene.n_tokens, axis=1))
    difference = ends[0] - ends[1]
    np.testing.assert_allclose(found.maps.sum(axis=0), difference, rtol=0.01, atol=2e-4 * np.abs(found.maps).max())
    assert (found.error <= 0.01).all()


def test_steps_are_doubled_only_where_they_must(text_scene: Make) -> None:
    scene = text_scene("gemma2")
    rough = IntegratedGradients(steps=2, max_steps=2).integrate(scene)
    assert rough.steps.tolist() == [2] * 6
    tolerance = float(np.median(rough.error))
    finer = IntegratedGradients(steps=2, tolerance=tolerance, max_steps=64).integrate(scene)
    enough = rough.error <= tolerance
    assert (finer.steps == 2).tolist() == enough.tolist()
    assert (finer.error <= tolerance).all()
    np.testing.assert_array_equal(finer.maps[:, enough], rough.maps[:, enough])
    bounded = IntegratedGradients(steps=2, tolerance=1e-12, max_steps=5).integrate(scene)
    assert bounded.steps.tolist() == [4] * 6


@pytest.mark.parametrize(("site", "taken"), [(None, {"block[2]": "block[1]", "block[1]": "block[0]"}), ("embed", {})])
def test_grad_cam_equals_a_loop(text_scene: Make, image_scene: Make, site: str | None, taken: dict[str, str]) -> None:
    for scene in scenes(text_scene, image_scene):
        maps = GradCam(site, signed=True).maps(scene)
        np.testing.assert_array_equal(GradCam(site).maps(scene), np.maximum(maps, 0))
        for column in range(scene.n_columns):
            place = taken.get(scene.objectives.sites[column], "embed")
            recorded = scene.record(scene.leaf()[None].requires_grad_(True), [place])
            (gradient,) = torch.autograd.grad(recorded.values[0, column], recorded.states[place])
            rows = scene.forward.layout(gradient.shape[1]).rows
            states, gradients = (
                tensor.detach().reshape(-1, scene.backbone.width)[rows].double().numpy()
                for tensor in (recorded.states[place], gradient)
            )
            weights = sum(gradients) / len(gradients)
            np.testing.assert_allclose(maps[:, column], [state @ weights for state in states], atol=2e-5)


def test_grad_cam_takes_the_input_of_the_block(backbones: Callable[[str], Backbone]) -> None:
    depth = backbones("bert").n_blocks
    before = {"embed": "embed", "block[0]": "embed", "block[1]": "block[0]", "final_norm": f"block[{depth - 2}]"}
    assert {site: GradCam()._before(site, depth) for site in before} == before


def slow_full_grad(scene: Scene, column: int) -> np.ndarray:
    """Biases as leaves of their own, one copy for each place, so that their gradients are those of the places."""
    leaf = scene.leaf()[None].requires_grad_(True)
    copies: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        copy = torch.zeros_like(output).requires_grad_(True)
        shape = (-1, 1, 1) if isinstance(module, torch.nn.Conv2d) else (-1,)
        copies.append((copy, module.bias.detach().reshape(shape).expand_as(output)))
        return output + copy

    biased = [module for module in scene.backbone.model.modules() if getattr(module, "bias", None) is not None]
    handles = [module.register_forward_hook(add) for module in biased]
    value = scene.record(leaf).values[0, column]
    for handle in handles:
        handle.remove()
    gradient, *others = torch.autograd.grad(value, [leaf, *(copy for copy, _ in copies)], allow_unused=True)
    result = by_token(scene, (gradient * leaf).detach().abs()[0])
    for (_, bias), found in zip(copies, others, strict=True):
        if found is None:
            continue
        terms = (found * bias).abs()
        if terms.ndim == 4:
            result += terms.sum(dim=1).flatten().numpy()
        elif scene.grid is None:
            result += by_token(scene, terms)
        else:
            result += terms[0, -scene.n_tokens :].sum(dim=1).numpy()
    return result


@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen2", "vit", "dinov2"])
def test_full_grad_equals_a_loop(text_scene: Make, image_scene: Make, family: str) -> None:
    scene = text_scene(family, text=LONG) if family in TEXT_FAMILIES else image_scene(family)
    maps = FullGrad().maps(scene)
    for column in (0, 3, 5):
        np.testing.assert_allclose(maps[:, column], slow_full_grad(scene, column), rtol=1e-4, atol=1e-5)
    only = FullGrad(biases=False).maps(scene)
    assert (maps >= only).all()
    assert (maps > only + 1e-4).any()


@pytest.mark.parametrize(
    "options", [{}, {"sign": True}, {"second_order": False}, {"sign": True, "second_order": False}]
)
def test_mfaba_equals_a_loop(text_scene: Make, image_scene: Make, options: dict[str, bool]) -> None:
    for scene in (text_scene(), image_scene("dinov2")):
        maps = Mfaba(steps=2, size=0.1, **options).maps(scene)
        leaf = scene.leaf()
        free = torch.ones_like(leaf)
        if scene.grid is None:
            free[:, [0, -1]] = 0  # [CLS] and [SEP]
        length = 0.1 * float(leaf[free > 0].numpy().std())
        for column in (0, 3, 5):
            here, lost = leaf, torch.zeros_like(leaf)
            for _ in range(2):
                slope = gradient_of(scene, here, column) * free
                if "sign" in options:
                    step = -length * slope.sign()
                else:
                    step = -length * slope / (slope.square().sum() / free.sum()).sqrt()
                there = here + step
                mean = slope if "second_order" in options else (slope + gradient_of(scene, there, column) * free) / 2
                here, lost = there, lost - step * mean
            # signs of gradients near zero are decided by rounding
            close = 2e-3 if "sign" in options else 1e-4
            np.testing.assert_allclose(maps[:, column], by_token(scene, lost), atol=close * float(np.abs(maps).max()))


def test_biases_without_a_place_are_told(text_scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = text_scene()
    block = scene.backbone.blocks[0].intermediate
    flat = torch.nn.Linear.forward
    # rows of all pieces in one, as experts have them
    monkeypatch.setattr(block.dense, "forward", lambda states: flat(block.dense, states.flatten(0, 1)))
    handle = block.register_forward_hook(lambda module, args, output: output.reshape(1, -1, output.shape[-1]))
    try:
        rows = scene.n_tokens + 2  # [CLS] and [SEP]
        with pytest.raises(ModelError, match=rf"a Linear gives \({rows}, 48\).*biases=False") as caught:
            FullGrad().maps(scene)
        assert "\n" not in str(caught.value)
        assert np.isfinite(FullGrad(biases=False).maps(scene)).all()
    finally:
        handle.remove()


def test_mfaba_sums_to_what_the_objective_lost(text_scene: Make) -> None:
    scene = text_scene()
    # one step, from the unchanged input against the normalised gradient of the only column
    leaf = scene.leaf()
    free = torch.ones_like(leaf)
    free[:, [0, -1]] = 0
    slope = gradient_of(scene, leaf, 0) * free
    length = 0.02 * float(leaf[free > 0].numpy().std())
    there = leaf - length * slope / (slope.square().sum() / free.sum()).sqrt()
    with torch.no_grad():
        lost = scene.record(leaf[None]).values[0, 0] - scene.record(there[None]).values[0, 0]
    assert float(lost) > 0
    whole = Mfaba(steps=1, size=0.02).maps(scene)[:, 0].sum()
    first = Mfaba(steps=1, size=0.02, second_order=False).maps(scene)[:, 0].sum()
    assert whole == pytest.approx(float(lost), rel=5e-3)
    assert abs(whole - float(lost)) < abs(first - float(lost))


@pytest.mark.parametrize("explainer", GRADIENTS, ids=lambda one: type(one).__name__)
def test_batches_and_company_do_not_matter(text_scene: Make, image_scene: Make, explainer: Explainer) -> None:
    for make, options in ((text_scene, {"family": "bert", "text": LONG}), (image_scene, {})):
        whole = explainer.maps(make(**options))
        np.testing.assert_array_equal(explainer.maps(make(**options)), whole)
        close = 1e-4 * float(np.abs(whole).max())
        np.testing.assert_allclose(explainer.maps(make(**options, max_batch_tokens=1)), whole, atol=close)
        turned = explainer.maps(make(**options, concepts=["warm", "loud"]))
        np.testing.assert_allclose(turned, whole[:, [4, 5, 2, 3]], atol=close)


@pytest.mark.parametrize("family", [*TEXT_FAMILIES, *IMAGE_FAMILIES])
def test_every_family_is_explained_and_left_as_it_was(text_scene: Make, image_scene: Make, family: str) -> None:
    scene = (text_scene if family in TEXT_FAMILIES else image_scene)(family)
    model = scene.backbone.model
    config = model.config.to_dict()
    asked = [parameter.requires_grad for parameter in model.parameters()]
    attention = model.config._attn_implementation
    hooks = hooks_of(model)
    for explainer in (*GRADIENTS, Rollout()):
        maps = explainer.maps(scene)
        assert maps.shape == (scene.n_tokens, 6)
        assert maps.dtype == np.float32
        assert np.isfinite(maps).all()
        assert (np.abs(maps).max(axis=0) > 0).all()
    assert model.config.to_dict() == config
    assert model.config._attn_implementation == attention
    assert [parameter.requires_grad for parameter in model.parameters()] == asked
    assert not model.training
    assert hooks_of(model) == hooks
    assert all(parameter.grad is None for parameter in model.parameters())


def test_hooks_and_gradients_are_restored_after_a_failure(text_scene: Make) -> None:
    scene = text_scene()
    scene.objectives = None  # any failure inside a recorded pass
    model = scene.backbone.model
    hooks = hooks_of(model)
    for explainer in (InputGradient(), FullGrad()):
        with pytest.raises(AttributeError):
            explainer.maps(scene)
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert hooks_of(model) == hooks


def test_names_are_registered() -> None:
    wanted = {"integrated-gradients", "input-gradient", "grad-cam", "full-grad", "mfaba"}
    assert wanted <= set(explainers)
    assert explainers["mfaba"](steps=3) == Mfaba(steps=3)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: InputGradient("mean"), "unknown origin 'mean'.*hidden"),
        (lambda: IntegratedGradients(rule="simpson"), "unknown rule 'simpson'.*gausslegendre"),
        (lambda: IntegratedGradients(steps=0), "1 <= steps"),
        (lambda: IntegratedGradients(steps=300), "at most 256"),
        (lambda: IntegratedGradients(tolerance=0), "above 0"),
        (lambda: Mfaba(steps=0), "at least 1 step"),
        (lambda: Mfaba(size=0), "above 0"),
    ],
)
def test_wrong_options_are_told_in_one_line(wrong: Callable[[], object], named: str) -> None:
    with pytest.raises(StudyError, match=named) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_grad_cam_refuses_a_later_or_unknown_site(text_scene: Make) -> None:
    with pytest.raises(StudyError, match="block\\[2\\] cannot explain a concept at block\\[1\\]"):
        GradCam("block[2]").maps(text_scene())
    with pytest.raises(StudyError, match="unknown site"):
        GradCam("blocks").maps(text_scene())


@pytest.mark.packs
def test_integrated_gradients_are_complete_on_a_real_model() -> None:
    backbone = Backbone.from_pretrained("bundled:minilm", device="cpu")
    detector: Detector = random_detector(backbone.width)
    scene = Scene.of(backbone, detector, TextSample("a", "I am so glad that you came, thank you for everything!"))
    found = IntegratedGradients().integrate(scene)
    ends = scene.values(np.array([[True], [False]]).repeat(scene.n_tokens, axis=1))
    np.testing.assert_allclose(found.maps.sum(axis=0), ends[0] - ends[1], rtol=0.01)
