"""Objectives against plain loops, hidden inputs against inputs made by hand, and that batching does not matter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from attribution.conftest import CONCEPTS, SENTENCE, SITES, THRESHOLDS, random_detector
from superactivators.attribution.hiding import HIDINGS
from superactivators.attribution.objectives import OBJECTIVES
from superactivators.attribution.scene import Scene
from superactivators.data.dataset import TextSample
from superactivators.errors import ModelError, StudyError
from superactivators.models.backbone import Backbone
from tiny_models import IMAGE_FAMILIES, TEXT_FAMILIES

Make = Callable[..., Scene]


def masks(scene: Scene, number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((number, scene.n_tokens)) < 0.5


def slow_objective(scene: Scene, states: dict[str, torch.Tensor], activation: str) -> np.ndarray:
    """One token, one column at a time, in double precision; SuperActivators from the scene's unchanged states."""
    result = []
    for concept in CONCEPTS:
        bank = scene.objectives.readouts[SITES[concept]].bank
        vector = bank.vectors[bank.concepts.index(concept)].double().numpy()
        bias = float(bank.bias[bank.concepts.index(concept)])
        mean, scale = bank.scaling.mean.double().numpy(), bank.scaling.scale
        whole = [(row - mean) / scale for row in scene.states[bank.site].double().numpy()]
        z = [(row - mean) / scale for row in states[bank.site].double().numpy()]
        size = np.linalg.norm
        scores = [v @ vector + bias if activation == "logit" else v @ vector / size(v) / size(vector) for v in whole]
        threshold = THRESHOLDS[concept]
        chosen = [v for v, score in zip(whole, scores, strict=True) if score >= threshold]
        chosen = chosen or [whole[int(np.argmax(scores))]]
        local = sum(chosen) / len(chosen)
        local = local / size(local)
        if activation == "logit":
            result += [np.mean([v @ vector + bias for v in z]), np.mean([v @ local for v in z])]
        else:
            result += [
                np.mean([v @ vector / size(v) / size(vector) for v in z]),
                np.mean([v @ local / size(v) for v in z]),
            ]
    return np.array(result)


@pytest.mark.parametrize("activation", ["logit", "cosine"])
def test_objectives_equal_loops(text_scene: Make, activation: str) -> None:
    scene = text_scene(activation=activation)
    assert scene.objectives.concepts == ("red", "red", "loud", "loud", "warm", "warm")
    assert scene.objectives.objectives == OBJECTIVES * 3
    assert scene.objectives.sites == ("block[2]", "block[2]", "block[1]", "block[1]", "block[2]", "block[2]")
    expected = slow_objective(scene, dict(scene.states), activation)
    found = scene.values(np.ones((1, scene.n_tokens), dtype=bool))[0]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(scene.agreement().mean(axis=0), expected, atol=2e-6)


def test_the_fallback_is_the_highest_token_and_is_told(text_scene: Make) -> None:
    scene = text_scene()
    assert scene.objectives.fallback[2:].tolist() == [False] * 2 + [True] * 2
    column = scene.agreement()[:, 4]
    assert np.flatnonzero(scene.objectives.fired[:, 4]).tolist() == [int(column.argmax())]
    assert scene.objectives.fired[:, 2].all()


@pytest.mark.parametrize("hiding", HIDINGS["text"])
def test_hidden_texts_equal_texts_made_by_hand(text_scene: Make, hiding: str) -> None:
    scene = text_scene(hiding=hiding)
    keep = masks(scene, 3)
    tokenizer, model = scene.backbone.reader.tokenizer, scene.backbone.model
    ids = tokenizer(SENTENCE, return_tensors="pt")["input_ids"]
    for number in range(3):
        changed, attention = ids.clone(), torch.ones_like(ids)
        hidden = 1 + np.flatnonzero(~keep[number])  # [CLS] stands in front
        if hiding == "remove":
            attention[0, hidden] = 0
        else:
            changed[0, hidden] = getattr(tokenizer, f"{hiding}_token_id")
        with torch.no_grad():
            held = model(input_ids=changed, attention_mask=attention, output_hidden_states=True).hidden_states
        states = {"block[1]": held[2][0, 1:-1], "block[2]": held[3][0, 1:-1]}
        expected = slow_objective(scene, states, "logit")
        np.testing.assert_allclose(scene.values(keep)[number], expected, atol=2e-5)


