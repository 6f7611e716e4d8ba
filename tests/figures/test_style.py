"""The look of figures: told apart in grey and by colour-blind readers, the same whatever a reader has set."""

from __future__ import annotations

import builtins
import io
import itertools
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from superactivators.errors import StudyError
from superactivators.figures.heat import _ink, luminance
from superactivators.figures.labels import level, plain, shortened, site_names, thinned
from superactivators.figures.methods import methods
from superactivators.figures.style import (
    COLOURS,
    DASHES,
    GREY,
    HEAT,
    INSIDE,
    KINDS,
    OUTSIDE,
    PALE,
    check_formats,
    file_bytes,
    look,
    looks,
)
from superactivators.figures.tokens import GROUPS
from superactivators.report.study_results import StudyTables

# Machado, Oliveira and Fernandes (2009), whole deficiency, on linear RGB
BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def linear(colour: str) -> np.ndarray:
    parts = np.array(to_rgb(colour))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in TO_XYZ @ np.clip(rgb, 0, 1) / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def lightness(colour: str) -> float:
    return float(lab(linear(colour))[0])


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(to_rgb(one)), luminance(to_rgb(other))))
    return (light + 0.05) / (dark + 0.05)


def test_luminance_is_that_of_wcag() -> None:
    assert luminance((0, 0, 0)) == 0
    assert luminance((1, 1, 1)) == pytest.approx(1)
    assert luminance(to_rgb("#777777")) == pytest.approx(0.1845, abs=1e-3)
    assert contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("pair", list(itertools.combinations(COLOURS, 2)))
def test_colours_differ_in_grey(pair: tuple[str, str]) -> None:
    assert abs(lightness(pair[0]) - lightness(pair[1])) >= 10
    assert contrast(*pair) >= 1.4


@pytest.mark.parametrize("colour", [*COLOURS, GREY])
def test_colours_stand_out_from_white(colour: str) -> None:
    assert contrast(colour, "white") >= 3


@pytest.mark.parametrize("kind", BLIND)
@pytest.mark.parametrize("pair", list(itertools.combinations(COLOURS, 2)))
def test_colours_differ_for_colour_blind_readers(kind: str, pair: tuple[str, str]) -> None:
    seen = [lab(np.array(BLIND[kind]) @ linear(colour)) for colour in pair]
    assert np.linalg.norm(seen[0] - seen[1]) >= 14


def test_no_pair_is_red_and_green() -> None:
    def hue(colour: str) -> float:
        _, a, b = lab(linear(colour))
        return float(np.degrees(np.arctan2(b, a)) % 360)

    # greens lie from about 110 to 190 degrees; yellow is at 100, blue at 270
    assert not [colour for colour in COLOURS if 105 <= hue(colour) <= 200]
    assert 105 <= hue("#2ca02c") <= 200


def test_the_two_distributions_and_groups_of_tokens_differ_in_grey() -> None:
    assert contrast(INSIDE, PALE) >= 3
    assert INSIDE != OUTSIDE
    shades = sorted(lightness(colour) for colour in GROUPS.values())
    assert np.diff(shades).min() >= 20


def test_series_differ_in_line_and_in_marker_too() -> None:
    drawn = [look(number) for number in range(20)]
    assert len({(one.colour, one.dash) for one in drawn}) == 20
    assert len({(one.colour, one.marker) for one in drawn}) == 20
    # where colours come again, both line and marker are others
    for one, other in itertools.combinations(drawn[:10], 2):
        assert one.colour != other.colour or (one.dash != other.dash and one.marker != other.marker)
    assert len(set(DASHES)) == 4


def test_kinds_keep_their_look() -> None:
    whole = looks(KINDS)
    assert len({(one.colour, one.dash, one.marker) for one in whole.values()}) == len(KINDS)
    for kinds in (("mean", "linear"), ("sae", "linear", "best")):
        assert looks(kinds) == {kind: whole[kind] for kind in kinds}
    others = looks(["mine", "linear", "yours"])
    assert others["linear"] == whole["linear"]
    assert others["mine"] != others["yours"]
    assert not {others["mine"], others["yours"]} & set(whole.values())


