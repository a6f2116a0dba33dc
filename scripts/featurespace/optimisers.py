"""Gradient descent with momentum, and Adam, on a list of tensors.

Both work entry by entry, so that seeds stacked in one tensor do not meet in them. They are `torch.optim`'s SGD and
Adam, to rounding; those import PyTorch's compiler, which costs every training job more than a second.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Sgd:
    """g ← ∇ + λ p;  b ← μ b + g;  p ← p - lr b, in place."""

    def __init__(self, parameters: Sequence[Tensor], momentum: float, weight_decay: float) -> None:
        self.parameters = list(parameters)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.buffers = [torch.zeros_like(p) for p in self.parameters] if momentum else []

    @property
    def state(self) -> list[Tensor]:
        """The tensors that, with the parameters, decide the next updates; updated in place."""
        return self.buffers

    @torch.no_grad()
    def step(self, learning_rate: float, n_done: int) -> None:
        """Move the parameters along their gradients; `n_done` updates came before."""
        gradients = gradients_of(self.parameters, self.weight_decay)
        if self.momentum:
            torch._foreach_mul_(self.buffers, self.momentum)
            torch._foreach_add_(self.buffers, gradients)
            gradients = self.buffers
        torch._foreach_add_(self.parameters, gradients, alpha=-learning_rate)


class Adam:
    """Kingma & Ba (2015), algorithm 1: β₁ = 0.9, β₂ = 0.999, ε = 1e-8; weight decay is added to the gradient."""

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float) -> None:
        self.parameters = list(parameters)
        self.weight_decay = weight_decay
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]

    @property
    def state(self) -> list[Tensor]:
        """The tensors that, with the parameters, decide the next updates; updated in place."""
        return self.first + self.second

    @torch.no_grad()
    def step(self, learning_rate: float, n_done: int) -> None:
        """Move the parameters along their gradients; `n_done` updates came before."""
        t = n_done + 1
        gradients = gradients_of(self.parameters, self.weight_decay)
        torch._foreach_lerp_(self.first, gradients, 1 - self.beta1)
        torch._foreach_mul_(self.second, self.beta2)
        torch._foreach_addcmul_(self.second, gradients, gradients, 1 - self.beta2)
        # p ← p - lr m̂ / (√v̂ + ε), with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ)
        roots = torch._foreach_sqrt(self.second)
        torch._foreach_div_(roots, (1 - self.beta2**t) ** 0.5)
        torch._foreach_add_(roots, self.epsilon)
        torch._foreach_addcdiv_(self.parameters, self.first, roots, -learning_rate / (1 - self.beta1**t))


def gradients_of(parameters: Sequence[Tensor], weight_decay: float) -> list[Tensor]:
    """Return the parameters' gradients, with the L2 penalty's added."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    assert len(gradients) == len(parameters)
    if weight_decay:
        return list(torch._foreach_add(gradients, list(parameters), alpha=weight_decay))
    return gradients


def make_optimiser(options: Mapping[str, Any], parameters: Sequence[Tensor]) -> Sgd | Adam:
    """Make the optimiser that a recipe's `optimiser` section describes."""
    if options["kind"] == "sgd":
        return Sgd(parameters, options["momentum"], options["weight_decay"])
    return Adam(parameters, options["weight_decay"])
