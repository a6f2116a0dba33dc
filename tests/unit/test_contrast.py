"""The contrastive losses, against loops over anchors in float64 NumPy."""

import numpy as np
import pytest
import torch

from featurespace.contrast import nt_xent, supcon


def by_anchor(predictions, positives_of, temperature):
    """Chen et al. (2020), equation 1, and Khosla et al. (2020), equation 2, as sums over every anchor's others."""
    z = predictions / np.linalg.norm(predictions, axis=1, keepdims=True)
    losses = []
    for i in range(len(z)):
        total = sum(np.exp(z[i] @ z[a] / temperature) for a in range(len(z)) if a != i)
        positives = positives_of(i)
        terms = [np.log(np.exp(z[i] @ z[j] / temperature) / total) for j in positives]
        losses.append(-sum(terms) / len(positives))
    return np.array(losses)


def other_view(n):
    return lambda i: [(i + n) % (2 * n)]


def same_class(labels):
    both = np.concatenate([labels, labels])
    return lambda i: [j for j in range(len(both)) if j != i and both[j] == both[i]]


@pytest.fixture
def predictions():
    lengths = np.random.default_rng(1).uniform(0.01, 100, (3, 12, 1))
    return lengths * np.random.default_rng(0).standard_normal((3, 12, 5))


LABELS = np.array([[0, 1, 1, 2, 1, 2], [4, 4, 4, 4, 4, 4], [0, 1, 2, 3, 4, 5]])  # class 0 of the first seed: one sample


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["64", "32"])
def test_both_losses_are_their_definitions(predictions, temperature, dtype, tolerance):
    given = torch.tensor(predictions, dtype=dtype)
    pairs = nt_xent(given, temperature)
    classes = supcon(given, torch.from_numpy(LABELS), temperature)
    assert pairs.shape == classes.shape == (3, 12)
    assert pairs.dtype == classes.dtype == dtype
    for s in range(3):
        expected = by_anchor(predictions[s], other_view(6), temperature)
        np.testing.assert_allclose(pairs[s], expected, rtol=tolerance, atol=tolerance)
        expected = by_anchor(predictions[s], same_class(LABELS[s]), temperature)
        np.testing.assert_allclose(classes[s], expected, rtol=tolerance, atol=tolerance)


def test_with_a_class_to_each_sample_supcon_is_nt_xent(predictions):
    given = torch.from_numpy(predictions)
    torch.testing.assert_close(supcon(given, torch.arange(6).expand(3, 6), 0.3), nt_xent(given, 0.3))


def test_gradients_are_those_of_the_definition(predictions):
    given = torch.tensor(predictions[:1], requires_grad=True)
    labels = torch.from_numpy(LABELS[:1])
    assert torch.autograd.gradcheck(lambda x: nt_xent(x, 0.5), given)
    assert torch.autograd.gradcheck(lambda x: supcon(x, labels, 0.5), given)


def test_nothing_overflows_at_a_temperature_where_exponentials_would():
    # e^(1/τ) is 1e434: infinite in either precision
    z = torch.eye(4, dtype=torch.float32).repeat(1, 2, 1).requires_grad_()
    losses = nt_xent(torch.cat([z[:, :4], z[:, [1, 0, 3, 2]]], 1), 0.001)
    torch.testing.assert_close(losses, torch.full((1, 8), 1000.0))  # another sample's view is at 1, the own one at 0
    matched = nt_xent(z, 0.001)
    torch.testing.assert_close(matched, torch.zeros(1, 8))
    (losses.sum() + matched.sum()).backward()
    assert torch.isfinite(z.grad).all()


def test_equal_predictions_cost_the_logarithm_of_the_number_of_others():
    same = torch.ones(1, 10, 3, dtype=torch.float64)
    expected = torch.full((1, 10), np.log(9))
    torch.testing.assert_close(nt_xent(same, 0.5), expected, check_dtype=False)
    torch.testing.assert_close(supcon(same, torch.tensor([[0, 0, 1, 1, 1]]), 0.5), expected, check_dtype=False)


def test_a_prediction_of_zeros_has_a_finite_loss_and_gradient():
    given = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    given[0, 2] = 0
    given.requires_grad_()
    losses = supcon(given, torch.tensor([[0, 0, 1]]), 0.1)
    losses.mean().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(given.grad).all()
