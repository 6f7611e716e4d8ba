"""K-means, against plain loops and scikit-learn."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from superactivators.concepts import kmeans
from superactivators.concepts.clusters import KMeansConcepts
from superactivators.concepts.kmeans import Clusters, assign, fit_kmeans
from superactivators.concepts.points import InMemory
from superactivators.concepts.rows import ArrayRows
from superactivators.errors import DataError, StudyError


def slow_distances(X: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.array([[((x - c) ** 2).sum() for c in centroids.astype(np.float64)] for x in X.astype(np.float64)])


def slow_lloyd(X: np.ndarray, centroids: np.ndarray, passes: int) -> np.ndarray:
    """Lloyd's algorithm of the textbook, in float64, for clusters that stay filled."""
    for _ in range(passes):
        members = slow_distances(X, centroids).argmin(axis=1)
        centroids = np.array([X[members == k].astype(np.float64).mean(axis=0) for k in range(len(centroids))])
    return centroids


def unit(X: np.ndarray) -> np.ndarray:
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return (np.random.default_rng(3).normal(size=(600, 5)) + np.array([3, 0, 0, 0, 0])).astype(np.float32)


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs(12_000, 8, centers=20, cluster_std=2.0, random_state=4)
    return X.astype(np.float32), y


@parametrize_with_checks([KMeansConcepts(), KMeansConcepts(4, metric="cosine")])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_passes_are_those_of_lloyd(noise, passes):
    seeds = noise[:7]
    points = InMemory(torch.from_numpy(noise))
    lloyd = kmeans._Lloyd(torch.from_numpy(seeds), 7, None)
    assert lloyd.run(points, passes, 0.0) == passes
    np.testing.assert_allclose(lloyd.centroids.numpy(), slow_lloyd(noise, seeds, passes), atol=1e-6)


def test_fit_ends_where_lloyd_ends(noise):
    found = fit_kmeans(ArrayRows(noise), 9, tolerance=0.0)
    assert found.notes["converged"] is True
    assert "lowered" not in found.notes
    centroids = found.centroids.numpy()
    np.testing.assert_allclose(slow_lloyd(noise, centroids, 1), centroids, atol=1e-5)
    distances = slow_distances(noise, centroids)
    np.testing.assert_array_equal(assign(ArrayRows(noise), found), distances.argmin(axis=1))
    np.testing.assert_array_equal(found.counts, np.bincount(distances.argmin(axis=1), minlength=9))
    assert found.inertia == pytest.approx(distances.min(axis=1).sum(), rel=1e-6)


def test_counts_and_inertia_are_those_of_the_assignment_when_passes_are_cut_short(noise):
    found = fit_kmeans(ArrayRows(noise), 25, max_iter=1)
    assert (found.n_iter, found.notes["converged"]) == (1, False)
    np.testing.assert_array_equal(found.counts, np.bincount(assign(ArrayRows(noise), found), minlength=25))
    assert found.inertia == pytest.approx(slow_distances(noise, found.centroids.numpy()).min(axis=1).sum(), rel=1e-6)


@pytest.mark.parametrize("count", [20, 60, 1000])
def test_inertia_is_that_of_scikit_learn(blobs, count):
    # One start may end in a poor place, theirs or ours; where K is small, several seeds say what is usual.
    X, seeds = blobs[0], range(1 if count > 100 else 6)
    theirs = [KMeans(count, n_init=1, random_state=seed).fit(X).inertia_ for seed in seeds]
    ours = [fit_kmeans(ArrayRows(X), count, seed=seed).inertia for seed in seeds]
    assert np.mean(ours) < 1.01 * np.mean(theirs)


def test_blobs_are_found(blobs):
    X, y = blobs
    found = fit_kmeans(ArrayRows(X), 20)
    ideal = np.stack([X[y == k].mean(axis=0) for k in range(20)])
    best = ((X - ideal[y]) ** 2).sum()
    assert found.inertia < 1.02 * best
    assert adjusted_rand_score(assign(ArrayRows(X), found), y) > 0.9
    assert found.notes["sub_samples"] == [4096]
    np.testing.assert_array_equal(np.sort(found.counts), np.sort(np.bincount(assign(ArrayRows(X), found))))


def test_cosine_is_euclidean_on_the_sphere():
    # A narrow bunch among directions of every kind: means of unit rows, were they not of unit length, would part them
    # at other places.
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(500, 3)), rng.normal(scale=0.2, size=(300, 3)) + np.array([2, 0, 0])]).astype(
        np.float32
    )
    found = fit_kmeans(ArrayRows(X), 5, metric="cosine", tolerance=0.0)
    centroids = found.centroids.numpy()
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)
    cosines = unit(X) @ centroids.T
    members = cosines.argmax(axis=1)
    np.testing.assert_array_equal(assign(ArrayRows(X), found), members)
    assert found.inertia == pytest.approx((2 - 2 * cosines.max(axis=1)).sum(), rel=1e-5)
    means = np.stack([unit(X)[members == k].sum(axis=0) for k in range(5)])
    np.testing.assert_allclose(unit(means), centroids, atol=1e-5)


