"""Reader of ADE20K: the scene parsing release of 2016 and the full release of 2021 (docs/data.md)."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from jaxtyping import UInt16

from superactivators.data.dataset import VOID, ConceptDataset, ImageSample
from superactivators.data.faults import Faults
from superactivators.data.formats.colour_codes import open_rgb
from superactivators.data.formats.held_out import split_in_three
from superactivators.data.formats.image_files import by_stem, check_sizes, folders_in, images_in
from superactivators.data.formats.planes import class_ids
from superactivators.data.pixels import open_mask
from superactivators.errors import DataError

NAMES: Final = "objectInfo150.txt"
_PARTS: Final = {"training": "train", "validation": "val"}


def read_ade20k(
    path: Path, *, top: int = 0, parts: bool = False, names: str = "", check_masks: bool = False
) -> ConceptDataset:
    """Read scenes whose every pixel has a class.

    Both releases are read; which one it is, the folder shows:

    - *Scene parsing, 2016* (``ADEChallengeData2016``): ``images`` and ``annotations``, each with ``training`` and
      ``validation``, and ``objectInfo150.txt``. Ids 1 to 150 are classes; 0 is anything else, and has no concept.
    - *Full, 2021* (``ADE20K_2021_17_01``): ``images/ADE/training`` and ``images/ADE/validation`` with scene folders;
      beside each image its ``_seg.png`` (class ``R // 10 * 256 + G``) and its ``.json``, which names the classes. The
      index of that release is a pickle and is not read.

    A concept is named by the first of its class's synonyms, or by all of them where two classes share the first.
    Splits: training is train; one half of validation is cal and the other test, by a hash of the image's name.

    Parameters
    ----------
    path : Path
        The release's folder, or the one above it.
    top : int
        Keep only so many of the most frequent concepts (0: all): by the column ``Ratio`` of the names' file, or, in the
        full release, by the number of training images.
    parts : bool
        Full release only: also read object parts (``_parts_N.png``), in further planes.
    names : str
        The names' file, relative to the path, where it is not ``objectInfo150.txt``.
    check_masks : bool
        Also decode every mask and look for unknown ids. Off, only headers are read.

    Returns
    -------
    ConceptDataset
        Ids are the images' names without suffix.

    Raises
    ------
    DataError
        One line if the folder is of neither release; else one error that lists every fault: images or masks that are
        missing, unreadable or of other sizes, and wrong lines of the names' file.
    """
    if type(top) is not int or top < 0:
        raise DataError(f"option top must be a whole number of at least 0; got {top!r}")
    for root in (path, *folders_in(path)):
        if (root / "images" / "ADE").is_dir():
            return _read_full(root, top, parts, check_masks)
        if (root / "annotations" / "training").is_dir() and (root / "images" / "training").is_dir():
            if parts:
                raise DataError(f"{root}: the release of 2016 has no parts; leave out the option parts")
            return _read_challenge(root, root / (names or NAMES), top, check_masks)
    raise DataError(
        f"{path}: is no ADE20K folder; give ADEChallengeData2016 (images/training, annotations/training) or "
        "ADE20K_2021_17_01 (images/ADE/training)"
    )


def _read_challenge(root: Path, names: Path, top: int, check_masks: bool) -> ConceptDataset:
    faults = Faults()
    named = _read_names(names, faults)
    samples = []
    for part, original in _PARTS.items():
        images = by_stem(images_in(root / "images" / part), faults)
        masks = by_stem(images_in(root / "annotations" / part), faults)
        for name, image in images.items():
            if name not in masks:
                faults.add(image, None, f"has no mask {name}.png in annotations/{part}")
                continue
            mode = check_sizes(image, masks[name], faults)
            if mode is not None and mode not in ("L", "P"):
                faults.add(masks[name], None, f"has mode {mode!r}, but masks of this release have one channel of ids")
            elif mode is not None and check_masks:
                _check_ids(masks[name], named, faults)
            samples.append(ImageSample(name, image, masks[name], split=split_in_three(original, name)))
        for name in masks.keys() - images.keys():
            faults.add(masks[name], None, f"has no image in images/{part}")
    if not samples and not len(faults):
        faults.add(root, None, "holds no images")
    faults.raise_if_any(f"data set {root}")
    order = sorted(named, key=lambda number: (-named[number][1], number))
    classes = {number: (name,) for number, name in _short({n: text for n, (text, _) in named.items()}).items()}
    concepts = tuple(dict.fromkeys(classes[number][0] for number in sorted(named)))
    dataset = ConceptDataset(root.resolve().name, concepts, tuple(samples), classes)
    return _keep(dataset, [classes[number][0] for number in order], top)


def _keep(dataset: ConceptDataset, frequent: Sequence[str], top: int) -> ConceptDataset:
    """Keep the most frequent concepts, in the order that they had."""
    if not top:
        return dataset
    kept = set(list(dict.fromkeys(frequent))[:top])
    return dataset.with_concepts(name for name in dataset.concepts if name in kept)


def _check_ids(path: Path, named: Mapping[int, object], faults: Faults) -> None:
    try:
        unknown = np.setdiff1d(np.unique(open_mask(path)), [0, VOID, *named])
    except DataError as error:
        faults.add(path, None, str(error).removeprefix(f"{path}: "))
        return
    if len(unknown):
        faults.add(path, None, f"has ids that {NAMES} does not name: {unknown[:8].tolist()}")


def _read_names(path: Path, faults: Faults) -> dict[int, tuple[str, float]]:
    """Read synonyms and share of pixels of each class id; releases differ in the columns between."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); it comes with the release and names the classes") from error
    rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    header = [field.strip() for field in rows[0]] if rows else []
    if header[:2] != ["Idx", "Ratio"] or header[-1] != "Name":
        raise DataError(
            f"{path}: must have the tab-separated columns Idx, Ratio, ..., Name; got {', '.join(header)!r:.80}"
        )
    found: dict[int, tuple[str, float]] = {}
    for line, fields in enumerate(rows[1:], start=2):
        if not any(field.strip() for field in fields):
            continue
        try:
            number, ratio, text = int(fields[0]), float(fields[1]), fields[len(header) - 1].strip()
        except (ValueError, IndexError):
            faults.add(path, line, f"must hold {', '.join(header)}, separated by tabs; got {' '.join(fields)!r:.60}")
            continue
        if not 0 < number < VOID or number in found or not text:
            faults.add(
                path, line, f"needs an id from 1 to 254 that no other line has, and a name; got {number}, {text!r}"
            )
            continue
        found[number] = (text, ratio)
    return found


