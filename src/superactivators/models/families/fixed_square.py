"""Pictures of one fixed size, for language models whose vision tower reads nothing else."""

from __future__ import annotations

from typing import Any

from superactivators.errors import ModelError
from superactivators.models.families.family import ImageParts
from superactivators.models.families.pixel_grid import PixelGrid, height_width

_SIZES = ((150, 260), (260, 150))


def fixed_square(parts: ImageParts, config: Any) -> PixelGrid:
    """Make the scheme of a vision tower inside a whole model, which cannot ask it to resize its positions.

    Parameters
    ----------
    parts : ImageParts
    config : transformers config
        Of the vision tower.

    Raises
    ------
    ModelError
        If the processor makes pictures of another size than the tower was trained with.
    """
    trained = height_width(config.image_size)
    scheme = PixelGrid(
        parts.processor,
        patch=height_width(config.patch_size),
        registers=0,
        trained_size=trained,
        resizes_positions=False,
        squash=parts.geometry == "squash",
        name=f"the image processor of {parts.name}",
    )
    for height, width in _SIZES:
        placed = scheme.place(height, width)
        if (placed.height, placed.width) != trained:
            raise ModelError(
                f"{parts.name}: its image processor makes pictures of {placed.width} x {placed.height} pixels, but its "
                f"vision tower reads {trained[1]} x {trained[0]} only; set processor={{'size': "
                f"{{'height': {trained[0]}, 'width': {trained[1]}}}}}"
            )
    return scheme
