from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from core_rl.config import RewardConfig, Subset
from core_rl.loss_config import AdvantageConfig
from core_rl.objective.advantages import group_advantages
from core_rl.objective.curriculum import choose
from core_rl.objective.losses import rce_weights
from core_rl.objective.rewards import WeightedReward
from core_rl.types import Actions, RewardTable
from lever.answerers.protocol import KernelICLAnswerer
from lever.candidates.rl_records import Candidate, CandidateRecord, GenMethod
from lever.data.datasets import Prompted
from lever.data.world_reader import KernelReader
from lever.features.slate_features import FeatureTable, SlateQuery
from lever.rewards.functions import (
    AnswerProbability,
    BeamScore,
    Coherence,
    Diversity,
    Hard,
    Relevance,
    Soft,
    word_f1,
)
from lever.rewards.judges import Judge
from tests.lever.worlds import small_world

POOL = (30, 10, 40, 20)
QUERY = SlateQuery(9, POOL)


def slates(*pointers: Sequence[int]) -> Actions:
    """One query's candidates; an empty pointer is padding."""
    ids = torch.tensor([[list(one) or [0, 0] for one in pointers]])
    mask = torch.tensor([[[bool(one)] * 2 for one in pointers]])
    return Actions(ids, mask)


def stored() -> Judge:
    sample = Candidate(
        (1, 0), GenMethod.sample, temperature=1.0, vqa_pred_answer="red car", vqa_acc_score=0.0
    )
    beam = Candidate((0, 1), GenMethod.beam, 0, 0.4, vqa_acc_score=0.3, vqa_gt_prob=0.2)
    lucky = Candidate((2, 1), GenMethod.random, vqa_acc_score=1.0, vqa_eval_mode="fallback")
    return Judge([CandidateRecord(9, POOL, (beam, sample, lucky))])


FOUR = slates((0, 1), (1, 0), (2, 3), ())


def test_task_and_beam_rewards_of_stored_candidates() -> None:
    judge = stored()
    assert Soft(judge)([QUERY], FOUR) == [[0.3, 0.0, None, None]]
    assert Hard(judge)([QUERY], FOUR) == [[1.0, 0.0, None, None]]
    assert Hard(judge, plus_minus=True)([QUERY], FOUR) == [[1.0, -1.0, None, None]]
    assert AnswerProbability(judge)([QUERY], FOUR) == [[0.2, None, None, None]]
    assert BeamScore(judge)([QUERY], FOUR) == [[0.4, None, None, None]]


def test_relevance_pays_only_for_wrong_answers() -> None:
    relevance = Relevance(stored(), {9: ["blue bus", "a red truck"]})
    assert relevance([QUERY], FOUR) == [[0.0, 0.5, None, None]]


@pytest.mark.parametrize(
    ("one", "other", "f1"),
    [("dog", "The dog.", 1.0), ("big dog", "dog", 2 / 3), ("cat", "dog", 0.0), ("", "dog", 0.0)],
)
def test_word_f1(one: str, other: str, f1: float) -> None:
    assert word_f1(one, other) == pytest.approx(f1)


def test_sequence_rewards_in_closed_form() -> None:
    rows = torch.zeros(41, 2)
    rows[9], rows[30], rows[10] = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    rows[40] = rows[30]
    table = FeatureTable(rows)
    pairs = slates((0, 1), (0, 2), ())
    assert Coherence(table)([QUERY], pairs) == [[0.5, 1.0, None]]
    assert Diversity(table)([QUERY], pairs) == [[1.0, 0.0, None]]
    single = Actions(torch.tensor([[[0]]]), torch.tensor([[[True]]]))
    assert Diversity(table)([QUERY], single) == [[0.0]]


class Counting(KernelICLAnswerer):
    asked = 0

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        self.asked += len(prompts)
        return super().generate(prompts)


def test_the_live_judge_gives_the_exact_rewards_and_asks_once() -> None:
    world = small_world()
    answerer = Counting(world)
    query = SlateQuery(70, tuple(world.pool_of(70).tolist()))
    gold = world.answer_text(world.gold[70])
    judge = Judge(answerer=answerer, answers={70: world.answers_of(70)}, references={70: gold})
    exact = KernelReader(world).pair_rewards(70)
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
    soft = Soft(judge)([query], slates(*pairs, pairs[0], ()))
    assert soft[0][:-1] == pytest.approx([*(exact[pair] for pair in pairs), exact[pairs[0]]])
    assert soft[0][-1] is None
    prob = AnswerProbability(judge)([query], slates(*pairs))
    assert all(value is not None and 0 < value <= 1 for value in prob[0])
    Hard(judge)([query], slates(*pairs))
    assert answerer.asked == len(pairs)


