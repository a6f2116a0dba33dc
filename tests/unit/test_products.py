"""Gram matrices of half the arithmetic against the plain product."""

import numpy as np
import pytest
import torch

from featurespace.products import PANEL, add_gram, mirror


@pytest.fixture(params=[1, 2])
def n_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_features", [1, 7, PANEL, PANEL + 1, 2 * PANEL + 77])
@pytest.mark.usefixtures("n_threads")  # one thread takes another way than two
def test_the_sum_over_blocks_is_the_gram_matrix(n_features):
    rows = np.random.default_rng(0).normal(size=(90, n_features))
    total = torch.zeros((n_features, n_features), dtype=torch.float64)
    for block in np.array_split(rows, 3):
        add_gram(total, torch.from_numpy(block))
    mirror(total)
    np.testing.assert_allclose(total.numpy(), rows.T @ rows, rtol=1e-12, atol=1e-11)
    np.testing.assert_array_equal(total.numpy(), total.numpy().T)


@pytest.mark.parametrize("size", [5, PANEL + 3])
def test_only_the_upper_triangle_is_read(size):
    total = torch.from_numpy(np.random.default_rng(1).normal(size=(size, size)))
    expected = np.triu(total.numpy()) + np.triu(total.numpy(), 1).T
    mirror(total)
    np.testing.assert_array_equal(total.numpy(), expected)
