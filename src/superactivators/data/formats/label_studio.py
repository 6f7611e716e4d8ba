"""Reader of Label Studio's JSON exports (JSON and JSON-MIN): labelled texts, classified samples, regions of images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, final
from urllib.parse import parse_qs, unquote, urlsplit

from superactivators.data.dataset import VOID, ConceptDataset, ImageSample, Sample, Span, TextSample
from superactivators.data.faults import Faults
from superactivators.data.formats.columns import check_splits, collect, our_split
from superactivators.data.formats.label_studio_masks import Region, RegionMask, read_regions
from superactivators.data.formats.offsets import check_unit, place_span
from superactivators.data.formats.text_files import read_json, shown
from superactivators.data.jsonl import is_name
from superactivators.data.pixels import image_size
from superactivators.errors import DataError, allowed

ANNOTATORS = ("first", "union", "all-agree")
_IGNORED = frozenset(
    {"relation", "textarea", "rating", "number", "datetime", "pairwise", "ranker", "rectangle", "ellipse", "polygon"}
    | {"brush", "keypoint", "vector", "text", "magicwand", "bitmask"}
)
"""Results without labels; regions of these types have a twin with labels."""
_BOOKKEEPING = frozenset({"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"})
_READINGS = (("utf-16", False), ("code-points", False), ("utf-16", True), ("code-points", True))
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
_BLANK = re.compile(r"\s|\\n|\\r")
_PICTURE = re.compile(r"(?i)\.(png|jpe?g|gif|bmp|webp|tiff?)([?#].*)?$")

Fault: TypeAlias = Callable[[str], None]


@final
@dataclass
class _Annotation:
    """What one annotator says of one task."""

    spans: list[Span] = field(default_factory=list)
    regions: list[tuple[str, Region]] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)


@final
@dataclass
class _Task:
    """One text or image with what the chosen annotators say of it."""

    id: str
    content: str | Path
    size: tuple[int, int] | None
    split: str | None
    group: str | None
    annotations: list[_Annotation] = field(default_factory=list)


def read_label_studio(
    path: Path,
    *,
    text: str = "",
    image: str = "",
    images: str = "",
    annotator: str = "first",
    controls: list[str] | None = None,
    choices: list[str] | None = None,
    offsets: str = "auto",
    split: str = "",
    splits: dict[str, str] | None = None,
    group: str = "",
    skip_unlabelled: bool = False,
) -> ConceptDataset:
    """Read a JSON or JSON-MIN export of Label Studio.

    Labels of text spans become spans. Rectangles, ellipses, polygons and brush strokes become masks, made when asked;
    a pixel is covered if its centre is. Choices become labels of the sample; choices for a region label that region.
    Ratings, text areas, relations and regions without a label are ignored. Cancelled (skipped) annotations and
    predictions do not count.

    Parameters
    ----------
    path : Path
        The ``.json`` file.
    text, image : str
        Field of ``data`` with the text or image; needed where the task has several and none of them is called so.
    images : str
        Folder with the image files, relative to the export; left out, the export's own. Uploads, local files and
        files of cloud storage are found in it by name, also in folders within; nothing is fetched.
    annotator : str
        Where a task has several annotations: ``"first"``; ``"union"`` of all; or ``"all-agree"``, the characters,
        pixels and choices in which all of them agree.
    controls : list of str
        Names of the labelling tags (``from_name``) to read; left out, all.
    choices : list of str
        JSON-MIN only: fields that hold choices, which the file does not tell from other data.
    offsets : str
        What spans count. ``"auto"``: UTF-16 units, as JavaScript, or code points (newer releases), whichever gives
        the ``text`` that the export repeats for each span; UTF-16 units where it does not.
    split, group : str
        Fields of ``data`` with the split and the group.
    splits : dict
        Our name of each of the export's split names; left out, the common names (val and dev are ``cal``).
    skip_unlabelled : bool
        Leave out tasks without an annotation; otherwise they are faults.

    Returns
    -------
    ConceptDataset
        Concepts in the order of the alphabet; class ids of masks count from 1 and skip 255.

    Raises
    ------
    DataError
        One error that lists every fault with the task: outlines of no area (key points), HTML regions, images that are
        missing or of another size than the export says, damaged brush strokes, spans outside the text.
    """
    if annotator not in ANNOTATORS:
        raise DataError(f"option annotator {annotator!r} is unknown; {allowed(annotator, ANNOTATORS)}")
    check_unit(offsets, ("auto",))
    check_splits(splits or {})
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the JSON file that Label Studio exported")
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(task, dict) for task in content) or not content:
        raise DataError(f"{path}: must hold a list of tasks, as Label Studio's JSON exports do; got {shown(content)}")
    short = not any("data" in task and ("annotations" in task or "completions" in task) for task in content)
    tasks = _unfolded(content, set(choices or ()), path) if short else content
    faults = Faults()
    finder = _ImageFinder(path.parent / images)
    concepts: dict[str, None] = {}
    found: list[_Task] = []
    for number, task in enumerate(tasks, start=1):
        name = str(task.get("id", number))

        def fault(message: str, name: str = name) -> None:
            faults.add(path, None, f"task {name}: {message}")

        data = task.get("data")
        results = _results(task, fault)
        if not isinstance(data, dict) or results is None:
            fault("needs the objects data and annotations; export as JSON")
            continue
        if not results:
            if not skip_unlabelled:
                fault("has no annotation; annotate it, or set skip_unlabelled = true to leave such tasks out")
            continue
        one = _task(name, data, results, (text, image), finder, fault)
        if one is None:
            continue
        one.group = _field(data, group, fault) if group else None
        original = _field(data, split, fault) if split else None
        one.split = None if original is None else our_split(original, splits or {}, fault)
        for result in results if annotator != "first" else results[:1]:
            one.annotations.append(_annotation(result, one, set(controls or ()), offsets, fault))
        found.append(one)
    names = {name for one in found for made in one.annotations for name, _ in made.regions}
    names |= {name for one in found for made in one.annotations for name in made.labels}
    names |= {span.concept for one in found for made in one.annotations for span in made.spans}
    concepts = dict.fromkeys(sorted(names))
    chosen = any(made.labels for one in found for made in one.annotations)
    masked = any(made.regions for one in found for made in one.annotations)
    identity = {name: number if number < VOID else number + 1 for number, name in enumerate(concepts, start=1)}
    read: list[tuple[Sample, Path, int | None]] = [
        (_sample(one, identity if masked else {}, annotator == "all-agree", chosen), path, None) for one in found
    ]
    classes = {number: (name,) for name, number in identity.items()} if masked else {}
    return collect(path.resolve().stem, path, read, list(concepts), classes, faults)


def _results(task: Mapping[str, Any], fault: Fault) -> list[list[dict[str, Any]]] | None:
    """Results of each annotation that was not cancelled; None if the task is no task."""
    held = task.get("annotations", task.get("completions"))
    if not isinstance(held, list):
        return None
    found = []
    for annotation in held:
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            fault("an annotation must be an object with a list result; export as JSON, not as a snapshot of ids")
            continue
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            continue
        if all(isinstance(result, dict) for result in annotation["result"]):
            found.append(annotation["result"])
        else:
            fault("results of an annotation must be objects")
    return found


def _unfolded(rows: list[dict[str, Any]], choices: set[str], path: Path) -> list[dict[str, Any]]:
    """Turn rows of JSON-MIN, one for each annotation, into tasks."""
    tasks: dict[str, dict[str, Any]] = {}
    held = set().union(*(row.keys() for row in rows))
    for name in choices:
        if name not in held:
            raise DataError(f"{path}: no task has the field {name!r} (option choices); {allowed(name, held)}")
    labelled = False
    for number, row in enumerate(rows, start=1):
        data: dict[str, Any] = {}
        results: list[dict[str, Any]] = []
        for key, value in row.items():
            values = value if isinstance(value, list) else [value]
            regions = [item for item in values if isinstance(item, dict) and _label_key(item)]
            if key in choices or (isinstance(value, dict) and "choices" in value):
                named = value.get("choices") if isinstance(value, dict) else values
                results.append({"from_name": key, "type": "choices", "value": {"choices": named}})
            elif regions and isinstance(value, list):
                results += [{"from_name": key, "type": _label_key(r), "value": r, **r} for r in regions]
            elif key not in _BOOKKEEPING:
                data[key] = value
        labelled = labelled or bool(results)
        name = str(row.get("id", number))
        tasks.setdefault(name, {"id": name, "data": data, "annotations": []})["annotations"].append({"result": results})
    if not labelled:
        raise DataError(
            f"{path}: holds no labels of a JSON or JSON-MIN export; its fields are {', '.join(sorted(held))}. "
            "Name those that hold choices with the option choices"
        )
    return list(tasks.values())


def _label_key(value: Mapping[str, Any]) -> str:
    """Field of a result's value that holds its labels: ``labels``, ``choices``, ``brushlabels`` and so on."""
    return next((key for key in value if key == "choices" or key.lower().endswith("labels")), "")


