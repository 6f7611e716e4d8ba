"""All figures of a study as files: sound, the same each time, and legible with many concepts and long names."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from figures.drawn import many
from superactivators.errors import StoreError, StudyError
from superactivators.figures.distributions import MOST
from superactivators.figures.style import COLUMN, PAGE, TALLEST, file_bytes
from superactivators.figures.writing import BY_KIND, WHOLE, study_figures, write_figures
from superactivators.report.study_results import StudyTables

pytestmark = pytest.mark.usefixtures("no_warnings")

AWKWARD = ["$x$ costs $5", "100% {of} it_\\alpha^2", "Grüße, naïve…", "two\nlines", "<b>&amp;</b>", "#hash ~ tilde"]


def unpacked(pdf: bytes) -> bytes:
    """The file and all its compressed streams."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    return pdf + b"".join(zlib.decompress(part) for part in streams if part[:1] == b"x")


def test_everything_is_written_in_both_formats(study: StudyTables, tmp_path: Path) -> None:
    files = write_figures(study, tmp_path / "new" / "figures")
    names = {path.stem for path in files}
    # activations of the mixed kind are those of the others
    by_kind = {f"{name}-{kind}" for name in (*BY_KIND, "distributions") for kind in ("mean", "linear")}
    assert names == {*WHOLE, *by_kind, "concepts-best"}
    assert sorted(files) == sorted((tmp_path / "new" / "figures").iterdir())
    assert len(files) == 2 * len(names)
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".png":
            assert Image.open(io.BytesIO(content)).size[0] in (300 * COLUMN, 300 * PAGE)
            continue
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
        whole = unpacked(content)
        assert b"/FontFile2" in whole
        # every font is TrueType inside a composite or simple font: none is drawn as pictures of letters
        assert b"/Type3" not in whole
        assert b"DejaVuSans" in whole
        assert b"CreationDate" not in whole
        # all is vectors but the scales of heat maps and the maps of token pairs
        assert (b"/Subtype /Image" in content) == path.stem.startswith(("layer-", "confusion-", "token-pairs"))


def test_the_same_study_gives_the_same_bytes_in_another_process(study: StudyTables, tmp_path: Path) -> None:
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in write_figures(study, tmp_path)}
    code = (
        "import sys, hashlib, json; sys.path.insert(0, sys.argv[1])\n"
        "from figures.drawn import study_of\n"
        "from report.planted import planted\n"
        "from superactivators.figures.writing import write_figures\n"
        "files = write_figures(study_of(planted('text')), sys.argv[2])\n"
        "print(json.dumps({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}))\n"
    )
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tests), str(tmp_path / "other")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == before


def test_a_study_without_analyses_has_the_figures_of_detection(small: StudyTables, tmp_path: Path) -> None:
    files = write_figures(small, tmp_path, ["png"])
    found = {path.stem for path in files} - {"lengths"}
    assert found == {"methods", "deltas", "layer-methods", "layer-deltas", *(f"concepts-{k}" for k in small.kinds)}


def test_other_files_are_left_alone_and_old_figures_replaced(small: StudyTables, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "methods.png").write_bytes(b"old")
    write_figures(small, tmp_path, ("png",))
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "methods.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.pdf")) + list(tmp_path.glob("*.tmp"))


def test_mistakes_are_told_in_one_line(small: StudyTables, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"^unknown figure format 'svg'"):
        write_figures(small, tmp_path / "none", ("svg",))
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_figures(small, tmp_path / "file", ("png",))


def test_many_concepts_take_several_figures_of_distributions(study: StudyTables) -> None:
    wide = _of_analyses(many(study, MOST + 3))
    held = {name: figure for name, figure in study_figures(wide) if name.startswith("distributions-mean")}
    assert list(held) == ["distributions-mean-1", "distributions-mean-2"]
    assert [len(figure.axes) for figure in held.values()] == [MOST, 3]


