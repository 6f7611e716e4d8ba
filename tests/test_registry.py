"""Named extension points, including those that other installed packages offer."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from superactivators import registry
from superactivators.concepts.units import kinds
from superactivators.data.sources import datasets
from superactivators.detection.methods import methods
from superactivators.errors import StudyError, SuperActivatorsError
from superactivators.registry import Registry


@pytest.fixture
def shapes() -> Registry[object]:
    made: Registry[object] = Registry("shape", "superactivators.test_shapes")
    made.register("circle")("a circle")
    made.register("square")("a square")
    return made


def test_names_are_sorted_and_found(shapes: Registry[object]) -> None:
    assert list(shapes) == ["circle", "square"]
    assert shapes["circle"] == "a circle"
    assert "circle" in shapes
    assert "oval" not in shapes


def test_register_gives_the_object_back(shapes: Registry[object]) -> None:
    @shapes.register("point")
    class Point: ...

    assert shapes["point"] is Point


def test_a_taken_name_is_refused(shapes: Registry[object]) -> None:
    with pytest.raises(StudyError, match="shape 'circle' is already registered"):
        shapes.register("circle")("another")
    assert shapes["circle"] == "a circle"


def test_an_unknown_name_lists_the_known_and_the_nearest(shapes: Registry[object]) -> None:
    with pytest.raises(StudyError, match=r"unknown shape 'circel'; did you mean 'circle'\? Known: circle, square"):
        shapes["circel"]
    with pytest.raises(SuperActivatorsError, match="Known: none"):
        Registry("nothing", "superactivators.test_nothing")["any"]


def test_entry_points_of_other_packages_are_found_and_loaded_once(
    shapes: Registry[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = EntryPoint(name="third", value="collections:OrderedDict", group="superactivators.test_shapes")
    loads = []

    class Watched:
        name = entry.name

        def load(self) -> object:
            loads.append(1)
            return entry.load()

    def offered(*, group: str, name: str | None = None) -> list[Watched]:
        assert group == "superactivators.test_shapes"
        return [Watched()] if name in (None, "third") else []

    monkeypatch.setattr(registry, "entry_points", offered)
    assert list(shapes) == ["circle", "square", "third"]
    assert "third" in shapes
    assert not loads, "listing names loads nothing"
    assert shapes["third"].__name__ == "OrderedDict"  # type: ignore[attr-defined]
    assert shapes["third"] is shapes["third"]
    assert len(loads) == 1


def test_own_names_win_over_entry_points(shapes: Registry[object], monkeypatch: pytest.MonkeyPatch) -> None:
    def offered(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [EntryPoint(name="circle", value="no_such_module:thing", group=group)]

    monkeypatch.setattr(registry, "entry_points", offered)
    assert shapes["circle"] == "a circle"


def test_built_in_registries_hold_what_the_documents_promise() -> None:
    assert set(kinds) >= {"mean", "linear"}
    assert set(methods) >= {"superactivators", "max", "mean", "last", "random", "cls"}
    assert set(datasets) >= {"scenes", "passages"}
