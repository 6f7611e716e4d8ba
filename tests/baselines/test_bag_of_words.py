"""Bag of words: against scikit-learn's own pipeline, planted words, leaks, order, and texts without words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from jaxtyping import TypeCheckError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline

from small_data import WORDS
from superactivators.baselines.bag_of_words import CS, METHOD, WORD, BagOfWords, bag_of_words
from superactivators.baselines.sparse_logistic import TOLERANCE, fit_sparse
from superactivators.errors import DataError, StudyError
from superactivators.states.labels import Labels

KEYS = ("fox", "brown", "lazy")


def labels_of(samples: np.ndarray, splits: list[str]) -> Labels:
    n, concepts = samples.shape
    return Labels(
        ids=[f"t{number}" for number in range(n)],
        offsets=np.arange(n + 1),
        splits=np.array(splits),
        concepts=tuple(f"concept {c}" for c in range(concepts)),
        samples=samples,
        tokens=None,
        known=np.zeros(n, dtype=bool),
        lost_by_crop={},
    )


def written(n: int = 150, seed: int = 0, noise: float = 0.1) -> tuple[list[str], Labels]:
    """Texts; each of three concepts mostly goes with one word, the last one with none."""
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(WORDS, random.integers(3, 12))) for _ in range(n)]
    samples = np.array([[key in text.split() for key in KEYS] for text in texts])
    samples ^= random.random(samples.shape) < noise
    samples = np.column_stack([samples, random.random(n) < 0.3])
    return texts, labels_of(samples, [("train", "train", "cal", "test")[i % 4] for i in range(n)])


def scores_of(found: BagOfWords) -> np.ndarray:
    return found.scores.pooled[METHOD]


@pytest.mark.parametrize("c", [0.1, 1.0, 30.0, 1000.0])
def test_separators_against_scikit_learn(c: float) -> None:
    random = np.random.default_rng(0)
    rows = sp.csr_matrix(sp.random(80, 300, 0.05, random_state=0))
    logits = rows @ random.standard_normal((300, 4)) + 0.3 * random.standard_normal((80, 4))
    positive = logits > np.quantile(logits, [0.2, 0.5, 0.9, 0.97], axis=0).diagonal()
    found = fit_sparse(rows, positive, c)
    exact = fit_sparse(rows, positive, c, tolerance=1e-7)
    warm = fit_sparse(rows, positive, c, fit_sparse(rows, positive, c / 10).dual, tolerance=1e-7)
    assert (found.gradient_norm <= TOLERANCE).all()
    assert (exact.gradient_norm <= 1e-7).all()
    for k in range(4):
        model = LogisticRegression(C=c, class_weight="balanced", solver="liblinear", tol=1e-10, max_iter=100_000)
        model.fit(rows, positive[:, k])
        size = np.linalg.norm(model.coef_)
        for fit in (exact, warm):
            assert np.linalg.norm(fit.weights[k] - model.coef_[0]) < 1e-3 * size
            assert abs(fit.bias[k] - model.intercept_[0]) < 1e-3 * size
        reached = objective(rows, positive[:, k], found.weights[k], found.bias[k], c)
        assert reached <= (1 + 1e-3) * objective(rows, positive[:, k], model.coef_[0], model.intercept_[0], c)
    np.testing.assert_allclose(found.weights, rows.T.dot(found.dual).T)


def objective(rows: Any, positive: np.ndarray, weights: np.ndarray, bias: float, c: float) -> float:
    """As scikit-learn's documentation writes it."""
    n, total = len(positive), 0.5 * (weights @ weights + bias * bias)
    for logit, yes in zip(rows @ weights + bias, positive, strict=True):
        share = n / (2 * positive.sum()) if yes else n / (2 * (n - positive.sum()))
        total += c * share * np.logaddexp(0, -logit if yes else logit)
    return float(total)


def test_against_scikit_learns_pipeline() -> None:
    texts, labels = written()
    found = bag_of_words(texts, labels)
    assert (found.scores.kind, found.scores.level, found.scores.site) == ("input", "sample", "input")
    assert list(found.scores.pooled) == [METHOD]
    assert scores_of(found).dtype == np.float32
    assert found.scores.samples.shape == (0,)
    assert found.scores.tokens.shape == (0, 4)
    train, cal = labels.in_split("train"), labels.in_split("cal")
    for concept in range(4):
        truth, tried = labels.samples[:, concept], []
        for c in CS:
            pipeline = make_pipeline(
                TfidfVectorizer(token_pattern=WORD, ngram_range=(1, 2), min_df=2, sublinear_tf=True),
                LogisticRegression(C=c, class_weight="balanced", solver="liblinear", tol=1e-8, max_iter=10_000),
            )
            pipeline.fit([texts[i] for i in train], truth[train])
            logits = pipeline.decision_function(texts)
            tried.append((average_precision_score(truth[cal], logits[cal]), -c, logits, len(pipeline[0].vocabulary_)))
        precision, c, logits, vocabulary = max(tried, key=lambda entry: entry[:2])
        assert found.strengths[concept] == -c
        assert found.average_precision[concept] == pytest.approx(precision)
        assert found.vocabulary == vocabulary
        np.testing.assert_allclose(scores_of(found)[:, concept], logits, atol=3e-3 * np.abs(logits).max())


