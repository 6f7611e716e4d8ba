"""All explainers that come with the package, built by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from superactivators.attribution import (
    activation,
    full_grad,
    grad_cam,
    input_gradient,
    integrated_gradients,
    lime,
    mfaba,
    occlusion,
    rise,
    rollout,
    shapley,
)
from superactivators.attribution.explainer import Explainer, explainers
from superactivators.attribution.scene import Scene
from superactivators.errors import ModelError, StudyError, allowed

MODULES = (
    lime,
    shapley,
    rise,
    occlusion,
    integrated_gradients,
    input_gradient,
    grad_cam,
    full_grad,
    mfaba,
    rollout,
    activation,
)
"""Importing them enters their explainers in the registry."""

PAPER = (
    "lime",
    "kernel-shap",
    "shap-iq",
    "rise",
    "integrated-gradients",
    "grad-cam",
    "full-grad",
    "mfaba",
    "activation",
)
"""The explainers of the paper, and plain activation."""

EXTRA = ("occlusion", "rollout", "input-gradient", "mean-difference")

PARTICULAR = ("full-grad", "rollout")
"""Those that some models do not suit: they say so when maps are made."""

EXPLAINERS = (*PAPER, *EXTRA)
"""Those of ``"all"``."""


def build_explainers(
    names: Sequence[str] | str = "all", options: Mapping[str, Mapping[str, Any]] | None = None, **common: Any
) -> dict[str, Explainer]:
    """Build explainers by name.

    Parameters
    ----------
    names : sequence of str or str
        Registered names, a single one, or ``"all"`` for `EXPLAINERS`.
    options : mapping of str to mapping, optional
        By explainer: its own options, such as ``{"rise": {"budget": 512}}``.
    **common
        Options for every explainer that knows them, such as ``budget=128``.

    Returns
    -------
    dict of str to Explainer

    Raises
    ------
    StudyError
        If a name or an option is unknown, or no name is given.
    """
    wanted = EXPLAINERS if names == "all" else (names,) if isinstance(names, str) else tuple(names)
    given = options or {}
    if not wanted or len(set(wanted)) < len(wanted):
        raise StudyError(f"explainers {list(wanted)}; name at least one, each once, or 'all'")
    for name in given:
        if name not in wanted:
            raise StudyError(f"options for the explainer {name!r}, which is not among those wanted: {list(wanted)}")
    built = {}
    for name in wanted:
        make = explainers[name]
        known = {field.name for field in fields(make)} if isinstance(make, type) and is_dataclass(make) else None
        own = dict(given.get(name, {}))
        for option in own:
            if known is not None and option not in known:
                raise StudyError(f"the explainer {name!r} has no option {option!r}; {allowed(option, sorted(known))}")
        shared = {option: value for option, value in common.items() if known is not None and option in known}
        built[name] = make(**{**shared, **own})
    return built


def usable(built: Mapping[str, Explainer], scene: Scene) -> dict[str, Explainer]:
    """Leave out explainers that refuse a model: what ``"all"`` means for it.

    Parameters
    ----------
    built : mapping of str to Explainer
    scene : Scene
        Of any sample and few columns: only `PARTICULAR` explainers are tried on it.

    Returns
    -------
    dict of str to Explainer
    """
    kept = {}
    for name, explainer in built.items():
        try:
            if name in PARTICULAR:
                explainer.maps(scene)
        except ModelError:
            continue
        kept[name] = explainer
    return kept
