"""Phases on the axis of steps, RCE's temperature, and the choice of stored candidates."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core_rl.config import CurriculumConfig, PhaseConfig, PhaseKind, Subset
from core_rl.objective.advantages import is_mixed, moments
from core_rl.objective.curriculum import CandidateSubset, Curriculum
from core_rl.types import Actions, RewardTable

TWO_PHASES = CurriculumConfig(
    [PhaseConfig(kind=PhaseKind.rce, steps=4), PhaseConfig(kind=PhaseKind.grpo, epochs=1.5)]
)


# -- phases --------------------------------------------------------------------------------------


def test_steps_win_over_epochs_and_epochs_are_rounded_up() -> None:
    curriculum = Curriculum.resolve(TWO_PHASES, steps_per_epoch=5)
    assert [(p.start, p.end, p.steps) for p in curriculum.phases] == [(0, 4, 4), (4, 12, 8)]
    assert curriculum.total_steps == 12


def test_a_part_of_an_epoch_is_at_least_one_step_and_rounding_noise_adds_none() -> None:
    cfg = CurriculumConfig([PhaseConfig(epochs=0.01), PhaseConfig(epochs=0.1)])
    assert [p.steps for p in Curriculum.resolve(cfg, 30).phases] == [1, 3]


def test_each_phase_may_have_its_own_epoch() -> None:
    cfg = CurriculumConfig([PhaseConfig(epochs=2), PhaseConfig(epochs=2)])
    assert [p.steps for p in Curriculum.resolve(cfg, [3, 10]).phases] == [6, 20]


@pytest.mark.parametrize(("step", "index"), [(0, 0), (3, 0), (4, 1), (11, 1)])
def test_phase_at(step: int, index: int) -> None:
    assert Curriculum.resolve(TWO_PHASES, 5).phase_at(step).index == index


@pytest.mark.parametrize("step", [-1, 12])
def test_a_step_outside_is_an_error(step: int) -> None:
    with pytest.raises(IndexError, match="12 steps"):
        Curriculum.resolve(TWO_PHASES, 5).phase_at(step)


@pytest.mark.parametrize("per_epoch", [0, [5], [5, 0]])
def test_an_epoch_without_steps_is_named(per_epoch: int | list[int]) -> None:
    with pytest.raises(ValueError, match="steps_per_epoch"):
        Curriculum.resolve(TWO_PHASES, per_epoch)


def test_a_short_run_still_goes_through_every_phase() -> None:
    def lengths(max_steps: int) -> list[int]:
        return [p.steps for p in Curriculum.resolve(TWO_PHASES, 5, max_steps).phases]

    assert lengths(2) == [1, 1]
    assert lengths(6) == [2, 4]
    assert lengths(100) == [4, 8]  # a budget, not a goal
    with pytest.raises(ValueError, match=r"trainer\.max_steps=1"):
        lengths(1)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), st.integers(6, 400))
def test_shortened_phases_use_the_whole_budget(steps: list[int], budget: int) -> None:
    cfg = CurriculumConfig([PhaseConfig(steps=count) for count in steps])
    curriculum = Curriculum.resolve(cfg, 1, budget)
    assert curriculum.total_steps == min(budget, sum(steps))
    assert all(phase.steps >= 1 for phase in curriculum.phases)


def test_tau_starts_and_ends_exactly_where_the_phase_does() -> None:
    cfg = CurriculumConfig(
        [
            PhaseConfig(steps=3),
            PhaseConfig(steps=4, tau_start=2.0, tau_end=0.5),
            PhaseConfig(steps=1, tau_start=1.7, tau_end=0.5),
        ]
    )
    phases = Curriculum.resolve(cfg, 1).phases
    assert [phases[1].tau(step) for step in (3, 4, 5, 6)] == pytest.approx([2.0, 1.5, 1.0, 0.5])
    assert phases[2].tau(7) == 1.7


# -- subsets of stored candidates ----------------------------------------------------------------


def stored(totals: list[list[float]]) -> tuple[Actions, RewardTable]:
    """Candidates whose ids tell their place; every field is filled."""
    total_BG = torch.tensor(totals)
    ids_BGT = torch.arange(total_BG.shape[1]).view(1, -1, 1).expand(len(totals), -1, 2)
    texts = tuple(tuple(str(i) for i in range(total_BG.shape[1])) for _ in totals)
    actions = Actions(
        ids_BGT=ids_BGT,
        mask_BGT=torch.ones_like(ids_BGT, dtype=torch.bool),
        logp_BGT=-ids_BGT.float(),
        truncated_BG=ids_BGT[..., 0] % 2 == 1,
        texts=texts,
        spans={"context": ids_BGT > 2},
    )
    return actions, RewardTable(("r",), total_BG.unsqueeze(0), total_BG)


@pytest.mark.parametrize(
    ("subset", "top_k", "kept"),
    [
        (Subset.all, 3, [0, 1, 2, 3, 4]),
        (Subset.top_k, 3, [3, 1, 4]),
        (Subset.top_k, 9, [3, 1, 4, 0, 2]),
        (Subset.contrast, 3, [3, 4, 2]),
    ],
)
def test_subsets(subset: Subset, top_k: int, kept: list[int]) -> None:
    actions, rewards = stored([[0.2, 0.8, 0.1, 0.9, 0.5]])
    chosen, table = CandidateSubset(subset, top_k)(actions, rewards)
    assert chosen.ids_BGT[0, :, 0].tolist() == kept
    assert chosen.mask_BGT.all()
    assert chosen.texts == (tuple(str(i) for i in kept),)
    assert chosen.logp_BGT is not None and chosen.logp_BGT[0, :, 0].tolist() == [-i for i in kept]
    assert chosen.truncated_BG is not None
    assert chosen.truncated_BG[0].tolist() == [i % 2 == 1 for i in kept]
    assert chosen.spans["context"][0, :, 0].tolist() == [i > 2 for i in kept]
    torch.testing.assert_close(table.total_BG, rewards.total_BG[:, kept])
    torch.testing.assert_close(table.values_RBG[0], table.total_BG)


@pytest.mark.parametrize(
    ("totals", "real"),
    [
        ([0.4, 0.3, 0.2, 0.1], [0, 2, 3]),  # of an even number, the lower of the two medians
        ([0.5, 0.1, 0.9], [2, 0, 1]),
        ([0.5, math.nan, 0.9], [2, 0]),  # the unjudged one cannot be best, median or worst
        ([math.nan, 0.1, math.nan], [1]),
        ([math.nan] * 3, []),
    ],
)
def test_contrast_of_few_candidates_repeats_none(totals: list[float], real: list[int]) -> None:
    chosen, _ = CandidateSubset(Subset.contrast)(*stored([totals]))
    places = [
        place
        for place, mask in zip(
            chosen.ids_BGT[0, :, 0].tolist(), chosen.mask_BGT[0, :, 0].tolist(), strict=True
        )
        if mask
    ]
    assert places == real
    assert chosen.num_candidates == 3


def test_top_k_pads_where_fewer_were_judged() -> None:
    chosen, _ = CandidateSubset(Subset.top_k, 3)(*stored([[0.3, math.nan, 0.6, math.nan]]))
    assert chosen.ids_BGT[0, :2, 0].tolist() == [2, 0]
    assert chosen.mask_BGT[0, :, 0].tolist() == [True, True, False]


def test_top_k_by_reward_warns_when_it_kills_the_contrast(
    caplog: pytest.LogCaptureFixture,
) -> None:
    actions, rewards = stored([[1.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.6, 1.0]])
    keep = CandidateSubset(Subset.top_k, 3, warn_every=2)
    with caplog.at_level(logging.WARNING):
        keep(actions, rewards)
        assert "1 of 2 groups" in caplog.text
        keep(actions, rewards)  # not again at once
        assert len(caplog.records) == 1
        keep(actions, rewards)
        assert len(caplog.records) == 2


def test_contrast_keeps_every_mixed_group_mixed(caplog: pytest.LogCaptureFixture) -> None:
    actions, rewards = stored([[1.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    with caplog.at_level(logging.WARNING):
        chosen, table = CandidateSubset(Subset.contrast)(actions, rewards)
    assert is_mixed(table.total_BG, chosen.mask_BGT.any(-1)).all()
    assert not caplog.records


# A store keeps its candidates by kind: beams, samples, retrieved ones, random ones.
KINDS = torch.tensor([0] * 3 + [1] * 3 + [2] * 3 + [3] * 3)
GROUPS = 20_000


def mean_advantage_of_kinds(subset: Subset, right: tuple[float, ...]) -> list[float]:
    """Mean z-score of each kind among the kept; each kind is right with its own probability."""
    torch.manual_seed(0)
    totals_BG = torch.rand(GROUPS, 12).lt(torch.tensor(right)[KINDS]).float()
    chosen, table = CandidateSubset(subset, 3, warn_every=GROUPS)(*stored(totals_BG.tolist()))
    kept_BC = chosen.mask_BGT.any(-1)
    mean_B1, std_B1 = moments(table.total_BG, kept_BC)
    scores_BC = (table.total_BG - mean_B1) / std_B1.clamp(min=0.1)
    kinds_BC = KINDS[chosen.ids_BGT[..., 0]]
    return [float(scores_BC[kept_BC & (kinds_BC == kind)].mean()) for kind in range(4)]


def test_no_kind_of_candidate_is_favoured_where_rewards_do_not_depend_on_it() -> None:
    """In the store's order contrast gave beams +.47 and random candidates -.43."""
    assert mean_advantage_of_kinds(Subset.contrast, (0.5,) * 4) == pytest.approx(
        [0.0] * 4, abs=0.02
    )