def _field(data: Mapping[str, Any], name: str, fault: Fault) -> str | None:
    value = data.get(name)
    if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    fault(f"data has no text in the field {name!r}; its fields are {', '.join(data)}")
    return None


def _task(
    name: str,
    data: Mapping[str, Any],
    results: Iterable[list[dict[str, Any]]],
    options: tuple[str, str],
    finder: _ImageFinder,
    fault: Fault,
) -> _Task | None:
    """Find the text or image of a task."""
    text, image = options
    if not text and not image:
        texts = {key for key, value in data.items() if isinstance(value, str) and value.strip()}
        pictures = {key for key in texts if _PICTURE.search(data[key]) or "local-files/?d=" in data[key]}
        drawn = any("original_width" in result for each in results for result in each)
        usual = [key for key in data if key in ({"image", "img"} & pictures or {"text"} & texts)]
        held = sorted(pictures if drawn or pictures else texts)
        key = usual[0] if usual else held[0] if len(held) == 1 else ""
        if not key:
            fault(f"which field of data holds the text or image? Set the option text or image; {', '.join(data)}")
            return None
        text, image = ("", key) if key in pictures else (key, "")
    value = data.get(text or image)
    if not is_name(value):
        fault(f"field {text or image!r} must hold a text; got {shown(value)}. Its fields are {', '.join(data)}")
        return None
    if text:
        return _Task(name, value, None, None, None)
    file = finder.find(value, fault)
    if file is None:
        return None
    try:
        return _Task(name, file, image_size(file), None, None)
    except DataError as error:
        fault(str(error))
        return None


