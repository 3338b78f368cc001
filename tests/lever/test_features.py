from __future__ import annotations

import pytest
import torch

from lever.features import FeatureTable, mean_features, pca_features


def test_mean_features_are_unit_vectors_halfway() -> None:
    image, text = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    rows = mean_features(image, text).rows_ND
    assert torch.allclose(rows, torch.tensor([[0.5**0.5, 0.5**0.5]]))


def test_components_are_ordered_and_of_unit_length_a_modality() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(200, 12, generator=generator) * torch.arange(12, 0, -1)
    text = torch.randn(200, 12, generator=generator)
    rows = pca_features(image, text, range(150), dims=5).rows_ND
    assert rows.shape == (200, 10)
    for part in (rows[:, :5], rows[:, 5:]):
        assert torch.allclose(part.norm(dim=-1), torch.ones(200), atol=1e-5)
    spread = rows[:, :5].std(dim=0)
    assert (spread[:-1] > spread[1:]).all()


def test_power_zero_whitens() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2000, 6, generator=generator) * torch.tensor([9.0, 5, 3, 2, 1, 1])
    rows = pca_features(image, image, range(2000), dims=6, power=0.0).rows_ND
    assert torch.allclose(rows[:, :6].std(dim=0), torch.full((6,), 6**-0.5), atol=0.02)


def test_rows_outside_the_fit_do_not_move_the_components() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(60, 8, generator=generator)
    before = pca_features(image, image, range(40), dims=4).rows_ND[:40]
    image[50:] += 100
    assert torch.allclose(pca_features(image, image, range(40), dims=4).rows_ND[:40], before)


def test_bad_features_are_errors() -> None:
    rows = torch.zeros(4, 2)
    rows[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"rows \[2\] hold NaN"):
        FeatureTable(rows)
    with pytest.raises(ValueError, match="dims=9: expected at most 4"):
        pca_features(torch.randn(4, 6), torch.randn(4, 6), range(4), dims=9)
