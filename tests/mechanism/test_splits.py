"""A block's change is attention plus MLP, in every family, and the parts are those that the model's code adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mechanism_families import ALL, drawn_for, first_inputs, write_checkpoint
from superactivators.errors import ModelError
from superactivators.mechanism.anatomy import TOLERANCE, Anatomy, dissect
from superactivators.mechanism.splits import PARTS, BlockParts, split_rows, split_table, watching_parts
from superactivators.models.backbone import Backbone

ADDED = {
    "bert": ("attention.output.dense", "output.dense"),
    "distilbert": ("attention.out_lin", "ffn"),
    "roberta": ("attention.output.dense", "output.dense"),
    "gpt2": ("attn", "mlp"),
    "llama": ("self_attn", "mlp"),
    "qwen2": ("self_attn", "mlp"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "vit": ("attention", "mlp"),
    "dinov2": ("layer_scale1", "layer_scale2"),
    "dinov2-registers": ("layer_scale1", "layer_scale2"),
    "clip": ("self_attn", "mlp"),
    "siglip": ("self_attn", "mlp"),
    "gpt_neox": ("attention", "mlp"),
    "phi3": ("self_attn", "mlp"),
    "qwen3": ("self_attn", "mlp"),
}
"""What each family's code adds to the residual stream, by name; the library knows none of these names."""

POST_NORM = ("bert", "distilbert", "roberta")


@contextmanager
def outputs_of(backbone: Backbone, names: tuple[str, ...]) -> Iterator[dict[tuple[int, str], torch.Tensor]]:
    found: dict[tuple[int, str], torch.Tensor] = {}

    def keep(block: int, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found[block, name] = (output[0] if isinstance(output, tuple) else output).clone()

        return hook

    handles = [
        block.get_submodule(name).register_forward_hook(keep(number, name))
        for number, block in enumerate(backbone.blocks)
        for name in names
    ]
    yield found
    for handle in handles:
        handle.remove()


def run(backbone: Backbone, anatomies: list[Anatomy], inputs: dict[str, Any]) -> dict[int, BlockParts]:
    found: dict[int, BlockParts] = {}
    last = f"block[{backbone.n_blocks - 1}]"
    with watching_parts(backbone, anatomies, found.__setitem__):
        backbone.runner.run(inputs, [last], lambda site, raw: None)
    return found


@pytest.mark.parametrize("family", ALL)
def test_parts_are_those_that_the_model_adds(
    family: str, backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    backbone = backbones(family)
    inputs = first_inputs(backbone)
    with outputs_of(backbone, ADDED[family]) as expected:
        found = run(backbone, anatomies(family), inputs)
    assert sorted(found) == list(range(backbone.n_blocks))
    for block, parts in found.items():
        torch.testing.assert_close(parts.attention, expected[block, ADDED[family][0]])
        torch.testing.assert_close(parts.mlp, expected[block, ADDED[family][1]])
        change = parts.after - parts.before
        assert float((sum(value for _, value in parts.parts()) - change).norm() / change.norm()) < 1e-5
        assert parts.error < TOLERANCE
        norm = dict(parts.parts())["norm"]
        if family in POST_NORM:
            assert anatomies(family)[block].norms is not None
            assert float(norm.norm() / change.norm()) > 0.1
        else:
            assert anatomies(family)[block].norms is None
            assert float(norm.norm() / change.norm()) < TOLERANCE


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_blocks_follow_one_another(
    family: str, backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    backbone = backbones(family)
    drawn = drawn_for(backbone)
    found = run(backbone, anatomies(family), first_inputs(backbone))
    for block in range(1, backbone.n_blocks):
        assert torch.equal(found[block].before, found[block - 1].after)
    (captured,) = backbone.capture(drawn.samples, drawn.encoding, ["block[1]"])
    rows = next(iter(next(iter(backbone.batches(drawn.samples, drawn.encoding))).passes)).layout(
        found[1].after.shape[1]
    )
    torch.testing.assert_close(found[1].after.reshape(-1, backbone.width)[rows.rows], captured.tokens["block[1]"])


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_a_block_that_does_something_else_is_refused(
    family: str, backbones: Callable[[str], Backbone], anatomies: Callable[[str], list[Anatomy]]
) -> None:
    backbone = backbones(family)
    known, inputs = anatomies(family), first_inputs(backbone)

    def crooked(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] * 1.01, *output[1:])
        return output * 1.01

    handle = backbone.blocks[2].register_forward_hook(crooked)
    try:
        with pytest.raises(ModelError, match="block 2 miss its change"):
            run(backbone, known, inputs)
        with pytest.raises(ModelError, match="block 2 is not the sum"):
            dissect(backbone, inputs)
    finally:
        handle.remove()
    assert len(run(backbone, known, inputs)) == backbone.n_blocks  # no hook was left behind


def test_rows_average_over_what_tokens_are() -> None:
    generator = np.random.default_rng(0)
    parts = [generator.normal(size=(30, 2)).astype(np.float32) for _ in PARTS]
    inside, outside, fired = (generator.random((30, 2)) < 0.4 for _ in range(3))
    fired[:, 1] = False
    rows = split_rows(3, "own", ("a", "b"), parts, inside, outside, fired)
    assert [(row["part"], row["concept"]) for row in rows] == [(part, name) for part in PARTS for name in "ab"]
    for number, row in enumerate(rows):
        values, c = parts[number // 2][:, number % 2], number % 2
        assert row["change_in"] == pytest.approx(values[inside[:, c]].astype(np.float64).mean())
        assert row["change_out"] == pytest.approx(values[outside[:, c]].astype(np.float64).mean())
        assert row["apart"] == pytest.approx(row["change_in"] - row["change_out"])
        assert np.isnan(row["change_fired"]) == (c == 1)
    table = split_table(rows, [0, 0, 0, 0.25])
    assert set(table["error"].to_pylist()) == {0.25}


class Foreign(nn.Module):
    """Attention of another library: one module without projections to be seen, and without weights by head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, hidden_states: torch.Tensor, **options: Any) -> tuple[torch.Tensor, None]:
        return self.inner(hidden_states, hidden_states, hidden_states)[0], None


def test_attention_that_shows_no_heads_is_still_split(tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(write_checkpoint("gpt2", tmp_path / "gpt2"), device="cpu")
    for block in backbone.blocks:
        block.attn = Foreign(backbone.width).eval()
    inputs = first_inputs(backbone)
    anatomies = dissect(backbone, inputs)
    assert [anatomy.heads for anatomy in anatomies] == [None] * backbone.n_blocks
    assert {anatomy.why_no_heads for anatomy in anatomies} == {
        "no projections to queries, keys and values were found in it"
    }
    with outputs_of(backbone, ("attn", "mlp")) as expected:
        found = run(backbone, anatomies, inputs)
    for block, parts in found.items():
        torch.testing.assert_close(parts.attention, expected[block, "attn"])
        torch.testing.assert_close(parts.mlp, expected[block, "mlp"])
