"""Which layers are meant: what users write is parsed into a plan, and the plan is laid over a model's depth.

A site is a named place where states are read: ``"embed"`` (the input of the first block), ``"block[i]"`` (the raw
output of block ``i``, counted from 0) and ``"final_norm"`` (the model's own last hidden state).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import SupportsIndex, TypeAlias, final

from superactivators.errors import StudyError, allowed

EMBED = "embed"
FINAL_NORM = "final_norm"

LayerSpec: TypeAlias = "SupportsIndex | float | str | Sequence[SupportsIndex | float | str]"

_ALLOWED = (
    "a block number (0 is the first, -1 the last), a fraction in (0, 1] or '50%' of the depth, 'all', 'every:N', "
    "'sweep:A-B' (percent), 'block[i]', 'first', 'middle', 'last', 'embed', 'final_norm', or a list of these"
)


@final
@dataclass(frozen=True, slots=True)
class _Term:
    """One thing that a user wrote, and the places (-1 = embed, L = final norm) that it names in a model of L blocks."""

    given: str
    places: Callable[[int], Sequence[int]]


@final
@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Parsed layers, not yet tied to a model.

    Attributes
    ----------
    terms : tuple
        What was asked for, in the order given.
    """

    terms: tuple[_Term, ...]

    def sites(self, n_blocks: int) -> tuple[str, ...]:
        """Name the sites in a model of ``n_blocks`` blocks, each once and in depth order.

        Parameters
        ----------
        n_blocks : int
            Number of transformer blocks L.

        Returns
        -------
        tuple of str
            Such as ``("embed", "block[3]", "block[11]", "final_norm")``.

        Raises
        ------
        StudyError
            If a block lies outside the model.
        """
        places = {place for term in self.terms for place in term.places(n_blocks)}
        return tuple(site_name(place, n_blocks) for place in sorted(places))


def site_name(place: int, n_blocks: int) -> str:
    """Name of a place: -1 is the embedding, ``n_blocks`` the final norm, anything between a block."""
    if place == -1:
        return EMBED
    return FINAL_NORM if place == n_blocks else f"block[{place}]"


def site_place(site: str, n_blocks: int) -> int:
    """Depth of a site, the reverse of `site_name`; an unknown or too deep site raises ``StudyError``."""
    if site == EMBED:
        return -1
    if site == FINAL_NORM:
        return n_blocks
    match = re.fullmatch(r"block\[(\d+)\]", site)
    if match is None:
        raise StudyError(f"unknown site {site!r}; {allowed(site, (EMBED, 'block[0]', FINAL_NORM))}")
    return _block(int(match[1]), site, n_blocks)


def block_at_percent(percent: float, n_blocks: int) -> int:
    """Block at a percentage of the depth.

    Parameters
    ----------
    percent : float
        In (0, 100].
    n_blocks : int
        Number of blocks L.

    Returns
    -------
    int
        ``clamp(int(percent / 100 * L) - 1, 0, L - 1)``. A product within 1e-9 of a whole number counts as that
        number, so that 29 % of 100 blocks is block 28 although 0.29 * 100 is 28.999999999999996 in floating point.

    Examples
    --------
    >>> [block_at_percent(percent, 12) for percent in (1, 25, 50, 100)]
    [0, 2, 5, 11]
    """
    return min(max(int(round(percent / 100 * n_blocks, 9)) - 1, 0), n_blocks - 1)


def resolve_layers(spec: LayerSpec, n_blocks: int) -> tuple[str, ...]:
    """Parse ``spec`` and name its sites in a model of ``n_blocks`` blocks; see `parse_layers` and `LayerPlan.sites`."""
    return parse_layers(spec).sites(n_blocks)


