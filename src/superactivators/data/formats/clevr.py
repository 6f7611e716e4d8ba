"""Reader of CLEVR: what its generator writes, and the paper's folder of pictures with ``metadata.csv``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from superactivators.data.dataset import ConceptDataset, ImageSample
from superactivators.data.faults import Faults
from superactivators.data.formats.clevr_masks import TOLERANCE, ColouredComponents, ColouredObject, InstanceMask
from superactivators.data.formats.clevr_scenes import SceneObject, read_scenes
from superactivators.data.formats.held_out import split_in_three
from superactivators.data.formats.image_files import header
from superactivators.data.formats.paper_metadata import FILE, PaperRow, read_paper_metadata
from superactivators.data.formats.planes import class_ids
from superactivators.data.pixels import Pixels
from superactivators.errors import DataError, allowed

ATTRIBUTES: Final = ("color", "shape", "material", "size")
REGIONS: Final = ("auto", "components", "none")
_GREY: Final = "color::gray"


def read_clevr(
    path: Path,
    *,
    attributes: Sequence[str] = ("color", "shape"),
    regions: str = "auto",
    masks: str = "",
    splits: Sequence[str] = (),
    tolerance: int = TOLERANCE,
) -> ConceptDataset:
    """Read CLEVR pictures (Johnson et al., CVPR 2017) with concepts such as ``color::red`` and ``shape::cube``.

    Two layouts are known. A folder with ``metadata.csv`` is the paper's: pictures, labels and splits are those of the
    table. Any other folder is what CLEVR's generator writes, and what was published: ``images/`` (pictures there or
    in ``images/{split}/``) and ``scenes/`` with one JSON file for each picture or merged files
    (``CLEVR_train_scenes.json``); a merged file may also lie beside ``images/``. Pictures without a scene, such as the
    published test pictures, are not read. Splits of the generator's layout: train stays, half of val is cal and half
    is test (by a hash of the file's name); any other name, such as the generator's ``new``, is none, and splits are
    made at random.

    CLEVR has no masks. Where a picture holds one object, its pixels are those with channels that differ by more than
    ``tolerance`` (the paper's rule, `clevr_masks.coloured`). A grey object cannot be found this way: all pixels of its
    picture are void, and its tokens unknown. Where a picture holds several, ``regions`` decides.

    Parameters
    ----------
    path : Path
        The folder.
    attributes : sequence of str
        Which become concepts: any of ``"color"``, ``"shape"``, ``"material"``, ``"size"``.
    regions : str
        ``"auto"``: pictures with several objects have labels only, and their tokens are unknown. ``"components"``:
        connected coloured pixels are the object whose ``pixel_coords`` they hold; a picture where that is not one to
        one is void altogether. ``"none"``: labels only, for every picture.
    masks : str
        Folder of instance masks, from a changed generator: a PNG of one channel for each picture, of its name
        (``CLEVR_new_000000.png``) or with ``_mask`` added, whose pixels are 0 or an object's number, counted from 1 in
        the order of the scene's ``objects``. Takes the place of ``regions``. Not for the paper's layout.
    splits : sequence of str
        Read only these original splits; empty: all.
    tolerance : int
        Of the colour rule, from 0 to 254.

    Returns
    -------
    ConceptDataset
        Samples by file name, or in the order of ``metadata.csv``; their ids are file names without ending. Concepts
        in alphabetical order; labels are those of the scene, whether or not an object can be seen.

    Raises
    ------
    DataError
        If an option is unknown or the folder is of neither layout; or one error with every fault: a scene that is no
        CLEVR scene, a picture that is missing, cannot be read, or is listed twice, a mask that is missing or of
        another size, ``pixel_coords`` outside the picture, a ``class`` that contradicts the columns.
    """
    for name in attributes:
        if name not in ATTRIBUTES:
            raise DataError(f"clevr: option attributes: {name!r} is unknown; {allowed(name, ATTRIBUTES)}")
    if not attributes:
        raise DataError(f"clevr: option attributes is empty; give at least one of {', '.join(ATTRIBUTES)}")
    if regions not in REGIONS:
        raise DataError(f"clevr: option regions: {regions!r} is unknown; {allowed(regions, REGIONS)}")
    if type(tolerance) is not int or not 0 <= tolerance < 255:
        raise DataError(f"clevr: option tolerance must be a whole number from 0 to 254; got {tolerance!r}")
    folder = _masks_folder(path, masks)
    if os.path.isfile(path / FILE):
        if folder is not None or splits:
            raise DataError(f"{path}: has a {FILE}; the options masks and splits are for folders without one")
        return _read_paper_layout(path, attributes, regions, tolerance)
    faults = Faults()
    found = read_scenes(path, attributes, splits, faults)
    ids = _Ids()
    samples = []
    for scene in sorted(found, key=lambda scene: scene.image.name):
        head = header(scene.image, faults)
        if head is None:
            continue
        labels = [one.concepts(attributes) for one in scene.objects]
        identities = tuple(ids.of(names) for names in labels)
        mask: Pixels | None = None
        if folder is not None:
            mask = _instance_mask(folder, scene.image, identities, head[0], faults)
        elif len(scene.objects) == 1 and regions != "none":
            mask = _single(scene.image, labels[0], scene.objects[0].concepts(("color",)), ids, tolerance)
        elif regions == "components":
            objects = _placed(scene.source, scene.objects, identities, head[0], faults)
            mask = ColouredComponents(scene.image, objects, tolerance)
        present = frozenset(name for names in labels for name in names)
        split = split_in_three(scene.split, scene.image.name)
        samples.append(ImageSample(scene.image.stem, scene.image, mask, present, split))
    faults.raise_if_any(f"data set {path}")
    concepts = sorted({name for sample in samples for name in sample.labels or ()})
    return ConceptDataset(path.resolve().name, tuple(concepts), tuple(samples), ids.classes())


class _Ids:
    """Class ids of combinations of concepts, given out in the order in which they come."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], int] = {}

    def of(self, names: tuple[str, ...]) -> int:
        return self._known.setdefault(names, class_ids(len(self._known) + 1)[-1])

    def classes(self) -> dict[int, tuple[str, ...]]:
        return {identity: names for names, identity in self._known.items()}


def _single(image: Path, names: tuple[str, ...], colour: tuple[str, ...], ids: _Ids, tolerance: int) -> ColouredObject:
    """Mask of a picture with one object; a grey one is nowhere to be found, which a tolerance of 255 says."""
    return ColouredObject(image, ids.of(names), 255 if _GREY in colour else tolerance)


def _masks_folder(path: Path, masks: str) -> Path | None:
    if not masks:
        return None
    for folder in (Path(masks), path / masks):
        if os.path.isdir(folder):
            return folder
    raise DataError(f"clevr: option masks: {masks!r} is no folder, here or within {path}; check the path")


def _instance_mask(
    folder: Path, image: Path, identities: tuple[int, ...], size: tuple[int, int], faults: Faults
) -> InstanceMask | None:
    names = (f"{image.stem}.png", f"{image.stem}_mask.png")
    found = [folder / name for name in names if os.path.isfile(folder / name)]
    if not found:
        faults.add(folder, None, f"has no mask for {image.name}; its name must be {names[0]} or {names[1]}")
        return None
    head = header(found[0], faults)
    if head is not None and head[0] != size:
        (wide, high), (image_wide, image_high) = head[0], size
        faults.add(found[0], None, f"is {wide} x {high} pixels, but its picture is {image_wide} x {image_high}")
    if head is not None and head[1] not in ("L", "P", "I", "I;16"):
        faults.add(found[0], None, f"must have one channel of object numbers, but its mode is {head[1]!r}")
    return InstanceMask(found[0], identities)


def _placed(
    source: Path, objects: Sequence[SceneObject], identities: Sequence[int], size: tuple[int, int], faults: Faults
) -> tuple[tuple[float, float, int], ...]:
    placed = []
    for one, identity in zip(objects, identities, strict=True):
        if one.centre is None:
            faults.add(source, None, "an object has no pixel_coords of two or three numbers, which 'components' needs")
        elif not (0 <= one.centre[0] < size[0] and 0 <= one.centre[1] < size[1]):
            faults.add(
                source, None, f"pixel_coords {list(one.centre)} are outside the picture of {size[0]} x {size[1]} pixels"
            )
        else:
            placed.append((*one.centre, identity))
    return tuple(placed)


def _read_paper_layout(folder: Path, attributes: Sequence[str], regions: str, tolerance: int) -> ConceptDataset:
    faults = Faults()
    table = read_paper_metadata(folder / FILE, faults)
    concepts = tuple(name for name in table.concepts if name.partition("::")[0] in attributes)
    if not concepts:
        raise DataError(
            f"{table.path}: no concept column is of {', '.join(attributes)} (its columns: "
            f"{', '.join(table.concepts[:6])}); those of CLEVR are called as in color::red"
        )
    ids, samples = _Ids(), []
    stems = {Path(row.path).stem for row in table.rows}
    for row in table.rows:
        image = folder / row.path
        if not os.path.isfile(image):
            faults.add(table.path, row.line, f"image_path {row.path!r:.80} does not exist within {folder}")
            continue
        if header(image, faults) is None:
            continue
        names = tuple(name for name in concepts if name in row.labels)
        colours = tuple(sorted(name for name in row.labels if name.startswith("color::")))
        shapes = [name for name in row.labels if name.startswith("shape::")]
        mask: Pixels | None = None
        if regions != "none" and len(colours) <= 1 and len(shapes) <= 1:
            mask = _single(image, names, colours, ids, tolerance)
        _check_class(row, [*colours, *shapes], table.path, faults)
        name = image.stem if len(stems) == len(table.rows) else row.path
        samples.append(ImageSample(name, image, mask, frozenset(names), row.split))
    faults.raise_if_any(f"data set {folder}")
    return ConceptDataset(folder.resolve().name, concepts, tuple(samples), ids.classes())


def _check_class(row: PaperRow, names: Sequence[str], path: Path, faults: Faults) -> None:
    told = "_".join(name.partition("::")[2] for name in names)
    if row.kind and len(names) == 2 and row.kind != told:
        faults.add(path, row.line, f"class is {row.kind!r:.40}, but the columns say {told!r}; mend one of them")