@pytest.mark.parametrize("subset", [Subset.contrast, Subset.top_k])
def test_every_kind_is_kept_equally_often_among_ties(subset: Subset) -> None:
    torch.manual_seed(0)
    totals_BG = torch.rand(GROUPS, 12).lt(0.5).float()
    chosen, _ = CandidateSubset(subset, 3, warn_every=GROUPS)(*stored(totals_BG.tolist()))
    kinds = KINDS[chosen.ids_BGT[..., 0]][chosen.mask_BGT.any(-1)]
    shares = torch.bincount(kinds).float() / len(kinds)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.01)


def test_the_worst_kind_is_pushed_down() -> None:
    found = mean_advantage_of_kinds(Subset.contrast, (0.5, 0.5, 0.5, 0.1))
    assert found[3] < -0.3
    assert found[:3] == pytest.approx([found[0]] * 3, abs=0.03)
    assert found[0] > 0


def test_what_floating_point_leaves_of_a_tie_is_a_tie() -> None:
    torch.manual_seed(0)
    totals = [[1.0, 1.0 - 1e-7, 0.0]] * 500
    best = CandidateSubset(Subset.contrast)(*stored(totals))[0].ids_BGT[:, 0, 0]
    assert 200 < int((best == 1).sum()) < 300


def test_the_phase_says_which_subset() -> None:
    keep = CandidateSubset.of_phase(PhaseConfig(subset=Subset.top_k, top_k=2))
    chosen, _ = keep(*stored([[0.2, 0.8, 0.1]]))
    assert chosen.ids_BGT[0, :, 0].tolist() == [1, 0]
