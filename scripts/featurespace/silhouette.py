"""How apart the classes lie among a layer's samples: the silhouette (Rousseeuw 1987), scikit-learn's."""

import numpy as np
from sklearn.metrics import silhouette_score


def silhouette(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over samples of (b - a) / max(a, b), in -1..1.

    a is a sample's mean Euclidean distance to the others of its class, b that to the samples of the nearest other one.

    Parameters
    ----------
    features
        (n_samples, n_features), finite. Centred in float64 first, since the distances come from scalar products.
    labels
        (n_samples,).

    Returns
    -------
    float
        NaN with fewer than two classes, or where every sample has a class of its own.
    """
    if not 2 <= len(np.unique(labels)) < len(labels):
        return float("nan")
    values = features.astype(np.float64)
    return float(silhouette_score(values - values.mean(axis=0), labels))
