from __future__ import annotations

import pytest
import torch

from lever.config import EncodingConfig
from lever.features.slate_features import FeatureTable, mean_features, pca_features


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
    with pytest.raises(ValueError, match=r"queries \(3, 2\): expected the shape of the items"):
        FeatureTable(torch.zeros(4, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="query 7: query: no embedding for ids"):
        FeatureTable(torch.zeros(4, 2)).of_query(7)
    with pytest.raises(ValueError, match="image_encoder: 3 columns, the text encoder gives 2"):
        mean_features(torch.ones(4, 3), torch.ones(4, 2))
    with pytest.raises(ValueError, match="dims=9: expected at most 4"):
        pca_features(torch.randn(4, 6), torch.randn(4, 6), range(4), dims=9)


def test_the_switch_decides_what_a_query_and_a_demonstration_are_seen_by() -> None:
    image, text = torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    only_text = EncodingConfig(query_image=False)
    table = mean_features(image, text, only_text)
    assert torch.equal(table.of_query(1), text[1])
    half = 0.5**0.5
    assert torch.allclose(table.of(1, (0,), "pool"), torch.tensor([[half, half]]))


def test_columns_of_a_modality_that_is_off_are_zero_on_that_side_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(30, 6, generator=generator) for _ in range(2))
    switch = EncodingConfig(query_image=False, demo_text=False)
    both = pca_features(image, text, range(30), dims=3)
    table = pca_features(image, text, range(30), dims=3, encoding=switch)
    assert torch.equal(table.query_ND, torch.cat([torch.zeros(30, 3), both.rows_ND[:, 3:]], 1))
    assert torch.equal(table.rows_ND, torch.cat([both.rows_ND[:, :3], torch.zeros(30, 3)], 1))


def test_a_side_that_sees_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data_mix\.encoding\.demo_image and demo_text"):
        EncodingConfig(demo_image=False, demo_text=False)
