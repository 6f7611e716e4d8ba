"""The catalogue of explainers: names, options, and explainers of other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import numpy as np
import pytest

from superactivators import registry
from superactivators.attribution.attribute import attribute
from superactivators.attribution.catalogue import EXPLAINERS, PAPER, build_explainers
from superactivators.attribution.explainer import Explainer, explainers
from superactivators.errors import StudyError
from superactivators.models.backbone import Backbone

SAMPLERS = {"lime", "kernel-shap", "shap-iq", "rise"}


@dataclass(frozen=True)
class Constant:
    """An explainer of another package."""

    value: float = 1.0
    budget: int = 7

    def maps(self, scene: Any) -> np.ndarray:
        return np.full((scene.n_tokens, scene.n_columns), self.value, dtype=np.float32)


@pytest.fixture
def others() -> Iterator[None]:
    """Forget what a test enters in the registry."""
    before = dict(explainers._known)
    yield
    explainers._known.clear()
    explainers._known.update(before)


def test_all_means_exactly_the_listed_ones_in_their_order() -> None:
    assert tuple(build_explainers("all")) == EXPLAINERS == tuple(build_explainers())
    assert len(set(EXPLAINERS)) == len(EXPLAINERS)
    assert set(PAPER) < set(EXPLAINERS)


def test_every_explainer_of_the_package_is_listed() -> None:
    own = {
        name for name in explainers if getattr(explainers[name], "__module__", "").startswith("superactivators.attrib")
    }
    assert own == set(EXPLAINERS)


def test_every_explainer_has_defaults_and_is_one() -> None:
    for name, explainer in build_explainers("all").items():
        assert isinstance(explainer, Explainer), name
        assert explainer == build_explainers(name)[name] or name == "mean-difference"


def test_a_budget_for_all_reaches_those_that_sample_and_no_others() -> None:
    usual, cheap = build_explainers("all"), build_explainers("all", budget=40)
    for name, explainer in cheap.items():
        known = {field.name for field in fields(explainer)}  # type: ignore[arg-type]
        assert ("budget" in known) == (name in SAMPLERS)
        changed = {key: getattr(explainer, key) for key in known} != {key: getattr(usual[name], key) for key in known}
        assert changed == (name in SAMPLERS)
        if name in SAMPLERS:
            assert explainer.budget == 40  # type: ignore[attr-defined]


def test_options_of_its_own_come_before_those_for_all() -> None:
    built: dict[str, Any] = build_explainers(["rise", "lime"], {"rise": {"budget": 12, "grain": 3}}, budget=40)
    assert (built["rise"].budget, built["rise"].grain, built["lime"].budget) == (12, 3, 40)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["risse"], {}, "unknown explainer 'risse'; did you mean 'rise'?"),
        ("lme", {}, "unknown explainer 'lme'; did you mean 'lime'?"),
        (["all"], {}, "unknown explainer 'all'"),
        ([], {}, "name at least one, each once, or 'all'"),
        (["rise", "rise"], {}, "name at least one, each once, or 'all'"),
        (["rise"], {"lime": {"budget": 4}}, "options for the explainer 'lime', which is not among those wanted"),
        (["rise"], {"rise": {"budgt": 4}}, "the explainer 'rise' has no option 'budgt'; did you mean 'budget'?"),
        (["activation"], {"activation": {"budget": 4}}, "has no option 'budget'"),
        (["rise"], {"rise": {"budget": 1}}, "budget"),
    ],
)
def test_wrong_names_and_options_are_refused(names: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        build_explainers(names, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_explainer_of_somebody_else_is_used_like_the_others(
    others: None, backbones: Callable[[str], Backbone], detector_of: Callable[[str], Any]
) -> None:
    explainers.register("constant-of-a-test")(Constant)
    assert "constant-of-a-test" not in build_explainers("all")
    built: dict[str, Any] = build_explainers(["constant-of-a-test"], budget=9)
    assert built["constant-of-a-test"] == Constant(budget=9)
    (found,) = attribute(
        detector_of("bert"),
        ["a fox"],
        backbones("bert"),
        methods=["activation", "constant-of-a-test"],
        options={"constant-of-a-test": {"value": 3.0}},
    )
    assert list(found.maps) == ["activation", "constant-of-a-test"]
    assert (found.map("constant-of-a-test", "red") == 3).all()


def test_a_function_that_makes_an_explainer_can_be_registered(others: None) -> None:
    explainers.register("made-by-a-function")(lambda value=2.0: Constant(value))
    built: dict[str, Any] = build_explainers("made-by-a-function", {"made-by-a-function": {"value": 5.0}}, budget=3)
    assert built["made-by-a-function"] == Constant(5.0), "options for all are for those whose fields say so"


def test_explainers_of_installed_packages_are_found(others: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Offered(EntryPoint):
        loaded: ClassVar[list[str]] = []

        def load(self) -> Any:
            self.loaded.append(self.name)
            return Constant

    entry = Offered("from-a-package", "somewhere:Constant", "superactivators.explainers")
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group, name=None: [entry] if group == entry.group and name in (None, entry.name) else [],
    )
    assert entry.name in set(explainers)
    assert build_explainers(entry.name)[entry.name] == Constant()
    assert Offered.loaded == ["from-a-package"]
