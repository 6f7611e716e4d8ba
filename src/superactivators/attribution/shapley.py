"""Shapley values of tokens: KernelSHAP and SHAP-IQ, over coalitions that all columns share."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from superactivators.attribution.explainer import explainers
from superactivators.attribution.masks import MaskableScene, check_whole
from superactivators.errors import ModelError, StudyError

STABLE = 0.1
"""KernelSHAP leaves out directions whose singular value is a smaller part of the largest one."""


@explainers.register("kernel-shap")
@final
@dataclass(frozen=True)
class KernelShap:
    """Shapley values as the solution of a weighted regression on coalitions of tokens.

    Costs ``budget`` forward passes for all columns together, none where SHAP-IQ asked for the same coalitions, and no
    backward pass. The values of the empty and the full sample are met exactly, so a map sums to their difference.
    Source: Lundberg and Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017; coalitions are drawn
    by `shapiq`, together with their complements (Covert and Lee, Improving KernelSHAP, AISTATS 2021).

    Deviations: where the budget is no more than about three times the tokens, the equations of the publication are
    ill-conditioned or have no single solution. Directions that the coalitions hardly tell apart (singular values below
    a tenth of the largest) are therefore left out and the solution of least norm is taken, which shares what is not
    known equally among the tokens. With more coalitions the result is that of the publication.

    Attributes
    ----------
    budget : int
        Number of coalitions, the empty and the full one included; with 2 to the power of tokens, values are exact.
    """

    budget: int = 256

    def __post_init__(self) -> None:
        check_whole("budget", self.budget, 2)

    def maps(self, scene: MaskableScene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`.

        Raises
        ------
        ModelError
            If the package ``shapiq`` is missing.
        """
        drawn = Coalitions.drawn(scene, self.budget, "kernel-shap")
        share, rest = drawn.split(scene.values(drawn.members))
        root = np.sqrt(drawn.weights)[:, None]
        solution = np.linalg.lstsq(root * drawn.centred(), root * rest, rcond=STABLE)[0]
        return np.asarray(share + solution, dtype=np.float32)


