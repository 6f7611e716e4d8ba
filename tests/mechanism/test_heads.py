"""Heads as they are read from weights, against what the model's own modules compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mechanism_families import ALL, drawn_for, first_inputs
from superactivators.attribution.rollout import eager_attention
from superactivators.mechanism.anatomy import Anatomy
from superactivators.mechanism.calls import given_state
from superactivators.mechanism.folding import Fold, fold
from superactivators.mechanism.head_layout import Heads, Projection
from superactivators.mechanism.heads import AttentionShares, head_gains
from superactivators.mechanism.passes import attention_shares, without_head
from superactivators.models.backbone import Backbone

GROUPED = ("llama", "qwen2", "gemma2", "gemma3", "phi3", "qwen3")
FUSED = ("gpt2", "gpt_neox", "phi3")
SOFT_CAP = {"gemma2": 50.0}


def heads_of(anatomy: Anatomy) -> Heads:
    assert anatomy.heads is not None, anatomy.why_no_heads
    return anatomy.heads


class Seen:
    """What the attention of one block was given and gave."""

    def __init__(self, heads: Heads) -> None:
        self.values: dict[str, Tensor] = {}
        self._handles = [
            heads.value.module.register_forward_hook(self._keep("read", "projected"), with_kwargs=True),
            heads.output.register_forward_hook(self._keep("mixed", "written"), with_kwargs=True),
            heads.weighing.register_forward_hook(self._weights),
        ]

    def _keep(self, given: str, gave: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            self.values |= {given: given_state(args, kwargs), gave: output}

        return hook

    def _weights(self, module: nn.Module, args: Any, output: Any) -> None:
        self.values["weights"] = output[1]

    def close(self) -> dict[str, Tensor]:
        for handle in self._handles:
            handle.remove()
        return self.values


def watch(backbone: Backbone, heads: Heads, inputs: dict[str, Any]) -> dict[str, Tensor]:
    seen = Seen(heads)
    try:
        with eager_attention(backbone):
            backbone.runner.run(inputs, [f"block[{backbone.n_blocks - 1}]"], lambda site, raw: None)
    finally:
        found = seen.close()
    with torch.inference_mode(False):
        return {name: value.clone() for name, value in found.items()}


def projected(part: Projection, read: Tensor) -> Tensor:
    """Results of a projection by head, bias included: [batch, heads, seq, head_width]."""
    made = torch.einsum("bsd,hrd->bhsr", read, part.weight)
    bias = getattr(part.module, "bias", None)
    return made if bias is None else made + bias.detach()[part.rows.clone()][:, None]


@pytest.mark.parametrize("family", ALL)
def test_every_head_writes_what_the_model_writes(
    family: str, backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    """Attention times values through each head's own weights sums to the output projection's result."""
    backbone = backbones(family)
    for anatomy in anatomies(family):
        heads = heads_of(anatomy)
        assert heads.n_heads == 4
        assert heads.shared_by == (2 if family in GROUPED else 1)
        seen = watch(backbone, heads, first_inputs(backbone))
        total = torch.zeros_like(seen["written"])
        for head in range(heads.n_heads):  # each by itself, as a plain loop
            value = projected(heads.value, seen["read"])[:, head // heads.shared_by]
            result = seen["weights"][:, head] @ value
            own = seen["mixed"][..., head * heads.head_width : (head + 1) * heads.head_width]
            torch.testing.assert_close(result, own, rtol=1e-4, atol=1e-5)
            total += result @ heads.w_o[head].T
        bias = getattr(heads.output, "bias", None)
        torch.testing.assert_close(total if bias is None else total + bias, seen["written"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ALL)
def test_queries_and_keys_make_the_model_s_attention(
    family: str, backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    """With every token at position 0, where rotary positions do nothing, scores follow from the weights alone."""
    backbone = backbones(family)
    inputs = dict(first_inputs(backbone))
    if family in (*GROUPED, "gpt_neox"):
        inputs["position_ids"] = torch.zeros_like(inputs["input_ids"])
    for anatomy in anatomies(family):
        heads = heads_of(anatomy)
        seen = watch(backbone, heads, inputs)
        query, key = (projected(part, seen["read"]) for part in (heads.query, heads.key))
        if heads.q_norm is not None:
            query, key = (
                made * part.gain * part.inverse_lengths(made)[..., None]
                for made, part in ((query, heads.q_norm), (key, heads.k_norm))
            )
        scores = heads.scaling * query @ key.repeat_interleave(heads.shared_by, dim=1).mT
        if family in SOFT_CAP:
            scores = SOFT_CAP[family] * torch.tanh(scores / SOFT_CAP[family])
        hidden = (seen["weights"] == 0).all(dim=1, keepdim=True)
        expected = torch.softmax(scores.masked_fill(hidden, -math.inf), dim=-1)
        real = torch.ones(len(scores), scores.shape[2]) if "attention_mask" not in inputs else inputs["attention_mask"]
        rows = real.bool()[:, None, :, None]  # padding may see nothing, and then attends to everything
        expected, found = (torch.where(rows, part, 0.0) for part in (expected.nan_to_num(), seen["weights"]))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ALL)
def test_ov_gain_is_the_derivative_of_what_the_modules_write(
    family: str, backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    """Differentiate the model's own modules where a norm's length stands still: orthogonal to the direction."""
    width = backbones(family).width
    generator = torch.Generator().manual_seed(2)
    for anatomy in anatomies(family)[:2]:
        heads = heads_of(anatomy)
        directions = torch.nn.functional.normalize(torch.randn(2, width, generator=generator), dim=1)
        for c, direction in enumerate(directions):
            state = torch.randn(width, generator=generator)
            state = _away(state, direction, centred=bool(heads.read) and heads.read[0].centred)
            lengths = {part.module: float(part.inverse_lengths(state)) for part in heads.read}

            def read(moved: Tensor, heads: Heads = heads) -> tuple[Tensor]:
                for part in heads.read:
                    moved = part.module(moved[None, None])[0, 0]
                return (heads.value.module(moved[None, None])[0, 0],)

            _, (slope,) = torch.autograd.functional.jvp(read, (state,), (direction,))
            slopes = [heads.w_o[h] @ slope[heads.value.rows[h // heads.shared_by]] for h in range(heads.n_heads)]
            for h, written in enumerate(slopes):
                local = dict(lengths)
                for part in heads.write:
                    around = _away(torch.randn(width, generator=generator), written, centred=part.centred)
                    local[part.module] = float(part.inverse_lengths(around))
                    _, written = torch.autograd.functional.jvp(
                        lambda x, part=part: part.module(x[None, None])[0, 0], (around,), (written,)
                    )
                gains = head_gains(heads, directions, local)
                assert gains.ov_gain[h, c] == pytest.approx(float(written @ direction), rel=2e-3, abs=2e-5)
                expected = float(torch.nn.functional.cosine_similarity(written, direction, dim=0))
                assert gains.ov_cosine[h, c] == pytest.approx(expected, rel=2e-3, abs=2e-5)


def _away(state: Tensor, direction: Tensor, *, centred: bool) -> Tensor:
    """Take the direction out of a state, in the space in which a norm measures length."""
    if not centred:
        return state - direction * (state @ direction) / (direction @ direction)
    held = direction - direction.mean()
    state = state - state.mean()
    return state - held * (state @ held) / (held @ held)


def test_qk_gain_is_a_score_between_two_tokens(
    backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    for family in ("bert", "llama", "gpt2"):
        heads = heads_of(anatomies(family)[1])
        directions = torch.nn.functional.normalize(
            torch.randn(3, backbones(family).width, generator=torch.Generator().manual_seed(1)), dim=1
        )
        lengths = {part.module: 0.7 for part in heads.read}
        gains = head_gains(heads, directions, lengths)
        for c, direction in enumerate(directions.numpy().astype(np.float64)):
            if heads.read:
                held = direction - direction.mean() if family == "gpt2" else direction
                direction = 0.7 * held * heads.read[0].module.weight.detach().numpy()
            for h in range(heads.n_heads):
                query = heads.query.weight[h].numpy() @ direction
                key = heads.key.weight[h // heads.shared_by].numpy() @ direction
                assert gains.qk_gain[h, c] == pytest.approx(query @ key / math.sqrt(8), rel=1e-5)
                cosine = query @ key / np.linalg.norm(query) / np.linalg.norm(key)
                assert gains.qk_cosine[h, c] == pytest.approx(cosine, rel=1e-5)


def test_concepts_do_not_see_one_another(anatomies: Callable[[str], list[Anatomy]]) -> None:
    heads = heads_of(anatomies("gemma3")[0])
    directions = torch.nn.functional.normalize(torch.randn(4, 32), dim=1)
    together = head_gains(heads, directions)
    alone = head_gains(heads, directions[2:3])
    for name in ("ov_gain", "ov_cosine", "qk_gain", "qk_cosine"):
        np.testing.assert_allclose(getattr(together, name)[:, 2:3], getattr(alone, name), rtol=1e-9)


# ------------------------------------------------------------------ a head with a known answer


def test_a_hand_built_head_has_the_gains_that_it_was_given() -> None:
    """Width 3, two heads of width 2, one key and value head: the first query head reads and writes along c."""
    query = nn.Linear(3, 4, bias=False)
    key, value, output = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False), nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        query.weight.copy_(torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]))
        key.weight.copy_(torch.tensor([[3.0, 0, 0], [0, 0, 1]]))
        value.weight.copy_(torch.tensor([[0.5, 0, 0], [0, 1, 0]]))
        output.weight.copy_(torch.tensor([[4.0, 0, 0, 0], [0, 0, 1, 0], [3, 0, 0, 1]]))
    rows = torch.arange(2)[None]
    heads = Heads(
        query=Projection(query, False, torch.arange(4).reshape(2, 2)),
        key=Projection(key, False, rows),
        value=Projection(value, False, rows),
        output=output,
        output_transposed=False,
        scaling=0.5,
        read=(),
        write=(),
        q_norm=None,
        k_norm=None,
        weighing=output,
    )
    found = head_gains(heads, torch.tensor([[1.0, 0, 0], [0, 0, 0]]))
    assert found.ov_gain[:, 0].tolist() == [2.0, 0.0]
    np.testing.assert_allclose(found.ov_cosine[:, 0], [0.8, 0])
    assert found.qk_gain[:, 0].tolist() == [3.0, 0.0]
    assert found.qk_cosine[0, 0] == pytest.approx(1)
    assert np.isnan(found.qk_cosine[1, 0])  # its query reads nothing along c
    assert (found.ov_gain[:, 1] == 0).all()
    assert np.isnan(found.ov_cosine[:, 1]).all()


# ------------------------------------------------------------------ folding


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.1, 2, width))

    def forward(self, states: Tensor) -> Tensor:
        return states * self.gain


@pytest.mark.parametrize(
    "module", [nn.LayerNorm(8), nn.RMSNorm(8), Scale(8), nn.LayerNorm(8, elementwise_affine=False)]
)
def test_a_fold_has_the_derivative_of_its_module(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(8, generator=generator))
    held = fold(module, 8)
    assert held is not None
    assert (held.normed, held.centred) == (not isinstance(module, Scale), isinstance(module, nn.LayerNorm))
    direction = torch.randn(8, generator=generator)
    state = _away(torch.randn(8, generator=generator), direction, centred=held.centred)
    _, (expected,) = torch.autograd.functional.jvp(lambda x: (module(x[None, None])[0, 0],), (state,), (direction,))
    found = held.apply(direction, float(held.inverse_lengths(state)))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("module", [nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4), nn.Softmax(dim=-1)])
def test_what_is_neither_norm_nor_scale_has_no_fold(module: nn.Module) -> None:
    assert fold(module, 8) is None


# ------------------------------------------------------------------ attention and ablation


@pytest.mark.parametrize("family", ["bert", "gpt2", "gemma2", "dinov2", "gpt_neox"])
def test_attention_to_chosen_tokens_equals_a_loop(
    family: str, backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    backbone = backbones(family)
    drawn = drawn_for(backbone)
    offsets = drawn.encoding.offsets
    chosen = np.random.default_rng(0).random((drawn.encoding.n_tokens, 2)) < 0.2
    chosen[offsets[1] : offsets[2], 0] = False  # a sample without: its tokens are not asked
    chosen[offsets[0], 0] = chosen[offsets[2], 0] = True
    known = anatomies(family)
    found = attention_shares(backbone, drawn, known, chosen)
    (batch,) = backbone.batches(drawn.samples, drawn.encoding)
    (forward,) = batch.passes
    for block in (0, 3):
        weights = watch(backbone, heads_of(known[block]), forward.inputs)["weights"].numpy()
        length = weights.shape[2]
        places = forward.layout(length).rows
        tokens = np.concatenate([np.arange(offsets[s], offsets[s + 1]) for s in batch.rows])
        for c in range(2):
            paid, share = [], []
            for place, token in zip(places, tokens, strict=True):
                sample = np.searchsorted(offsets, token, side="right") - 1
                if not chosen[offsets[sample] : offsets[sample + 1], c].any():
                    continue
                piece, row = divmod(int(place), length)
                keys = [
                    int(p) % length
                    for p, t in zip(places, tokens, strict=True)
                    if int(p) // length == piece and chosen[t, c]
                ]
                paid.append(weights[piece, :, row, keys].sum(axis=0))
                visible = (weights[piece, :, row] > 0).any(axis=0)
                share.append(visible[keys].sum() / visible.sum())
            np.testing.assert_allclose(found.attention(block)[:, c], np.mean(paid, axis=0), rtol=1e-5)
            assert found.share(block)[c] == pytest.approx(np.mean(share))


@pytest.mark.parametrize("family", ["bert", "gpt2", "vit"])
def test_batches_do_not_change_attention(
    family: str, backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    backbone = backbones(family)
    whole, single = drawn_for(backbone), drawn_for(backbone, max_batch_tokens=1)
    chosen = np.random.default_rng(0).random((whole.encoding.n_tokens, 3)) < 0.2
    one, other = (attention_shares(backbone, drawn, anatomies(family), chosen) for drawn in (whole, single))
    for block in range(backbone.n_blocks):
        np.testing.assert_allclose(one.attention(block), other.attention(block), rtol=1e-4)
        np.testing.assert_allclose(one.share(block), other.share(block), rtol=1e-6)


def test_even_attention_pays_each_token_its_share() -> None:
    shares = AttentionShares([2], 1)
    chosen = torch.tensor([[[1.0], [0], [0], [1]]])
    shares.add(0, torch.full((1, 2, 4, 4), 0.25), chosen, torch.ones(1, 4, 1))
    assert shares.attention(0).ravel().tolist() == [0.5, 0.5]
    assert shares.share(0).tolist() == [0.5]
    assert np.isnan(AttentionShares([2], 1).attention(0)).all()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "phi3", "dinov2"])
def test_without_a_head_its_own_part_is_missing(
    family: str, backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    backbone = backbones(family)
    heads = heads_of(anatomies(family)[1])
    before = watch(backbone, heads, first_inputs(backbone))
    with without_head(heads, 2):
        after = watch(backbone, heads, first_inputs(backbone))
    own = before["mixed"][..., 2 * heads.head_width : 3 * heads.head_width] @ heads.w_o[2].T
    torch.testing.assert_close(before["written"] - after["written"], own, rtol=1e-3, atol=1e-5)
    assert float(own.norm()) > 0.01
    again = watch(backbone, heads, first_inputs(backbone))  # nothing was left behind
    torch.testing.assert_close(again["written"], before["written"])


def test_folds_know_their_kind(anatomies: Callable[[str], list[Anatomy]]) -> None:
    def kinds(parts: tuple[Fold, ...]) -> list[tuple[bool, bool]]:
        return [(part.normed, part.centred) for part in parts]

    for family, read, write in (
        ("bert", [], []),
        ("gpt2", [(True, True)], []),
        ("llama", [(True, False)], []),
        ("gemma2", [(True, False)], [(True, False)]),
        ("dinov2", [(True, True)], [(False, False)]),
    ):
        heads = heads_of(anatomies(family)[0])
        assert (kinds(heads.read), kinds(heads.write)) == (read, write)
    for family in ALL:
        assert (heads_of(anatomies(family)[0]).q_norm is not None) == (family in ("gemma3", "qwen3"))
        assert (heads_of(anatomies(family)[0]).query.module is heads_of(anatomies(family)[0]).key.module) == (
            family in FUSED
        )
