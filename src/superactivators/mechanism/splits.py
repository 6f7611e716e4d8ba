"""What attention and MLP each add to the residual stream, along concept vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float
from torch import Tensor, nn

from superactivators.errors import ModelError
from superactivators.mechanism.anatomy import Anatomy, tolerance
from superactivators.mechanism.calls import first_tensor, given_state, hooks, relative
from superactivators.models.backbone import Backbone

PARTS = ("attention", "mlp", "norm")
"""What a block's change is split into; ``norm`` is not zero only where norms stand behind the sums."""


@final
@dataclass(frozen=True, eq=False)
class BlockParts:
    """One block's forward pass.

    Attributes
    ----------
    before, after : tensors of shape (batch, sequence, width)
        The residual stream.
    attention, mlp : tensors of shape (batch, sequence, width)
        What is added to it.
    error : float
        Relative error of ``before + attention + mlp = after``; where norms stand behind the sums, of the three
        identities of which the block consists.
    """

    before: Float[Tensor, "batch seq d"]
    attention: Float[Tensor, "batch seq d"]
    mlp: Float[Tensor, "batch seq d"]
    after: Float[Tensor, "batch seq d"]
    error: float

    def parts(self) -> Iterator[tuple[str, Float[Tensor, "batch seq d"]]]:
        """Yield the name and the value of each of `PARTS`; they sum to the block's change."""
        yield "attention", self.attention
        yield "mlp", self.mlp
        yield "norm", self.after.float() - self.before.float() - self.attention.float() - self.mlp.float()


@contextmanager
def watching_parts(
    backbone: Backbone, anatomies: Sequence[Anatomy], receive: Callable[[int, BlockParts], None]
) -> Iterator[None]:
    """Hand the parts of every block to a function while forward passes run inside a ``with`` block.

    Parameters
    ----------
    backbone : Backbone
    anatomies : sequence of Anatomy
        From `superactivators.mechanism.anatomy.dissect`.
    receive : function of (block, BlockParts)
        Called once for each block and pass.

    Raises
    ------
    ModelError
        If the parts of a block do not sum to its change, to `superactivators.mechanism.anatomy.tolerance`.
    """
    most, seen, handles = tolerance(backbone), dict[str, Tensor | None](), list[Any]()

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen[name] = first_tensor(output)

        return hook

    def keep_given(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            seen[name] = given_state(args, kwargs)

        return hook

    def close(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen["after"] = first_tensor(output)
            found = _joined(backbone, number, anatomies[number], seen)
            seen.clear()
            if not found.error <= most:
                raise ModelError(
                    f"{type(backbone.model).__name__}: the parts of block {number} miss its change by a share of "
                    f"{found.error:.1e}, where {most:g} is allowed; this model cannot be split"
                )
            receive(number, found)

        return hook

    for number, (block, anatomy) in enumerate(zip(backbone.blocks, anatomies, strict=True)):
        handles.append(block.register_forward_pre_hook(keep_given("before"), with_kwargs=True))
        handles.append(anatomy.attention.register_forward_hook(keep("attention")))
        handles.append(anatomy.mlp.register_forward_hook(keep("mlp")))
        for place, norm in enumerate(anatomy.norms or ()):
            handles.append(norm.register_forward_pre_hook(keep_given(f"given{place}"), with_kwargs=True))
            handles.append(norm.register_forward_hook(keep(f"gave{place}")))
        handles.append(block.register_forward_hook(close(number)))
    with hooks(handles):
        yield


def _joined(backbone: Backbone, number: int, anatomy: Anatomy, seen: dict[str, Tensor | None]) -> BlockParts:
    names = ["before", "attention", "mlp", "after"]
    names += ["given0", "gave0", "given1", "gave1"] if anatomy.norms else []
    held = {name: value for name in names if (value := seen.get(name)) is not None}
    if len(held) < len(names):
        missing = ", ".join(name for name in names if name not in held)
        raise ModelError(f"{type(backbone.model).__name__}: block {number} ran without {missing}; it cannot be split")
    held = {name: value if value.ndim == 3 else value[None] for name, value in held.items()}
    change = held["after"] - held["before"]
    if anatomy.norms:
        wrong = [
            held["given0"] - held["before"] - held["attention"],
            held["given1"] - held["gave0"] - held["mlp"],
            held["after"] - held["gave1"],
        ]
    else:
        wrong = [change - held["attention"] - held["mlp"]]
    error = max(relative(value, change) for value in wrong)
    return BlockParts(held["before"], held["attention"], held["mlp"], held["after"], error)


def split_rows(
    block: int,
    vector: str,
    concepts: Sequence[str],
    parts: Sequence[Float[np.ndarray, "tokens c"]],
    inside: Bool[np.ndarray, "tokens c"],
    outside: Bool[np.ndarray, "tokens c"],
    fired: Bool[np.ndarray, "tokens c"],
) -> list[dict[str, object]]:
    """Mean contribution of each of `PARTS` along concept vectors, by what the tokens are.

    Parameters
    ----------
    block : int
    vector : str
        ``"fixed"`` or ``"own"``.
    concepts : sequence of str
    parts : three float arrays of shape (tokens, concepts)
        Along unit vectors, in units of the raw states, in the order of `PARTS`.
    inside, outside, fired : bool arrays of shape (tokens, concepts)
        In-concept tokens, tokens of samples without the concept, and SuperActivators.

    Returns
    -------
    list of dict
        ``block, vector, concept, part, change_in, change_out, change_fired, apart``; ``apart`` is ``change_in`` less
        ``change_out``: by how much the part moves the two means apart. NaN where there are no such tokens. Over the
        parts they sum to the block's change.
    """
    rows: list[dict[str, object]] = []
    for part, values in zip(PARTS, parts, strict=True):
        means = [_mean(values, members) for members in (inside, outside, fired)]
        for c, name in enumerate(concepts):
            change_in, change_out, change_fired = (float(mean[c]) for mean in means)
            rows.append(
                {
                    "block": block,
                    "vector": vector,
                    "concept": name,
                    "part": part,
                    "change_in": change_in,
                    "change_out": change_out,
                    "change_fired": change_fired,
                    "apart": change_in - change_out,
                }
            )
    return rows


def split_table(rows: Sequence[dict[str, object]], errors: Sequence[float]) -> pa.Table:
    """Put the rows of all blocks together, with the largest ``error`` of each block's identity over all passes."""
    return pa.Table.from_pylist([{**row, "error": errors[int(str(row["block"]))]} for row in rows])


def _mean(values: Float[np.ndarray, "tokens c"], members: Bool[np.ndarray, "tokens c"]) -> Float[np.ndarray, " c"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(members, values.astype(np.float64), 0).sum(axis=0) / members.sum(axis=0))
