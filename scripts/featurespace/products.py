"""Gram matrices summed over blocks of rows, half of the arithmetic of the full product."""

import torch

PANEL = 128  # rows of the triangle computed at a time: narrower ones waste less of it, wider ones multiply faster
CUDA_PANEL = 2048  # the same on a GPU, which smaller products do not fill


def add_gram(total: torch.Tensor, rows: torch.Tensor) -> None:
    """Add the Gram matrix of some rows to the upper triangle of a sum, in place.

    What lies below the blocks on the diagonal is left as it is: `mirror` fills it in, once all rows have been added.

    Parameters
    ----------
    total
        (n_features, n_features), the sum; of the dtype and on the device of the rows.
    rows
        (n_rows, n_features).
    """
    size = len(total)
    if rows.device.type == "cpu" and torch.get_num_threads() == 1 and len(rows) >= size:
        # NumPy has BLAS compute a triangle, for which torch has no function. With more threads, its library's and
        # torch's would keep each other from computing.
        values = rows.numpy()
        total += torch.from_numpy(values.T @ values)
        return
    if size <= PANEL or (rows.is_cuda and size <= CUDA_PANEL):
        total.addmm_(rows.T, rows)
        return
    panel = CUDA_PANEL if rows.is_cuda else PANEL
    for start in range(0, size, panel):
        stop = min(start + panel, size)
        total[start:stop, start:].addmm_(rows[:, start:stop].T, rows[:, start:])


def mirror(total: torch.Tensor) -> None:
    """Copy the upper triangle of a square matrix to its lower one, in place."""
    size = len(total)
    panel = CUDA_PANEL if total.is_cuda else PANEL
    for start in range(0, size, panel):
        stop = min(start + panel, size)
        # Only the block on the diagonal overlaps its own mirror image.
        block = total[start:stop, start:stop]
        block.copy_(torch.triu(block) + torch.triu(block, 1).T)
        total[stop:, start:stop].copy_(total[start:stop, stop:].T)