def _annotation(
    results: list[dict[str, Any]], task: _Task, controls: set[str], offsets: str, fault: Fault
) -> _Annotation:
    made = _Annotation()
    for result in results:
        kind, value = result.get("type"), result.get("value")
        if (controls and result.get("from_name") not in controls) or kind in _IGNORED:
            continue
        if not isinstance(kind, str) or not isinstance(value, dict):
            fault(f"a result needs type and value; got {shown(result)}")
            continue
        labels = value.get(kind, value.get(_label_key(value)))
        labels = [labels] if isinstance(labels, str) else labels
        if not isinstance(labels, list) or not labels or not all(is_name(label) for label in labels):
            fault(f"a result of type {kind!r} holds no labels that can be read; leave it out with the option controls")
            continue
        if isinstance(task.content, Path) and {"x", "points", "rle"} & value.keys():
            assert task.size is not None  # noqa: S101  # images have one
            for region in read_regions(kind, result, value, task.size, fault):
                made.regions += [(label, region) for label in labels]
        elif isinstance(task.content, str) and "start" in value:
            spans = [_span(task.content, value, label, offsets) for label in labels]
            made.spans += [span for span in spans if isinstance(span, Span)]
            for wrong in {span for span in spans if isinstance(span, str)}:
                fault(wrong)
        elif kind == "choices":
            made.labels |= set(labels)
        else:
            what = "a text" if isinstance(task.content, str) else "an image"
            fault(f"results of type {kind!r} cannot be read for {what}; leave them out with the option controls")
    return made


