"""The look of all figures: sizes, fonts, colours that also differ in grey, line styles and markers beside them."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, final

from superactivators.errors import StudyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
else:
    Axes = Figure = Any

P = ParamSpec("P")
R = TypeVar("R")
Dash: TypeAlias = str | tuple[float, tuple[float, ...]]

COLUMN, PAGE = 3.3, 6.8
"""Widths in inches of a figure in one column of a page and over both."""
TALLEST = 9.0
"""Inches; a taller figure fits no page."""

COLOURS = ("#1a5da6", "#d97a1c", "#0b1026", "#c74a75", "#581168")
"""Blue, orange, black-blue, rose and purple: in grey at least 10 steps of lightness (CIE L*) apart, each with a
contrast of 3 to white, and told apart with any of the three kinds of colour blindness."""
DASHES: tuple[Dash, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, PALE = "#6b6b6b", "#d5d8dc"
HEAT = "cividis"
"""Colour map of heat maps: goes up in lightness, made for colour-blind readers."""

INSIDE, OUTSIDE = COLOURS[0], GREY
"""Of D_in and D_out."""

KINDS = ("linear", "mean", "kmeans", "kmeans-linear", "best", "linear-adam", "sae", "probe", "input", "prompt")
"""Kinds keep their look from figure to figure."""

FONT = "DejaVu Sans"
"""Comes with matplotlib."""
SETTINGS: dict[str, Any] = {
    "mathtext.fontset": "dejavusans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "grid.linewidth": 0.4,
    "grid.color": "#e3e3e3",
    "hatch.linewidth": 0.4,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "savefig.bbox": None,
    "pdf.fonttype": 42,
    "pdf.compression": 6,
    "path.simplify": True,
    "text.usetex": False,
}
"""Laid over matplotlib's own defaults, so that a reader's settings change nothing."""

FURTHER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
    "Noto Sans",
    "Symbola",
)
"""Tried in turn, where installed, for letters that DejaVu Sans lacks."""

FORMATS = ("pdf", "png")
UNDATED: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "png": {"Software": None},
}


@final
class NothingToDraw(StudyError):  # noqa: N818 — no fault: `write_figures` passes over it
    """The study lacks what a figure shows."""


@final
@dataclass(frozen=True)
class Look:
    """How one series is drawn; any two of the first 20 differ in colour or line, and in colour or marker.

    Attributes
    ----------
    colour : str
    dash : str or (offset, lengths)
    marker : str
    """

    colour: str
    dash: Dash
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of a line with markers."""
        return {"color": self.colour, "linestyle": self.dash, "marker": self.marker}


def look(number: int) -> Look:
    """Give the look of a series by its number."""
    return Look(COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)], MARKERS[number % len(MARKERS)])


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Give named series their looks: kinds of vectors have their own, other names take those that follow."""
    places = {name: number for number, name in enumerate(KINDS)}
    return {name: look(places.setdefault(name, len(places))) for name in names}


def in_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Let a function draw in our style, whatever matplotlib's settings are.

    Raises
    ------
    StudyError
        When called without matplotlib.
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with _settings():
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure whose parts are kept apart when it is drawn.

    Parameters
    ----------
    width, height : float
        Inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, min(height, TALLEST)), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.03)
    return figure


def panels(
    count: int, across: int, height: float, *, extra: float = 0.4, width: float | None = None, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal panels, in rows; places that are left over stay empty.

    Parameters
    ----------
    count : int
    across : int
        Most panels in a row.
    height : float
        Inches of a row.
    extra : float
        Inches for what all rows share, such as a legend.
    width : float, optional
        Inches; by default both columns of a page, or one column for a single panel.
    **shared
        ``sharex`` and ``sharey`` of matplotlib's ``subplots``.
    """
    columns = min(count, across)
    rows = -(-count // columns)
    figure = new_figure(width or (COLUMN if count == 1 else PAGE), rows * height + extra)
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel().tolist()
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend above all panels, in as many columns as fit."""
    if not labels:
        return
    # a letter takes about 0.055 inches, a sample of the line and the gaps 0.55
    wide = [len(re.sub(r"[\\${}_]", "", label)) * 0.055 + 0.6 for label in labels]
    fits = [n for n in range(1, len(labels) + 1) if _width(wide, n) <= figure.get_figwidth()]
    across = max(fits, default=1)
    figure.legend(handles, labels, loc="outside upper center", ncols=across)


def _width(wide: Sequence[float], across: int) -> float:
    """Width of a legend in so many columns, filled column by column."""
    deep = -(-len(wide) // across)
    return sum(max(wide[start : start + deep]) for start in range(0, len(wide), deep))


def file_bytes(figure: Figure, ending: str) -> bytes:
    """Render a figure as a file: fonts embedded, no date, the same bytes each time.

    Parameters
    ----------
    figure : matplotlib Figure
    ending : str
        ``"pdf"`` (vectors) or ``"png"`` (300 dots an inch).
    """
    sink = io.BytesIO()
    with _settings():
        figure.savefig(sink, format=ending, metadata=UNDATED[ending])
    return sink.getvalue()


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Refuse unknown file endings.

    Raises
    ------
    StudyError
        If none is given or one is unknown.
    """
    if not formats:
        raise StudyError(f"no figure format given; choose from {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise StudyError(f"unknown figure format {name!r}; choose from {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(formats))


@contextmanager
def _settings() -> Iterator[None]:
    """Lay our settings over matplotlib's defaults for a while."""
    try:
        import matplotlib as mpl
        from matplotlib.font_manager import get_font_names
    except ImportError:
        raise StudyError("figures need the package matplotlib; install superactivators[figures]") from None
    known = set(get_font_names())
    settings: Any = {**SETTINGS, "font.family": [FONT, *(name for name in FURTHER_FONTS if name in known)]}
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield
