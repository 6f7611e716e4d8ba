"""Reader of COCO's instances JSON, and of the same JSON as labelling tools write it (docs/data.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, final, get_args

from superactivators.data.dataset import SPLITS, ConceptDataset, ImageSample
from superactivators.data.faults import Faults
from superactivators.data.formats.coco_files import SPLIT_OF, Listed, export_files, listed_images, read_instances
from superactivators.data.formats.coco_regions import RegionMask, area, coco_masks, encode_region
from superactivators.data.formats.dealing import check_counts, check_splits, deal
from superactivators.data.formats.held_out import split_in_three
from superactivators.data.formats.image_files import header
from superactivators.data.formats.paper_metadata import apply_paper_metadata, read_paper_metadata
from superactivators.data.formats.planes import class_ids
from superactivators.data.jsonl import is_name
from superactivators.errors import DataError, allowed

ConceptSource = Literal["both", "categories", "supercategories"]


def read_coco(
    path: Path,
    *,
    splits: dict[str, str] | None = None,
    counts: dict[str, int] | None = None,
    files: list[str] | None = None,
    images: str | list[str] = "",
    concepts: str = "both",
    crowd: bool = True,
    boxes: bool = True,
    min_area: float = 0.0,
    metadata: str = "",
    evaluated: bool = True,
    skip_missing: bool = False,
    seed: int = 0,
) -> ConceptDataset:
    """Read images with outlined objects.

    Concepts are the names of categories and of supercategories; a supercategory's pixels are those of all its
    categories (as in the paper). A category and a supercategory of one name are one concept, with the pixels of both.
    Supercategories that are empty or ``"none"`` are no concepts, nor is the root category that Roboflow adds: one
    of supercategory ``"none"`` without objects that is the supercategory of others. Pixels of no object have no
    concept; none are unlabelled. Images without objects are samples without concepts.

    An object's outline is a list of polygons, or run lengths, compressed or not. Polygons of fewer than three points
    are left out.

    Splits: the folders ``train``, ``valid`` and ``test`` of an export become train, cal and test; where it has only
    one besides ``train``, that is halved as below. In a folder with
    ``instances_train2017.json`` and ``instances_val2017.json``, the first is train, and one half of the second is cal,
    the other test (by a hash of the file name). Otherwise splits are left open unless an option gives them.

    Parameters
    ----------
    path : Path
        An instances JSON, or a folder that holds one, or one for each split (in ``annotations``, or one
        ``_annotations.coco.json`` in each of ``train``, ``valid`` and ``test``).
    splits : dict of str to str, optional
        Instances file of each split, relative to the path's folder. One that serves several splits is dealt to them.
        The paper: ``{"train": VAL, "cal": TRAIN, "test": VAL}`` with counts ``{"cal": 500, "test": 999}``.
    counts : dict of str to int, optional
        How many images a split takes of its file (drawn by seed and id); the others share what is left.
    files : list of str, optional
        Further instances files, relative to the path's folder, where the option ``splits`` is not given.
    images : str or list of str
        Folders of the images, relative to the path's folder. Left out: the usual places beside each file.
    concepts : str
        ``"both"``, ``"categories"`` or ``"supercategories"``.
    crowd : bool
        Off, objects marked ``iscrowd`` are left out.
    boxes : bool
        An object without outline counts with its box; off, it is left out.
    min_area : float
        Objects of a smaller ``area`` (of pixels, where the file has none) are left out.
    metadata : str
        The paper's ``metadata.csv``, relative to the path's folder. Only its images are read, with its splits and its
        sample labels (see `apply_paper_metadata`).
    evaluated : bool
        With ``metadata``: keep only the concepts that the paper evaluates.
    skip_missing : bool
        Leave out images that are not in the folders instead of noting a fault.
    seed : int
        Of the dealing to splits.

    Returns
    -------
    ConceptDataset
        Ids are the images' file names without suffix.

    Raises
    ------
    DataError
        One line if a file is of the wrong kind (captions, keypoints, panoptic, results) or an option is wrong; else one
        error that lists every fault: an image missing, or of another size than the file says; ids that come twice;
        annotations of unknown images or categories; outlines that are wrong.
    """
    if concepts not in get_args(ConceptSource):
        raise DataError(f"option concepts: {concepts!r} is unknown; {allowed(concepts, get_args(ConceptSource))}")
    coco_masks()
    base = path if path.is_dir() else path.parent
    check_splits("splits", splits or {})
    check_counts(counts or {})
    if metadata and (splits or counts):
        raise DataError("option metadata gives the splits; leave out the options splits and counts")
    if counts and not splits:
        raise DataError("option counts needs the option splits, which says which file each split is from")
    faults = Faults()
    table = read_paper_metadata(base / metadata, faults) if metadata else None
    plan = _plan(path, base, splits, files or [], table is not None)
    folders = [base / name for name in ([images] if isinstance(images, str) else images) if name]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"option images: {folder} is no folder; give the one that holds the image files")
    rules = _Rules(crowd, boxes, min_area, skip_missing, counts or {}, seed, None if table is None else table.stems)
    names = _Names(concepts)
    found: list[_Found] = []
    for file, of_file in plan.items():
        found += _read_file(file, of_file, folders, rules, names, faults)
    if not found and not len(faults):
        faults.add(path, None, "lists no images that can be read; check the folder of the images")
    faults.raise_if_any(f"data set {path}")
    dataset = _dataset(base, found, names)
    return dataset if table is None else apply_paper_metadata(dataset, table, evaluated=evaluated)


@final
@dataclass(frozen=True, slots=True)
class _Rules:
    crowd: bool
    boxes: bool
    min_area: float
    skip_missing: bool
    counts: Mapping[str, int]
    seed: int
    only: frozenset[str] | None


@final
@dataclass(frozen=True, slots=True)
class _Found:
    """One image that was read: its regions name combinations of concepts."""

    name: str
    image: Path
    size: tuple[int, int]
    regions: tuple[tuple[tuple[str, ...], bytes], ...]
    split: str | None


@final
@dataclass(slots=True)
class _Names:
    """Concepts in the order of the files: categories, then supercategories."""

    source: str
    categories: dict[str, None] = field(default_factory=dict)
    above: dict[str, None] = field(default_factory=dict)

    def take(self, file: Path, content: Mapping[str, Any], faults: Faults) -> dict[object, tuple[str, ...]]:
        """Concepts of each category id of a file."""
        used = {a["category_id"] for a in content["annotations"] if isinstance(a.get("category_id"), int)}
        over = {c.get("supercategory") for c in content["categories"] if isinstance(c.get("supercategory"), str)}
        carried: dict[object, tuple[str, ...]] = {}
        roots, kept = set(), []
        for number, category in enumerate(content["categories"]):
            key, name, above = category.get("id"), category.get("name"), category.get("supercategory")
            if type(key) is not int or not is_name(name):
                faults.add(
                    file, None, f"categories[{number}] needs a whole number 'id' and a 'name'; got {category!s:.60}"
                )
            elif key in carried:
                faults.add(file, None, f"category id {key} comes twice; ids must be unique")
            elif above is not None and not isinstance(above, str):
                faults.add(file, None, f"category {name!r}: 'supercategory' must be a string; got {above!r:.40}")
            else:
                carried[key] = ()
                bare = not above or not above.strip() or above == "none"
                if above == "none" and key not in used and name in over:
                    roots.add(name)
                else:
                    kept.append((key, name, None if bare else above))
        for key, name, above in kept:
            of_above = above if above not in roots else None
            own = [name] if self.source != "supercategories" else []
            shared = [of_above] if of_above and self.source != "categories" else []
            carried[key] = tuple(dict.fromkeys(own + shared))
            self.categories |= dict.fromkeys(own)
            self.above |= dict.fromkeys(shared)
        return carried

    def all(self) -> tuple[str, ...]:
        """Every concept once."""
        return tuple(self.categories | self.above)


def _plan(
    path: Path, base: Path, splits: dict[str, str] | None, files: list[str], listed: bool
) -> dict[Path, tuple[str, ...]]:
    """Instance files, each with the splits that it serves; with none where these are left open."""
    if splits:
        if files:
            raise DataError("option files is for instance files without splits; name them in the option splits")
        plan: dict[Path, tuple[str, ...]] = {}
        for split in SPLITS:
            if split in splits:
                plan[base / splits[split]] = (*plan.get(base / splits[split], ()), split)
        return plan
    further: dict[Path, tuple[str, ...]] = {base / name: () for name in files}
    if not path.is_dir():
        return {path: (), **further}
    held = export_files(path)
    if not held:
        raise DataError(
            f"{path}: holds no COCO instances JSON (instances_*.json, also in 'annotations', or "
            "_annotations.coco.json); give the file itself"
        )
    if further or len(held) == 1 or listed:
        return dict.fromkeys(held.values(), ()) | further
    if "train" in held and len(held) == 2 and set(held) <= set(SPLIT_OF):
        return {file: ("train" if name == "train" else "val",) for name, file in held.items()}
    if set(held) <= set(SPLIT_OF):
        return {held[name]: (split,) for name, split in SPLIT_OF.items() if name in held}
    if set(held) == {"train2017", "val2017"}:
        return {held["train2017"]: ("train",), held["val2017"]: ("val",)}
    shown = ", ".join(str(file.relative_to(path)) for file in held.values())
    raise DataError(
        f"{path}: holds several instance files ({shown}); say with the option splits which split is from which"
    )


def _read_file(
    file: Path,
    of_file: Sequence[str],
    folders: Sequence[Path],
    rules: _Rules,
    names: _Names,
    faults: Faults,
) -> list[_Found]:
    content = read_instances(file)
    carried = names.take(file, content, faults)
    listed = listed_images(file, content["images"], folders, faults)
    known = {image.key for image in listed}
    if rules.skip_missing:
        listed = [image for image in listed if image.path is not None]
    if rules.only is not None:
        listed = [image for image in listed if PurePosixPath(image.name).stem in rules.only]
    split_of: dict[str, str | None] = {}
    if tuple(of_file) == ("val",):
        split_of = {image.name: split_in_three("val", image.name) for image in listed}
    elif of_file:
        for name, count in Counter(image.name for image in listed).items():
            if count > 1:
                faults.add(file, None, f"file name {name!r:.80} is that of {count} images; list each image once")
        split_of |= deal(sorted({image.name for image in listed}), of_file, rules.counts, rules.seed, str(file))
        listed = [image for image in listed if image.name in split_of]
    sizes = {image.key: size for image in listed if (size := _true_size(file, image, faults)) is not None}
    regions: dict[object, list[tuple[tuple[str, ...], bytes]]] = {key: [] for key in sizes}
    for number, annotation in enumerate(content["annotations"]):
        _take_annotation(file, number, annotation, known, sizes, carried, rules, regions, faults)
    return [
        _Found(image.name, image.path, sizes[image.key], tuple(regions[image.key]), split_of.get(image.name))
        for image in listed
        if image.path is not None and image.key in sizes
    ]


def _true_size(file: Path, image: Listed, faults: Faults) -> tuple[int, int] | None:
    if image.path is None:
        faults.add(file, None, f"image {image.name!r:.80} is not there; name its folder with the option images")
        return None
    head = header(image.path, faults)
    if head is None:
        return None
    if image.size is not None and image.size != head[0]:
        (wide, high), (true_wide, true_high) = image.size, head[0]
        turned = image.size == head[0][::-1]
        faults.add(
            file,
            None,
            f"image {image.name!r:.80} is {wide} x {high} pixels here, but the file has {true_wide} x {true_high}; "
            + ("turn its pixels as its EXIF orientation says" if turned else "give the images that were labelled"),
        )
        return None
    return head[0]


def _take_annotation(
    file: Path,
    number: int,
    annotation: Mapping[str, Any],
    known: set[int | str],
    sizes: Mapping[int | str, tuple[int, int]],
    carried: Mapping[object, tuple[str, ...]],
    rules: _Rules,
    regions: dict[object, list[tuple[tuple[str, ...], bytes]]],
    faults: Faults,
) -> None:
    """Add the region of one annotation to those of its image."""
    key, category = annotation.get("image_id"), annotation.get("category_id")
    what = f"annotation {annotation.get('id', f'[{number}]')!r:.40}"
    if not isinstance(key, int | str) or key not in known:
        faults.add(file, None, f"{what} is of image {key!r:.40}, which the file does not list")
        return
    if type(category) is not int or category not in carried:
        faults.add(file, None, f"{what} is of category {category!r:.40}, which the file does not list")
        return
    if key not in sizes or not carried[category] or (annotation.get("iscrowd") and not rules.crowd):
        return
    width, height = sizes[key]
    region = encode_region(annotation.get("segmentation"), annotation.get("bbox"), height, width, rules.boxes)
    if isinstance(region, str):
        faults.add(file, None, f"{what}: {region}")
    elif region is not None:
        given = annotation.get("area")
        size = given if isinstance(given, int | float) else area(region) if rules.min_area > 0 else 0
        if size >= rules.min_area:
            regions[key].append((carried[category], region))


def _dataset(base: Path, found: Sequence[_Found], names: _Names) -> ConceptDataset:
    combined = sorted({concepts for image in found for concepts, _ in image.regions})
    if len(combined) >= 65534:
        raise DataError(f"{base}: has {len(combined)} classes; at most 65533 can be told apart")
    identity = dict(zip(combined, class_ids(len(combined)), strict=True))
    faults = Faults()
    samples = []
    homes: dict[Path, str | None] = {}
    for image, name in zip(found, _sample_ids(found), strict=True):
        place = image.image.resolve()
        if place in homes:
            faults.add(image.image, None, "is listed twice; list each image once, in one file")
        homes[place] = image.split
        width, height = image.size
        mask = RegionMask(height, width, tuple((identity[concepts], region) for concepts, region in image.regions))
        stem, mark, _ = PurePosixPath(image.name).name.partition(".rf.")  # Roboflow: copies of one picture
        group = stem if mark else None
        samples.append(ImageSample(name, image.image, mask, split=image.split, group=group))
    faults.raise_if_any(f"data set {base}")
    classes = {number: concepts for concepts, number in identity.items()}
    place = base.resolve()
    title = place.parent.name if place.name == "annotations" else place.name
    return ConceptDataset(title, names.all(), tuple(samples), classes)


def _sample_ids(found: Sequence[_Found]) -> list[str]:
    """File names without suffix; with suffix, or with the split before them, where only that tells them apart."""
    stems = [str(PurePosixPath(image.name).with_suffix("")) for image in found]
    if len(set(stems)) == len(stems):
        return stems
    full = [image.name for image in found]
    return (
        full
        if len(set(full)) == len(full)
        else [f"{image.split or image.image.parent.name}/{image.name}" for image in found]
    )
