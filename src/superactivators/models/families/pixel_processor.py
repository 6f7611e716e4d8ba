"""Prepare images for models of other libraries, with PIL and numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import numpy as np
from jaxtyping import Float
from PIL import Image

from superactivators.errors import ModelError, allowed
from superactivators.models.geometry import ImageGeometry

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}


@final
@dataclass(frozen=True)
class PixelProcessor:
    """Resize, centre crop, scale to [0, 1] and normalise; settings are named as in transformers.

    The result has the bits of torchvision's transforms ``Resize``, ``CenterCrop``, ``ToTensor`` and ``Normalize``.

    Attributes
    ----------
    size : dict of str to int
        ``{"shortest_edge": n}``, or ``height`` and ``width``.
    crop_size : dict of str to int
        ``height`` and ``width``.
    image_mean, image_std : tuple of float
    resample : str
        Name of the interpolation, a key of `RESAMPLING`.
    do_resize, do_center_crop : bool
    """

    size: dict[str, int]
    crop_size: dict[str, int]
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    resample: str = "bicubic"
    do_resize: bool = True
    do_center_crop: bool = True

    crop_rounds = True
    """Half a pixel of a centre crop is rounded to the even side, as torchvision does; see `ImageGeometry`."""

    def __post_init__(self) -> None:
        if self.resample not in RESAMPLING:
            raise ModelError(f"the image processor resizes by {self.resample!r}; {allowed(self.resample, RESAMPLING)}")

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> PixelProcessor:
        """Make a processor from what `to_dict` gives."""
        read: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        return cls(**read)

    def __call__(
        self, images: Sequence[Image.Image], return_tensors: str = "np", **settings: Any
    ) -> dict[str, Float[np.ndarray, "n c h w"]]:
        """Prepare images that come out with one size.

        Parameters
        ----------
        images : sequence of PIL images
        return_tensors : str
            Only ``"np"``.
        settings
            Replace those of the processor; ``do_pad`` is ignored, since nothing is padded.
        """
        settings.pop("do_pad", None)
        used = replace(self, **settings) if settings else self
        return {"pixel_values": np.stack([used._prepared(image) for image in images])}

    def _prepared(self, image: Image.Image) -> Float[np.ndarray, "c h w"]:
        image = image.convert("RGB")
        if self.do_resize:
            whole = ImageGeometry(resize=dict(self.size), crop=None, pad=None).place(image.height, image.width)
            if image.size != (whole.width, whole.height):
                image = image.resize((whole.width, whole.height), RESAMPLING[self.resample])
        if self.do_center_crop:
            steps = ImageGeometry.of(replace(self, do_resize=False))
            box = steps.place(image.height, image.width).view
            left, top, right, bottom = (round(edge) for edge in box)
            image = image.crop((left, top, right, bottom))  # beyond the image PIL gives black
        pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
        mean, std = (np.array(value, dtype=np.float32)[:, None, None] for value in (self.image_mean, self.image_std))
        return np.asarray((pixels - mean) / std, dtype=np.float32)
