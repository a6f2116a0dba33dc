"""What theory says of the layers of a trained deep linear network, computed from the run's own data.

f(x) = α W_L ... W_1 x fits the one-hot labels of samples X (N, d) exactly; z^l = W_l ... W_1 x, l = 0..L-1, are its
features. With Y (K, N) the labels, λ the eigenvalues of X Xᵀ, ε the scale of the orthogonal initialisation, and

    A = Y (X⁺)ᵀ / α        the product of the weights if it is the minimum-norm solution, with singular values σ_k
    S = A Aᵀ               with condition number κ
    p_k, M (d, K)          the share and the mean of class k; M_⊥ what of M lies outside the row space of A

the formulas below are derived here under exact balance (W_{l+1}ᵀ W_{l+1} = W_l W_lᵀ), a constant tail (all singular
values of W_l but the K leading ones are ε) and minimum-norm weights, for a width of at least d:

    Tr Σ_W^l = ε^{2l} Tr Σ_W^0                            since A maps all samples of a class to one point
    G_l      = S^{l/L-1} / α² + ε^{2l} M_⊥ᵀ M_⊥           the Gram matrix of the class means
    C_l      = K Tr Σ_W^l / Tr((I - 1pᵀ) G_l (I - p1ᵀ))
    D_l      = 1 - max_{k≠k'} cos of G_l
    σ_k(W_l) = σ_k^{1/L},  k <= K

Of trained networks the K least singular values of a layer are below ε, the rest of the tail is not: measured C falls
short of C_l by one or two percent a layer.

That C falls geometrically, by O(ε² / n^{1/L}) a layer, and that D grows linearly with depth, is the paper's theorem
(arXiv 2311.02960); the constants here are not the paper's. What assumes more than a computer has checked is NaN: rows
that are not linearly independent have no exact fit, and a first layer that is narrower than its input drops
directions of the data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from featurespace.architectures import INPUT_LAYER
from featurespace.errors import FeaturespaceError
from featurespace.preparation import orthonormality_residuals
from featurespace.tables import is_false

NAN = float("nan")
COLUMNS = [
    *("dataset", "recipe", "block", "seed", "step", "epoch", "layer", "depth", "quantity"),
    *("measured", "law", "predicted", "lower", "upper", "reliable", "converged"),
]


@dataclass(frozen=True)
class Setting:
    """What of a recipe enters the theory.

    Attributes
    ----------
    depth
        L, the number of weight matrices, that of the output among them.
    width
        Of all hidden layers.
    scale
        ε, the singular values of every initial weight matrix (the paper's ξ).
    output_scale
        α, which multiplies the output.
    """

    depth: int
    width: int
    scale: float
    output_scale: float


@dataclass(frozen=True)
class DataGeometry:
    """What of the training samples enters the theory.

    Attributes
    ----------
    counts
        (K,) samples of each class.
    lambda_min, lambda_max
        Least and greatest eigenvalue of X Xᵀ, (N, N); the least is 0 if there are more samples than dimensions.
    independent
        Whether the rows of X are linearly independent, and every one of at least two classes has a sample.
    solution
        (K, d), A for α = 1; NaN unless `independent`.
    means
        (K, d), of the classes.
    within_trace
        Tr Σ_W of the samples, divided by N.
    """

    n_samples: int
    dimension: int
    counts: np.ndarray
    lambda_min: float
    lambda_max: float
    independent: bool
    solution: np.ndarray
    means: np.ndarray
    within_trace: float

    @property
    def n_classes(self) -> int:
        return len(self.counts)

    @property
    def samples_per_class(self) -> float:
        """n, or NaN where classes differ in size: the laws, unlike the predictions and the bounds, are for one n."""
        return float(self.counts[0]) if len(set(self.counts.tolist())) == 1 else NAN

    @property
    def condition(self) -> float:
        """κ, the condition number of S = A Aᵀ, which α does not change; NaN unless `independent`."""
        if not self.independent:
            return NAN
        values = np.linalg.svd(self.solution, compute_uv=False)
        return float((values[0] / values[-1]) ** 2)


@dataclass(frozen=True)
class Prediction:
    """Four numbers for one measured one; NaN where there is none.

    Attributes
    ----------
    law
        For exactly orthonormal rows, from the numbers of the setting alone.
    predicted
        From the run's own data.
    lower, upper
        Bounds from the extreme eigenvalues of the data's Gram matrix, or its condition.
    """

    law: float = NAN
    predicted: float = NAN
    lower: float = NAN
    upper: float = NAN


def describe_data(samples: np.ndarray, labels: np.ndarray, n_classes: int) -> DataGeometry:
    """Compute what the theory needs of the training samples.

    Parameters
    ----------
    samples
        (N, d), as they enter the network.
    labels
        (N,) integers, 0..K-1.
    n_classes
        K.
    """
    samples = np.asarray(samples, np.float64)
    n, d = samples.shape
    counts = np.bincount(labels, minlength=n_classes)
    one_hot = (np.arange(n_classes)[:, None] == np.asarray(labels)).astype(np.float64)  # (K, N)
    means = one_hot @ samples / np.maximum(counts, 1)[:, None]
    within = float(np.square(samples - means[labels]).sum() / n)
    solution = np.full((n_classes, d), np.nan)
    if n > d:
        eigenvalues = np.linalg.eigvalsh(samples.T @ samples)
        return DataGeometry(n, d, counts, 0.0, float(eigenvalues[-1]), False, solution, means, within)
    left, values, right = np.linalg.svd(samples, full_matrices=False)
    independent = bool(values[-1] > d * np.finfo(np.float64).eps * values[0]) and n_classes > 1 and counts.min() > 0
    if independent:
        solution = (one_hot @ left / values) @ right
    return DataGeometry(
        n, d, counts, float(values[-1] ** 2), float(values[0] ** 2), independent, solution, means, within
    )


def headline_ratio(samples_per_class: float, setting: Setting) -> float:
    """Return ε² (α²/n)^{1/L}, by which C falls from a layer to the next if rows are orthonormal.

    The order ε² / n^{1/L} is the paper's (arXiv 2311.02960); the constant, and what α does, are derived here under
    exact balance, a constant tail and minimum-norm weights.
    """
    return float(setting.scale**2 * (setting.output_scale**2 / samples_per_class) ** (1 / setting.depth))


def predict_compression(data: DataGeometry, setting: Setting) -> list[Prediction]:
    """Predict C_l for l = 0..L-1.

    Derived here under exact balance, a constant tail and minimum-norm weights. The law is K (n-1) / (K-1) times a
    power of the headline ratio. The bounds put n_max / (α² λ_min) and n_min / (α² λ_max) for the eigenvalues of S,
    n_max and n_min being the sizes of the largest and the smallest class.
    """
    depth, alpha2 = setting.depth, setting.output_scale**2
    if not _is_covered(data, setting):
        return [Prediction()] * depth
    n, k = data.samples_per_class, data.n_classes
    ratio = headline_ratio(n, setting)
    outside = _between_trace(data, _outside_gram(data))
    share = data.counts / data.n_samples
    spread = (k - 2 + k * float(share @ share)) / k  # Tr of the centring of means by p, over K; (K - 1) / K if balanced
    predictions = []
    for layer in range(depth):
        shrinkage = setting.scale ** (2 * layer)
        within = shrinkage * data.within_trace
        power = 1 - layer / depth
        least = spread / alpha2 * (alpha2 * data.lambda_min / data.counts.max()) ** power
        most = spread / alpha2 * (alpha2 * data.lambda_max / data.counts.min()) ** power + shrinkage * outside
        predictions.append(
            Prediction(
                law=k * (n - 1) / (k - 1) * ratio**layer,
                predicted=within / _between_trace(data, _mean_gram(data, setting, layer)),
                lower=within / most,
                upper=within / least,
            )
        )
    return predictions


def predict_compression_ratio(data: DataGeometry, setting: Setting) -> list[Prediction]:
    """Predict C_l / C_{l-1} for l = 1..L-1.

    The law is the headline ratio. Derived here under exact balance, a constant tail and minimum-norm weights, for
    l >= 2, up to what of the class means lies outside the row space of A (of order ε^{2l}):

        ε² (α² λ_min / n)^{1/L}  <=  C_l / C_{l-1}  <=  ε² (α² λ_max / n)^{1/L}

    For l = 1, from the input to the first layer, that part is not small: there is a prediction, but no bounds.
    Where a class has one sample, C is 0 in every layer, and there is no ratio.
    """
    if not _is_covered(data, setting) or data.within_trace == 0.0:
        return [Prediction()] * (setting.depth - 1)
    compression = [prediction.predicted for prediction in predict_compression(data, setting)]
    alpha2, square = setting.output_scale**2, setting.scale**2
    lower = square * (alpha2 * data.lambda_min / data.counts.max()) ** (1 / setting.depth)
    upper = square * (alpha2 * data.lambda_max / data.counts.min()) ** (1 / setting.depth)
    return [
        Prediction(
            law=headline_ratio(data.samples_per_class, setting),
            predicted=compression[layer] / compression[layer - 1],
            lower=lower if layer > 1 else NAN,
            upper=upper if layer > 1 else NAN,
        )
        for layer in range(1, setting.depth)
    ]


def predict_discrimination(data: DataGeometry, setting: Setting) -> list[Prediction]:
    """Predict D_l for l = 1..L-1.

    The law is the line 1 - (1 - l/L) c through D_L = 1, with c the greatest cosine of S^{-1}, that is of the class
    means within the row space of A. That D grows linearly is the paper's (arXiv 2311.02960); the rest is derived here
    under exact balance, a constant tail and minimum-norm weights. The lower bound is Wielandt's, for a Gram matrix of
    condition κ^{1-l/L}, up to what of the class means lies outside the row space of A (of order ε^{2l}):
    D_l >= 2 / (1 + κ^{1-l/L}).
    """
    if not _is_covered(data, setting):
        return [Prediction()] * (setting.depth - 1)
    inputs = _power_of_s(data, -1.0)
    slope = _greatest_cosine(inputs)
    predictions = []
    for layer in range(1, setting.depth):
        power = 1 - layer / setting.depth
        predictions.append(
            Prediction(
                law=1 - power * slope,
                predicted=1 - _greatest_cosine(_mean_gram(data, setting, layer)),
                lower=2 / (1 + data.condition**power),
            )
        )
    return predictions


def predict_top_singular_mean(data: DataGeometry, setting: Setting) -> Prediction:
    """Predict the mean of the K leading singular values of any W_l: that of σ_k(A)^{1/L}; the law is (√n/α)^{1/L}.

    Derived here under exact balance, a constant tail and minimum-norm weights.
    """
    if not data.independent:
        return Prediction()
    law = (np.sqrt(data.samples_per_class) / setting.output_scale) ** (1 / setting.depth)
    return Prediction(law=float(law), predicted=float(_leading_values(data, setting).mean()))


def predict_balancedness(data: DataGeometry, setting: Setting) -> list[Prediction]:
    """Predict ‖W_{l+1}ᵀ W_{l+1} - W_l W_lᵀ‖_F / ‖W_l‖_F for l = 1..L-1.

    The numerator is the same at all times under gradient flow (Arora, Cohen & Hazan 2018), so it is that of the
    orthogonal initialisation: W_l W_lᵀ is ε² times a projector of rank r_l, r_1 = min(d, w) and r_l = w beyond, and
    W_{l+1}ᵀ W_{l+1} is ε² times one of rank w, but K for the output. Two projectors of ranks a and b in w dimensions
    are √(a + b - 2 Tr PQ) apart; Tr PQ is the lesser rank if the other is w, and ab/w on average if their spaces are
    drawn independently and uniformly. Hence, with L >= 3,

        ε² √(w - r_1), 0, ..., 0, ε² √(w - K)

    and with L = 2, where both projectors are random, ε² √(r_1 + K - 2 r_1 K / w). The denominator is derived here
    under a constant tail and minimum-norm weights: ‖W_l‖² = Σ_k σ_k^{2/L} + (r_l - K) ε², and for the law
    Σ_k σ_k^{2/L} = K (n/α²)^{1/L}.
    """
    if not data.independent:
        return [Prediction()] * (setting.depth - 1)
    k, width, depth, square = data.n_classes, setting.width, setting.depth, setting.scale**2
    tops = {
        "law": k * (data.samples_per_class / setting.output_scale**2) ** (1 / depth),
        "predicted": float(np.square(_leading_values(data, setting)).sum()),
    }
    predictions = []
    for layer in range(1, depth):
        rank = min(data.dimension, width) if layer == 1 else width
        following = k if layer == depth - 1 else width
        gap = square * np.sqrt(max(rank + following - 2 * rank * following / width, 0.0))
        norms = {name: np.sqrt(top + (rank - k) * square) for name, top in tops.items()}
        predictions.append(Prediction(**{name: float(gap / norm) for name, norm in norms.items()}))
    return predictions


def _is_covered(data: DataGeometry, setting: Setting) -> bool:
    return data.independent and setting.width >= data.dimension


def _leading_values(data: DataGeometry, setting: Setting) -> np.ndarray:
    """Return σ_k(A)^{1/L}, (K,)."""
    return (np.linalg.svd(data.solution, compute_uv=False) / setting.output_scale) ** (1 / setting.depth)


def _power_of_s(data: DataGeometry, power: float) -> np.ndarray:
    """Return a power of S for α = 1, (K, K), through the singular values of A, which keep twice the digits."""
    left, values, _ = np.linalg.svd(data.solution, full_matrices=False)
    return (left * values ** (2 * power)) @ left.T


def _outside_gram(data: DataGeometry) -> np.ndarray:
    """Return M_⊥ᵀ M_⊥, (K, K)."""
    basis = np.linalg.svd(data.solution, full_matrices=False)[2]
    outside = data.means - (data.means @ basis.T) @ basis
    return outside @ outside.T


def _mean_gram(data: DataGeometry, setting: Setting, layer: int) -> np.ndarray:
    """Return G_l, (K, K); S^{l/L-1} / α² is the power for α = 1 times α^{-2l/L}."""
    share = layer / setting.depth
    inside = setting.output_scale ** (-2 * share) * _power_of_s(data, share - 1)
    return inside + setting.scale ** (2 * layer) * _outside_gram(data)


def _between_trace(data: DataGeometry, gram: np.ndarray) -> float:
    """Return Tr Σ_B of class means with a Gram matrix (K, K): each counts once, their centre is that of the samples."""
    centring = np.eye(data.n_classes) - data.counts / data.n_samples  # row k is e_k - p
    return float(np.einsum("ki,ij,kj->", centring, gram, centring) / data.n_classes)


def _greatest_cosine(gram: np.ndarray) -> float:
    lengths = np.sqrt(np.diag(gram))
    cosines = gram / np.outer(lengths, lengths)
    return float(cosines[~np.eye(len(gram), dtype=bool)].max())


# --- the table ----------------------------------------------------------------------------------------------------


def tabulate_theory(
    samples: np.ndarray,
    labels: np.ndarray,
    layers: pd.DataFrame,
    networks: pd.DataFrame,
    data_layers: pd.DataFrame,
    converged: Mapping[str, bool | None],
    spec: Mapping[str, Any],
) -> pd.DataFrame:
    """Put what was measured of a run's last step beside what theory says of it.

    Parameters
    ----------
    samples, labels
        The training samples, (N, d) and (N,), as they enter the network.
    layers, networks
        The run's `layers.csv` and `networks.csv`.
    data_layers
        The `layers.csv` of its data set: the input as layer 0.
    converged
        By seed, as text: what `weights.json` says; None where no loss was to be reached.
    spec
        recipe, block, dataset, seeds, model (depth, width), scale, output_scale, classes.

    Returns
    -------
    DataFrame
        The columns COLUMNS: one row a seed, quantity and layer. By layer: compression (depth 0..L-1),
        compression_ratio (depth l: C_l / C_{l-1}) and discrimination (both 1..L-1), of the layers that `layers` has
        (a ratio where it has both), and balancedness and top_singular_mean, of all. Without a layer: balancedness
        (the mean over layers), min_norm_residual and low_rankness (the variance of the tail), of which the theory
        assumes that they are 0; and measured constants of the data: lambda_min, lambda_max, condition (κ), and, where
        there are as many dimensions as samples, the residuals of orthonormal rows. `reliable` is that of the layer (for
        a ratio, of both layers), missing for what is measured on weights; `converged` is missing where nothing was
        asked.

    Raises
    ------
    FeaturespaceError
        If a table has no row of a seed.
    """
    setting = Setting(spec["model"]["depth"], spec["model"]["width"], spec["scale"], spec["output_scale"])
    data = describe_data(samples, labels, spec["classes"])
    constants = _constants(data, samples)
    rows = []
    for seed in spec["seeds"]:
        last = _last_step(layers, seed, spec["recipe"])
        weights = _last_step(networks, seed, spec["recipe"])
        run = {
            "dataset": spec["dataset"],
            "recipe": spec["recipe"],
            "block": spec["block"],
            "seed": seed,
            "step": last["step"].iloc[0],
            "epoch": last["epoch"].iloc[0],
            "converged": converged[str(seed)],
        }
        measured = [
            *_of_features(pd.concat([data_layers[data_layers["layer"] == INPUT_LAYER], last]), data, setting),
            *_of_weights(weights, data, setting),
            *({"layer": "", "depth": NAN, "quantity": name, "measured": value} for name, value in constants.items()),
        ]
        rows += [run | row for row in measured]
    return pd.DataFrame(rows, columns=COLUMNS)


def _constants(data: DataGeometry, samples: np.ndarray) -> dict[str, float]:
    constants = {"lambda_min": data.lambda_min, "lambda_max": data.lambda_max, "condition": data.condition}
    if data.n_samples <= data.dimension:
        constants |= orthonormality_residuals(samples)
    return constants


def _last_step(table: pd.DataFrame, seed: int, recipe: str) -> pd.DataFrame:
    of_seed = table[table["seed"] == seed]
    if of_seed.empty:
        raise FeaturespaceError(f"run {recipe}: a table of it has no row of seed {seed}; run its jobs again")
    return of_seed[of_seed["step"] == of_seed["step"].max()]


def _beside(prediction: Prediction) -> dict[str, float]:
    return {name: getattr(prediction, name) for name in ("law", "predicted", "lower", "upper")}


def _of_features(layers: pd.DataFrame, data: DataGeometry, setting: Setting) -> list[dict[str, Any]]:
    """Return rows of compression, its ratios and discrimination, of one seed; `layers` has the input too.

    There is no row of a layer that was not dumped, and no ratio to or from one.
    """
    found = {int(row["depth"]): row for row in layers.assign(doubtful=is_false(layers["reliable"])).to_dict("records")}
    rows = []

    def add(quantity: str, depth: int, measured: float, prediction: Prediction, *beside: int) -> None:
        there = {"layer": found[depth]["layer"], "depth": depth, "quantity": quantity, "measured": measured}
        reliable = not any(found[layer]["doubtful"] for layer in (depth, *beside))
        rows.append(there | _beside(prediction) | {"reliable": reliable})

    for depth, prediction in enumerate(predict_compression(data, setting)):
        if depth in found:
            add("compression", depth, found[depth]["compression"], prediction)
    for depth, prediction in enumerate(predict_compression_ratio(data, setting), start=1):
        if {depth - 1, depth} <= found.keys():
            before, here = float(found[depth - 1]["compression"]), float(found[depth]["compression"])
            add("compression_ratio", depth, here / before if before > 0 else NAN, prediction, depth - 1)
    for depth, prediction in enumerate(predict_discrimination(data, setting), start=1):
        if depth in found:
            add("discrimination", depth, found[depth]["discrimination"], prediction)
    return rows


def _of_weights(networks: pd.DataFrame, data: DataGeometry, setting: Setting) -> list[dict[str, Any]]:
    """Return rows of what was measured on the weights of one seed."""
    gaps = predict_balancedness(data, setting)
    mean_gap = Prediction(*(float(np.mean([_beside(gap)[name] for gap in gaps])) for name in ("law", "predicted")))
    ideal = Prediction(law=0.0, predicted=0.0) if data.independent else Prediction()
    top = predict_top_singular_mean(data, setting)
    rows = []
    for row in networks.to_dict("records"):
        match row["quantity"]:
            case "balancedness":
                prediction = gaps[int(row["depth"]) - 1] if row["layer"] else mean_gap
            case "min_norm_residual" | "low_rankness":
                prediction = ideal
            case "top_singular_mean":
                prediction = top
            case _:
                continue
        there = {name: row[name] for name in ("layer", "depth", "quantity")}
        rows.append(there | {"measured": row["value"]} | _beside(prediction))
    return rows