def test_planted_words_are_found_and_named() -> None:
    texts, labels = written(n=400, noise=0.0)
    found = bag_of_words(texts, labels, top_words=3)
    test = labels.in_split("test")
    for c, key in enumerate(KEYS):
        named = found.top_words[f"concept {c}"]
        assert named[0]["word"] == key
        assert [entry["weight"] for entry in named] == sorted((e["weight"] for e in named), reverse=True)
        assert len(named) == 3
        assert average_precision_score(labels.samples[test, c], scores_of(found)[test, c]) > 0.99
    by_chance = average_precision_score(labels.samples[test, 3], scores_of(found)[test, 3])
    assert by_chance < labels.samples[test, 3].mean() + 0.25
    assert json.loads(json.dumps(found.top_words, allow_nan=False)) == found.top_words


def test_nothing_is_learned_from_cal_or_test() -> None:
    texts, labels = written()
    before = bag_of_words(texts, labels)
    test = labels.in_split("test")
    changed, samples = list(texts), labels.samples.copy()
    samples[test] = ~samples[test]
    for i in test:
        changed[i] = "unseen " * 50 + texts[i][:3]
    after = bag_of_words(changed, replace(labels, samples=samples))
    rest = np.setdiff1d(np.arange(len(texts)), test)
    np.testing.assert_array_equal(scores_of(before)[rest], scores_of(after)[rest])
    assert before.vocabulary == after.vocabulary
    assert before.top_words == after.top_words
    cal = labels.in_split("cal")
    samples = labels.samples.copy()
    samples[cal] = ~samples[cal]
    one, other = (bag_of_words(texts, replace(labels, samples=held), cs=[1.0]) for held in (labels.samples, samples))
    np.testing.assert_array_equal(scores_of(one), scores_of(other))
    assert (one.average_precision != other.average_precision).all()


def test_order_of_texts_and_other_concepts_do_not_matter() -> None:
    texts, labels = written()
    found = bag_of_words(texts, labels)
    order = np.random.default_rng(1).permutation(len(texts))
    mixed = replace(
        labels, ids=[labels.ids[i] for i in order], splits=labels.splits[order], samples=labels.samples[order]
    )
    again = bag_of_words([texts[i] for i in order], mixed)
    np.testing.assert_allclose(scores_of(again), scores_of(found)[order], atol=1e-4, rtol=1e-4)
    part = bag_of_words(texts, labels.with_concepts(["concept 2", "concept 0"]))
    # each class stops for itself only when all are done, so that others can make it more exact, not less
    np.testing.assert_allclose(scores_of(part), scores_of(found)[:, [2, 0]], atol=3e-3 * np.abs(scores_of(found)).max())


def test_concepts_that_cannot_be_learned_or_chosen() -> None:
    texts, labels = written()
    samples = labels.samples.copy()
    samples[labels.in_split("train"), 0] = False
    samples[labels.in_split("train"), 1] = True
    samples[labels.in_split("cal"), 2] = False
    found = bag_of_words(texts, replace(labels, samples=samples))
    assert found.estimable.tolist() == [False, False, True, True]
    assert (scores_of(found)[:, :2] == 0).all()
    assert np.isnan(found.strengths[:2]).all()
    assert found.strengths[2] == CS[0]
    assert np.isnan(found.average_precision[2])
    assert found.top_words["concept 0"] == []
    nobody = bag_of_words(texts, replace(labels, samples=np.zeros_like(samples)))
    assert (scores_of(nobody) == 0).all()


@pytest.mark.parametrize("texts", [[""] * 8, ["   \n"] * 8, ["... !?"] * 8, [f"word{number}" for number in range(8)]])
def test_texts_without_shared_words(texts: list[str]) -> None:
    labels = labels_of(np.arange(8)[:, None] % 2 == 0, ["train"] * 4 + ["cal", "cal", "test", "test"])
    with pytest.raises(DataError, match=r"no word is in 2 or more of the 4 train texts.*lower min_df"):
        bag_of_words(texts, labels)


def test_bad_input() -> None:
    texts, labels = written(n=24)
    with pytest.raises(DataError, match="23 texts do not fit labels of 24 samples"):
        bag_of_words(texts[1:], labels)
    with pytest.raises((DataError, TypeCheckError), match=r"needs one text for each sample|Type-check error"):
        bag_of_words([None] * 24, labels)  # type: ignore[list-item]
    with pytest.raises(DataError, match="needs one text for each sample"):
        bag_of_words("text", labels)
    with pytest.raises(DataError, match="there are none; give some samples the split 'train'"):
        bag_of_words(texts, replace(labels, splits=np.full(24, "test")))
    for options in ({"min_df": 0}, {"ngrams": (2, 1)}, {"ngrams": (0, 1)}, {"top_words": -1}):
        with pytest.raises(StudyError, match="bag-of-words needs 1 <= shortest <= longest"):
            bag_of_words(texts, labels, **options)  # type: ignore[arg-type]
    for cs in ([], [0.0], [1.0, -1.0], [float("nan")]):
        with pytest.raises(StudyError, match="cs must be one or more positive numbers"):
            bag_of_words(texts, labels, cs=cs)
