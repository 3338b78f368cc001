"""What is known to have starved earlier work of signal, one test a defect (or two)."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors import safe_open

from core_rl.config import PhaseConfig, Subset
from core_rl.loss_config import AdvantageConfig, KLConfig, RatioLevel
from core_rl.objective.advantages import group_advantages, is_mixed, moments
from core_rl.objective.curriculum import CandidateSubset
from core_rl.objective.kl import KLController
from core_rl.objective.losses import importance_ratio, rce_weights
from core_rl.types import Actions, RewardTable
from lever.answerers.huggingface import IGNORED, HFAnswerer
from lever.answerers.protocol import KernelICLAnswerer
from lever.answerers.templates import ChatTemplate, Prompts
from lever.candidates.beam_search import generate_beams, search_beams
from lever.candidates.beams import pointers, read_beams
from lever.candidates.rl_records import Candidate, CandidateRecord, GenMethod, read_candidates
from lever.candidates.stored_sampler import StoredSampler
from lever.config import SamplerKind
from lever.data.datasets import Prompted
from lever.features.slate_features import SlateQuery, mean_features, pca_features
from lever.generation_config import BeamConfig, ConstructOrder
from lever.model_config import LeverModelConfig
from lever.policy.selectors import MetricSelector, PointerSelector
from lever.rewards.functions import Soft
from lever.rewards.judges import Judge
from tests.lever.counting import Scripted
from tests.lever.data.test_datasets import load, small_config
from tests.lever.tiny_vlm import item, tiny_vlm
from tests.lever.training import train

DATA = load(small_config())
POOL = (3, 7, 1, 12)
# Rewards of a dozen stored candidates as they were reported: about as many 0 as 1.
TYPICAL = [1.0, 1.0, 1.0, 1.0, 1.0, 0.6, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0]


def selector() -> MetricSelector:
    features = pca_features(DATA.image_ND, DATA.text_ND, DATA.demos, dims=8)
    return MetricSelector(features, LeverModelConfig(scale=3.0))


def group(rewards: list[float]) -> tuple[Actions, RewardTable]:
    """One query with a candidate a reward."""
    ids = torch.arange(2 * len(rewards)).view(1, -1, 2)
    total = torch.tensor([rewards])
    actions = Actions(ids, torch.ones_like(ids, dtype=torch.bool))
    return actions, RewardTable(("soft",), total.unsqueeze(0), total)


def test_defect_1_the_pool_is_not_the_answer_and_labels_are_looked_up(tmp_path: Path) -> None:
    """Then: a pool of the gold shots alone, labels by id modulo K, zeros for what was missing."""
    assert DATA.world is not None
    path = generate_beams(DATA, KernelICLAnswerer(DATA.world), BeamConfig(), tmp_path, 0)
    assert path is not None
    by_place: set[tuple[int, ...]] = set()
    for record in read_beams(path, DATA.pools):
        gold = {shot for beam in record.beams for shot in beam.shots}
        assert len(record.pool) == 12 and len(gold) < len(record.pool)
        for beam in record.beams:
            places = pointers("", beam.shots, record.pool)
            assert tuple(record.pool[place] for place in places) == beam.shots
            moved = pointers("", beam.shots, record.pool[::-1])
            assert moved == tuple(len(record.pool) - 1 - place for place in places)
            by_place.add(places)
    assert len(by_place) > 15  # no place is the answer
    with pytest.raises(ValueError, match="outside the query's pool"):
        pointers("query 1: id_list", [5], [7, 3])


def test_defect_2_every_query_has_its_own_pool_in_training_and_inference() -> None:
    """Then: the first K rows for all, so that the samplers gave identical results."""
    chosen = []
    for kind in (SamplerKind.rand, SamplerKind.text_sim, SamplerKind.img_sim, SamplerKind.mix):
        data = load(small_config(sampler=kind))
        pools = [one.pool for one in (*data.train, *data.val, *data.test)]
        assert len(set(pools)) == len(pools)
        assert set(range(12)) not in map(set, pools)
        # The same pool, in the same order, whoever asks and whenever it is made.
        again = load(small_config(sampler=kind))
        assert [again.pools[one.query] for one in data.test] == [one.pool for one in data.test]
        policy = MetricSelector(
            mean_features(data.image_ND, data.text_ND), LeverModelConfig(scale=3.0)
        )
        best = policy.sample(policy.encode(data.test), 1, temperature=0).ids_BGT[:, 0].tolist()
        chosen.append(
            tuple(
                tuple(one.pool[place] for place in places)
                for one, places in zip(data.test, best, strict=True)
            )
        )
    assert len(set(chosen)) == 4
    query = DATA.train[0]
    candidate = Candidate((0, 1), GenMethod.random, vqa_acc_score=0.0)
    sampler = StoredSampler([CandidateRecord(query.query, query.pool, (candidate,))])
    other, model = replace(query, pool=query.pool[::-1]), selector()
    with pytest.raises(ValueError, match=f"query {query.query}: pool: differs"):
        sampler(model, model.encode([other]), [other], 1.0)


def test_defect_3_a_harmful_demonstration_is_never_chosen() -> None:
    """Then: where scores were negative, the smallest were kept in the belief that less is near 0.

    Scores are negative throughout; the largest, not the smallest, are kept at every step.
    """

    def all_harm(_: int, shots: tuple[int, ...]) -> float:
        return -1.0 - sum(5.0 if shot == 7 else 0.1 for shot in shots)

    for order in ConstructOrder:
        config = BeamConfig(beam_size=2, few_shot=2, construct_order=order)
        record = search_beams(Scripted(all_harm), SlateQuery(99, POOL), "yes", config)
        assert all(beam.score < 0 for beam in record.beams)
        assert all(7 not in beam.shots for beam in record.beams)


def test_defect_4_only_the_answers_tokens_are_scored() -> None:
    """Then: the span was counted in plain text, so it covered question and picture tokens.

    `tests/lever/answerers/test_huggingface.py` has every template; here the fault itself is
    planted.
    """
    model, processor = tiny_vlm()
    answerer = HFAnswerer(model, processor, Prompts(ChatTemplate(), item))
    prompt, answer = Prompted(0, (1, 2)), "a brown dog"
    inputs, labels_BT = answerer.scored_inputs([prompt], [answer])
    scored = labels_BT[0] != IGNORED
    assert processor.tokenizer.decode(inputs["input_ids"][0][scored]) == answer
    text = ChatTemplate().text([item(1), item(2)], item(0)).replace("<image>", "")
    counted = len(processor.tokenizer(text)["input_ids"])
    span = inputs["input_ids"][0, counted:]  # what was scored then
    assert len(span) > scored.sum()
    [ours] = answerer.answer_logprob([prompt], [answer])
    planted = labels_BT.clone()
    planted[0, counted:] = span
    theirs = -model(**inputs, labels=planted).loss.item()
    assert abs(ours - theirs) > 0.1


def test_defect_5_the_best_by_reward_have_no_contrast(caplog: pytest.LogCaptureFixture) -> None:
    """Then: the top 3 of a dozen were all right, and all but a few groups were constant."""
    actions, table = group(TYPICAL)
    with caplog.at_level(logging.WARNING):
        kept, rewards = CandidateSubset(Subset.top_k, 3)(actions, table)
    assert not is_mixed(rewards.total_BG, kept.mask_BGT.any(dim=-1)).any()
    assert "teach nothing" in caplog.text
    kept, rewards = CandidateSubset(Subset.contrast)(actions, table)
    assert rewards.total_BG.tolist() == [[1.0, pytest.approx(0.6), 0.0]]
    advantages, mixed_B, _ = group_advantages(rewards, {"soft": 1.0}, AdvantageConfig(), {}, kept)
    assert mixed_B.all() and advantages.abs().max() > 0.9


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_defect_6_the_ratio_is_one_whatever_was_trained_before(temperature: float) -> None:
    """Then: old log-probabilities were of the model before RCE, the new ones under dropout."""
    records = [
        CandidateRecord(
            one.query,
            one.pool,
            (
                Candidate((0, 1), GenMethod.random, vqa_acc_score=0.0),
                Candidate((3, 2), GenMethod.random, vqa_acc_score=1.0),
            ),
        )
        for one in DATA.train
    ]
    model, sampler = selector(), StoredSampler(records)
    sampler(model, model.encode(DATA.train), DATA.train, temperature)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.3
    model.train()
    prompt = model.encode(DATA.train)
    actions = sampler(model, prompt, DATA.train, temperature)
    assert actions.logp_BGT is not None and not actions.logp_BGT.requires_grad
    now = model.log_probs(prompt, actions, temperature).logp_BGT
    ratio = importance_ratio(now, actions.logp_BGT, actions.mask_BGT, RatioLevel.sequence_sum)
    assert torch.allclose(ratio, torch.ones_like(ratio), atol=1e-5)


def test_defect_6_no_selector_drops_anything_out_while_it_is_compared() -> None:
    features = mean_features(DATA.image_ND, DATA.text_ND)
    for model in (selector(), PointerSelector(features, LeverModelConfig(width=16))):
        model.train()
        prompt = model.encode(DATA.train)
        actions = model.sample(prompt, 4)
        twice = [model.log_probs(model.encode(DATA.train), actions).logp_BGT for _ in range(2)]
        assert torch.equal(*twice)


def test_defect_7_the_kl_weight_does_not_swing_with_single_batches() -> None:
    """Then: each batch of one query moved it by half, from 10 to .001 and back."""
    noisy = [0.0, 3.0] * 100  # far outside the band on either side, batch by batch
    config = KLConfig(weight=0.1, adaptive=True, low=0.01, high=0.1, every=10, ema=0.9)
    controller = KLController(config)
    weights = []
    for step, value in enumerate(noisy, 1):
        controller.observe(torch.tensor(value))
        controller.step(step)
        weights.append(float(controller.weight))
    moves = [b / a for a, b in itertools.pairwise(weights) if a != b]
    assert len(moves) <= len(noisy) // config.every
    assert all(move > 1 for move in moves), "the mean is above the band: it never turns back"
    calm = KLController(config)
    for step in range(1, 200):  # a mean inside the band, however single batches scatter
        calm.observe(torch.tensor(0.0 if step % 2 else 0.1))
        calm.step(step)
    assert float(calm.weight) == pytest.approx(0.1)


class Held(Callback):
    """Held-out reward and KL at every validation."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self.kl: list[float] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.rewards.append(float(trainer.callback_metrics["val/reward"]))
        self.kl.append(float(trainer.callback_metrics.get("train/kl", torch.tensor(0.0))))


