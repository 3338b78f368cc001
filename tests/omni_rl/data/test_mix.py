"""Exact shares, seeded draws, and the errors of a bad mix."""

from __future__ import annotations

import logging
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_rl.data.mix import counts_for, draw, mix

STAGE_4 = {"social_iq": 0.5, "emer": 0.3, "video_r1": 0.2}
SOURCES = {name: [(name, index) for index in range(900)] for name in STAGE_4}


@pytest.mark.parametrize(
    ("ratios", "total", "expected"),
    [
        (STAGE_4, 1500, [750, 450, 300]),
        (STAGE_4, 7, [4, 2, 1]),  # 3.5, 2.1, 1.4: the largest remainder wins
        (STAGE_4, 1, [1, 0, 0]),
        ({"people": 0.9, "general": 0.1}, 1500, [1350, 150]),
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 100, [34, 33, 33]),  # a tie goes to the earlier
        ({"a": 1.0, "b": 0.0}, 5, [5, 0]),
        ({"a": 0.29, "b": 0.71}, 100, [29, 71]),  # .29 * 100 is 28.999... in floats
    ],
)
def test_counts_are_exact(ratios: dict[str, float], total: int, expected: list[int]) -> None:
    assert list(counts_for(ratios, total).values()) == expected


@given(
    weights=st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any),
    total=st.integers(1, 10_000),
)
def test_counts_add_up_and_stay_within_one_of_their_share(weights: list[int], total: int) -> None:
    ratios = {str(index): weight / sum(weights) for index, weight in enumerate(weights)}
    counts = counts_for(ratios, total)
    assert sum(counts.values()) == total
    for name, ratio in ratios.items():
        assert abs(counts[name] - ratio * total) < 1 + 1e-6


@pytest.mark.parametrize(
    ("ratios", "total", "message"),
    [
        ({"a": 0.5, "b": 0.4}, 10, r"sum to 0.9, not 1; .*'a': 0.5556, 'b': 0.4444"),
        ({"a": 0.5, "b": 0.6}, 10, "sum to 1.1"),
        ({"a": 0.0}, 10, "sum to 0, not 1"),
        ({"a": 1.5, "b": -0.5}, 10, "share of 0 or more"),
        ({"a": float("nan")}, 10, "share of 0 or more"),
        ({}, 10, "share of 0 or more"),
        ({"a": 1.0}, 0, "at least 1 item"),
    ],
)
def test_bad_shares_are_named_with_the_cure(
    ratios: dict[str, float], total: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        counts_for(ratios, total)


def test_mix_holds_each_share_without_repeats() -> None:
    mixed = mix(SOURCES, STAGE_4, 1500, seed=3)
    assert Counter(name for name, _ in mixed) == {"social_iq": 750, "emer": 450, "video_r1": 300}
    assert len(set(mixed)) == 1500


def test_mix_interleaves_sources() -> None:
    names = [name for name, _ in mix(SOURCES, STAGE_4, 1500, seed=3)]
    for start in range(0, 1500, 300):
        share = names[start : start + 300].count("social_iq") / 300
        assert 0.4 < share < 0.6


def test_mix_depends_on_the_seed_alone() -> None:
    first = mix(SOURCES, STAGE_4, 100, seed=1)
    assert first == mix(SOURCES, STAGE_4, 100, seed=1)
    assert first != mix(SOURCES, STAGE_4, 100, seed=2)


def test_a_larger_share_keeps_what_a_smaller_one_drew() -> None:
    small = mix(SOURCES, STAGE_4, 200, seed=1)
    large = mix(SOURCES, {"social_iq": 0.7, "emer": 0.2, "video_r1": 0.1}, 1000, seed=1)
    assert set(small) - set(large) == set()


def test_a_small_source_comes_round_evenly(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        mixed = mix({"a": list(range(4))}, {"a": 1.0}, 11, seed=0)
    assert sorted(Counter(mixed).values()) == [2, 3, 3, 3]
    assert "4 items for 11 places" in caplog.text
    assert "source a: 11 of 4 items" in caplog.text


def test_passes_over_a_source_are_shuffled_anew() -> None:
    drawn = draw(list(range(50)), 150, random.Random(0))
    passes = [drawn[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(one) == list(range(50)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_replacement_draws_independently() -> None:
    drawn = draw(list(range(50)), 50, random.Random(0), replacement=True)
    assert len(drawn) == 50
    assert len(set(drawn)) < 45  # 50 * (1 - 1/e) = 32 expected


def test_mix_refuses_empty_and_unnamed_sources() -> None:
    with pytest.raises(ValueError, match=r"source 'b' is empty, but its share asks for 5"):
        mix({"a": [1], "b": []}, {"a": 0.5, "b": 0.5}, 10, seed=0)
    with pytest.raises(ValueError, match=r"ratios name \['a'\], sources are \['a', 'b'\]"):
        mix({"a": [1], "b": [2]}, {"a": 1.0}, 10, seed=0)
    with pytest.raises(ValueError, match="empty source"):
        draw([], 1, random.Random(0))


def test_a_source_without_a_share_may_be_empty() -> None:
    assert mix({"a": [1, 2], "b": []}, {"a": 1.0, "b": 0.0}, 2, seed=0) in ([1, 2], [2, 1])