def test_cosine_does_not_see_lengths(noise):
    lengths = np.random.default_rng(0).uniform(0.01, 100, size=(len(noise), 1))
    found = fit_kmeans(ArrayRows(noise), 9, metric="cosine")
    scaled = fit_kmeans(ArrayRows((noise * lengths).astype(np.float32)), 9, metric="cosine")
    np.testing.assert_allclose(scaled.centroids, found.centroids, atol=1e-5)
    np.testing.assert_array_equal(assign(ArrayRows(100 * noise), found), assign(ArrayRows(noise), found))
    with_zeros = np.vstack([noise, np.zeros((3, 5), np.float32)])
    assert fit_kmeans(ArrayRows(with_zeros), 9, metric="cosine").counts.sum() == len(noise) + 3


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("block_rows", [1, 37, 1024, 5000])
def test_streaming_equals_batch(blobs, metric, block_rows):
    X = blobs[0] if block_rows > 1 else blobs[0][:1500]
    whole = fit_kmeans(ArrayRows(X, len(X)), 40, metric=metric, seed=5)
    streamed = fit_kmeans(ArrayRows(X, block_rows), 40, metric=metric, seed=5, memory=0)
    assert torch.equal(streamed.centroids, whole.centroids)
    np.testing.assert_array_equal(streamed.counts, whole.counts)
    assert (streamed.inertia, streamed.n_iter) == (whole.inertia, whole.n_iter)
    np.testing.assert_array_equal(assign(ArrayRows(X, block_rows), streamed), assign(ArrayRows(X), whole))


def test_seed_decides(blobs):
    first, again, other = (fit_kmeans(ArrayRows(blobs[0]), 30, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first.centroids, again.centroids)
    assert not torch.equal(first.centroids, other.centroids)


def test_order_of_rows_does_not_matter_much(blobs):
    X = blobs[0]
    shuffled = np.random.default_rng(1).permutation(X)
    first, second = (fit_kmeans(ArrayRows(rows), 100, tolerance=1e-4) for rows in (X, shuffled))
    assert second.inertia == pytest.approx(first.inertia, rel=0.02)
    np.testing.assert_array_equal(assign(ArrayRows(X[::-1].copy()), first)[::-1], assign(ArrayRows(X), first))


def test_rows_far_from_the_origin_keep_their_digits(noise):
    far = noise + np.float32(2**12)
    found, moved = (fit_kmeans(ArrayRows(X), 9, tolerance=0.0) for X in (far - np.float32(2**12), far))
    assert moved.inertia == pytest.approx(found.inertia, rel=0.02)
    np.testing.assert_allclose(slow_distances(far, moved.centroids.numpy()).min(axis=1).sum(), moved.inertia, rtol=1e-3)


def test_half_precision_rows(noise):
    half = noise.astype(np.float16)
    assert torch.equal(
        fit_kmeans(ArrayRows(half), 6).centroids, fit_kmeans(ArrayRows(half.astype(np.float32)), 6).centroids
    )


def test_empty_clusters_start_again_at_the_farthest_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 3)).astype(np.float32)
    X[100], X[200] = [50, 0, 0], [0, 40, 0]
    points = InMemory(torch.from_numpy(X))
    seeds = torch.tensor([[0.0, 0, 0], [1, 0, 0], [900, 900, 900], [-900, 0, 900]])
    lloyd = kmeans._Lloyd(seeds, 4, None)
    lloyd.run(points, 1, 0.0)
    assert lloyd.reseeded == 2
    np.testing.assert_array_equal(lloyd.centroids[2:].numpy(), X[[100, 200]])
    members = slow_distances(X, seeds.numpy()[:2]).argmin(axis=1)
    members[[100, 200]] = -1
    for k in range(2):
        np.testing.assert_allclose(lloyd.centroids[k], X[members == k].mean(axis=0, dtype=np.float64), atol=1e-6)


def test_rows_that_the_sub_sample_missed_fill_the_clusters_that_wait():
    # Two values fill the sub-sample; the other ten are so rare that they are not drawn.
    values = np.eye(12, dtype=np.float32) * np.arange(1, 13, dtype=np.float32)[:, None]
    X = np.repeat(values, [20_000, 20_000] + [2] * 10, axis=0)
    found = fit_kmeans(ArrayRows(X), 12)
    assert found.inertia == 0
    assert found.reseeded >= 1
    np.testing.assert_array_equal(np.sort(found.counts), [2] * 10 + [20_000, 20_000])
    assert "lowered" not in found.notes


