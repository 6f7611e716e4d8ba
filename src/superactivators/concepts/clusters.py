"""K-means as a scikit-learn clusterer (METHOD section 4, kind ``kmeans``)."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from jaxtyping import Float, Int32
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from superactivators.concepts.kmeans import MAX_ITER, MEMORY, TOLERANCE, assign, check_options, fit_kmeans
from superactivators.concepts.rows import ArrayRows


@final
class KMeansConcepts(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Clusters of rows; as features, the cosines to their centroids.

    Parameters
    ----------
    n_clusters : int
        Lowered, and said so in `notes_`, where rows are too few; see `fit_kmeans`.
    metric : str
        ``"euclidean"`` or ``"cosine"``: how clusters are formed. Features are cosines in both cases.
    seed : int
    memory : int
        Bytes that fitting may take.
    max_iter : int
        Most passes over the rows.
    tolerance : float
        Relative fall of the inertia in one pass below which the passes end.

    Attributes
    ----------
    cluster_centers_ : float32 array of shape (clusters, width)
    labels_ : int32 array of shape (rows,)
    counts_ : int64 array of shape (clusters,)
    inertia_ : float
    n_iter_ : int
    reseeded_ : int
    notes_ : dict
    clusters_ : Clusters
        All of the above but the labels.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 1.0], [0.1, 1.0], [5.0, 0.0], [5.1, 0.0]])
    >>> model = KMeansConcepts(2).fit(X)
    >>> bool(model.labels_[0] == model.labels_[1] != model.labels_[2] == model.labels_[3])
    True
    """

    # Any: scikit-learn's constructors take whatever they are given, and fitting says what is wrong with it.
    def __init__(
        self,
        n_clusters: Any = 1000,
        *,
        metric: Any = "euclidean",
        seed: Any = 0,
        memory: Any = MEMORY,
        max_iter: Any = MAX_ITER,
        tolerance: Any = TOLERANCE,
    ) -> None:
        self.n_clusters = n_clusters
        self.metric = metric
        self.seed = seed
        self.memory = memory
        self.max_iter = max_iter
        self.tolerance = tolerance

    def fit(self, X: Any, y: Any = None) -> KMeansConcepts:
        """Find the centroids.

        Parameters
        ----------
        X : array of shape (rows, width)
        y : ignored

        Returns
        -------
        KMeansConcepts
            Itself.

        Raises
        ------
        StudyError
            If an option asks for something impossible.
        ValueError
            If ``X`` is not what scikit-learn accepts.
        """
        rows = ArrayRows(validate_data(self, X, dtype=[np.float32, np.float64, np.float16]))
        check_options(self.n_clusters, self.metric, self.max_iter, self.tolerance)
        self.clusters_ = fit_kmeans(
            rows,
            int(self.n_clusters),
            metric=self.metric,
            seed=self.seed,
            memory=self.memory,
            max_iter=int(self.max_iter),
            tolerance=self.tolerance,
        )
        self.labels_ = assign(rows, self.clusters_)
        self.cluster_centers_ = self.clusters_.centroids.numpy()
        self.counts_, self.inertia_ = self.clusters_.counts, self.clusters_.inertia
        self.n_iter_, self.reseeded_ = self.clusters_.n_iter, self.clusters_.reseeded
        self.notes_ = self.clusters_.notes
        self._n_features_out = len(self.cluster_centers_)
        return self

    def predict(self, X: Any) -> Int32[np.ndarray, " rows"]:
        """Nearest centroid of each row, by the metric of the clusters."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float32, np.float64, np.float16])
        return assign(ArrayRows(X), self.clusters_)

    def transform(self, X: Any) -> Float[np.ndarray, "rows k"]:
        """Cosines of the rows with the centroids; 0 where either is zero.

        Returns
        -------
        array of shape (rows, clusters)
            Of the precision of ``X``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return np.asarray(_unit(X) @ _unit(self.cluster_centers_).T)


def _unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))