def test_defect_8_the_best_is_the_highest_held_out_reward(tmp_path: Path) -> None:
    """Then: the lowest KL or RCE loss, which is the untrained model."""
    L.seed_everything(0)
    assert DATA.world is not None
    model = selector()
    held = Held()
    train(
        model,
        DATA.world,
        DATA.train,
        [PhaseConfig(steps=24)],
        tmp_path,
        held_out=[list(DATA.train)],
        callbacks=[held],
        val_every=2,
    )
    with safe_open(tmp_path / "checkpoints" / "best" / "policy.safetensors", "pt") as file:
        best = float(file.metadata()["val/reward"])
    assert best == max(held.rewards) > held.rewards[0]
    lowest_kl = held.kl.index(min(held.kl))
    assert held.rewards[lowest_kl] < best


def test_defect_9_weights_of_raw_scores_are_uniform_those_of_z_scores_are_not() -> None:
    """Then: softmax over InfoScores as they are, so RCE weighed every beam alike."""
    scores = torch.tensor([[0.046, 0.045, 0.037, 0.035, 0.030]])
    raw = rce_weights(scores, 0.5, zscore=False)
    assert float(raw.max() - raw.min()) < 0.01
    warm, cold = rce_weights(scores, 2.0), rce_weights(scores, 0.5)
    for weights, published in (
        (warm, [0.313, 0.290, 0.161, 0.139, 0.096]),
        (cold, [0.536, 0.400, 0.038, 0.021, 0.005]),
    ):
        assert weights[0].tolist() == pytest.approx(published, abs=1e-3)