def test_heat_maps_go_up_in_lightness_and_their_numbers_can_be_read() -> None:
    shades = mpl.colormaps[HEAT](np.linspace(0, 1, 64))
    values = [luminance(shade) for shade in shades]
    assert np.all(np.diff(values) > 0)
    assert values[-1] - values[0] > 0.6
    for shade, value in zip(shades, values, strict=True):
        ink = luminance(to_rgb(_ink(shade)))
        assert (max(ink, value) + 0.05) / (min(ink, value) + 0.05) >= 4.5


def test_settings_of_the_reader_change_nothing_and_are_left_alone(study: StudyTables) -> None:
    before = file_bytes(methods(study), "png")
    mine = {"font.size": 20, "axes.facecolor": "red", "lines.linewidth": 9, "figure.dpi": 33, "savefig.dpi": 17}
    with mpl.rc_context(mine):
        held = dict(mpl.rcParams)
        after = file_bytes(methods(study), "png")
        assert dict(mpl.rcParams) == held
    assert before == after


def test_nothing_draws_to_a_screen(study: StudyTables, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name != "matplotlib.pyplot"
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)
    methods(study)


def test_without_matplotlib_one_line_says_what_to_install(study: StudyTables, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StudyError, match=r"^figures need the package matplotlib; install superactivators\[figures\]$"):
        methods(study)


def test_formats_are_checked() -> None:
    assert check_formats(("png", "pdf", "png")) == ("png", "pdf")
    with pytest.raises(StudyError, match=r"^unknown figure format 'gif'; choose from pdf, png$"):
        check_formats(("pdf", "gif"))
    with pytest.raises(StudyError, match=r"^no figure format given"):
        check_formats(())


def test_a_picture_has_300_dots_an_inch(study: StudyTables) -> None:
    figure = methods(study)
    picture = Image.open(io.BytesIO(file_bytes(figure, "png")))
    assert picture.size == tuple(int(300 * side) for side in figure.get_size_inches())


@pytest.mark.parametrize(
    ("sites", "names", "axis"),
    [
        (["embed", "block[0]", "block[11]", "final_norm"], ["emb", "0", "11", "norm"], "block"),
        (["layer a", "layer b"], ["layer a", "layer b"], "layer"),
        (["block[0]", "mine"], ["block[0]", "mine"], "layer"),
    ],
)
def test_layers_are_written_short(sites: list[str], names: list[str], axis: str) -> None:
    assert site_names(sites) == (names, axis)


def test_levels_are_written_short() -> None:
    assert [level(delta) for delta in (0.005, 0.01, 0.1, 0.5, 0.95)] == [".005", ".01", ".1", ".5", ".95"]


def test_names_are_cut_at_the_end_where_that_tells_them_apart() -> None:
    assert shortened(["short", "a very long name"], 8) == ["short", "a very…"]
    assert shortened(["the same start one", "the same start two"], 10) == ["the s…one", "the s…two"]
    assert shortened(["x" * 9 + "a" + "x" * 9, "x" * 9 + "b" + "x" * 9], 8)[0] == "x" * 9 + "a" + "x" * 9
    assert plain("costs $5\nor $6") == r"costs \$5 or \$6"


@given(st.lists(st.text(min_size=1, max_size=30), unique=True, max_size=8), st.integers(4, 20))
def test_shortened_names_stay_apart(names: list[str], most: int) -> None:
    found = shortened(names, most)
    assert len(found) == len(names)
    assert len(set(found)) == len({plain(name) for name in names})


@given(st.integers(0, 200), st.integers(1, 50))
def test_ticks_are_few_and_even(count: int, most: int) -> None:
    places = thinned(count, most)
    assert len(places) <= most
    assert places == sorted(set(places))
    assert all(0 <= place < count for place in places)
    assert len(set(np.diff(places))) <= 1
    assert bool(places) == bool(count)
