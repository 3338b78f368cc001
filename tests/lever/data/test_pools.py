from __future__ import annotations

import numpy as np
import pytest
import torch

from lever.config import LeverDataConfig, SamplerKind
from lever.data.pools import draw_pools
from lever.data.world import Ints

BANK, COUNT = range(40), 50
KINDS = [kind for kind in SamplerKind if kind is not SamplerKind.world]


def rows(seed: int) -> torch.Tensor:
    drawn = torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


IMAGE, TEXT = rows(0), rows(1)


def pools(kind: SamplerKind, queries: range, size: int = 8, **more: object) -> Ints:
    args = {"seed": 0, **more}
    config = LeverDataConfig(sampler=kind, candidate_num=size)
    return draw_pools(config, (IMAGE, TEXT), BANK, queries, **args)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_holds_different_demonstrations_and_never_the_query(kind: SamplerKind) -> None:
    drawn = pools(kind, range(COUNT))
    assert drawn.shape == (COUNT, 8)
    for query, pool in enumerate(drawn.tolist()):
        assert len(set(pool)) == 8
        assert set(pool) <= set(BANK)
        assert query not in pool


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_depends_on_the_seed_and_its_query_alone(kind: SamplerKind) -> None:
    whole, part = pools(kind, range(COUNT)), pools(kind, range(10, 20))
    assert np.array_equal(whole[10:20], part)
    assert not np.array_equal(whole, pools(kind, range(COUNT), seed=1))


def test_similar_pools_are_the_nearest_by_their_modality() -> None:
    for kind, embedded in ((SamplerKind.text_sim, TEXT), (SamplerKind.img_sim, IMAGE)):
        for query, pool in zip(range(40, 50), pools(kind, range(40, 50)).tolist(), strict=True):
            nearest = (embedded[:40] @ embedded[query]).topk(8).indices.tolist()
            assert set(pool) == set(nearest)


def test_a_mixed_pool_is_a_quarter_of_each_and_half_random() -> None:
    for query, pool in zip(range(40, 50), pools(SamplerKind.mix, range(40, 50)), strict=True):
        by_text = (TEXT[:40] @ TEXT[query]).topk(2).indices.tolist()
        rest = (IMAGE[:40] @ IMAGE[query]).argsort(descending=True).tolist()
        by_image = [item for item in rest if item not in by_text][:2]
        assert set(by_text) | set(by_image) <= set(pool.tolist())


def test_places_say_nothing() -> None:
    nearest = [
        pool.tolist().index(int((TEXT[:40] @ TEXT[query]).argmax()))
        for query, pool in zip(
            range(40, 50), pools(SamplerKind.text_sim, range(40, 50)), strict=True
        )
    ]
    assert len(set(nearest)) > 3


def test_other_questions_about_the_same_picture_stay_out() -> None:
    pictures = [item // 4 for item in range(COUNT)]
    drawn = pools(SamplerKind.text_sim, range(COUNT), size=30, pictures=pictures)
    for query, pool in enumerate(drawn.tolist()):
        assert query // 4 not in {item // 4 for item in pool}


def test_a_bank_that_is_too_small_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"query 3: pool: 39 demonstrations .*candidate_num=40"):
        pools(SamplerKind.rand, range(3, 4), size=40)
