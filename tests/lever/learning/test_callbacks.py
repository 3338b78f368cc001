from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from core_rl.config import CurriculumConfig, PhaseConfig, PhaseKind, RewardConfig
from core_rl.hardware import own_randomness
from core_rl.types import Actions
from lever.candidates.beam_groups import beam_group
from lever.candidates.beams import Beam, BeamRecord
from lever.features.slate_features import SlateQuery, mean_features
from lever.learning import callbacks as watch
from lever.learning.callbacks import FreezeBackbone, HighestDrawn, Kept, LowestKL, drawn_reward
from lever.learning.fit_selector import KEPT, kept_by, learn
from lever.learning.stages import Workshop, reads
from lever.model_config import Best, LeverModelConfig, PhaseData
from lever.policy.selectors import MetricSelector, PointerSelector
from lever.policy.slate_policy import SlatePolicy, SlatePrompt
from lever.rewards.build import build_reward
from lever.rewards.judges import build_judge
from tests.lever.data.test_datasets import load, small_config
from tests.lever.training import train
from tests.lever.workshop import OFFLINE, REFRESH, SFT, small_settings

DATA = load(small_config())
PUBLISHED = {
    "lever/ppo_loss",
    "lever/kl_loss",
    "lever/mean_ratio",
    "lever/mean_advantage",
    "lever/advantage_spread",
    "lever/start_log_ratio",
}


class Logged(Callback):
    """Every value that was logged, by name."""

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {}

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        for name, value in trainer.callback_metrics.items():
            self.seen.setdefault(name, []).append(float(value))


def trained(
    folder: Path,
    policy: SlatePolicy | None = None,
    plan: CurriculumConfig = REFRESH,
    precision: str = "32-true",
) -> Logged:
    """Train by GRPO on a small world and return what was logged."""
    small = small_settings(folder)
    hardware = replace(small.hardware, precision=precision)
    with Workshop.open(replace(small, hardware=hardware), seed=0) as shop:
        model = policy or shop.selector()
        records = shop.rl_data(None) if reads(plan, PhaseData.stored) else {}
        judge = build_judge(shop.data, shop.setup.answerer, records.values())
        reward = build_reward(shop.settings.reward, judge, shop.data, model.features)
        kept, lessons = Logged(), replace(shop.lessons, records=records)
        learn(
            model, lessons, reward, replace(shop.settings, curriculum=plan), folder / "run", [kept]
        )
    return kept


def test_the_published_metrics_are_logged_by_name(tmp_path: Path) -> None:
    kept = trained(tmp_path)
    assert kept.seen.keys() >= PUBLISHED | {"lever/val_loss"}
    assert max(kept.seen["lever/start_log_ratio"]) <= 1e-4
    assert kept.seen["lever/mean_ratio"][0] == pytest.approx(1, abs=1e-4)
    # z-scores of a group add up to nothing.
    assert max(map(abs, kept.seen["lever/mean_advantage"])) < 1e-5
    assert max(kept.seen["lever/advantage_spread"]) > 0.5


@pytest.mark.parametrize("plan", [REFRESH, OFFLINE], ids=["fresh", "stored"])
def test_the_ratio_starts_at_1_in_half_precision_too(
    tmp_path: Path, plan: CurriculumConfig
) -> None:
    kept = trained(tmp_path, plan=plan, precision="bf16-mixed")
    assert kept.seen["lever/start_log_ratio"][0] < 1e-4
    assert kept.seen["lever/mean_ratio"][0] == pytest.approx(1, abs=1e-4)


def test_a_sampler_that_scores_otherwise_than_the_training_pass_stops_the_run(
    tmp_path: Path,
) -> None:
    with Workshop.open(small_settings(tmp_path / "other"), seed=0) as shop:
        policy = shop.selector()
    honest = policy.sample

    def stale(prompt: SlatePrompt, count: int, temperature: float = 1.0) -> Actions:
        drawn = honest(prompt, count, temperature)
        assert drawn.logp_BGT is not None
        # As if they came from an older policy.
        return replace(drawn, logp_BGT=drawn.logp_BGT - 0.1) if count > 1 else drawn

    policy.sample = stale  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=r"phase 0 \(fresh\): .* differ by 0\.\d"):
        trained(tmp_path, policy)


def test_beams_become_candidates_whose_reward_is_their_score_or_nothing() -> None:
    queries = [SlateQuery(9, (3, 5, 7)), SlateQuery(8, (1, 2, 3))]
    beams = {
        9: BeamRecord(9, (Beam((7, 3), 1.5), Beam((3, 5), -0.5))),
        8: BeamRecord(8, (Beam((2, 1), 0.25),)),
    }
    group = beam_group(queries, beams, weighed=True)
    assert group.actions.ids_BGT.tolist() == [[[2, 0], [0, 1]], [[1, 0], [0, 0]]]
    assert group.actions.mask_BGT[1].tolist() == [[True, True], [False, False]]
    assert group.rewards.total_BG[0].tolist() == [1.5, -0.5]
    assert group.rewards.total_BG[1].isnan().tolist() == [False, True]
    assert group.mixed_B.tolist() == [True, False]
    alike = beam_group(queries, beams, weighed=False)
    assert torch.equal(alike.rewards.total_BG[0], torch.zeros(2))


def test_a_beam_outside_the_pool_is_named() -> None:
    record = BeamRecord(9, (Beam((4, 3), 1.0),))
    with pytest.raises(ValueError, match=r"query 9: id_list: shots \[4\] are outside"):
        beam_group([SlateQuery(9, (3, 5))], {9: record}, weighed=False)