def _short(named: Mapping[int, str]) -> dict[int, str]:
    """Name each class by its first synonym; by all of them where another class has that first one too."""
    first = {number: text.split(",")[0].split(";")[0].strip() for number, text in named.items()}
    texts: dict[str, set[str]] = {}
    for number, name in first.items():
        texts.setdefault(name, set()).add(named[number])
    return {number: named[number] if len(texts[name]) > 1 else name for number, name in first.items()}


@final
@dataclass(frozen=True)
class CodeTable:
    """Mask id of each class code of the full release; equal tables are one object."""

    ids: tuple[tuple[int, int], ...]

    def lookup(self, path: Path, codes: np.ndarray) -> UInt16[np.ndarray, "h w"]:
        """Give the mask ids of the pixels; a code that is in no ``.json`` raises ``DataError``."""
        table = np.full(26 * 256, VOID, dtype=np.uint16)
        table[0] = 0
        for code, identity in self.ids:
            table[code] = identity
        found: UInt16[np.ndarray, "h w"] = table[codes]
        if (found == VOID).any():
            code = int(codes[found == VOID][0])
            raise DataError(f"{path}: holds the class code {code}, which no .json names; are all files of one release?")
        return found

    def digest(self) -> bytes:
        """Bytes that change whenever the table does."""
        return hashlib.sha256(repr(self.ids).encode()).digest()


