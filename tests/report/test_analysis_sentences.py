"""What is said of each analysis is true, with one layer, one concept, no token labels or numbers that are missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from superactivators.report import analysis_sentences as say


@pytest.mark.parametrize(
    ("tail", "wanted"),
    [
        (
            [[0.1, 0.2, 0.3], [0.4, 0.1, 0.5]],
            "In 2 of 3 concepts, {} grows from a to b (median of all 3: 20 % → 40 %).",
        ),
        (
            [[0.4, 0.2, 0.5], [0.1, 0.3, 0.2]],
            "In 2 of 3 concepts, {} shrinks from a to b (median of all 3: 40 % → 20 %).",
        ),
        ([[0.1, np.nan], [0.4, 0.3]], "For x, {} grows from a to b (10 % → 40 %)."),
        ([[0.3, 0.1], [0.3, 0.1]], "In both concepts, {} is the same at a and b (median 20 %)."),
        ([[np.nan], [np.nan]], say.NOTHING),
        ([[0.3]], "At a, {} is 30 % for x."),
        ([[0.3, 0.1]], "At a, {} is 20 % in the median of 2 concepts."),
        ([], say.NO_TOKENS),
    ],
)
def test_sentence_of_the_tail(tail: list[list[float]], wanted: str) -> None:
    share = "the share of in-concept tokens above the 98 % quantile of other samples’ tokens"
    values = np.array(tail or np.empty((0, 3)), dtype=np.float64)
    said = say.tail_sentence(values, ["a", "b"][: len(tail)], ["x", "y", "z"])
    assert said == wanted.format(share)


def test_sentence_of_separation_says_but_only_where_more_samples_than_tokens_reach() -> None:
    means = {"auroc": np.array([0.6, 0.9]), "tail_mass": np.array([0.1, 0.5]), "coverage": np.array([0.3, 0.4])}
    assert "there 50 % of in-concept tokens and 40 % of positive" in say.separation_sentence(means, ["a", "b"], 1)
    means["coverage"][1] = 0.8
    assert "there 50 % of in-concept tokens but 80 % of positive" in say.separation_sentence(means, ["a", "b"], 1)
    one = {name: values[:1] for name, values in means.items()}
    assert say.separation_sentence(one, ["a"], 2).startswith("AUROC is .60 at a; there 10 %")
    empty = {name: np.array([np.nan]) for name in means}
    assert say.separation_sentence(empty, ["a"], 0) == say.NOTHING


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        ([0.2, 0.9, np.nan], False, "Highest at b (.90), lowest at a (.20)."),
        ([0.2, 0.9, 0.1], True, "Highest at b (90 %), lowest at c (10 %)."),
        ([0.5, 0.5, 0.5], False, ".50 at every layer."),
        ([np.nan, 0.5, np.nan], False, ".50 at b."),
        ([np.nan] * 3, True, "Not defined here."),
    ],
)
def test_sentence_of_a_measure(values: list[float], share: bool, wanted: str) -> None:
    assert say.measure_sentence(np.array(values), ["a", "b", "c"], share=share) == wanted


def test_sentence_of_sparsity() -> None:
    shares = np.array([0.0, 0.5, 1.0])
    values = np.array([[0.2, 0.6, 1.0], [0.4, 0.8, 1.0], [np.nan] * 3])
    text = say.sparsity_sentence(values, shares, ["x", "y", "z"])
    assert text == (
        "In 30 % of the test samples with labelled tokens of a concept none of these is a SuperActivator, and in 70 % "
        "at most half are (medians of 2 concepts)."
    )
    assert say.sparsity_sentence(values[:1], shares, ["x"]) == (
        "In 20 % of the test samples with labelled tokens of x none of these is a SuperActivator, and in 60 % at most "
        "half are."
    )
    assert "no shares" in say.sparsity_sentence(values[2:], shares, ["z"])
    assert say.sparsity_sentence(np.empty((2, 0)), np.empty(0), ["x", "y"]) == say.NO_TOKENS


def test_sentence_of_levels_reads_test_where_cal_is_best() -> None:
    cal, test = np.array([[0.5, 0.7], [0.6, 0.4]]), np.array([[0.8, 0.55], [0.9, 0.3]])
    text = say.levels_sentence(cal, test, ["a", "b"], [0.05, 1.0])
    assert text == (
        "With one layer and one δ for all concepts, cal chooses a and δ = 1: weighted test F1 .55; at that layer the "
        "smallest δ, .05, has .80."
    )
    assert say.levels_sentence(cal[:, :1], test[:, :1], ["a", "b"], [0.1]).endswith("δ = .10: weighted test F1 .90.")
    assert "not measured" in say.levels_sentence(np.full((1, 1), np.nan), np.full((1, 1), np.nan), ["a"], [0.1])


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ({0.05: 4, 0.1: 1, 0.5: 2}, "On cal, δ = .05 is chosen most often, by 4 of 7 concepts; at least half of the "
         "concepts choose δ = .05 or less."),
        ({0.02: 1, 0.1: 1}, "On cal, δ = .02 and δ = .10 are chosen most often, by 1 of 2 concepts each; at least half "
         "of the concepts choose δ = .02 or less."),
        ({0.02: 1, 0.05: 1, 0.1: 1, 0.5: 1}, "On cal, 4 levels are chosen most often, by 1 of 4 concepts each; at "
         "least half of the concepts choose δ = .05 or less."),
        ({0.02: 0, 0.5: 1}, "The one concept chooses δ = .50 on cal."),
        ({}, "No concept chose a δ."),
    ],
)  # fmt: skip
def test_sentence_of_chosen_levels(counts: dict[float, int], wanted: str) -> None:
    assert say.best_levels_sentence(counts) == wanted


@pytest.mark.parametrize(
    ("counts", "sites", "wanted"),
    [
        ({"b": 3, "c": 1}, "abc", "On cal, b is chosen most often, by 3 of 4 concepts; 2 of the 3 layers are chosen by "
         "any concept."),
        ({"b": 2, "a": 0}, "ab", "On cal, b is chosen most often, by 2 of 2 concepts; 1 of the 2 layers is chosen by "
         "any concept."),
        ({"b": 1}, "ab", "The one concept chooses b on cal, one of 2 layers."),
        ({"a": 5}, "a", "a is the only layer, so there was nothing to choose."),
        ({}, "ab", "No concept chose a layer."),
    ],
)  # fmt: skip
def test_sentence_of_chosen_layers(counts: dict[str, int], sites: str, wanted: str) -> None:
    assert say.best_layers_sentence(counts, list(sites)) == wanted


def error(name: str, prevalence: float | None, f1: float | None, size: float | None = None) -> dict:
    return {"concept": name, "prevalence": prevalence, "f1": f1, "size": size}


def test_sentence_of_errors_needs_concepts_for_a_trend() -> None:
    few = [error("x", 0.3, 0.8), error("y", 0.1, 0.6), error("z", None, 0.5), error("w", 0.2, float("nan"))]
    assert say.prevalence_sentence(few) == (
        "F1 is .60 for the rarest concept (y, in 10 % of the test samples) and .80 for the most common (x, 30 %); "
        "2 concepts show no trend."
    )
    assert say.prevalence_sentence(few[:1]) == "x is in 30 % of the test samples and has F1 .80."
    assert say.prevalence_sentence(few[2:]) == "No concept has a prevalence and an F1 on test."
    same = [error("x", 0.3, 0.8), error("y", 0.3, 0.6)]
    assert say.prevalence_sentence(same) == "All 2 concepts are in 30 % of the test samples."
    many = [error(str(k), 0.1 * k, 0.9 - 0.1 * k, 0.2 if k else None) for k in range(6)]
    text = say.prevalence_sentence(many)
    assert text.startswith("Over 6 concepts, F1 falls with prevalence (rank correlation −1.00) and cannot be set")
    assert text.endswith("as one of them does not vary (5 concepts).")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    found = say.rank_correlation(a, b)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic)


def test_sentences_of_sizes_and_lengths() -> None:
    sizes = [{"low": 0.2, "high": 1.0, "n": 9, "recall": 0.9}, {"low": 0.01, "high": 0.05, "n": 9, "recall": 0.5}]
    assert say.sizes_sentence(sizes) == (
        "Found are 50 % of the concepts that take the smallest share of their sample (up to 5 % of its tokens) and "
        "90 % of those that take the largest (from 20 %)."
    )
    assert say.sizes_sentence([*sizes[:1], sizes[1] | {"n": 0, "low": None, "recall": None}]) == (
        "Every concept takes 20 % to 100 % of the tokens of its samples; 90 % of these are found."
    )
    assert say.sizes_sentence([]) == say.NO_TOKENS
    short, long = ({"low": low, "high": low + 9, "n": 5, "recall": None, "fpr": 0.1} for low in (1.0, 90.0))
    assert say.lengths_sentence([long, short]) == (
        "In the shortest samples (up to 10 tokens), ? of the concepts are found and 10 % of the absent ones raise a "
        "false alarm; in the longest (from 90), ? of the concepts are found and 10 % of the absent ones raise a false "
        "alarm."
    )
    assert (
        say.lengths_sentence([short | {"low": 9.0, "high": 9.0}])
        == "All samples have 9 tokens, so length cannot matter."
    )
    assert say.lengths_sentence([short]) == "All samples have 1 to 10 tokens and are not told apart by length."
    assert say.lengths_sentence([]) == "Lengths were not compared."


def test_sentence_of_pairs() -> None:
    near = {"within": 0.6, "across": 0.1, "fired": 0.8}
    far = {"within": 0.1, "across": 0.2, "fired": float("nan")}
    nothing = {"within": float("nan"), "across": 0.2, "fired": float("nan")}
    assert say.pairs_sentence([near, far, nothing]) == (
        "In 1 of 2 examples, in-concept tokens are closer to each other than to the rest of the sample (mean cosine "
        ".35 against .15); SuperActivators among them reach .80 in the one with two or more."
    )
    assert "in-concept tokens are not closer" in say.pairs_sentence([far])
    assert say.pairs_sentence([nothing]) == "No example has two in-concept tokens and others beside them."