@explainers.register("shap-iq")
@final
@dataclass(frozen=True)
class ShapIq:
    """Shapley values as a weighted sum of the values of coalitions.

    Costs ``budget`` forward passes for all columns together, none where KernelSHAP asked for the same coalitions
    (order 1), and no backward pass. A map sums to the difference of the full and the empty sample. Source: Fumagalli,
    Muschalik, Kolpaczki, Hüllermeier and Hammer, SHAP-IQ, NeurIPS 2023; for Shapley values it is unbiased KernelSHAP
    (their theorem 4.5; Covert and Lee, AISTATS 2021). Coalitions are drawn by `shapiq`, with their complements.

    Deviations: the estimate is of what the values differ from the straight line between empty and full sample, whose
    Shapley values are known. That leaves the expectation as it is and takes away most of the noise where the budget
    is not much larger than the number of tokens.

    Attributes
    ----------
    budget : int
        Number of coalitions, the empty and the full one included; with 2 to the power of tokens, values are exact.
    order : int
        1 for Shapley values. 2 for interactions of pairs (index k-SII), half of each given to each of the two tokens.
        These sums are the Shapley values again, whatever the pairs' own values are (Bordt and von Luxburg, From
        Shapley Values to Generalized Additive Models and back, AISTATS 2023), so pairs are not computed one by one;
        what order 2 changes are the coalitions: all of one token and all but one come first, which takes a budget of
        two for each token and 3 more.
    """

    budget: int = 256
    order: int = 1

    def __post_init__(self) -> None:
        check_whole("budget", self.budget, 2)
        if isinstance(self.order, bool) or self.order not in (1, 2):
            raise StudyError(f"explainer: the order of shap-iq must be 1 or 2; got {self.order!r}")

    def maps(self, scene: MaskableScene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`.

        Raises
        ------
        StudyError
            If the sample has too many tokens for order 2.
        ModelError
            If the package ``shapiq`` is missing.
        """
        least = min(2 * scene.n_tokens + 3, 2**scene.n_tokens)
        if self.order == 2 and self.budget < least:
            raise StudyError(
                f"shap-iq: order 2 needs a budget of at least {least} for {scene.n_tokens} tokens, got {self.budget}; "
                f"raise the budget or choose order 1"
            )
        drawn = Coalitions.drawn(scene, self.budget, "shap-iq", self.order)
        share, rest = drawn.split(scene.values(drawn.members))
        inner = np.arange(1, scene.n_tokens)
        # With all coalitions, the regression matrix of KernelSHAP is this factor's inverse on maps that sum to 0.
        factor = scene.n_tokens * (1 / (inner * (scene.n_tokens - inner))).sum()
        estimate = factor * drawn.centred().T @ (drawn.weights[:, None] * rest)
        return np.asarray(share + estimate, dtype=np.float32)


@final
@dataclass(frozen=True, eq=False)
class Coalitions:
    """Distinct sets of tokens that are kept, and how much each stands for.

    Attributes
    ----------
    members : bool array of shape (m, tokens)
        The empty and the full set are among them.
    weights : float64 array of shape (m,)
        Part of the Shapley kernel (over sets that are neither empty nor full, its sum is 1) that each set stands for;
        0 for the empty and the full set.
    """

    members: Bool[np.ndarray, "m tokens"]
    weights: Float[np.ndarray, " m"]

    @staticmethod
    def drawn(scene: MaskableScene, budget: int, explainer: str, order: int = 1) -> Coalitions:
        """Draw by the Shapley kernel, each set with its complement; sizes with few sets are taken whole.

        Equal budgets and orders give equal sets, so that explainers share their forward passes.

        Parameters
        ----------
        scene : MaskableScene
        budget : int
            Number of sets; fewer if there are not as many.
        explainer : str
            Who asks, for the message.
        order : int
            2: sets of one token and of all but one come first.

        Raises
        ------
        ModelError
            If the package ``shapiq`` is missing.
        """
        n_tokens = scene.n_tokens
        kernel = np.zeros(n_tokens + 1)
        inner = np.arange(1, n_tokens)
        kernel[1:-1] = 1 / (inner * (n_tokens - inner))
        kernel /= max(kernel.sum(), np.finfo(np.float64).tiny)
        chance = kernel.copy()
        first = [*range(order), *range(n_tokens - order + 1, n_tokens + 1)]
        chance[[size for size in first if 0 <= size <= n_tokens]] = 1e8
        seed = int(scene.generator("coalitions").integers(2**63))
        with warnings.catch_warnings():
            # The library warns of budgets near the number of all sets; the result is right there too.
            warnings.simplefilter("ignore")
            try:
                from shapiq.approximator.sampling import CoalitionSampler
            except ImportError:
                raise ModelError(
                    f"the explainer {explainer!r} needs the package shapiq; install superactivators[attribution]"
                ) from None
            sampler = CoalitionSampler(n_tokens, chance, pairing_trick=True, random_state=seed)
            sampler.sample(min(budget, 2**n_tokens))
        members = sampler.coalitions_matrix.astype(bool)
        sizes, sampled = members.sum(axis=1), sampler.is_coalition_sampled
        # Each set of a whole size stands for an equal part of it; drawn sets for as often as they were drawn.
        whole = kernel[sizes] / np.bincount(sizes)[sizes]
        counts = sampler.coalitions_counter * sampled
        often = counts / max(counts.sum(), 1) * kernel[sampler.is_coalition_size_sampled].sum()
        return Coalitions(members, np.where(sampled, often, whole))

    def centred(self) -> Float[np.ndarray, "m tokens"]:
        """Members minus the share of tokens that are members; every row sums to 0."""
        return np.asarray(self.members - self.members.mean(axis=1, keepdims=True))

    def split(
        self, values: Float[np.ndarray, "m columns"]
    ) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, "m columns"]]:
        """Take the straight line between the empty and the full set out of values.

        Parameters
        ----------
        values : float32 array of shape (m, columns)

        Returns
        -------
        share : float64 array of shape (columns,)
            Equal share of each token in the difference of the full and the empty set.
        rest : float64 array of shape (m, columns)
            What the values differ from the line.
        """
        sizes = self.members.sum(axis=1)
        precise = values.astype(np.float64)
        empty = precise[np.argmin(sizes)]
        share = (precise[np.argmax(sizes)] - empty) / self.members.shape[1]
        return share, precise - empty - sizes[:, None] * share