@pytest.mark.parametrize("hiding", HIDINGS["image"])
def test_hidden_images_equal_images_made_by_hand(image_scene: Make, hiding: str) -> None:
    scene = image_scene("dinov2", hiding=hiding)  # a grid of 4 x 6 patches of 8 pixels
    assert scene.grid == (4, 6)
    keep = masks(scene, 2)
    pixels, filled = scene.hidden.inputs["pixel_values"], scene.hidden.filled
    if hiding == "mean":
        torch.testing.assert_close(filled, pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels))
    else:
        assert 0 < float((filled - pixels.mean()).std()) < 1.2 * float(pixels.std())
    for number in range(2):
        changed = pixels.clone()
        for token, kept in enumerate(keep[number].tolist()):
            if not kept:
                row, column = divmod(token, 6)
                patch = (0, slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
                changed[patch] = filled[patch]
        with torch.no_grad():
            held = scene.backbone.model(pixel_values=changed, output_hidden_states=True).hidden_states
        states = {"block[1]": held[2][0, 1:], "block[2]": held[3][0, 1:]}
        np.testing.assert_allclose(scene.values(keep)[number], slow_objective(scene, states, "logit"), atol=2e-5)


@pytest.mark.parametrize("family", [*TEXT_FAMILIES, *IMAGE_FAMILIES])
def test_every_family_gives_values_and_gradients(text_scene: Make, image_scene: Make, family: str) -> None:
    scene = (text_scene if family in TEXT_FAMILIES else image_scene)(family)
    keep = masks(scene, 7)
    values = scene.values(keep)
    assert values.shape == (7, 6)
    assert np.isfinite(values).all()
    assert scene.forwards == 7
    np.testing.assert_array_equal(scene.values(keep), values)
    assert scene.forwards == 7, "the same masks are run once"
    by_one = (text_scene if family in TEXT_FAMILIES else image_scene)(family, max_batch_tokens=1)
    np.testing.assert_allclose(by_one.values(keep), values, atol=2e-5)
    leaf = scene.leaf()[None].requires_grad_(True)
    recorded = scene.record(leaf, ["block[0]"])
    whole = scene.values(np.ones((1, scene.n_tokens), dtype=bool))
    np.testing.assert_allclose(recorded.values.detach().numpy(), whole, atol=2e-5)
    (gradient,) = torch.autograd.grad(recorded.values[0, 0], leaf)
    assert float(gradient.abs().max()) > 0
    assert scene.per_token(gradient).shape == (1, scene.n_tokens)
    assert scene.token_rows(recorded.states["block[0]"]).shape == (1, scene.n_tokens, scene.backbone.width)
    hidden = scene.record(scene.hidden_leaf()[None]).values.detach().numpy()
    np.testing.assert_allclose(hidden, scene.values(np.zeros((1, scene.n_tokens), dtype=bool)), atol=2e-5)
    assert all(parameter.grad is None for parameter in scene.backbone.model.parameters())


def test_gradients_equal_finite_differences(text_scene: Make) -> None:
    scene = text_scene()
    leaf = scene.leaf()[None].requires_grad_(True)
    (gradient,) = torch.autograd.grad(scene.record(leaf).values[0, 1], leaf)
    step = 0.02 * gradient / gradient.norm()
    with torch.no_grad():
        ahead, behind = (scene.record(leaf + sign * step).values[0, 1] for sign in (1, -1))
    assert float(ahead - behind) / 2 == pytest.approx(float((gradient * step).sum()), rel=0.02)


def test_entries_are_summed_by_token(image_scene: Make, text_scene: Make) -> None:
    scene = image_scene("dinov2")
    field = torch.randn(2, *scene.leaf().shape, generator=torch.Generator().manual_seed(0))
    found = scene.per_token(field)
    for token in (0, 5, 6, 23):
        row, column = divmod(token, 6)
        patch = field[:, 0, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        torch.testing.assert_close(found[:, token], patch.sum(dim=(1, 2, 3)), atol=1e-4, rtol=1e-4)
    text = text_scene()
    field = torch.randn(2, *text.leaf().shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(text.per_token(field), field[:, 0, 1:-1].sum(dim=-1))


def test_long_texts_hide_a_token_in_all_its_windows(backbones: Callable[[str], Backbone]) -> None:
    model = backbones("bert")
    sample = TextSample("long", " ".join([SENTENCE] * 12))
    scene = Scene.of(model, random_detector(model.width), sample)
    shows = scene.hidden.shows
    assert shows.shape[0] > 1
    counts = np.bincount(shows[shows >= 0].numpy(), minlength=scene.n_tokens)
    assert counts.min() == 1
    assert counts.max() >= 2
    twice = int(np.flatnonzero(counts == 2)[0])
    keep = np.ones((1, scene.n_tokens), dtype=bool)
    keep[0, twice] = False
    ids = scene.hidden.variants(keep)["input_ids"]
    assert int((ids == model.reader.tokenizer.mask_token_id).sum()) == 2
    original = scene.encoding.token_ids
    assert original is not None
    held = scene.hidden.inputs["input_ids"]
    assert np.array_equal(held[shows >= 0].numpy(), original[shows[shows >= 0].numpy()])
    whole = scene.values(np.ones((1, scene.n_tokens), dtype=bool))[0]
    np.testing.assert_allclose(whole, scene.agreement().mean(axis=0), atol=1e-5)


def test_columns_do_not_depend_on_their_company(text_scene: Make) -> None:
    whole, alone = text_scene(), text_scene(concepts=["warm"], objectives=["superactivators"])
    keep = masks(whole, 5)
    np.testing.assert_allclose(alone.values(keep)[:, 0], whole.values(keep)[:, 5], atol=1e-6)
    assert list(alone.objectives.readouts) == ["block[2]"]


def test_randomness_depends_on_seed_sample_and_purpose_only(text_scene: Make) -> None:
    def draw(purpose: str = "a", **options: object) -> float:
        return float(text_scene(**options).generator(purpose).random())

    assert draw() == draw(max_batch_tokens=1) == draw(family="gpt2")
    assert len({draw(), draw("b"), draw(seed=1), draw(name="another")}) == 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"concepts": ["rad"]}, "unknown concept 'rad'.*red"),
        ({"objectives": ["superactivator"]}, "unknown objective 'superactivator'.*superactivators"),
        ({"concepts": []}, "at least one"),
        ({"concepts": ["red", "red"]}, "each once"),
        ({"hiding": "mean"}, "unknown way 'mean' to hide tokens of a model of texts.*mask"),
    ],
)
def test_wrong_settings_are_told_in_one_line(text_scene: Make, options: dict[str, object], named: str) -> None:
    with pytest.raises(StudyError, match=named) as caught:
        text_scene(**options)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_mask_and_pad_can_take_attention_away(text_scene: Make) -> None:
    with pytest.raises(ModelError, match="'remove'"):
        text_scene("gpt2", hiding="pad")
    scene = text_scene("gpt2", hiding="remove")
    assert np.isfinite(scene.values(masks(scene, 2))).all()
