"""Images to model inputs, and the place of every patch in the original image, whatever the family of the model.

Images are taken as they are stored: an orientation note in a photograph's EXIF data is not applied, because masks do
not follow it either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
from jaxtyping import Int

from superactivators.data.dataset import ImageSample, Modality, Sample
from superactivators.errors import DataError, StudyError, allowed
from superactivators.models.batching import ForwardBatch, ForwardPass, Layout, plan_batches
from superactivators.models.encoding import Encoding
from superactivators.models.families.family import PatchScheme
from superactivators.models.geometry import Placement, prove_geometry
from superactivators.ragged import offsets_of

GEOMETRIES = ("processor", "squash")


def check_geometry(geometry: str) -> None:
    """Refuse an unknown geometry with ``StudyError``."""
    if geometry not in GEOMETRIES:
        raise StudyError(f"unknown geometry {geometry!r}; {allowed(geometry, GEOMETRIES)}")


@final
class ImageReader:
    """Turns images into patches and model inputs.

    Parameters
    ----------
    scheme : PatchScheme
        How the model's family cuts pictures into patches.
    geometry : str
        ``"processor"``: as the processor says; ``"squash"``: the whole image resized to the model's square.
    name : str
        How error messages call the processor.

    Attributes
    ----------
    patch : (height, width)
        Pixels of the processed picture that one patch shows.
    geometry_error : float
        Largest distance between derived and measured pixel coordinates, as a share of the image's side.

    Raises
    ------
    ModelError
        If the processor's geometry is unknown or not as its settings say.
    """

    modality: Modality = "image"

    def __init__(self, scheme: PatchScheme, *, geometry: str, name: str) -> None:
        self.scheme = scheme
        self.patch = scheme.cell
        self._geometry = geometry
        self.geometry_error = prove_geometry(scheme.place, scheme.picture, name)

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or tokens, as JSON values."""
        return {**self.scheme.settings(), "geometry": self._geometry}

    def _place(self, height: int, width: int) -> tuple[Placement, int, int]:
        """Placement of an image cut to whole patches, and its grid."""
        placement = self.scheme.place(height, width)
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
        """Form batches of images with equal grids; every image is in exactly one of them."""
        if encoding.grids is None or encoding.cells is None or encoding.n_samples != len(samples):
            raise DataError(
                "the encoding does not belong to these samples; pass what encode() made of the same samples"
            )
        grids, kind = np.unique(encoding.grids, axis=0, return_inverse=True)
        for number, (high, wide) in enumerate(grids.tolist()):
            members = np.flatnonzero(kind == number)
            lengths = np.full(len(members), self.scheme.length((high, wide)))
            for group in plan_batches(lengths, np.ones(len(members), dtype=np.int64), max_batch_tokens):
                rows = members[group]
                part = encoding.subset(rows)
                assert part.cells is not None  # noqa: S101
                yield ForwardBatch(
                    rows=rows,
                    offsets=part.offsets,
                    passes=[self._pass([samples[row] for row in rows], part.cells, part.offsets, (high, wide))],
                )

    def _pass(
        self,
        samples: Sequence[Sample],
        cells: Int[np.ndarray, " tokens"],
        offsets: Int[np.ndarray, " k_plus_1"],
        grid: tuple[int, int],
    ) -> ForwardPass:
        images = [_image_sample(sample).load_image() for sample in samples]
        found = [self._place(image.height, image.width)[1:] for image in images]
        if any(own != grid for own in found):
            raise DataError(
                "the encoding does not belong to these samples; pass what encode() made of the same samples"
            )
        inputs = self.scheme.inputs(images)
        counts = np.diff(offsets)
        image = np.repeat(np.arange(len(samples)), counts)

        def laid_out(sequence: int, copies: int = 1) -> Layout:
            positions = self.scheme.positions(grid, copies * len(samples), sequence)
            found = positions.cells.reshape(copies, len(samples), -1)[:, image, cells]
            return Layout(rows=found.ravel(), counts=np.tile(counts, copies), cls=positions.cls)

        def shown() -> Int[np.ndarray, "pieces high wide"]:
            tokens = np.full((len(samples), grid[0] * grid[1]), -1, dtype=np.int64)
            tokens[image, cells] = np.arange(len(cells))
            return tokens.reshape(-1, *grid)

        return ForwardPass(inputs, laid_out, np.arange(len(samples)), shown)


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
