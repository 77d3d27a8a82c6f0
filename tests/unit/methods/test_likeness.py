"""Distances between features, beside scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from torch import Tensor
from torch.nn.functional import one_hot

from unhot.methods.parts.likeness import Whitening


def batch(count: int, scales: list[float], seed: int) -> tuple[Tensor, Tensor]:
    """Return features of two classes that are far apart, and the classes, one-hot."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    noise = torch.randn(count, len(scales), generator=generator) * torch.tensor(scales)
    return noise + 50.0 * y[:, None], one_hot(y, 3).float()


def test_distances_after_whitening_are_those_of_mahalanobis() -> None:
    h, classes = batch(400, [1.0, 10.0, 0.1], 0)
    whitening = Whitening()
    whitening.add(h, classes)
    rest = torch.cat([h[0::2] - h[0::2].mean(0), h[1::2] - h[1::2].mean(0)]).double().numpy()
    covariance = rest.T @ rest / len(rest)
    ridge = Whitening.RIDGE * np.trace(covariance) / 3 * np.eye(3)
    white = whitening(h[:6])
    for i, j in [(0, 1), (2, 5), (4, 2)]:
        expected = mahalanobis(h[i].double(), h[j].double(), np.linalg.inv(covariance + ridge))
        assert torch.dist(white[i], white[j]).item() == pytest.approx(expected, rel=1e-3)


def test_the_units_are_those_of_the_features_as_they_are_now() -> None:
    whitening = Whitening()
    for step in range(600):
        whitening.add(*batch(64, [5.0, 5.0] if step < 100 else [1.0, 3.0], step))
    h, _ = batch(2, [0.0, 0.0], 0)
    white = whitening(torch.eye(2) + h[:1]) - whitening(h[:1])
    assert white.norm(dim=1).tolist() == pytest.approx([1.0, 1 / 3], rel=0.05)


def test_features_that_do_not_vary_are_no_division_by_zero() -> None:
    whitening = Whitening()
    whitening.add(torch.ones(8, 4), one_hot(torch.zeros(8, dtype=torch.int64), 2).float())
    assert whitening(torch.eye(4)).isfinite().all()
