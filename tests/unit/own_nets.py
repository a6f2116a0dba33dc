"""Networks of a user's, as recipes of the tests name them."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dense(width: int = 8, num_classes: int = 10, n_in: int = 64) -> nn.Module:
    """Dense, rectifier in place, dense: an `mlp` of this library, by other names."""
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, width), nn.ReLU(inplace=True), nn.Linear(width, num_classes))


def offered(num_classes: int, in_channels: int, input_shape: tuple[int, ...], *, width: int = 4) -> nn.Module:
    """Take all that is offered."""
    assert input_shape[0] == in_channels
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), width), nn.Linear(width, num_classes))


class Tokens(nn.Module):
    """Rows of the image as tokens, an attention that returns a tuple, dropout, a class token of its own."""

    def __init__(self, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.dropout = dropout
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.token.expand(len(x), -1, -1), x.squeeze(1)], 1)  # (B, 9, 8)
        h = h + self.attention(h, h, h)[0]
        h = self.norm(F.dropout(h, self.dropout, self.training))
        return self.head(h[:, 0])


class Recurrent(nn.Module):
    """Rows of the image as a sequence, the first dimension of what goes between the layers."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.turn = nn.Identity()
        self.lstm = nn.LSTM(8, 6)
        self.head = nn.Linear(6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.turn(x.squeeze(1).transpose(0, 1))  # (8, B, 8)
        return self.head(self.lstm(h)[0][-1])


class Convolutional(nn.Module):
    """Batch normalisation, a rectifier that runs twice, and a module that is never run."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.spare = nn.Linear(2, 2)
        self.blocks = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))
        self.output = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.conv(x)))
        for block in self.blocks:
            h = block(h)
        return self.output(self.relu(h).mean((2, 3)))


class Tied(nn.Module):
    """An autoencoder whose decoder is the encoder, transposed: one tensor under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(64, 5, bias=False)
        self.same = nn.Linear(64, 5, bias=False)
        self.same.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return (self.encoder(x.flatten(1)) @ self.same.weight).view(x.shape)


class Counter(nn.Module):
    """A buffer that another tensor takes the place of in training, and a parameter that is not trained."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.fixed = nn.Parameter(torch.randn(64, 4), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + len(x)
        return self.head(x.flatten(1) @ self.fixed)


class Frozen(nn.Module):
    """Nothing to train."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10]


class Wrapped(nn.Module):
    """Answers as `kind` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.body = dense()

    def forward(self, x: Tensor) -> object:
        h = self.body(x)
        answers = {
            "tuple": lambda: (h, h),
            "dict": lambda: {"logits": h},
            "number": lambda: h.mean(),
            "transposed": lambda: h.T,
            "random": lambda: F.dropout(h, 0.5),
            "wide": lambda: h[:, :7],
            "fails": lambda: h @ h,
        }
        return answers[self.kind]()


def no_module() -> int:
    """Return no network."""
    return 3


def fails() -> nn.Module:
    """Raise."""
    raise RuntimeError("out of\nluck")


def random_width() -> nn.Module:
    """Return another network at each call."""
    return dense(width=int(torch.randint(2, 1000, ())))
