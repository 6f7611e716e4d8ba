"""Bag of words: TF-IDF and logistic regression on the raw text, so that lexical concepts are seen for what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from superactivators.baselines.sparse_logistic import SparseFit, fit_sparse
from superactivators.errors import DataError, StudyError
from superactivators.ranking import average_precision
from superactivators.scores.site_scores import SiteScores
from superactivators.states.labels import Labels

KIND = "input"
SITE = "input"
METHOD = "bag-of-words"
CS = (0.1, 1.0, 10.0, 100.0)
"""Inverse L2 strengths to choose from, from strong to weak."""

WORD = r"(?u)\b\w+\b"
"""A word: letters and digits, also a single one."""

MAX_FEATURES = 200_000
"""Most words and word pairs; of more, those that are found most often in train."""

TOP_WORDS = 10


@final
@dataclass(frozen=True, eq=False)
class BagOfWords:
    """Scores of all samples, and what they rest on.

    Attributes
    ----------
    scores : SiteScores
        Logits under ``"bag-of-words"``; kind and site ``"input"``. A concept that cannot be learned scores zero.
    top_words : dict of str to list of (dict with ``word`` and ``weight``)
        Per concept, the words and word pairs that speak most for it, the strongest first; JSON types.
    strengths : float64 array of shape (concepts,)
        Chosen C; NaN for a concept that cannot be learned.
    average_precision : float64 array of shape (concepts,)
        On cal, at the chosen C; NaN where cal has no positive.
    vocabulary : int
        Number of words and word pairs.
    estimable : bool array of shape (concepts,)
        False where no train sample, or every one, carries the concept.
    """

    scores: SiteScores
    top_words: dict[str, list[dict[str, str | float]]]
    strengths: Float[np.ndarray, " c"]
    average_precision: Float[np.ndarray, " c"]
    vocabulary: int
    estimable: Bool[np.ndarray, " c"]


def bag_of_words(
    texts: Sequence[str],
    labels: Labels,
    *,
    ngrams: tuple[int, int] = (1, 2),
    min_df: int = 2,
    cs: Sequence[float] = CS,
    top_words: int = TOP_WORDS,
) -> BagOfWords:
    """Train one classifier for each concept on the words of the train texts and score all texts.

    Lower-cased words and pairs of neighbouring words, found in at least ``min_df`` train texts, are weighted by
    ``(1 + log count) * idf`` and each text is brought to length one. Vocabulary and idf come from train alone. Logistic
    regression (L2, classes balanced) is fitted at every C; each concept takes the C with the best average precision on
    cal, the strongest regularisation among equals. Nothing is drawn at random.

    Parameters
    ----------
    texts : sequence of str
        All texts, in the order of ``labels``.
    labels : Labels
        Only sample labels of train (to fit) and cal (to choose C) are read.
    ngrams : pair of int
        Shortest and longest run of words.
    min_df : int
        Fewest train texts that hold a word.
    cs : sequence of float
        Inverse L2 strengths, as scikit-learn counts them.
    top_words : int
        How many words to name per concept.

    Returns
    -------
    BagOfWords

    Raises
    ------
    DataError
        If texts and labels do not fit, there is no train text, or no word is left.
    StudyError
        If an option is out of range.

    Notes
    -----
    TF-IDF with sublinear counts and a linear classifier: Manning, Raghavan and Schütze, "Introduction to Information
    Retrieval" (2008), sections 6.4.1 and 14.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    _check(texts, labels, ngrams, min_df, cs, top_words)
    train, cal = labels.in_split("train"), labels.in_split("cal")
    vectorizer = TfidfVectorizer(
        token_pattern=WORD,
        ngram_range=ngrams,
        min_df=min_df,
        max_features=MAX_FEATURES,
        sublinear_tf=True,
        dtype=np.float64,
    )
    try:
        vectorizer.fit([texts[number] for number in train])
    except ValueError:
        raise DataError(
            f"no word is in {min_df} or more of the {len(train)} train texts: bag-of-words has nothing to learn from; "
            "lower min_df, or leave the method out"
        ) from None
    features = vectorizer.transform(texts)
    positive = labels.samples[train]
    estimable = positive.any(axis=0) & ~positive.all(axis=0)
    concepts = len(labels.concepts)
    strengths, reached = np.full(concepts, np.nan), np.full(concepts, np.nan)
    scores = np.zeros((len(texts), concepts), dtype=np.float32)
    named: dict[str, list[dict[str, str | float]]] = {name: [] for name in labels.concepts}
    if estimable.any():
        columns = np.flatnonzero(estimable)
        path = sorted(cs)
        fitted: list[SparseFit] = []
        for c in path:
            start = fitted[-1].dual if fitted else None
            fitted.append(fit_sparse(features[train], positive[:, columns], c, start))
        logits = np.stack([features @ at_c.weights.T + at_c.bias for at_c in fitted])
        truth = labels.samples[cal][:, columns]
        found = np.stack([average_precision(at_c[cal], truth) for at_c in logits])
        # without positives on cal there is nothing to choose by, and the strongest regularisation is taken
        best = np.argmax(np.nan_to_num(found, nan=-1.0), axis=0)
        places = np.arange(len(columns))
        scores[:, columns] = logits[best, :, places].T
        strengths[columns], reached[columns] = np.array(path)[best], found[best, places]
        weights = np.stack([at_c.weights for at_c in fitted])[best, places]
        named |= _named(weights, vectorizer.get_feature_names_out(), [labels.concepts[c] for c in columns], top_words)
    nothing = np.empty((0, concepts), dtype=np.float32)
    return BagOfWords(
        scores=SiteScores(KIND, "sample", SITE, {METHOD: scores}, np.empty(0, dtype=np.int64), nothing),
        top_words=named,
        strengths=strengths,
        average_precision=reached,
        vocabulary=features.shape[1],
        estimable=estimable,
    )


def _check(
    texts: Sequence[str],
    labels: Labels,
    ngrams: tuple[int, int],
    min_df: int,
    cs: Sequence[float],
    top_words: int,
) -> None:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise DataError("bag-of-words needs one text for each sample, as a sequence of str; images have no words")
    if len(texts) != len(labels.ids):
        raise DataError(f"{len(texts)} texts do not fit labels of {len(labels.ids)} samples; give one for each")
    if not len(labels.in_split("train")):
        raise DataError("bag-of-words learns from train texts and there are none; give some samples the split 'train'")
    if not (1 <= ngrams[0] <= ngrams[1] and min_df >= 1 and top_words >= 0):
        raise StudyError(
            "bag-of-words needs 1 <= shortest <= longest n-gram, min_df of 1 or more and top_words of 0 or more; "
            f"got ngrams={tuple(ngrams)}, min_df={min_df}, top_words={top_words}"
        )
    if not len(cs) or not all(0 < c < float("inf") for c in cs):
        raise StudyError(f"cs must be one or more positive numbers; got {list(cs)}")


def _named(
    weights: Float[np.ndarray, "c v"], words: np.ndarray, concepts: list[str], count: int
) -> Mapping[str, list[dict[str, str | float]]]:
    order = np.argsort(-weights, axis=1, kind="stable")[:, :count]
    return {
        concept: [
            {"word": str(words[place]), "weight": round(float(row[place]), 4)} for place in places if row[place] > 0
        ]
        for concept, row, places in zip(concepts, weights, order, strict=True)
    }