def test_fewer_than_two_rows_for_each_cluster(noise):
    found = fit_kmeans(ArrayRows(noise[:11]), 8)
    assert found.centroids.shape == (5, 5)
    assert found.notes["lowered"] == "5 clusters instead of 8: fewer than two of 11 rows for each"
    one = fit_kmeans(ArrayRows(noise[:1]), 8)
    np.testing.assert_array_equal(one.centroids, noise[:1])
    assert (one.counts.tolist(), one.inertia) == ([1], 0.0)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_fewer_distinct_rows_than_clusters(offset):
    values = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32) + np.float32(offset)
    X = np.repeat(values, 50, axis=0)
    found = fit_kmeans(ArrayRows(X), 10)
    centroids = found.centroids.numpy()
    np.testing.assert_allclose(centroids[centroids[:, 0].argsort()], values[values[:, 0].argsort()], rtol=1e-6)
    assert found.counts.tolist() == [50] * 6
    assert found.inertia == pytest.approx(0, abs=1e-5)
    assert found.notes["lowered"] == "6 clusters instead of 10: no more rows that differ enough"


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("value", [0.0, 0.1, 300.0])
def test_identical_rows(metric, value):
    X = np.full((50, 3), value, dtype=np.float32)
    found = fit_kmeans(ArrayRows(X), 4, metric=metric)
    assert found.counts.tolist() == [50]
    assert found.inertia == pytest.approx(0, abs=1e-10)
    expected = X[0] if metric == "euclidean" or not value else unit(X)[0]
    np.testing.assert_allclose(found.centroids[0], expected, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(0, 3),
    st.sampled_from(["euclidean", "cosine"]),
)
def test_every_row_is_in_its_nearest_cluster_and_none_is_empty(n_rows, width, count, values, metric):
    # Whole numbers of a small range: many rows are equal and many distances tie.
    X = np.random.default_rng(n_rows).integers(-values, values + 1, size=(n_rows, width)).astype(np.float32)
    found = fit_kmeans(ArrayRows(X, 7), count, metric=metric)
    assert 1 <= len(found.centroids) <= min(count, max(1, n_rows // 2))
    assert (found.counts > 0).all()
    assert found.counts.sum() == n_rows
    members = assign(ArrayRows(X, 5), found)
    np.testing.assert_array_equal(np.bincount(members, minlength=len(found.counts)), found.counts)
    if metric == "cosine":
        X = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-9)
    distances = slow_distances(X, found.centroids.numpy())
    np.testing.assert_allclose(distances[np.arange(n_rows), members], distances.min(axis=1), atol=1e-5)
    assert found.inertia == pytest.approx(distances.min(axis=1).sum(), abs=1e-4)


def test_notes_are_json(noise):
    found = fit_kmeans(ArrayRows(noise), 500)
    assert json.loads(json.dumps(found.notes)) == found.notes
    assert found.centroids.dtype == torch.float32
    assert found.counts.dtype == np.int64
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.inertia = 0.0


@pytest.mark.parametrize("count", [0, -3, 2.5, "9", True, None])
def test_number_of_clusters_must_be_a_positive_integer(noise, count):
    with pytest.raises(StudyError, match=r"number of clusters .* is not possible; give a whole number of 1 or more"):
        KMeansConcepts(count).fit(noise)


def test_bad_options(noise):
    with pytest.raises(StudyError, match="number of clusters 0"):
        fit_kmeans(ArrayRows(noise), 0)
    with pytest.raises(StudyError, match="did you mean 'cosine'"):
        KMeansConcepts(3, metric="cosin").fit(noise)
    with pytest.raises(StudyError, match="number of passes 0"):
        KMeansConcepts(3, max_iter=0).fit(noise)
    for tolerance in (-1.0, float("nan"), "low"):
        with pytest.raises(StudyError, match="tolerance"):
            KMeansConcepts(3, tolerance=tolerance).fit(noise)


def test_bad_rows(noise):
    with pytest.raises(DataError, match="0 rows of width 5 cannot be clustered"):
        fit_kmeans(ArrayRows(noise[:0]), 3)
    for metric in ("euclidean", "cosine"):
        for value in (np.nan, np.inf):
            X = noise.copy()
            X[17, 2] = value
            with pytest.raises(DataError, match="not finite"):
                fit_kmeans(ArrayRows(X), 3, metric=metric)
    with pytest.raises(DataError, match="rows of width 4 and centroids of width 5"):
        assign(ArrayRows(noise[:, :4].copy()), fit_kmeans(ArrayRows(noise), 3))


def test_features_are_cosines(noise):
    model = KMeansConcepts(6).fit(noise)
    features = model.transform(noise)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, unit(noise) @ unit(model.cluster_centers_).T, atol=1e-6)
    assert model.get_feature_names_out().tolist() == [f"kmeansconcepts{k}" for k in range(6)]
    np.testing.assert_array_equal(model.predict(noise), model.labels_)
    assert isinstance(model.clusters_, Clusters)
