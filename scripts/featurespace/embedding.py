"""Maps of layers in the plane by UMAP (McInnes, Healy & Melville 2018, arXiv 1802.03426), and how apart classes lie."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from featurespace.datasets import spread_evenly
from featurespace.errors import FeaturespaceError
from featurespace.script import progress
from featurespace.silhouette import silhouette
from featurespace.stores import FeatureStore

COLUMNS = (
    "dataset",
    "recipe",
    "block",
    "seed",
    "step",
    "epoch",
    "layer",
    "depth",
    "sample",
    "label",
    "class_name",
    "x",
    "y",
    "silhouette",
    "silhouette_2d",
)

_ONE_POINT = 1e-7  # a spread below this share of the largest value is float32 rounding: all samples are one point
_FEWEST = 4  # samples of which UMAP finds a spectral start in the plane

logger = logging.getLogger(__name__)


def embed(features: np.ndarray, *, neighbours: int, min_dist: float, seed: int) -> np.ndarray:
    """Map samples to the plane by UMAP, on one thread, from its spectral start: the same twice on one machine.

    Parameters
    ----------
    features
        (n_samples, n_features), finite. Centred, and mapped as float32.
    neighbours
        UMAP's `n_neighbors`; one less than there are samples, at most.
    min_dist
        UMAP's, in 0..1.
    seed
        UMAP's `random_state`.

    Returns
    -------
    np.ndarray
        (n_samples, 2) float32. All zeros where all samples are one point, which has no map, or where they are fewer
        than four, which have no spectral start.
    """
    if len(features) < _FEWEST or is_one_point(features):
        return np.zeros((len(features), 2), dtype=np.float32)
    import umap  # numba compiles for seconds: only where a map is made

    mapper = umap.UMAP(
        n_neighbors=min(neighbours, len(features) - 1),
        min_dist=min_dist,
        n_components=2,
        metric="euclidean",
        init="spectral",
        random_state=seed,
        n_jobs=1,
    )
    centred = features.astype(np.float64)
    centred -= centred.mean(axis=0)
    with warnings.catch_warnings():
        # that a seed means one thread; what else UMAP warns of goes to the log
        warnings.filterwarnings("ignore", message="n_jobs value")
        return np.asarray(mapper.fit_transform(centred.astype(np.float32)), dtype=np.float32)


def is_one_point(features: np.ndarray) -> bool:
    """Say whether no more than the rounding of float32 tells samples, (n_samples, n_features), apart."""
    centred = features.astype(np.float64)
    size = np.abs(centred).max()
    centred -= centred.mean(axis=0)
    return bool(np.abs(centred).max() <= _ONE_POINT * size)


def embed_layers(store: FeatureStore, class_names: list[str], spec: Mapping[str, Any]) -> pd.DataFrame:
    """Map the layers of some depths, of a store's first seed at its last step.

    Parameters
    ----------
    store
        The features of a run; labels are those of its data set.
    class_names
        By label.
    spec
        `depths` (those that the network has not are passed over), `samples` (at most; evenly spread over the classes),
        `neighbours`, `min_dist` and `seed`.

    Returns
    -------
    DataFrame
        `COLUMNS`, a row a layer and sample: its id, its class, where it lies, and the silhouettes of the layer's
        features on these samples and of the map, repeated on each row.

    Raises
    ------
    FeaturespaceError
        If a feature is not finite.
    """
    depths = store.attrs["depths"]
    layers = [layer for layer in store.layers if depths[layer] in spec["depths"]]
    rows = spread_evenly(store.labels, spec["samples"])
    labels = store.labels[rows]
    last = len(store.steps) - 1
    parts = []
    for layer in progress(layers, f"mapping layers of {store.attrs['recipe']}", "layer"):
        features = store.matrix(layer, 0, last)[rows]
        if not np.isfinite(features).all():
            raise FeaturespaceError(
                f"{store.path}, layer {layer}, seed {store.seeds[0]}, step {store.steps[last]}: a feature is NaN or "
                "infinite; look for a diverged training or a faulty input"
            )
        if is_one_point(features):
            logger.warning("%s, layer %s: all samples are one point, which has no map", store.path, layer)
        places = embed(features, **{key: spec[key] for key in ("neighbours", "min_dist", "seed")})
        parts.append(
            pd.DataFrame(
                {
                    "dataset": store.attrs["dataset"],
                    "recipe": store.attrs["recipe"],
                    "block": store.attrs["block"],
                    "seed": store.seeds[0],
                    "step": store.steps[last],
                    "epoch": store.epochs[last],
                    "layer": layer,
                    "depth": depths[layer],
                    "sample": store.sample_ids[rows],
                    "label": labels,
                    "class_name": [class_names[label] for label in labels],
                    "x": places[:, 0],
                    "y": places[:, 1],
                    "silhouette": silhouette(features, labels),
                    "silhouette_2d": silhouette(places, labels),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)] if parts else pd.DataFrame(columns=list(COLUMNS))