def legible(name: str, figure: Figure) -> None:
    """Check that no words overlap or leave the figure, and that it fits a page."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = figure.get_size_inches()
    assert width in (COLUMN, PAGE), name
    assert height <= TALLEST, name
    titles = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [one for one in axis.get_ticklabels() if one.get_visible() and one.get_text()]
            boxes = [one.get_window_extent(renderer) for one in labels]
            low, high = sorted(axis.get_view_interval())
            boxes = [
                box
                for box, place in zip(boxes, [_place(axis, one) for one in labels], strict=True)
                if low <= place <= high
            ]
            for number, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[:number]), (name, axis.axis_name)
                assert _within(box, figure), (name, labels[number].get_text())
            if axis.label.get_text():
                own = axis.label.get_window_extent(renderer)
                assert not any(own.overlaps(box) for box in boxes), (name, axis.label.get_text())
                assert _within(own, figure), (name, axis.label.get_text())
        if axes.get_title():
            titles.append(axes.title.get_window_extent(renderer))
        if axes.get_label() != "<colorbar>":
            assert min(axes.get_window_extent(renderer).size) > 20, name
    titles += [legend.get_window_extent(renderer) for legend in figure.legends]
    for number, box in enumerate(titles):
        assert not any(box.overlaps(other) for other in titles[:number]), name
        assert _within(box, figure), name


def _within(box: Any, figure: Figure) -> bool:
    """Whether a box lies in the figure, to a dot."""
    edge = figure.bbox
    across = edge.x0 - 1 <= box.x0 and box.x1 <= edge.x1 + 1
    return bool(across and edge.y0 - 1 <= box.y0 and box.y1 <= edge.y1 + 1)


def _place(axis: Any, label: Any) -> float:
    return float(label.get_position()[0 if axis.axis_name == "x" else 1])


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_figures_stay_legible_with_many_concepts_and_long_names(study: StudyTables, count: int) -> None:
    for name, figure in study_figures(_of_analyses(many(study, count))):
        legible(name, figure)


def test_figures_of_detection_are_legible(study: StudyTables, small: StudyTables) -> None:
    for one in (study, small):
        for name, figure in study_figures(one):
            legible(name, figure)


def _of_analyses(study: StudyTables) -> StudyTables:
    """Leave out the tables of detection, which know the old concepts only."""
    result = replace(
        study.result,
        curves=study.result.curves.slice(0, 0),
        metrics=_renamed(study),
        lengths=study.result.lengths.slice(0, 0),
    )
    return replace(study, result=result)


def _renamed(study: StudyTables) -> pa.Table:
    """Metrics with a row for each concept, made from those of the first."""
    first = study.result.metrics["concept"][0].as_py()
    rows = [row for row in study.result.metrics.to_pylist() if row["concept"] == first]
    concepts = study.summary["concepts"]
    return pa.Table.from_pylist(
        [row | {"concept": name} for name in concepts for row in rows], schema=study.result.metrics.schema
    )


def test_awkward_names_are_written_as_they_are(study: StudyTables) -> None:
    awkward = _of_analyses(many(study, 0, AWKWARD))
    for name, figure in study_figures(awkward):
        legible(name, figure)
        file_bytes(figure, "pdf")
        if name == "concepts-mean":
            shown = {text.get_text().replace(r"\$", "$") for text in figure.axes[0].get_yticklabels()}
            assert shown == {one.replace("\n", " ") for one in AWKWARD}


def test_numbers_that_are_not_there_leave_gaps(study: StudyTables) -> None:
    """Half of all fractions missing, as NaN or as null: everything is still drawn."""
    assert study.analysis is not None
    random = np.random.default_rng(0)

    def holed(table: pa.Table, keep: tuple[str, ...]) -> pa.Table:
        rows = table.to_pylist()
        for row in rows:
            for name, value in row.items():
                if isinstance(value, float) and name not in keep and random.random() < 0.5:
                    row[name] = None if random.random() < 0.5 else float("nan")
        return pa.Table.from_pylist(rows, schema=table.schema)

    keys = ("delta", "share", "low", "high")
    names = ("separation", "histograms", "sparsity", "deltas", "errors", "sizes", "lengths", "confusion")
    tables = {name: holed(getattr(study.analysis, name), keys) for name in names}
    result = replace(
        study.result,
        aggregates=holed(study.result.aggregates, ()),
        metrics=holed(study.result.metrics, ("delta", "f1")),
    )
    assert study.attribution is not None
    attribution = replace(study.attribution, aggregates=holed(study.attribution.aggregates, ()))
    changed = replace(study, analysis=replace(study.analysis, **tables), result=result, attribution=attribution)
    drawn = dict(study_figures(changed))
    assert set(drawn) == {name for name, _ in study_figures(study)}
    for figure in drawn.values():
        file_bytes(figure, "png")


def test_nothing_finite_at_all_is_drawn_as_nothing(study: StudyTables) -> None:
    assert study.analysis is not None

    def emptied(table: pa.Table) -> pa.Table:
        columns = {
            name: pa.array([None] * table.num_rows, field.type)
            if pa.types.is_floating(field.type) and name not in ("delta", "share", "low", "high")
            else table[name]
            for name, field in zip(table.column_names, table.schema, strict=True)
        }
        return pa.table(columns, schema=table.schema)

    names = ("separation", "sparsity", "deltas", "errors", "sizes", "lengths", "confusion")
    changed = replace(study.analysis, **{name: emptied(getattr(study.analysis, name)) for name in names})
    for _, figure in study_figures(replace(study, analysis=changed)):
        file_bytes(figure, "png")
