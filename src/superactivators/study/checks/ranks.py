"""How well a nuisance such as length tells two groups of samples apart, each concept among samples of its own."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Real
from scipy.stats import rankdata


def ranks_within(
    values: Real[np.ndarray, "n c"], among: Bool[np.ndarray, "n c"], marked: Bool[np.ndarray, "n c"]
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Area under the ROC curve of values for marks, each column among its own rows.

    Parameters
    ----------
    values : array of shape (n, columns)
    among : bool array of shape (n, columns)
        Which rows count.
    marked : bool array of shape (n, columns)

    Returns
    -------
    auroc, errors : float64 arrays of shape (columns,)
        Chance that a marked value exceeds one that is not, ties counted one half; and by how many standard errors
        (those of equal distributions; Mann and Whitney, 1947) it differs from one half. One half and 0 where a group
        is empty.
    """
    column, row = np.nonzero(among.T)
    n_columns = among.shape[1]
    total = np.bincount(column, minlength=n_columns).astype(np.float64)
    held, chosen = values[row, column], marked[row, column]
    # Columns stand one behind the other, so that a rank within its column is the rank among all, less those before.
    _, dense = np.unique(held, return_inverse=True)
    ranks = rankdata(column * (len(held) + 1.0) + dense) if len(held) else np.empty(0)
    ranks -= np.concatenate([[0.0], np.cumsum(total)])[column]
    ones = np.bincount(column, weights=chosen, minlength=n_columns)
    pairs = ones * (total - ones)
    above = np.bincount(column, weights=ranks * chosen, minlength=n_columns) - ones * (ones + 1) / 2
    safe = np.maximum(pairs, 1.0)
    auroc = np.where(pairs > 0, above / safe, 0.5)
    return auroc, np.abs(auroc - 0.5) / np.sqrt((total + 1) / (12 * safe))
