"""What stands in the axes is what stands in the tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from figures.drawn import many, series
from superactivators.analysis.results import SCHEMAS
from superactivators.detection.lengths import ALL
from superactivators.detection.metrics import aggregate
from superactivators.errors import StudyError
from superactivators.figures.attribution import APART, attribution
from superactivators.figures.concepts import concept_f1, confusion, errors
from superactivators.figures.distributions import above, distributions, separation
from superactivators.figures.labels import level
from superactivators.figures.levels import best_deltas, best_layers, deltas, layer_deltas, together
from superactivators.figures.methods import NO_VECTORS, layer_methods, methods
from superactivators.figures.style import NothingToDraw
from superactivators.figures.tokens import GROUPS, grouped, lengths, sparsity, token_pairs
from superactivators.report.study_results import StudyTables
from superactivators.report.study_tables import deltas_tables

pytestmark = pytest.mark.usefixtures("no_warnings")


def texts(labels: list[Any]) -> list[str]:
    return [label.get_text() for label in labels]


def mesh(axes: Any) -> np.ndarray:
    """Numbers of a heat map, NaN where nothing is drawn."""
    (found,) = axes.collections
    return np.ma.filled(found.get_array().astype(float), np.nan)


def changed(study: StudyTables, **tables: Any) -> StudyTables:
    assert study.analysis is not None
    return replace(study, analysis=replace(study.analysis, **tables))


def rows_of(table: pa.Table, **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in table.to_pylist() if all(row[name] == value for name, value in wanted.items())]


# methods


@pytest.mark.parametrize("average", ["weighted", "macro", "micro"])
def test_methods_show_values_and_intervals(study: StudyTables, average: str) -> None:
    axes = methods(study, average).axes[0]
    for kind, by_method in study.summary[f"{average}_f1"].items():
        container = next(one for one in axes.containers if one.get_label() == kind)
        x, _ = series(axes, kind)
        assert x.tolist() == [estimate["value"] for estimate in by_method.values()]
        ends = np.array([segment[:, 0] for segment in container.lines[2][0].get_segments()])
        wanted = [[estimate["low"], estimate["high"]] for estimate in by_method.values()]
        # a nested interval may lie beside its value; the bar then starts at the value
        wanted = [[min(low, v), max(high, v)] for (low, high), v in zip(wanted, x, strict=True)]
        np.testing.assert_allclose(ends, wanted, atol=1e-12)
    assert texts(axes.get_yticklabels())[0] == "SuperActivators"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_every_method_has_its_own_line_of_dots(study: StudyTables) -> None:
    axes = methods(study).axes[0]
    heights = np.concatenate([series(axes, kind)[1] for kind in study.kinds])
    assert np.diff(np.sort(heights)).min() > 0.9
    # dots lie nearest to the tick of their own method
    ticks = axes.get_yticks()
    for kind, by_method in study.summary["weighted_f1"].items():
        near = [int(np.abs(ticks - y).argmin()) for y in series(axes, kind)[1]]
        rows = list(dict.fromkeys(method for _, method in study.pairs))
        assert near == [rows.index(method) for method in by_method]


def test_fixed_intervals_are_shown_where_the_study_leads_with_them(study: StudyTables) -> None:
    axes = methods(replace(study, summary={**study.summary, "intervals": "fixed"})).axes[0]
    container = next(one for one in axes.containers if one.get_label() == "mean")
    first = study.summary["weighted_f1_fixed"]["mean"]["superactivators"]
    segment = container.lines[2][0].get_segments()[0][:, 0]
    np.testing.assert_allclose(segment, [first["low"], first["high"]], atol=1e-12)


def test_kindless_methods_share_one_name_in_the_legend(study: StudyTables) -> None:
    summary = dict(study.summary)
    for name in ("weighted_f1", "weighted_f1_fixed"):
        one = summary[name]["mean"]["last"]
        summary[name] = {**summary[name], "probe": {"attention": one}, "input": {"bag-of-words": one}}
    figure = methods(replace(study, summary=summary))
    assert texts(figure.legends[0].get_texts()) == [*study.kinds, NO_VECTORS]
    assert {"attention", "bag-of-words"} <= set(texts(figure.axes[0].get_yticklabels()))


def test_heat_maps_of_layers_and_methods(study: StudyTables) -> None:
    *maps, bar = layer_methods(study).axes
    assert [one.get_title() for one in maps] == study.kinds
    assert bar.get_ylabel() == "weighted F1 on test"
    for one in maps:
        held = {
            (row["method"], row["site"]): row["weighted_f1"]
            for row in rows_of(study.result.aggregates, split="test", kind=one.get_title())
        }
        names = texts(one.get_yticklabels())
        assert texts(one.get_xticklabels()) == ["emb", "0", "1", "2"]
        for row, method in enumerate(dict.fromkeys(method for method, _ in held)):
            assert names[row] == ("SuperActivators" if method == "superactivators" else method)
            wanted = [held[method, site] for site in ("embed", "block[0]", "block[1]", "block[2]")]
            np.testing.assert_allclose(mesh(one)[row], wanted)


# levels


def test_f1_against_delta_is_that_of_the_printed_tables(study: StudyTables) -> None:
    figure = deltas(study)
    for axes, table in zip(figure.axes, deltas_tables(study), strict=True):
        for number, column in enumerate(table.columns[1:], start=1):
            kind = column.name.split(" at ")[0]
            x, y = series(axes, kind)
            assert x.tolist() == [row[0].value for row in table.rows]
            assert y.tolist() == [row[number].value for row in table.rows]
        rings = [line for line in axes.lines if line.get_label() == "_best"]
        wanted = [(r[0].value, r[n].value) for n in range(1, len(table.columns)) for r in table.rows if r[n].best]
        assert [tuple(ring.get_xydata()[0]) for ring in rings] == wanted


def test_heat_maps_of_layers_and_deltas(study: StudyTables) -> None:
    *maps, _ = layer_deltas(study).axes
    concepts, found = study.summary["concepts"], study.summary["deltas"]
    positives = np.array([study.summary["positives"][concept] for concept in concepts])
    for one in maps:
        kind = one.get_title()
        assert texts(one.get_yticklabels()) == [level(delta) for delta in found]
        for column, site in enumerate(("embed", "block[0]", "block[1]", "block[2]")):
            for row, delta in enumerate(found):
                wanted = {"split": "test", "site": site, "kind": kind, "method": "superactivators", "delta": delta}
                f1 = {r["concept"]: r["f1"] for r in rows_of(study.result.curves, **wanted)}
                weighted = aggregate(np.array([f1[concept] for concept in concepts]), positives)["weighted"]
                assert mesh(one)[row, column] == pytest.approx(float(weighted))
        cal = together(study, kind, "cal")[1]
        frame = one.patches[-1]
        assert cal[int(frame.get_x()), int(frame.get_y())] == np.nanmax(cal)


@pytest.mark.parametrize(
    ("draw", "name", "column"), [(best_deltas, "best_deltas", "delta"), (best_layers, "best_layers", "site")]
)
def test_bars_count_concepts(study: StudyTables, draw: Any, name: str, column: str) -> None:
    axes = draw(study).axes[0]
    table = getattr(study.analysis, name)
    for container in axes.containers:
        counts = {row[column]: row["concepts"] for row in rows_of(table, kind=container.get_label())}
        heights = [bar.get_height() for bar in container]
        assert sum(heights) == sum(counts.values())
        assert [height for height in heights if height] == [
            counts[place] for place in sorted(counts, key=_order) if counts[place]
        ]
        # bars of one place stand around its tick
        for place, bar in enumerate(container):
            assert round(bar.get_x() + bar.get_width() / 2) == place


def _order(place: Any) -> Any:
    return ("embed", "block[0]", "block[1]", "block[2]").index(place) if isinstance(place, str) else place


def test_a_delta_outside_the_grid_of_the_study_has_its_bar(study: StudyTables) -> None:
    table = pa.Table.from_pylist(
        [{"kind": "mean", "delta": 0.333, "concepts": 2}], schema=pa.schema(list(SCHEMAS["best_deltas"].items()))
    )
    axes = best_deltas(changed(study, best_deltas=table)).axes[0]
    assert [bar.get_height() for bar in axes.containers[0] if bar.get_height()] == [2]
    assert ".333" in texts(axes.get_xticklabels())


# distributions


def test_distributions_are_the_histograms(study: StudyTables) -> None:
    assert study.analysis is not None
    figure = distributions(study, "mean")
    assert [one.get_title() for one in figure.axes] == study.summary["concepts"]
    chosen = {
        row["concept"]: row
        for row in rows_of(study.result.metrics, split="test", kind="mean", method="superactivators", chosen=True)
    }
    for one in figure.axes:
        concept = one.get_title()
        cut = chosen[concept]
        (row,) = rows_of(study.analysis.histograms, kind="mean", site=cut["site"], concept=concept)
        outside, inside, tail = (patch.get_data() for patch in one.patches)
        for drawn, name in ((inside, "inside"), (outside, "outside")):
            np.testing.assert_allclose(drawn.values, np.array(row[name]) / sum(row[name]))
            np.testing.assert_allclose(drawn.edges, np.linspace(row["low"], row["high"], 61))
        assert one.lines[0].get_xdata()[0] == cut["threshold"]
        assert tail.edges[0] == cut["threshold"]
        assert tail.edges[-1] == pytest.approx(row["high"])
        assert f"δ = {level(cut['delta'])}" in one.texts[0].get_text()


def test_one_layer_for_all_concepts_has_its_own_thresholds(study: StudyTables) -> None:
    figure = distributions(study, "mean", ["fear"], site="block[0]")
    (row,) = rows_of(
        study.result.metrics,
        split="test",
        kind="mean",
        method="superactivators",
        chosen=False,
        site="block[0]",
        concept="fear",
    )
    (one,) = figure.axes
    assert one.lines[0].get_xdata()[0] == row["threshold"]
    assert "block 0" in one.texts[0].get_text()
    assert figure.get_figwidth() == 3.3


def test_the_tail_of_a_histogram_starts_at_the_threshold() -> None:
    heights, edges = np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.0])
    for threshold, wanted in ((1.25, ([2, 3], [1.25, 2, 3])), (1.0, ([2, 3], [1, 2, 3])), (2.9, ([3], [2.9, 3]))):
        bins, ends = above(heights, edges, threshold)
        assert (bins.tolist(), ends.tolist()) == wanted


def test_unknown_concepts_and_kinds_are_refused(study: StudyTables) -> None:
    with pytest.raises(StudyError, match="no histogram of concept 'joyy' with linear vectors; did you mean 'joy'"):
        distributions(study, "linear", ["joyy"])
    with pytest.raises(StudyError, match="no labelled tokens of the kind 'lin'; did you mean 'linear'"):
        distributions(study, "lin")


def test_a_concept_without_tokens_says_so(study: StudyTables) -> None:
    assert study.analysis is not None
    rows = study.analysis.histograms.to_pylist()
    for row in rows:
        if row["concept"] == "joy":
            row |= {"inside": [0] * 60, "low": float("nan"), "high": float("nan")}
        if row["concept"] == "fear":
            row |= {"low": 1.0, "high": 1.0}
    table = pa.Table.from_pylist(rows, schema=study.analysis.histograms.schema)
    figure = distributions(changed(study, histograms=table))
    figure.draw_without_rendering()
    assert figure.axes[0].texts[0].get_text() == "no tokens to compare"
    assert figure.axes[1].patches


def test_separation_averages_over_concepts(study: StudyTables) -> None:
    assert study.analysis is not None
    rows = study.analysis.separation.to_pylist()
    for row in rows:
        if row["concept"] == "joy":
            row["auroc"] = float("nan")
        if row["site"] == "block[0]":
            row["auroc"] = None
    table = pa.Table.from_pylist(rows, schema=study.analysis.separation.schema)
    figure = separation(changed(study, separation=table))
    for axes, name in zip(figure.axes, ("tail_mass", "coverage", "auroc"), strict=True):
        for line, kind in zip(axes.lines, ("mean", "linear"), strict=True):
            for place, site in enumerate(("embed", "block[0]", "block[1]", "block[2]")):
                held = [r[name] for r in rows if (r["kind"], r["site"]) == (kind, site)]
                held = [value for value in held if value is not None and value == value]
                wanted = np.mean(held) if held else np.nan
                np.testing.assert_allclose(line.get_ydata()[place], wanted)


# attribution


def test_attribution_shows_both_objectives(study: StudyTables) -> None:
    assert study.attribution is not None
    figure = attribution(study)
    rows = {(r["explainer"], r["objective"], r["measure"]): r for r in study.attribution.aggregates.to_pylist()}
    explainers = list(dict.fromkeys(name for name, _, _ in rows))
    explainers.sort(key=lambda name: name.startswith("("))
    for axes, measure in zip(figure.axes, ("token_f1", "insertion", "deletion"), strict=True):
        drawn = dict(zip(("concept", "superactivators", "none"), axes.containers, strict=False))
        for objective, container in drawn.items():
            held = [name for name in explainers if (name, objective, measure) in rows]
            x, y = container.lines[0].get_data()
            assert x.tolist() == [rows[name, objective, measure]["value"] for name in held]
            off = {"concept": -APART, "superactivators": APART, "none": 0}[objective]
            np.testing.assert_allclose(y, [explainers.index(name) + off for name in held])
            ends = [segment[:, 0] for segment in container.lines[2][0].get_segments()]
            wanted = [[rows[name, objective, measure][end] for end in ("low", "high")] for name in held]
            np.testing.assert_allclose(ends, wanted)
        joined = [line for line in axes.lines if line.get_label() == "_joined"]
        assert len(joined) == 13
        for line, name in zip(joined, explainers, strict=False):
            pair = [rows[name, objective, measure]["value"] for objective in ("concept", "superactivators")]
            assert line.get_xdata().tolist() == pair
    assert "less is better" in figure.axes[2].get_xlabel()
    assert "more is better" in figure.axes[0].get_xlabel()
    assert len(figure.axes[0].get_yticklabels()) == 15


def test_measures_without_values_are_left_out(study: StudyTables) -> None:
    assert study.attribution is not None
    rows = [
        row | ({"value": float("nan")} if row["measure"] == "token_f1" else {})
        for row in study.attribution.aggregates.to_pylist()
    ]
    rows = [row | {"low": None, "high": None} for row in rows]
    changed_ = replace(study.attribution, aggregates=pa.Table.from_pylist(rows))
    figure = attribution(replace(study, attribution=changed_))
    figure.draw_without_rendering()
    assert [axes.get_xlabel().split(" (")[0] for axes in figure.axes] == ["insertion", "deletion"]
    assert not any("(" in text for text in texts(figure.axes[0].get_yticklabels()))


# concepts


def test_errors_show_prevalence_size_and_recall(study: StudyTables) -> None:
    assert study.analysis is not None
    figure = errors(study, "mean")
    rows = rows_of(study.analysis.errors, kind="mean")
    for axes, name in zip(figure.axes, ("prevalence", "size"), strict=False):
        x, y = axes.lines[0].get_data()
        assert x.tolist() == [row[name] for row in rows]
        assert y.tolist() == [row["f1"] for row in rows]
        assert axes.get_xlabel().startswith(name)
    bins = rows_of(study.analysis.sizes, kind="mean")
    drawn = [(*line.get_xdata(), line.get_ydata()[0]) for line in figure.axes[2].lines]
    assert drawn == [(row["low"], row["high"], row["recall"]) for row in bins]


def test_errors_without_labelled_tokens_have_one_panel(study: StudyTables) -> None:
    assert study.analysis is not None
    rows = [row | {"size": None} for row in study.analysis.errors.to_pylist()]
    table = pa.Table.from_pylist(rows, schema=study.analysis.errors.schema)
    figure = errors(changed(study, errors=table, sizes=study.analysis.sizes.slice(0, 0)))
    assert len(figure.axes) == 1


def test_names_of_concepts_hide_neither_points_nor_each_other(study: StudyTables) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = errors(many(study, 20))
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes[:2]:
        boxes = [text.get_window_extent(renderer) for text in axes.texts]
        assert len(boxes) >= 8
        points = axes.transData.transform(np.column_stack(axes.lines[0].get_data()))
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:number])
            assert not any(box.contains(x, y) for x, y in points)


def test_confusion_has_present_across_and_absent_down(study: StudyTables) -> None:
    assert study.analysis is not None
    axes = confusion(study, "linear").axes[0]
    concepts = study.summary["concepts"]
    assert texts(axes.get_yticklabels()) == concepts
    assert texts(axes.get_xticklabels()) == [*concepts, "(any)"]
    found = mesh(axes)
    for row in rows_of(study.analysis.confusion, kind="linear"):
        down, across = concepts.index(row["absent"]), concepts.index(row["present"])
        assert found[down, across] == row["fired"] / row["n"]
        assert found[down, -1] == row["base"]
    assert np.isnan(np.diag(found)).all()
    # numbers are written where there is room
    written = {text.get_text() for text in axes.texts}
    assert f"{found[0, 1]:.2f}".lstrip("0") in written


def test_concepts_are_sorted_by_f1(study: StudyTables) -> None:
    axes = concept_f1(study, "mean").axes[0]
    rows = {
        r["concept"]: r
        for r in rows_of(study.result.metrics, split="test", kind="mean", method="superactivators", chosen=True)
    }
    names = texts(axes.get_yticklabels())
    x = axes.containers[0].lines[0].get_xdata()
    assert x.tolist() == [rows[name]["f1"] for name in names]
    assert x.tolist() == sorted(x, reverse=True)


# tokens


def test_sparsity_shows_every_concept_and_their_median(study: StudyTables) -> None:
    assert study.analysis is not None
    figure = sparsity(study)
    for axes in figure.axes:
        rows = rows_of(study.analysis.sparsity, kind=axes.get_title())
        *lines, median = (line.get_ydata() for line in axes.lines)
        for line, concept in zip(lines, study.summary["concepts"], strict=True):
            assert line.tolist() == [row["cumulative"] for row in rows if row["concept"] == concept]
        np.testing.assert_allclose(median, np.median(lines, axis=0))


def test_lengths_show_false_alarms_with_intervals_and_recall(study: StudyTables) -> None:
    assert study.analysis is not None
    figure = lengths(study)
    names = texts(figure.legends[0].get_texts())
    assert names == study.kinds
    for container, kind in zip(figure.axes[0].containers, names, strict=True):
        rows = rows_of(study.result.lengths, kind=kind, method="superactivators", concept=ALL)
        x, y = container.lines[0].get_data()
        assert y.tolist() == [row["fpr"] for row in rows]
        middle = [(row["low"] + row["high"]) / 2 for row in rows]
        assert np.abs(x - middle).max() < 0.03 * (middle[-1] - middle[0])
        ends = [segment[:, 1] for segment in container.lines[2][0].get_segments()]
        np.testing.assert_allclose(ends, [[row["fpr_low"], row["fpr_high"]] for row in rows])
    for container, kind in zip(figure.axes[1].containers, names, strict=True):
        rows = rows_of(study.analysis.lengths, kind=kind)
        assert container.lines[0].get_ydata().tolist() == [row["recall"] for row in rows]


def test_token_pairs_are_put_into_groups(study: StudyTables) -> None:
    assert study.analysis is not None
    figure = token_pairs(study)
    assert len(figure.axes) == len(study.analysis.pairs) + 1
    for axes, (sample, found) in zip(figure.axes, study.analysis.pairs.items(), strict=False):
        assert sample in axes.get_xlabel()
        order, edges, _ = grouped(found["inside"], found["fired"])
        drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
        for row in (0, len(order) - 1):
            for column in (0, 1, len(order) - 1):
                assert drawn[row, column] == found["cosine"][order[row], order[column]]
        assert edges[-1] == len(order)
        assert sum(patch.get_height() for patch in axes.patches) == len(order)


def test_groups_of_tokens() -> None:
    inside, fired = np.array([0, 1, 1, 0, 1], dtype=bool), np.array([0, 1, 0, 1, 1], dtype=bool)
    order, edges, names = grouped(inside, fired)
    assert order.tolist() == [1, 4, 2, 3, 0]
    assert edges == [0, 2, 3, 4, 5]
    assert names == list(GROUPS)
    order, edges, names = grouped(np.zeros(2, dtype=bool), np.zeros(2, dtype=bool))
    assert (order.tolist(), edges, names) == ([0, 1], [0, 2], ["rest"])


# what is not there


@pytest.mark.parametrize(
    "draw", [distributions, separation, best_deltas, best_layers, sparsity, token_pairs, errors, confusion, attribution]
)
def test_figures_of_what_is_missing_say_so_in_one_line(small: StudyTables, draw: Any) -> None:
    with pytest.raises(NothingToDraw) as caught:
        draw(small)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("draw", [methods, layer_methods, deltas, layer_deltas, concept_f1])
def test_a_study_of_one_concept_without_intervals_is_drawn(small: StudyTables, draw: Any) -> None:
    draw(small).draw_without_rendering()


def test_samples_of_one_length_have_no_figure_of_lengths(study: StudyTables) -> None:
    one = study.result.lengths.slice(0, 1)
    with pytest.raises(NothingToDraw, match="same length"):
        lengths(replace(study, result=replace(study.result, lengths=one)))