@final
@dataclass(frozen=True)
class AdeMask:
    """Class ids of the pixels of one ``_seg.png`` or ``_parts_N.png``."""

    path: Path
    table: CodeTable

    def load(self) -> UInt16[np.ndarray, "h w"]:
        """Decode the colours."""
        pixels = open_rgb(self.path).astype(np.int64)
        return self.table.lookup(self.path, pixels[..., 0] // 10 * 256 + pixels[..., 1])

    def content(self) -> bytes:
        """Hash of the file and of the table."""
        return hashlib.sha256(self.path.read_bytes() + self.table.digest()).digest()


def _read_full(root: Path, top: int, parts: bool, check_masks: bool) -> ConceptDataset:
    faults = Faults()
    texts: dict[int, dict[str, Path]] = {}
    held: set[int] = set()
    images_of: Counter[int] = Counter()
    found: list[tuple[str, Path, list[Path], str]] = []
    for part, original in _PARTS.items():
        for image in sorted((root / "images" / "ADE" / part).rglob("*.jpg")):
            if not image.with_suffix(".json").exists() and image.parent.with_suffix(".json").exists():
                continue  # crops of single objects, in a folder of the image's name
            masks = [image.with_name(f"{image.stem}_seg.png")]
            if parts:
                masks += sorted(image.parent.glob(f"{image.stem}_parts_*.png"))
            if not masks[0].is_file():
                faults.add(image, None, f"has no mask {masks[0].name} beside it")
                continue
            for mask in masks:
                mode = check_sizes(image, mask, faults)
                if mode is not None and mode != "RGB":
                    faults.add(mask, None, f"has mode {mode!r}, but masks of this release are in colour")
            codes = _read_objects(image.with_suffix(".json"), parts, texts, faults)
            held |= codes
            if original == "train":
                images_of.update(codes)
            found.append((image.stem, image, masks, original))
    for code, names in texts.items():
        for name, path in list(names.items())[1:]:
            (other, before), *_ = names.items()
            faults.add(path, None, f"class {code} is {name!r:.40} here, but {other!r:.40} in {before.name}")
    if not found and not len(faults):
        faults.add(root, None, "holds no images in images/ADE/training and images/ADE/validation")
    faults.raise_if_any(f"data set {root}")
    named = {code: next(iter(names)) for code, names in texts.items()}
    short = _short(named)
    identity = dict(zip(sorted(named), class_ids(len(named)), strict=True))
    table = CodeTable(tuple(identity.items()))
    samples = tuple(
        ImageSample(
            name,
            image,
            tuple(AdeMask(mask, table) for mask in masks) if len(masks) > 1 else AdeMask(masks[0], table),
            split=split_in_three(original, name),
        )
        for name, image, masks, original in found
    )
    if check_masks:
        for sample in samples:
            try:
                sample.load_mask()
            except DataError as error:
                faults.add(root, None, str(error))
        faults.raise_if_any(f"data set {root}")
    classes = {identity[code]: (short[code],) for code in identity}
    concepts = tuple(dict.fromkeys(short[code] for code in sorted(held)))
    dataset = ConceptDataset(root.resolve().name, concepts, samples, classes)
    return _keep(
        dataset, [short[code] for code, _ in sorted(images_of.items(), key=lambda item: (-item[1], item[0]))], top
    )


def _read_objects(path: Path, parts: bool, texts: dict[int, dict[str, Path]], faults: Faults) -> set[int]:
    """Note the names of the classes of one image, each with the first file that has it; the result is their codes."""
    try:
        raw = path.read_bytes()
        try:
            content = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError:  # the release's files are of both kinds
            content = json.loads(raw.decode("latin-1"))
    except (OSError, ValueError, RecursionError) as error:
        faults.add(path, None, f"is not readable JSON ({error}); it must lie beside its image")
        return set()
    objects: Any = content.get("annotation") if isinstance(content, dict) else None
    objects = objects.get("object") if isinstance(objects, dict) else None
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        faults.add(path, None, "must hold annotation.object, a list of objects; is it of the release of 2021?")
        return set()
    codes = set()
    for number, item in enumerate(objects):
        code, name, part = item.get("name_ndx"), item.get("name"), item.get("parts")
        level = part.get("part_level", 0) if isinstance(part, dict) else 0
        if type(code) is not int or not isinstance(name, str) or not name.strip() or not 0 < code < 26 * 256:
            faults.add(
                path, None, f"object {number} needs a name and its number name_ndx; got {name!r:.40} and {code!r:.20}"
            )
            continue
        texts.setdefault(code, {}).setdefault(name.strip(), path)
        if parts or str(level) == "0":
            codes.add(code)
    return codes