def test_defect_10_the_floor_belongs_to_the_reward() -> None:
    """Then: a floor of .1 under InfoScores of spread .007; or 1e-8, which blows noise up."""
    actions, table = group([0.046, 0.045, 0.037, 0.035, 0.030])
    std = float(moments(table.total_BG, torch.ones_like(table.total_BG, dtype=torch.bool))[1])

    def largest(floor: float, rewards: RewardTable = table) -> float:
        config = AdvantageConfig(std_floor={"default": 0.1, "total": floor})
        found, _, _ = group_advantages(rewards, {"soft": 1.0}, config, {}, actions)
        return float(found.abs().max())

    assert largest(0.1) < 0.1
    assert largest(0.5 * std) == pytest.approx(1.264, abs=0.01)
    noise = 1e-8 * torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]])
    assert largest(1e-9, RewardTable(("soft",), noise.unsqueeze(0), noise)) == 0


def test_defect_11_missing_shots_are_an_error_not_label_0(tmp_path: Path) -> None:
    path = tmp_path / "beams.json"
    path.write_text('{"9": {"id_list": [[3, 7, 9], [1, 9]], "score_list": [0.2, 0.1]}}')
    with pytest.raises(ValueError, match=r"query 9: id_list\[1\]"):
        read_beams(path)
    path.write_text(
        '{"9": {"candidate_pool_ids": [3, 7, 1], "pointer_candidates": ['
        '{"pointer": [0, 1], "gen_method": "random", "vqa_correct": true, "vqa_acc_score": 1.0},'
        '{"pointer": [0], "gen_method": "random", "vqa_correct": true, "vqa_acc_score": 1.0}]}}'
    )
    with pytest.raises(ValueError, match=r"query 9.*pointer.*2 shots"):
        read_candidates(path)


def test_defect_11_a_substitute_rule_is_never_mixed_in() -> None:
    one = Candidate((0, 1), GenMethod.random, vqa_acc_score=0.3)
    lucky = Candidate((2, 1), GenMethod.random, vqa_acc_score=1.0, vqa_eval_mode="fallback")
    judge = Judge([CandidateRecord(9, POOL, (one, lucky))])
    ids = torch.tensor([[[0, 1], [2, 1]]])
    actions = Actions(ids, torch.ones_like(ids, dtype=torch.bool))
    assert Soft(judge)([SlateQuery(9, POOL)], actions) == [[0.3, None]]


def test_defect_11_weights_that_do_not_fit_are_refused() -> None:
    state: dict[str, Any] = selector().state_dict()
    del state["log_scale"]
    with pytest.raises(RuntimeError, match="log_scale"):
        selector().load_state_dict(state)
