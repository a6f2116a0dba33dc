"""A linear probe: how well a linear classifier on frozen features tells the classes apart."""

import logging
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression

MAX_ITERATIONS = 1000

_CONSTANT = 1e-6  # a feature whose deviation is below this share of its largest size varies by float32 rounding only

logger = logging.getLogger(__name__)


def standardise(fitted: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Subtract from each feature its mean and divide by its standard deviation, both those of `fitted`.

    A feature that is constant in `fitted`, up to rounding in float32, is not divided.

    Parameters
    ----------
    fitted, others
        (n, d) each, with the same d.

    Returns
    -------
    list of np.ndarray
        float64, `fitted` first.
    """
    mean = fitted.mean(axis=0, dtype=np.float64)
    scale = fitted.std(axis=0, dtype=np.float64)
    scale[scale <= _CONSTANT * np.abs(fitted).max(axis=0)] = 1.0
    standardised = []
    for matrix in (fitted, *others):
        shifted = matrix - mean
        shifted /= scale  # in place: a large study's matrix fits once
        standardised.append(shifted)
    return standardised


def probe(
    features: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    held_out_labels: np.ndarray,
    regularisation: float,
    name: str = "the features",
) -> tuple[float, float]:
    """Fit a multinomial logistic regression on standardised features; score it there and on held-out samples.

    The summed cross-entropy plus |W|² / (2 C) is minimised by L-BFGS, biases free; features are standardised by the
    mean and deviation of those it is fitted on.

    Parameters
    ----------
    features, labels
        (n, d) and (n,): what it is fitted on.
    held_out, held_out_labels
        (m, d) and (m,); m may be 0.
    regularisation
        C.
    name
        What messages call the features.

    Returns
    -------
    train_accuracy, test_accuracy
        Shares of samples; NaN over no samples, and where there is one class only.
    """
    if len(np.unique(labels)) < 2:
        return float("nan"), float("nan")
    fitted, others = standardise(features, held_out)
    classifier = LogisticRegression(C=regularisation, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier.fit(fitted, labels)
    for warning in caught:  # that it has not converged, above all
        logger.warning("%s: probe: %s", name, str(warning.message).partition("\n")[0])
    test = classifier.score(others, held_out_labels) if len(others) else float("nan")
    return float(classifier.score(fitted, labels)), float(test)