def test_supervision_raises_the_likelihood_of_the_beams(tmp_path: Path) -> None:
    with Workshop.open(small_settings(tmp_path), seed=0) as shop:
        policy = shop.selector()
        group = beam_group(shop.lessons.train, shop.lessons.beams, weighed=False)

        def likelihood() -> float:
            prompt = policy.encode(group.queries)
            with torch.no_grad():
                return policy.log_probs(prompt, group.actions).logp_BGT.sum().item()

        before = likelihood()
        judge = build_judge(shop.data, shop.setup.answerer)
        reward = build_reward(shop.settings.reward, judge, shop.data, policy.features)
        settings = replace(shop.settings, learn=replace(shop.settings.learn, best=Best.last))
        learn(policy, shop.lessons, reward, settings, tmp_path / "run")
        assert likelihood() > before


class Drawn(Callback):
    """The mean reward of drawn slates at each validation."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.seen.append(float(trainer.callback_metrics["lever/val_drawn"]))


def test_the_pass_whose_drawn_slates_earn_most_is_kept(tmp_path: Path) -> None:
    with Workshop.open(small_settings(tmp_path), seed=0) as shop:
        policy, drawn = shop.selector(), Drawn()
        judge = build_judge(shop.data, shop.setup.answerer, references=True)
        sure = RewardConfig(
            {"sure": {"_target_": "lever.rewards.functions.AnswerProbability"}}, {"sure": 1.0}
        )
        reward = build_reward(sure, judge, shop.data, policy.features)
        # At this rate the last pass is not the best one.
        fast = replace(
            shop.settings,
            trainer=replace(shop.settings.trainer, lr=0.2),
            learn=replace(shop.settings.learn, best=Best.drawn),
        )
        learn(policy, shop.lessons, reward, fast, tmp_path / "run", callbacks=[drawn])
        assert len(drawn.seen) == 4  # the start and three passes
        assert drawn.seen[-1] < max(drawn.seen)
        draws = shop.settings.rollout.num_generations
        kept = drawn_reward(policy, reward, shop.data.val, draws)
        assert kept == pytest.approx(max(drawn.seen), rel=1e-5)


def test_drawing_leaves_the_random_state_of_the_policys_device_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[torch.device] = []

    def noted(device: torch.device) -> AbstractContextManager[None]:
        kept.append(device)
        return own_randomness(device)

    monkeypatch.setattr(watch, "own_randomness", noted)
    with Workshop.open(small_settings(tmp_path), seed=0) as shop:
        policy = shop.selector()
        judge = build_judge(shop.data, shop.setup.answerer)
        reward = build_reward(shop.settings.reward, judge, shop.data, policy.features)
        before = torch.get_rng_state()
        drawn_reward(policy, reward, shop.data.val, 2)
    assert kept == [next(policy.parameters()).device]
    assert torch.equal(torch.get_rng_state(), before)


def test_what_learns_by_reward_is_chosen_by_what_it_draws() -> None:
    assert kept_by(Best.auto, REFRESH) is Best.drawn
    assert kept_by(Best.auto, SFT) is Best.reward
    assert kept_by(Best.kl, SFT) is kept_by(Best.kl, REFRESH) is Best.kl


@pytest.mark.parametrize("rule", [Best.drawn, Best.kl])
def test_a_resumed_run_takes_over_what_a_rule_has_kept(tmp_path: Path, rule: Best) -> None:
    before, now = tmp_path / "before" / KEPT[rule], tmp_path / "now" / KEPT[rule]
    trainer = SimpleNamespace(is_global_zero=True)

    def save(target: Path, metrics: dict[str, float]) -> None:
        target.mkdir(parents=True)
        (target / "policy.json").write_text("{}")

    Kept(before, save).keep(trainer, 0.75)  # type: ignore[arg-type]
    resumed = Kept(now, save, str(before.parent / "last.ckpt"))
    watching = HighestDrawn([], 2, resumed) if rule is Best.drawn else LowestKL(1, resumed)
    watching.on_fit_start(trainer, None)  # type: ignore[arg-type]
    assert resumed.figure == 0.75
    assert (now / "policy.json").is_file() and now.with_name(f"{now.name}.json").is_file()


HEADS = ("query_proj", "pool_proj", "gate")


def moved_by(model: SlatePolicy, kind: PhaseKind, folder: Path) -> set[str]:
    """Train one phase; return the first names of the weights that changed."""
    assert DATA.world is not None
    torch.manual_seed(0)
    before: dict[str, Tensor] = {name: w.clone() for name, w in model.state_dict().items()}
    train(
        model,
        DATA.world,
        DATA.train,
        [PhaseConfig(kind, steps=4)],
        folder,
        callbacks=[FreezeBackbone()],
        lr=0.01,
    )
    after = model.state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def pointer() -> PointerSelector:
    torch.manual_seed(1)
    return PointerSelector(mean_features(DATA.image_ND, DATA.text_ND), LeverModelConfig(width=16))


def test_grpo_moves_the_heads_alone_and_rce_everything(tmp_path: Path) -> None:
    assert moved_by(pointer(), PhaseKind.grpo, tmp_path / "grpo") == set(HEADS)
    assert moved_by(pointer(), PhaseKind.rce, tmp_path / "rce") == {*HEADS, "project", "blocks"}


def test_a_selector_without_a_backbone_is_an_error(tmp_path: Path) -> None:
    model = MetricSelector(mean_features(DATA.image_ND, DATA.text_ND), LeverModelConfig())
    with pytest.raises(ValueError, match="MetricSelector has no backbone"):
        moved_by(model, PhaseKind.grpo, tmp_path)
