from __future__ import annotations

from collections.abc import Collection

import pytest
import torch

from lever.model_config import FeatureConfig
from lever.policy.neighbours import learn_directions, neighbour_rows, word_overlap

SMALL = FeatureConfig(dims=6, directions=3, epochs=30, lr=0.03, weight_decay=0.1, batch_size=20)


def test_overlap_is_the_f1_of_words() -> None:
    overlap = word_overlap(["red dog", "The dog", "red red dog", "cat"])
    assert overlap.diagonal().tolist() == pytest.approx([1, 1, 1, 1])
    assert overlap[0, 1].item() == pytest.approx(2 / 3)  # "the" is an article
    assert overlap[0, 2].item() == pytest.approx(2 * 2 / 5)
    assert overlap[0, 3].item() == 0
    assert torch.equal(overlap, overlap.T)


def hidden(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows whose class shows in two quiet columns among louder noise."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(4, (count,), generator=generator)
    corner = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])[kind]
    noise = 5.0 * torch.randn(count, 4, generator=generator)
    quiet = corner + 0.2 * torch.randn(count, 2, generator=generator)
    return torch.cat([noise, quiet], dim=1), kind


def agreement(rows: torch.Tensor, kind: torch.Tensor) -> float:
    """Share of items whose nearest neighbour is of their class."""
    unit = torch.nn.functional.normalize(rows, dim=-1)
    near = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
    return (kind[near] == kind).float().mean().item()


def test_it_finds_the_columns_that_answers_agree_on_and_they_hold_for_new_items() -> None:
    rows, kind = hidden(200)
    overlap = (kind[:100, None] == kind[None, :100]).float()
    found = learn_directions(rows[:100], overlap, SMALL, seed=0)
    assert found.shape == (6, 3)
    assert agreement(rows[100:], kind[100:]) < 0.6
    assert agreement(rows[100:] @ found, kind[100:]) > 0.9


def test_both_modalities_stand_side_by_side_and_a_seed_repeats() -> None:
    rows, kind = hidden(120)
    answers = [f"answer{i}" for i in kind[:60].tolist()]
    made = neighbour_rows((rows, rows.flip(1)), answers, SMALL)
    assert made.shape == (120, 6)
    assert torch.allclose(made.view(120, 2, 3).norm(dim=-1), torch.ones(120, 2), atol=1e-5)
    assert torch.equal(made, neighbour_rows((rows, rows.flip(1)), answers, SMALL))


def test_nothing_but_the_bank_is_looked_at() -> None:
    rows, kind = hidden(120)
    answers = [f"answer{i}" for i in kind[:60].tolist()]
    other = rows.clone()
    other[60:] = 0.5 * other[60:] + 1
    made, again = (neighbour_rows((both, both), answers, SMALL) for both in (rows, other))
    assert torch.equal(made[:60], again[:60])


def test_answers_that_nobody_shares_teach_nothing() -> None:
    rows, _ = hidden(40)
    still = FeatureConfig(dims=6, directions=3, epochs=2, weight_decay=0.0, batch_size=20)
    found = learn_directions(rows, torch.eye(40), still, seed=0)
    assert torch.allclose(found, torch.eye(6)[:, :3], atol=1e-6)


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"model\.features\.directions=9: expected at most"):
        FeatureConfig(dims=6, directions=9)


def gap(held_out: Collection[int], seed: int) -> float:
    """Difference in neighbours' overlap, training queries - new items, in standard errors.

    Answers are random, so features can only have learned them by heart.
    """
    generator = torch.Generator().manual_seed(seed)
    bank, train, count = 300, 150, 600
    rows = torch.randn(2, count, 40, generator=generator)
    kind = torch.randint(10, (count,), generator=generator)
    answers = [f"answer{i}" for i in kind[:bank].tolist()]
    plain = FeatureConfig(
        dims=20, directions=20, epochs=40, lr=0.03, weight_decay=0.0, batch_size=50
    )
    made = neighbour_rows((rows[0], rows[1]), answers, plain, held_out)
    near = 5 * made @ made[:bank].T
    near[:bank].fill_diagonal_(-torch.inf)
    overlap = (near.softmax(dim=-1) * (kind[:, None] == kind[None, :bank])).sum(dim=-1)
    taught, new = overlap[:train], overlap[bank:]
    error = (taught.var() / len(taught) + new.var() / len(new)).sqrt()
    return ((taught.mean() - new.mean()) / error).item()


def test_random_answers_of_training_queries_are_not_learned_by_heart() -> None:
    held = [gap(range(150), seed) for seed in range(4)]
    leaked = [gap((), seed) for seed in range(4)]
    assert abs(sum(held)) / 2 < 3  # the sum of four has twice the standard error of one
    assert min(leaked) > 3.5


def test_a_bank_of_training_queries_alone_is_refused_with_its_cures() -> None:
    rows, kind = hidden(40)
    answers = [f"answer{i}" for i in kind.tolist()]
    with pytest.raises(ValueError, match=r"data_mix\.split\.train: .* model\.features\.kind=pca"):
        neighbour_rows((rows, rows), answers, SMALL, held_out=range(39))