def test_a_query_without_answers_is_named() -> None:
    answerer = KernelICLAnswerer(small_world())
    with pytest.raises(ValueError, match=r"query 70: answers=\['dog'\]: expected .* 4 annot"):
        Judge(answerer=answerer, answers={70: ("dog",)})([(70, (1, 2))])
    judge = Judge(answerer=answerer)
    with pytest.raises(ValueError, match="query 9: answers: none known"):
        Soft(judge)([QUERY], FOUR)


def mixture(*values: tuple[float | None, float | None]) -> RewardTable:
    """What the published mixture says of slates with such beam scores and accuracies."""
    found = tuple(
        Candidate(
            (place, place + 1),
            GenMethod.random if score is None else GenMethod.beam,
            None if score is None else 0,
            score,
            vqa_acc_score=accuracy,
            vqa_eval_mode="error" if accuracy is None else "vqaEval",
        )
        for place, (score, accuracy) in enumerate(values)
    )
    query = SlateQuery(9, tuple(range(20, 21 + len(found))))
    judge = Judge([CandidateRecord(9, query.pool, found)])
    functions = {"beam": BeamScore(judge), "hard": Hard(judge, plus_minus=True)}
    reward = WeightedReward.from_config(
        RewardConfig(functions=functions, weights={"beam": 0.2, "hard": 0.8})
    )
    return reward.score([query], slates(*(one.pointer for one in found)))


RIGHT, WRONG = 1.0, 0.0


@pytest.mark.parametrize("scale", [1.0, -6.0])
def test_right_beams_and_right_retrieved_slates_are_worth_the_same(scale: float) -> None:
    """A retrieved slate has no beam score: neither a bonus nor a penalty, whatever its sign."""
    kinds = [(scale, RIGHT), (scale, WRONG), (None, RIGHT), (None, WRONG)]
    table = mixture(*kinds)
    total = table.total_BG[0].tolist()
    assert total[0] == pytest.approx(total[2]) and total[1] == pytest.approx(total[3])
    weights = rce_weights(table.total_BG, tau=0.5)[0].tolist()
    assert weights[0] == pytest.approx(weights[2]) and weights[1] == pytest.approx(weights[3])
    torch.manual_seed(0)
    actions = slates(*((place, place + 1) for place in range(4)))
    best = [
        choose(table.total_BG, torch.ones(1, 4, dtype=torch.bool), Subset.top_k, 1)[0].item()
        for _ in range(200)
    ]
    assert set(best) == {0, 2} and 70 < best.count(0) < 130
    advantages, _, _ = group_advantages(
        table, {"beam": 0.2, "hard": 0.8}, AdvantageConfig(), {}, actions
    )
    assert advantages[0, 0, 0].item() == pytest.approx(advantages[0, 2, 0].item(), abs=1e-5)


def test_a_judge_that_fails_does_not_move_a_weight_of_rce() -> None:
    judged = [(2.0, RIGHT), (2.0, WRONG), (2.0, RIGHT), (2.0, WRONG)]
    failed = [*judged, (2.0, None)]
    weights = rce_weights(mixture(*failed).total_BG, tau=0.5)[0]
    # Between right and wrong, and the others keep their order and their ratios.
    assert weights[1] < weights[4] < weights[0]
    kept = weights[:4] / weights[:4].sum()
    assert kept[0].item() == pytest.approx(kept[2].item())
    assert kept[0] > kept[1]


def test_alpha_and_beta_are_weights() -> None:
    judge = stored()
    functions = {"beam": BeamScore(judge), "hard": Hard(judge, plus_minus=True)}
    reward = WeightedReward.from_config(
        RewardConfig(functions=functions, weights={"beam": 0.5, "hard": 2.0})
    )
    table = reward.score([QUERY], FOUR)
    # The second slate has no beam score: it counts as the mean of the group's, which is .4.
    assert table.total_BG[0, :2].tolist() == pytest.approx([0.5 * 0.4 + 2.0, 0.5 * 0.4 - 2.0])
    assert table.total_BG[0, 2:].isnan().all()
