"""Full-batch gradient descent of deep linear networks, step for step, in the small subspace that they move in.

From orthogonal initialisation, W_l(0) = ξ O_l with O_l square and orthogonal for 1 < l < L, the weights leave only a
few directions of R^w (Yaras, Wang, Hu, Zhu, Balzano & Qu, "The Law of Parsimony in Gradient Descent for Learning Deep
Linear Networks", 2023). Here is the form for any inputs X (d, N), any number of classes K, and any W_1 and W_L.

With U (d, r) an orthonormal basis of the inputs' span and Q_1 (w, m) one of the sum of

    F_1 = W_1(0) U R^r   and   B_1 = O_2ᵀ ... O_{L-1}ᵀ W_L(0)ᵀ R^K,    so that m = r + K,

and Q_l = O_l Q_{l-1}, gradients are of the form Q_l · Q_{l-1}ᵀ at every step: W_l = ξ O_l and its transpose map the
spans of Q_{l-1} and Q_l onto each other, what is added to W_l maps within them, inputs lie in the first and errors come
back into the last. Therefore W̃_l = Q_lᵀ W_l Q_{l-1} (with Q_0 = U, Q_L = I) follow the gradient descent of the same
loss, and W_l(t) = W_l(0) + Q_l (W̃_l(t) - W̃_l(0)) Q_{l-1}ᵀ.

Two more things cost nothing but rounding. With the singular value decomposition X = U diag(s) Vᵀ, the squared error is
that of r samples diag(s) with targets Y V, and a constant. And the gradient of W_l is the product of two matrices of K
rows, W_L ... W_{l+1} and E Xᵀ W_1ᵀ ... W_{l-1}ᵀ, where E is the error: no product of two large matrices is formed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def moves_in_a_subspace(spec: Mapping[str, Any], n_batches: int, n_samples: int, n_features: int, n_out: int) -> bool:
    """Say whether a recipe's training can be done by `ParsimoniousDescent`, and gains by it.

    Needed are a deep linear network with orthogonal initialisation, the squared error of a classification, the full
    batch as it is (no noise, no augmentation), plain gradient descent (no momentum, no weight decay), and float64, in
    which rounding is nothing to any measure. It gains if the hidden width exceeds min(d, N) + K.

    Parameters
    ----------
    spec
        The recipe and the block, as training gets them.
    n_batches
        Updates in an epoch.
    n_samples, n_features, n_out
        N training samples, of d numbers, for K outputs.
    """
    model, optimiser = spec["model"], spec["optimiser"]
    return (
        model["kind"] == "linear"
        and model["depth"] > 1
        and model["width"] > min(n_features, n_samples) + n_out
        and spec["init"]["scheme"] == "orthogonal"
        and spec["init"]["scale"] > 0
        and spec["loss"] == "mse"
        and not (spec["noise"] or spec["augmentation"] or spec["contrast"])
        and n_batches == 1
        and optimiser is not None
        and optimiser["kind"] == "sgd"
        and not (optimiser["momentum"] or optimiser["weight_decay"])
        and spec["dtype"] == "float64"
    )


class ParsimoniousDescent:
    """The gradient descent of S deep linear networks of L layers on Σ |α W_L ... W_1 x - y|² / N.

    A step is a call of `losses` and then one of `descend`.

    Attributes
    ----------
    hidden
        (L - 1, S, m, m): W̃_1, ..., W̃_{L-1}; the last K columns of the first are zero, and stay so.
    output
        (S, K, m): W̃_L.
    """

    def __init__(
        self, weights: Sequence[Tensor], scale: float, inputs: Tensor, targets: Tensor, output_scale: float
    ) -> None:
        """Find the subspaces.

        Parameters
        ----------
        weights
            W_1(0), ..., W_L(0), each (S, n_out, n_in), the ones between the first and the last ξ times orthogonal.
            They stay as they are.
        scale
            ξ > 0.
        inputs
            (N, d).
        targets
            (S, N, K).
        output_scale
            α.
        """
        self.initial = [weight.detach().clone() for weight in weights]
        n_seeds, n_out = weights[-1].shape[:2]
        self.n_samples = len(inputs)
        self.output_scale = output_scale

        left, values, right = torch.linalg.svd(inputs.T, full_matrices=False)  # (d, ·), (·), (·, N)
        # as NumPy's `matrix_rank` has it
        rank = int((values > values[0] * max(inputs.shape) * torch.finfo(values.dtype).eps).sum())
        left, values, right = left[:, :rank], values[:rank], right[:rank]
        # what is r wide is made m wide with zeros, and stays zero there
        size = rank + n_out
        self.values = F.pad(values, (0, n_out)).repeat(n_seeds, 1, 1)  # s, (S, 1, m); zero where a seed is frozen
        self.scaled = output_scale * self.values[:1].clone()  # α s, (1, 1, m)
        self.targets = F.pad((right @ targets).transpose(1, 2), (0, n_out)).contiguous()  # (S, K, m)
        # the loss of what no linear function of the inputs reaches, (S,): nothing, if there are N directions
        reached = right.T @ (right @ targets) if rank < self.n_samples else targets
        self.least = (targets - reached).square().sum((1, 2)) / self.n_samples

        first = F.pad(left, (0, n_out)).expand(n_seeds, -1, -1)  # Q_0
        backward = self.initial[-1].transpose(1, 2) / scale  # (S, w, K)
        for weight in reversed(self.initial[1:-1]):
            backward = weight.transpose(1, 2) @ backward / scale
        forward = self.initial[0] @ left / scale  # (S, w, r)
        self.bases = [first, torch.linalg.qr(torch.cat([forward, backward], 2))[0]]  # Q_l: (S, ·, m)
        for weight in self.initial[1:-1]:
            self.bases.append(weight @ self.bases[-1] / scale)

        self.hidden, self.output = self._start()
        self.error = torch.zeros_like(self.targets)  # E V
        # what is formed at every step, layer by layer, each (S, K, m): in one block, for the update of all layers
        backs = self.hidden.new_zeros(len(weights), n_seeds, n_out, size)
        fronts = torch.zeros_like(backs)
        self.backs, self.fronts = backs.unbind(), fronts.unbind()
        self.layers = self.hidden.unbind()
        self.transposed = self.hidden.transpose(2, 3).unbind()
        # (L - 1) S pairs of matrices whose products are the gradients of the hidden layers
        self.stacked = self.hidden.flatten(0, 1)
        self.factors = backs[1:].flatten(0, 1).transpose(1, 2), fronts[:-1].flatten(0, 1)

    def _start(self) -> tuple[Tensor, Tensor]:
        hidden = [
            following.transpose(1, 2) @ weight @ basis
            for weight, basis, following in zip(self.initial[:-1], self.bases[:-1], self.bases[1:], strict=True)
        ]
        return torch.stack(hidden), self.initial[-1] @ self.bases[-1]

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors that decide the next updates; updated in place."""
        return {"hidden": self.hidden, "output": self.output}

    def losses(self) -> Tensor:
        """Return each seed's mean loss over the samples, (S,)."""
        # backs[l] is W̃_L ... W̃_{l+1}
        self.backs[-1].copy_(self.output)
        for i in range(len(self.layers) - 1, -1, -1):
            torch.bmm(self.backs[i + 1], self.layers[i], out=self.backs[i])
        # the error itself: as a difference of quadratic forms, a small loss would be lost
        torch.mul(self.backs[0], self.scaled, out=self.error).sub_(self.targets)
        return torch.add(self.least, self.error.square().sum((1, 2)), alpha=1 / self.n_samples)

    def freeze(self, seeds: Tensor) -> None:
        """Let some seeds, (S,) bool, stay bit by bit where they are: their gradients are zero from now on."""
        self.values[seeds] = 0

    def descend(self, learning_rate: float) -> None:
        """Make the update that starts from where `losses` was called last."""
        # fronts[l] is E Xᵀ W̃_1ᵀ ... W̃_lᵀ
        torch.mul(self.error, self.values, out=self.fronts[0])
        for i, transposed in enumerate(self.transposed):
            torch.bmm(self.fronts[i], transposed, out=self.fronts[i + 1])
        step = -2 * self.output_scale * learning_rate / self.n_samples
        self.stacked.baddbmm_(*self.factors, alpha=step)
        self.output.add_(self.fronts[-1], alpha=step)

    def expand_into(self, weights: Sequence[Tensor]) -> None:
        """Set the weights of the whole network, given in the constructor's order and shapes."""
        hidden, output = self._start()
        moved = [*(self.hidden - hidden), self.output - output]
        for i, (weight, change) in enumerate(zip(weights, moved, strict=True)):
            if i + 1 < len(self.bases):
                change = self.bases[i + 1] @ change
            weight.copy_(self.initial[i] + change @ self.bases[i].transpose(1, 2))
