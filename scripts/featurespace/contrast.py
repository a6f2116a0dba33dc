"""Contrastive losses on two views of every sample: SimCLR's and SupCon's.

Predictions are (S, 2B, p), seeds apart: rows i and B + i are the two views of sample i. Every row is an anchor once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _similarities(predictions: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return z_i·z_j / τ of unit vectors (S, 2B, 2B), and log Σ_{a≠i} exp(z_i·z_a / τ), (S, 2B)."""
    z = F.normalize(predictions, dim=2)
    similarities = torch.bmm(z, z.transpose(1, 2)) / temperature
    itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    return similarities, similarities.masked_fill(itself, -torch.inf).logsumexp(2)


def nt_xent(predictions: Tensor, temperature: float) -> Tensor:
    """Return each anchor's normalised temperature-scaled cross entropy, (S, 2B); SimCLR's loss is their mean.

    l_i = -log[exp(z_i·z_j / τ) / Σ_{a≠i} exp(z_i·z_a / τ)], with j the anchor's other view and z the predictions at
    unit length (Chen, Kornblith, Norouzi & Hinton 2020, equation 1).

    Parameters
    ----------
    predictions
        (S, 2B, p), of any length; the second views follow the first.
    temperature
        τ > 0.
    """
    similarities, log_total = _similarities(predictions, temperature)
    n = predictions.shape[1] // 2
    positives = torch.cat([similarities.diagonal(n, 1, 2), similarities.diagonal(-n, 1, 2)], 1)  # (S, 2B)
    return log_total - positives


def supcon(predictions: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return each anchor's supervised contrastive loss, (S, 2B); SupCon's loss is their mean.

    l_i = -1/|P(i)| Σ_{j∈P(i)} log[exp(z_i·z_j / τ) / Σ_{a≠i} exp(z_i·z_a / τ)], with P(i) all other rows of the
    anchor's class, its other view among them, and z the predictions at unit length (Khosla et al. 2020, equation 2,
    L_out; the mean over anchors replaces its sum).

    Parameters
    ----------
    predictions
        (S, 2B, p), of any length; the second views follow the first.
    labels
        (S, B) int64.
    temperature
        τ > 0.
    """
    similarities, log_total = _similarities(predictions, temperature)
    both = torch.cat([labels, labels], 1)  # (S, 2B)
    positive = (both[:, :, None] == both[:, None, :]).to(similarities.dtype)
    positive.diagonal(0, 1, 2).zero_()
    return log_total - (positive * similarities).sum(2) / positive.sum(2)
