"""How the attention heads of a block are laid out in its weights: found by what its modules computed in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from superactivators.errors import ModelError
from superactivators.mechanism.calls import Call, relative
from superactivators.mechanism.folding import Fold, fold

_SINGLE = re.compile(r"(?:(q|k|v)(?:_proj|_lin|_linear)?|(query|key|value)(?:_proj|_layer)?)")
_FUSED = re.compile(r"qkv|qkv_proj|c_attn|query_key_value|in_proj|Wqkv")


@final
@dataclass(frozen=True, eq=False)
class Projection:
    """Rows of a linear module's weight, cut into heads; read when asked for, so that nothing is held twice.

    Attributes
    ----------
    module : nn.Module
    transposed : bool
        Whether the weight is stored as (in, out).
    rows : int64 tensor of shape (heads, head_width)
        Outputs that each head owns.
    """

    module: nn.Module
    transposed: bool
    rows: Int64[Tensor, "heads r"]

    @property
    def weight(self) -> Float[Tensor, "heads r in_"]:
        """Weight of each head, float32, on the CPU."""
        whole = self.module.weight
        assert isinstance(whole, Tensor)  # noqa: S101
        matrix = (whole.T if self.transposed else whole).detach()
        picked = matrix[self.rows.reshape(-1).to(matrix.device)].float().cpu()
        return picked.reshape(*self.rows.shape, -1)


@final
@dataclass(frozen=True, eq=False)
class Heads:
    """The attention heads of one block; biases are left out.

    Attributes
    ----------
    query, key, value : Projection
        Of ``heads`` query heads and ``kv_heads`` key and value heads; query head ``h`` uses number
        ``h // (heads // kv_heads)``.
    output : nn.Module
        Projection of all heads' results; head ``h`` owns a run of its input of length ``head_width``.
    output_transposed : bool
        Whether its weight is stored as (in, out).
    scaling : float
        Factor of the scores.
    read, write : tuples of Fold
        What a state goes through before it is read (the norm in front), and what is written after it (norm or layer
        scale behind); empty where there is nothing, or where it counts as no part (see `Anatomy.norms`).
    q_norm, k_norm : Fold or None
        Norms of single heads' queries and keys.
    weighing : nn.Module
        Module that gives the attention weights when attention is computed in the open.
    """

    query: Projection
    key: Projection
    value: Projection
    output: nn.Module
    output_transposed: bool
    scaling: float
    read: tuple[Fold, ...]
    write: tuple[Fold, ...]
    q_norm: Fold | None
    k_norm: Fold | None
    weighing: nn.Module

    @property
    def n_heads(self) -> int:
        """Number of query heads."""
        return len(self.query.rows)

    @property
    def shared_by(self) -> int:
        """How many query heads use one key and value head."""
        return self.n_heads // len(self.key.rows)

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return int(self.query.rows.shape[1])

    @property
    def w_o(self) -> Float[Tensor, "heads d r"]:
        """Output weight of each head, float32, on the CPU."""
        whole = self.output.weight
        assert isinstance(whole, Tensor)  # noqa: S101
        matrix = (whole.T if self.output_transposed else whole).detach().float().cpu()
        return matrix.reshape(len(matrix), self.n_heads, self.head_width).permute(1, 0, 2)

    @property
    def folds(self) -> tuple[Fold, ...]:
        """Everything whose lengths have to be measured."""
        return (*self.read, *self.write, *(part for part in (self.q_norm, self.k_norm) if part is not None))


def role_of(path: str) -> str | None:
    """Say what a module projects to, by the last part of its path: ``"q"``, ``"k"``, ``"v"`` or ``"qkv"``."""
    name = path.rsplit(".", 1)[-1]
    if _FUSED.fullmatch(name):
        return "qkv"
    match = _SINGLE.fullmatch(name)
    return (match[1] or match[2])[0] if match else None


def _is_linear(call: Call) -> bool:
    weight = getattr(call.module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2


def _transposed(call: Call) -> bool:
    """Whether a linear module's weight is stored as (in, out)."""
    weight, bias = call.module.weight, getattr(call.module, "bias", None)
    assert isinstance(weight, Tensor)  # noqa: S101
    target = call.gave - bias if isinstance(bias, Tensor) else call.gave
    most = 1e-3 if weight.dtype in (torch.float32, torch.float64) else 5e-2
    for transposed, matrix in ((False, weight), (True, weight.T)):
        fits = (matrix.shape[1], matrix.shape[0]) == (call.given.shape[-1], target.shape[-1])
        if fits and relative(call.given @ matrix.T - target, target) <= most:
            return transposed
    raise ModelError(f"{call.path} is no plain linear map of its weight, so heads cannot be told apart in it")


