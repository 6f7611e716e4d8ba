"""Images to model inputs: pixels by the model's own processor, and the place of every patch in the original image.

Images are taken as they are stored: an orientation note in a photograph's EXIF data is not applied, because masks do
not follow it either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image

from superactivators.data.dataset import ImageSample, Modality, Sample
from superactivators.errors import DataError, ModelError, StudyError, allowed
from superactivators.models.batching import ForwardBatch, ForwardPass, Layout, plan_batches
from superactivators.models.encoding import Encoding
from superactivators.models.geometry import ImageGeometry, Placement, prove_geometry
from superactivators.models.quiet import quiet_transformers
from superactivators.ragged import offsets_of

GEOMETRIES = ("processor", "squash")


@final
class ImageReader:
    """Turns images into patches and model inputs.

    Parameters
    ----------
    processor : transformers image processor
    patch : (height, width)
        Pixels of a patch.
    registers : int
        Register tokens that the config promises.
    trained_size : (height, width)
        Pixels for which the model has position embeddings.
    resizes_positions : bool
        Whether the model must be asked to interpolate its position embeddings for other sizes.
    geometry : str
        ``"processor"``: as the processor says; ``"squash"``: the whole image resized to the model's square.
    name : str
        How error messages call the processor.

    Attributes
    ----------
    geometry_error : float
        Largest distance between derived and measured pixel coordinates, as a share of the image's side.

    Raises
    ------
    StudyError
        If ``geometry`` is none of the allowed values.
    ModelError
        If the processor's geometry is unknown or not as its settings say.
    """

    modality: Modality = "image"

    def __init__(
        self,
        processor: Any,
        *,
        patch: tuple[int, int],
        registers: int,
        trained_size: tuple[int, int],
        resizes_positions: bool,
        geometry: str,
        name: str,
    ) -> None:
        if geometry not in GEOMETRIES:
            raise StudyError(f"unknown geometry {geometry!r}; {allowed(geometry, GEOMETRIES)}")
        self.processor = processor
        self.patch = patch
        self._registers = registers
        self._trained_size = trained_size
        self._resizes_positions = resizes_positions
        self._geometry = geometry
        self._name = name
        self._steps = ImageGeometry.of(processor)
        self._overrides: dict[str, Any] = {}
        if geometry == "squash":
            size = self._steps.crop or _fixed_size(self._steps.resize) or trained_size
            # whole patches only, so that nothing of the image is left out at the border
            high, wide = (max(side // step, 1) * step for side, step in zip(size, patch, strict=True))
            square = {"height": high, "width": wide}
            self._overrides = {"do_resize": True, "size": square, "do_center_crop": False, "do_pad": False}
            self._steps = ImageGeometry(resize=square, crop=None, pad=None)
        self.geometry_error = prove_geometry(self._steps, self.process, name)

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or tokens, as JSON values."""
        described = {key: value for key, value in self.processor.to_dict().items() if not key.startswith("_")}
        return {"processor": described, "geometry": self._geometry}

    def process(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n c h w"]:
        """Run the processor on images that all come out with the same size."""
        with quiet_transformers():
            pixels = self.processor(images=list(images), return_tensors="np", **self._overrides)["pixel_values"]
        return np.asarray(pixels, dtype=np.float32)

    def _place(self, height: int, width: int) -> tuple[Placement, int, int]:
        """Placement of an image cut to whole patches, and its grid."""
        placement = self._steps.place(height, width)
        rows, columns = placement.height // self.patch[0], placement.width // self.patch[1]
        return placement.cropped_to(rows * self.patch[0], columns * self.patch[1]), rows, columns

    def encode(self, samples: Sequence[Sample]) -> Encoding:
        """Locate the patches of images; reads sizes only, no pixels.

        Parameters
        ----------
        samples : sequence of ImageSample

        Returns
        -------
        Encoding
            Patches that show padding only are no tokens.

        Raises
        ------
        DataError
            If a file is missing or is not an image, or an image is smaller than one patch after processing.
        """
        sizes = [_size(sample) for sample in samples]
        shapes = {size: self._place(*size) for size in set(sizes)}
        cells = {size: _visible(place.view, size, rows, columns) for size, (place, rows, columns) in shapes.items()}
        for sample, size in zip(samples, sizes, strict=True):
            if len(cells[size]) == 0:
                raise DataError(
                    f"sample {sample.id!r}: an image of {size[1]} x {size[0]} pixels has no whole patch of "
                    f"{self.patch[1]} x {self.patch[0]} after processing; leave it out or set geometry='squash'"
                )
        return Encoding(
            modality="image",
            offsets=offsets_of(np.array([len(cells[size]) for size in sizes], dtype=np.int64)),
            token_ids=None,
            chars=None,
            grids=np.array([shapes[size][1:] for size in sizes], dtype=np.int32).reshape(-1, 2),
            cells=np.concatenate([np.zeros(0, dtype=np.int32), *(cells[size] for size in sizes)]),
            views=np.array([shapes[size][0].view for size in sizes], dtype=np.float64).reshape(-1, 4),
            cut=np.zeros(len(samples), dtype=np.int32),
        )

    def batches(self, samples: Sequence[Sample], encoding: Encoding, max_batch_tokens: int) -> Iterator[ForwardBatch]:
        """Form batches of images with equal processed size; every image is in exactly one of them."""
        if encoding.grids is None or encoding.cells is None or encoding.n_samples != len(samples):
            raise DataError(
                "the encoding does not belong to these samples; pass what encode() made of the same samples"
            )
        grids, kind = np.unique(encoding.grids, axis=0, return_inverse=True)
        prefix = 1 + self._registers
        for number, (high, wide) in enumerate(grids.tolist()):
            members = np.flatnonzero(kind == number)
            lengths = np.full(len(members), high * wide + prefix)
            for group in plan_batches(lengths, np.ones(len(members), dtype=np.int64), max_batch_tokens):
                rows = members[group]
                part = encoding.subset(rows)
                assert part.cells is not None  # noqa: S101
                yield ForwardBatch(
                    rows=rows,
                    offsets=part.offsets,
                    passes=[self._pass([samples[row] for row in rows], part.cells, part.offsets, high, wide)],
                )

    def _pass(
        self,
        samples: Sequence[Sample],
        cells: Int[np.ndarray, " tokens"],
        offsets: Int[np.ndarray, " k_plus_1"],
        high: int,
        wide: int,
    ) -> ForwardPass:
        pixels = self.process([_image_sample(sample).load_image() for sample in samples])
        if (pixels.shape[2] // self.patch[0], pixels.shape[3] // self.patch[1]) != (high, wide):
            raise ModelError(
                f"{self._name} gave {pixels.shape[3]} x {pixels.shape[2]} pixels, which are not {high} rows of {wide} "
                "patches; the encoding does not belong to these samples"
            )
        inputs: dict[str, Any] = {"pixel_values": torch.from_numpy(pixels)}
        if self._resizes_positions and pixels.shape[2:] != self._trained_size:
            inputs["interpolate_pos_encoding"] = True
        counts = np.diff(offsets)
        image = np.repeat(np.arange(len(samples)), counts)

        def laid_out(sequence: int) -> Layout:
            prefix = sequence - high * wide
            has_cls = prefix == 1 + self._registers
            if not has_cls and prefix != self._registers:
                raise ModelError(
                    f"the model returns {sequence} states for {high} x {wide} patches, so {prefix} of them are no "
                    f"patches; expected {self._registers} or {1 + self._registers} (registers, and CLS)"
                )
            first = np.arange(len(samples)) * sequence
            return Layout(rows=first[image] + prefix + cells, counts=counts, cls=first if has_cls else None)

        def shown() -> Int[np.ndarray, "pieces high wide"]:
            tokens = np.full((len(samples), high * wide), -1, dtype=np.int64)
            tokens[image, cells] = np.arange(len(cells))
            return tokens.reshape(-1, high, wide)

        return ForwardPass(inputs, laid_out, np.arange(len(samples)), shown)


def _fixed_size(resize: dict[str, int] | None) -> tuple[int, int] | None:
    if resize is None or set(resize) != {"height", "width"}:
        return None
    return resize["height"], resize["width"]


def _visible(
    view: tuple[float, float, float, float], size: tuple[int, int], rows: int, columns: int
) -> Int[np.ndarray, " cells"]:
    """Cells of the grid that show at least a part of the image, row by row."""
    left, top, right, bottom = view
    ys = top + np.arange(rows + 1) * (bottom - top) / max(rows, 1)
    xs = left + np.arange(columns + 1) * (right - left) / max(columns, 1)
    seen_rows = (ys[1:] > 1e-6) & (ys[:-1] < size[0] - 1e-6)
    seen_columns = (xs[1:] > 1e-6) & (xs[:-1] < size[1] - 1e-6)
    return np.flatnonzero((seen_rows[:, None] & seen_columns[None, :]).ravel()).astype(np.int32)


def _image_sample(sample: Sample) -> ImageSample:
    if not isinstance(sample, ImageSample):
        raise DataError(f"sample {sample.id!r} is a text, but the model reads images; choose a text model")
    return sample


def _size(sample: Sample) -> tuple[int, int]:
    """Height and width of an image; a file is opened, but its pixels are not read."""
    width, height = _image_sample(sample).size()
    return height, width
