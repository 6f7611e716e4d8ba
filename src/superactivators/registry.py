"""Named extension points: concept kinds, detection methods, data sets and whatever third parties add to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar, final

from superactivators.errors import StudyError, allowed

T = TypeVar("T")


@final
class Registry(Generic[T]):
    """Objects by name, with those of installed third-party packages found through entry points.

    Parameters
    ----------
    what : str
        What the names stand for, in the singular, as error messages call it (``"concept kind"``).
    group : str
        Entry-point group in which other packages offer further objects.

    Examples
    --------
    >>> shapes = Registry[type]("shape", "superactivators.shapes")
    >>> @shapes.register("point")
    ... class Point: ...
    >>> shapes["point"] is Point
    True
    """

    def __init__(self, what: str, group: str) -> None:
        self._what = what
        self._group = group
        self._known: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Give a decorator that enters an object under ``name``; a name already taken raises ``StudyError``."""

        def enter(item: T) -> T:
            if name in self._known:
                raise StudyError(f"the {self._what} {name!r} is already registered; choose another name")
            self._known[name] = item
            return item

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._known:
            for entry in entry_points(group=self._group, name=name):
                self._known[name] = entry.load()
        if name not in self._known:
            raise StudyError(f"unknown {self._what} {name!r}; {allowed(name, self)}")
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        names = set(self._known) | {entry.name for entry in entry_points(group=self._group)}
        return iter(sorted(names))

    def __contains__(self, name: object) -> bool:
        return name in set(self)