def find_heads(calls: Sequence[Call], before: Tensor) -> tuple[Heads, int]:
    """Read the heads of a block; also the place of the output projection among the calls."""
    roles: dict[str, tuple[int, Call]] = {}
    for place, call in enumerate(calls):
        role = role_of(call.path)
        if role is not None and _is_linear(call):
            if role in roles:
                raise ModelError(f"two projections of kind {role!r} in one block")
            roles[role] = place, call
    if set(roles) not in ({"q", "k", "v"}, {"qkv"}):
        raise ModelError("no projections to queries, keys and values were found in it")
    weighing = next((call for call in calls if call.weights is not None), None)
    if weighing is None or weighing.weights is None:
        raise ModelError("it does not give its attention")
    last = max(place for place, _ in roles.values())
    outer = next(((place, call) for place, call in enumerate(calls) if place > last and _is_linear(call)), (last, None))
    width, (place, output) = before.shape[-1], outer
    if output is None or output.gave.shape[-1] != width:
        raise ModelError("no output projection was found behind the heads")
    n_heads = weighing.weights.shape[1]
    size = output.given.shape[-1] // n_heads
    found = {role: call for role, (_, call) in roles.items()}
    cut = _checked_cut(found, weighing.weights, output.given, n_heads, size)
    parts = {role: found.get("qkv") or found[role] for role in "qkv"}
    norms = {role: _head_norm(calls, found.get(role), size) for role in "qk"}
    heads = Heads(
        **{
            name: Projection(parts[name[0]].module, _transposed(parts[name[0]]), cut[name[0]])
            for name in ("query", "key", "value")
        },
        output=output.module,
        output_transposed=_transposed(output),
        scaling=_scaling(weighing.module, size),
        read=_read(calls, parts["v"], before),
        write=(),
        q_norm=norms["q"],
        k_norm=norms["k"],
        weighing=weighing.module,
    )
    return heads, place


def _checked_cut(
    found: Mapping[str, Call], weights: Tensor, mixed: Tensor, n_heads: int, size: int
) -> dict[str, Int64[Tensor, "heads r"]]:
    """Cut the projections into heads, so that weights times values are what the output projection is given."""
    value = (found.get("qkv") or found["v"]).gave
    most = 1e-3 if mixed.dtype in (torch.float32, torch.float64) else 5e-2
    for cut in _cuts({role: call.gave.shape[-1] for role, call in found.items()}, n_heads, size):
        rows = cut["v"]
        held = value[..., rows.reshape(-1).to(value.device)].reshape(*value.shape[:-1], *rows.shape)
        spread = held.repeat_interleave(n_heads // len(rows), dim=-2)
        if spread.ndim != 4 or weights.shape[-1] != spread.shape[1]:
            continue
        again = torch.einsum("bhqk,bkhr->bqhr", weights.float(), spread.float()).flatten(-2)
        if again.shape == mixed.shape and relative(again - mixed, mixed) <= most:
            return cut
    raise ModelError("attention times values is not what its output projection is given")


def _cuts(widths: Mapping[str, int], n_heads: int, size: int) -> Iterator[dict[str, Int64[Tensor, "heads r"]]]:
    """Yield ways in which the projections' outputs can belong to heads."""
    if "qkv" not in widths:
        if all(width % size == 0 for width in widths.values()):
            cut = {role: torch.arange(widths[role]).reshape(-1, size) for role in "qkv"}
            if len(cut["q"]) == n_heads and len(cut["k"]) == len(cut["v"]) and n_heads % len(cut["v"]) == 0:
                yield cut
        return
    rows = torch.arange(widths["qkv"])
    kept = (len(rows) // size - n_heads) // 2
    if len(rows) == (n_heads + 2 * kept) * size and kept > 0 and n_heads % kept == 0:
        runs = rows.reshape(-1, size)
        yield {"q": runs[:n_heads], "k": runs[n_heads : n_heads + kept], "v": runs[n_heads + kept :]}
    if len(rows) == 3 * n_heads * size:
        each = rows.reshape(n_heads, 3, size)
        yield {role: each[:, number] for number, role in enumerate("qkv")}


def _scaling(module: nn.Module, size: int) -> float:
    for name in ("scaling", "scale"):
        value = getattr(module, name, None)
        if isinstance(value, float):
            return value
    return float(size**-0.5)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same memory, or hold the same numbers."""
    if one.shape != other.shape:
        return False
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def _read(calls: Sequence[Call], source: Call, before: Tensor) -> tuple[Fold, ...]:
    if _same(source.given, before):
        return ()
    for call in calls:
        if _same(call.given, before) and _same(call.gave, source.given):
            held = fold(call.module, before.shape[-1])
            if held is not None:
                return (held,)
    raise ModelError("its heads do not read the block's input, nor a norm of it")


def _head_norm(calls: Sequence[Call], source: Call | None, size: int) -> Fold | None:
    """Norm of single heads behind a projection, if there is one."""
    if source is None:
        return None
    for call in calls:
        behind = call.given.data_ptr() == source.gave.data_ptr() and call.given.shape[-1] == size
        if behind and call is not source and list(call.module.parameters()):
            return fold(call.module, size)
    return None


def with_write(heads: Heads, calls: Sequence[Call], begin: int, part: Call) -> Heads | None:
    """Add what stands between the output projection and the attention part; None if that cannot be folded."""
    here, folds = calls[begin].gave, []
    for call in calls[begin + 1 : calls.index(part) + 1]:
        if _same(here, part.gave):
            break
        if not _same(call.given, here) or list(call.module.children()) or _same(call.given, call.gave):
            continue
        held = fold(call.module, here.shape[-1])
        if held is None:
            return None
        folds.append(held)
        here = call.gave
    if not _same(here, part.gave):
        return None
    return replace(heads, write=tuple(folds))