def parse_layers(spec: LayerSpec) -> LayerPlan:
    """Parse what a user wrote for layers.

    Parameters
    ----------
    spec : int, float, str or a sequence of these
        - whole number: block, counted from 0; negative ones count from the last block
        - float in (0, 1], or a string such as ``"50%"``: share of the depth, see `block_at_percent`
        - ``"all"``: every block (neither ``embed`` nor ``final_norm``)
        - ``"every:N"``: every N-th block counted back from the last one, which is always among them
        - ``"sweep:A-B"``: all blocks from the one at A % to the one at B %, both included
        - ``"block[i]"``, ``"first"``, ``"middle"`` (50 %), ``"last"``, ``"embed"``, ``"final_norm"``
        - strings of numbers and lists with commas, as a command line gives them: ``"0,50%,-1"``

    Returns
    -------
    LayerPlan

    Raises
    ------
    StudyError
        If something else was written.
    """
    items = list(spec) if isinstance(spec, (list, tuple)) else [spec]
    terms = [_term(part) for item in items for part in _parts(item)]
    if not terms:
        raise StudyError(f"no layer was given; allowed are {_ALLOWED}")
    return LayerPlan(tuple(terms))


def _parts(item: object) -> list[object]:
    if not isinstance(item, str):
        return [item]
    return [part.strip() for part in item.split(",") if part.strip()]


def _term(item: object) -> _Term:
    if isinstance(item, str):
        return _text_term(item)
    if not isinstance(item, bool):
        try:
            number = operator.index(item)  # type: ignore[arg-type]
        except TypeError:
            if isinstance(item, Real):
                return _fraction_term(float(item), repr(item))
        else:
            return _block_term(number, str(number))
    raise StudyError(f"{item!r} is not a layer; allowed are {_ALLOWED}")


def _block(number: int, given: str, n_blocks: int) -> int:
    if not -n_blocks <= number < n_blocks:
        raise StudyError(
            f"layer {given} does not exist: the model has {n_blocks} blocks; "
            f"give a number from 0 to {n_blocks - 1}, or from -{n_blocks} to -1 counted from the last"
        )
    return number % n_blocks


def _block_term(number: int, given: str) -> _Term:
    return _Term(given, lambda n_blocks: [_block(number, given, n_blocks)])


def _fraction_term(fraction: float, given: str) -> _Term:
    if not 0 < fraction <= 1:
        raise StudyError(
            f"layer {given}: a fraction of the depth lies in (0, 1]; write a whole number for a block, "
            f"or a string such as '50%'"
        )
    return _percent_term(100 * fraction, given)


def _percent_term(percent: float, given: str) -> _Term:
    return _Term(given, lambda n_blocks: [block_at_percent(percent, n_blocks)])


def _percent(text: str, given: str) -> float:
    percent = float(text)
    if not 0 < percent <= 100:
        raise StudyError(f"layer {given!r}: percents of the depth lie in (0, 100]")
    return percent


_NAMED: dict[str, Callable[[int], Sequence[int]]] = {
    EMBED: lambda n_blocks: [-1],
    FINAL_NORM: lambda n_blocks: [n_blocks],
    "all": lambda n_blocks: range(n_blocks),
    "first": lambda n_blocks: [0],
    "middle": lambda n_blocks: [block_at_percent(50, n_blocks)],
    "last": lambda n_blocks: [n_blocks - 1],
}

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"


def _text_term(text: str) -> _Term:
    if text in _NAMED:
        return _Term(text, _NAMED[text])
    if match := re.fullmatch(r"block\[(\d+)\]|([+-]?\d+)", text):
        return _block_term(int(match[1] or match[2]), text)
    if match := re.fullmatch(rf"{_NUMBER}\s*%", text):
        return _percent_term(_percent(match[1], text), text)
    if match := re.fullmatch(_NUMBER, text):
        return _fraction_term(float(text), text)
    if match := re.fullmatch(r"every:(\d+)", text):
        step = int(match[1])
        if step == 0:
            raise StudyError(f"layer {text!r}: the step must be at least 1")
        return _Term(text, lambda n_blocks: range(n_blocks - 1, -1, -step))
    if match := re.fullmatch(rf"sweep:{_NUMBER}%?-{_NUMBER}%?", text):
        low, high = _percent(match[1], text), _percent(match[2], text)
        if low > high:
            raise StudyError(f"layer {text!r}: a sweep goes up; did you mean 'sweep:{match[2]}-{match[1]}'?")
        return _Term(
            text, lambda n_blocks: range(block_at_percent(low, n_blocks), block_at_percent(high, n_blocks) + 1)
        )
    raise StudyError(f"{text!r} is not a layer; allowed are {_ALLOWED}")
