"""Which concepts the paper evaluates on each of its data sets, by the names of its ``metadata.csv``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

_PASCAL_OBJECTS = (
    "airplane, bicycle, bird, boat, body, book, building, bus, cap, car, cat, cup, dog, door, ear, engine, grass, "
    "hair, horse, leg, mirror, motorbike, mountain, painting, person, pottedplant, saddle, screen, sky, sofa, table, "
    "track, train, tvmonitor, wheel, wood"
)
_PASCAL_PARTS = (
    "arm, bag, beak, bottle, box, cabinet, ceiling, chain wheel, chair, coach, curtain, eye, eyebrow, fabric, fence, "
    "floor, foot, ground, hand, handle bar, head, headlight, light, mouth, muzzle, neck, nose, paw, plant, plate, "
    "plaything, pole, pot, road, rock, rope, shelves, sidewalk, signboard, stern, tail, torso, tree, wall, water, "
    "windowpane, wing"
)
_MATERIALS = (
    "brick, cardboard, carpet, ceramic, concrete, fabric, food, fur, glass, granite, hair, laminate, leather, metal, "
    "mirror, painted, paper, plastic-clear, plastic-opaque, rock, rubber, skin, tile, wallpaper, wicker, wood"
)
_COCO = (
    "accessory, animal, appliance, bench, book, bottle, bowl, bus, car, chair, couch, cup, dining table, electronic, "
    "food, furniture, indoor, kitchen, motorcycle, outdoor, person, pizza, potted plant, sports, train, truck, tv, "
    "umbrella, vehicle"
)
_EMOTIONS = (
    "confusion, joy, sadness, anger, love, caring, optimism, amusement, curiosity, disapproval, approval, annoyance, "
    "gratitude, admiration"
)


def _names(listed: str, prefix: str = "") -> tuple[str, ...]:
    return tuple(prefix + name for name in listed.split(", "))


EVALUATED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "coco": _names(_COCO),
        "broden-pascal": _names(_PASCAL_OBJECTS, "object::") + _names(_PASCAL_PARTS, "part::"),
        "broden-opensurfaces": _names(_MATERIALS, "material::"),
        "clevr": _names("blue, green, red", "color::") + _names("cube, cylinder, sphere", "shape::"),
        "goemotions": _names(_EMOTIONS),
        "isarcasm": ("sarcastic",),
        "sarcasm": ("sarcasm",),
    }
)
"""Concepts by data set. COCO mixes categories and supercategories. The prefix of a Broden name is that of one of the
label's categories (the last one in Broden's list), not a restriction: ``part::chair`` stands for all chairs."""


def paper_data_set(columns: Iterable[str]) -> str | None:
    """Tell which of the paper's data sets a table's concept columns belong to.

    Parameters
    ----------
    columns : iterable of str

    Returns
    -------
    str or None
        The data set with the most evaluated concepts, all of which are columns; None if there is none.
    """
    present = set(columns)
    found = [name for name, concepts in EVALUATED.items() if present.issuperset(concepts)]
    return max(found, key=lambda name: len(EVALUATED[name]), default=None)


def evaluated_of(columns: Iterable[str]) -> tuple[str, ...]:
    """Keep the columns that the paper evaluates, in the columns' order; all where they are of no set of the paper."""
    given = tuple(columns)
    name = paper_data_set(given)
    return given if name is None else tuple(column for column in given if column in EVALUATED[name])