def _span(text: str, value: Mapping[str, Any], label: str, offsets: str) -> Span | str:
    start, end, said = value.get("start"), value.get("end"), value.get("text")
    if isinstance(start, str) or isinstance(end, str):
        return f"region of {label!r} points into HTML ({start}); only regions of plain text can be read"
    if offsets != "auto":
        return place_span(text, start, end, label, offsets)
    tried = [place_span(text, start, end, label, unit, one_newline=one) for unit, one in _READINGS]
    if not isinstance(said, str) or not said.strip():
        return tried[0]
    for span in tried:
        if isinstance(span, Span) and _squeezed(text[span.start : span.end]) == _squeezed(said):
            return span
    if not any(isinstance(span, Span) for span in tried):
        return tried[0]
    return (
        f"span of {label!r} [{start}, {end}) should read {said!r:.60}, but the text does not; export the tasks again, "
        "or set the option offsets"
    )


def _squeezed(text: str) -> str:
    """Leave out what the export writes in other ways: blanks, and line ends as two signs."""
    # Old releases write the halves of an emoji's surrogate pair one by one, which JSON reads as one sign again.
    return _BLANK.sub("", text)


def _sample(task: _Task, identity: Mapping[str, int], agree: bool, chosen: bool) -> Sample:
    """Merge what annotators say of a task."""
    each = [made.labels for made in task.annotations]
    labels = set.intersection(*each) if agree else set().union(*each)
    if isinstance(task.content, Path):
        mask = None
        if identity and task.size is not None:
            drawn = tuple(
                tuple(Region(identity[name], r.kind, r.numbers, r.code) for name, r in made.regions)
                for made in task.annotations
            )
            mask = RegionMask(*task.size, drawn, agree)
            placed = [{name for name, _ in made.regions} for made in task.annotations]
            # With all-agree, a concept that all have drawn may still share no pixel; only the mask can tell.
            labels |= set.intersection(*placed) if agree else set().union(*placed)
        return ImageSample(task.id, task.content, mask, frozenset(labels) if chosen else None, task.split, task.group)
    spans = _agreed(task) if agree else tuple(dict.fromkeys(span for made in task.annotations for span in made.spans))
    labels |= {span.concept for span in spans}
    return TextSample(task.id, task.content, spans, frozenset(labels) if chosen else None, task.split, task.group)


def _agreed(task: _Task) -> tuple[Span, ...]:
    """Find the runs of characters that all annotators give one concept, without blanks at their ends."""
    assert isinstance(task.content, str)  # noqa: S101
    found = []
    first = task.annotations[0].spans
    for concept in dict.fromkeys(span.concept for span in first):
        common = set.intersection(
            *(
                {place for span in made.spans if span.concept == concept for place in range(span.start, span.end)}
                for made in task.annotations
            )
        )
        for start in sorted(common - {place + 1 for place in common}):
            end = start
            while end in common:
                end += 1
            held = task.content[start:end]
            if held.strip():
                found.append(
                    Span(start + len(held) - len(held.lstrip()), end - len(held) + len(held.rstrip()), concept)
                )
    return tuple(sorted(found, key=lambda span: (span.start, span.end, span.concept)))


@final
class _ImageFinder:
    """Finds image files by the addresses that Label Studio gives them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, list[Path]] | None = None

    def find(self, address: str, fault: Fault) -> Path | None:
        """Path of an image; a fault if there is none, or several of the name."""
        if address.startswith("data:"):
            fault("the image is written into the export; export with files in place of data: addresses")
            return None
        parts = urlsplit(address)
        inner = parse_qs(parts.query).get("d", [""])[0] or unquote(parts.path)
        name = PurePosixPath(inner.replace("\\", "/")).name
        direct = self._folder / inner.lstrip("/")
        if not parts.scheme and ".." not in Path(inner).parts and direct.is_file():
            return direct
        if self._held is None:
            self._held = {}
            for file in sorted(self._folder.rglob("*")):
                if file.is_file():
                    self._held.setdefault(file.name, []).append(file)
        # Uploads carry a made-up prefix; the folder may hold the files under the names they had before.
        held = self._held.get(name) or self._held.get(_UPLOAD.sub("", name)) or []
        if len(held) == 1:
            return held[0]
        if held:
            fault(f"image {name!r} is in several folders ({held[0]}, {held[1]}); set the option images to one of them")
        elif parts.scheme in ("http", "https"):
            fault(f"image {address:.80} is not fetched; download it and set the option images to its folder")
        else:
            fault(f"image {name!r} does not exist in {self._folder}; set the option images to the folder that has it")
        return None
