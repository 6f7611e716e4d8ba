"""Attention heads against concept vectors: what they read and write along them, and how much they draw attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from superactivators.mechanism.folding import Fold
from superactivators.mechanism.head_layout import Heads


@final
@dataclass(frozen=True, eq=False)
class HeadGains:
    """How the heads of a block treat concept directions; see `head_gains`.

    Attributes
    ----------
    ov_gain : float64 array of shape (heads, concepts)
        c^T W_OV c: what the head writes along c for each unit along c that it reads and fully attends to. It is the l
        of `superactivators.mechanism.theorems`.
    ov_cosine : float64 array of shape (heads, concepts)
        Cosine of W_OV c with c: which share of what is written for the concept lies along it.
    qk_gain : float64 array of shape (heads, concepts)
        c^T W_QK c with the factor of the scores: the score between two tokens that carry one unit of c each. Their b.
    qk_cosine : float64 array of shape (heads, concepts)
        Cosine of the query and the key that c makes.
    """

    ov_gain: Float[np.ndarray, "heads c"]
    ov_cosine: Float[np.ndarray, "heads c"]
    qk_gain: Float[np.ndarray, "heads c"]
    qk_cosine: Float[np.ndarray, "heads c"]


def head_gains(
    heads: Heads, directions: Float[Tensor, "c d"], inverse_lengths: Mapping[nn.Module, float] | None = None
) -> HeadGains:
    """Compare the read-write paths of all heads of a block with all directions at once.

    Parameters
    ----------
    heads : Heads
    directions : float tensor of shape (concepts, width)
        Unit vectors of the residual stream. A zero vector gives zeros and NaN cosines.
    inverse_lengths : mapping of module to float, optional
        Mean over tokens of one over the length by which each norm divides; 1 where it is missing.

    Returns
    -------
    HeadGains

    Notes
    -----
    Norms are folded in with their length held fixed at its mean over tokens, which leaves out that a norm's length
    moves with the activation. Gains of the norms are exact, and so are layer scales. Rotary positions are those of two
    tokens in the same place; biases, score caps and masks are left out.
    """
    lengths = inverse_lengths or {}
    unit = directions.double()

    def through(parts: tuple[Fold, ...], moved: Float[Tensor, "*k d"]) -> Float[Tensor, "*k d"]:
        for part in parts:
            moved = part.apply(moved, lengths.get(part.module, 1.0))
        return moved

    read = through(_wide(heads.read), unit)
    repeat = heads.shared_by
    value = torch.einsum("krd,cd->kcr", heads.value.weight.double(), read).repeat_interleave(repeat, dim=0)
    written = through(_wide(heads.write), torch.einsum("hdr,hcr->hcd", heads.w_o.double(), value))
    query = torch.einsum("hrd,cd->hcr", heads.query.weight.double(), read)
    key = torch.einsum("krd,cd->kcr", heads.key.weight.double(), read)
    if heads.q_norm is not None:
        query = through(_wide((heads.q_norm,)), query)
    if heads.k_norm is not None:
        key = through(_wide((heads.k_norm,)), key)
    key = key.repeat_interleave(repeat, dim=0)
    ov = torch.einsum("hcd,cd->hc", written, unit)
    qk = torch.einsum("hcr,hcr->hc", query, key)
    nan = torch.tensor(float("nan"), dtype=torch.float64)

    def cosine(product: Tensor, size: Tensor) -> Float[np.ndarray, "heads c"]:
        return np.asarray(torch.where(size > 0, product / size, nan).numpy())

    return HeadGains(
        ov_gain=ov.numpy(),
        ov_cosine=cosine(ov, written.norm(dim=-1) * unit.norm(dim=-1)),
        qk_gain=(heads.scaling * qk).numpy(),
        qk_cosine=cosine(qk, query.norm(dim=-1) * key.norm(dim=-1)),
    )


def _wide(parts: tuple[Fold, ...]) -> tuple[Fold, ...]:
    return tuple(Fold(part.module, part.gain.double(), part.normed, part.centred) for part in parts)


@final
class AttentionShares:
    """Attention that the heads of every block pay to chosen tokens, against how many of the tokens these are.

    Parameters
    ----------
    n_blocks : int
    n_heads : sequence of int
        Of each block; 0 where attention is not read.
    n_concepts : int
    """

    def __init__(self, n_heads: list[int], n_concepts: int) -> None:
        self._paid = [np.zeros((heads, n_concepts)) for heads in n_heads]
        self._share = [np.zeros(n_concepts) for _ in n_heads]
        self._queries = [np.zeros(n_concepts) for _ in n_heads]

    def add(
        self,
        block: int,
        weights: Float[Tensor, "pieces heads seq seq"],
        chosen: Float[Tensor, "pieces seq c"],
        queries: Float[Tensor, "pieces seq c"],
    ) -> None:
        """Count one pass of one block.

        Parameters
        ----------
        block : int
        weights : float tensor of shape (pieces, heads, sequence, sequence)
            Rows attend to columns.
        chosen : float tensor of shape (pieces, sequence, concepts)
            1 for the tokens to which attention is measured.
        queries : float tensor of shape (pieces, sequence, concepts)
            1 for the tokens whose attention counts.
        """
        held = weights.float()
        paid = torch.einsum("phqk,pkc->phqc", held, chosen)
        self._paid[block] += torch.einsum("phqc,pqc->hc", paid, queries).double().cpu().numpy()
        seen = (held > 0).any(dim=1).float()  # a masked place gets exactly nothing from every head
        share = torch.einsum("pqk,pkc->pqc", seen, chosen) / seen.sum(dim=-1, keepdim=True).clamp_min(1)
        self._share[block] += torch.einsum("pqc,pqc->c", share, queries).double().cpu().numpy()
        self._queries[block] += queries.sum(dim=(0, 1)).double().cpu().numpy()

    def attention(self, block: int) -> Float[np.ndarray, "heads c"]:
        """Mean over queries of the attention that goes to chosen tokens; NaN without queries."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._paid[block] / self._queries[block])

    def share(self, block: int) -> Float[np.ndarray, " c"]:
        """Mean over queries of the share of chosen ones among the places that a query sees; NaN without queries."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._share[block] / self._queries[block])
