"""Prompt selection on the shared loop: prompts of one picture are a group of candidates.

An RCE phase learns from the reward of every prompt.  A GRPO phase samples prompts and learns from
their advantages within the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from safetensors.torch import load_file

from core_rl.config import PhaseKind
from core_rl.hardware import prepare
from core_rl.loop.batches import shuffled_batches
from core_rl.loop.continuation import Later
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.objective.rewards import WeightedReward
from core_rl.run.fit import Hooks, fit
from core_rl.types import Batch
from sa2va_rl.config import RewardMode, SelectorConfig
from sa2va_rl.data.features import Standardiser
from sa2va_rl.learning.policy_run import PolicyRun
from sa2va_rl.policy.prompt_selector import Look, PromptSelector, VerdictReward, every_prompt
from sa2va_rl.policy.saved import WEIGHTS, PromptPolicy, save_policy
from sa2va_rl.rewards.verdicts import Verdict, Verdicts, check_judged

VAL_BATCH = 256
GRPO_VERSION = 2  # raise when a trained policy changes


def fit_selector(run: PolicyRun) -> PromptPolicy:
    """Train through the phases of the curriculum; return and write the best policy (`final_model`).

    The best policy is that with the highest validation reward.
    """
    settings, trainer = run.settings, run.settings.trainer
    prepare(settings.hardware, run.seed)
    queries, held = _looks(run.train, run.standardiser), _looks(run.val, run.standardiser)
    width = min(trainer.batch_size, len(queries))
    selector = PromptSelector(
        run.standardiser.mean_D.size, len(run.train.prompts), settings.selector.hidden
    )
    # Indices of validation pictures follow those of the training pictures.
    held = [Look(look.picture + len(queries), look.features_D) for look in held]
    module = GroupPolicyModule(
        selector,
        _reward(settings.selector, run),
        Curriculum.resolve(settings.curriculum, max(1, len(queries) // width), trainer.max_steps),
        settings,
        FreshSampler(settings.rollout.num_generations),
    )

    def stream(phase: Phase) -> Iterator[Batch | Later]:
        for batch in shuffled_batches(queries, width, run.seed):
            every = partial(_all_prompts, module, batch)
            yield Later(batch, every) if phase.config.kind is PhaseKind.rce else batch

    def policy_of(net: PromptSelector) -> PromptPolicy:
        return PromptPolicy(net, run.standardiser, run.train.prompts, sees_progress=False)

    hooks = Hooks(
        save=lambda target, _: save_policy(policy_of(selector), target),
        restore=lambda best: selector.load_state_dict(load_file(best / WEIGHTS)),
        describe=lambda look: {"picture": look.picture},
        final="final_model",
    )
    batches = [held[start : start + VAL_BATCH] for start in range(0, len(held), VAL_BATCH)]
    fit(module, stream, batches, run.folder, hooks)
    return policy_of(selector.cpu().eval())


@torch.no_grad()
def _all_prompts(module: GroupPolicyModule, looks: Sequence[Look]) -> Any:
    prompt = module.policy.encode(looks)
    return module.judge(looks, every_prompt(module.policy, prompt, looks, 1.0))


def _looks(verdicts: Verdicts, standardiser: Standardiser) -> list[Look]:
    return [Look(b, seen_D) for b, seen_D in enumerate(standardiser(verdicts.features_BD))]


def _reward(config: SelectorConfig, run: PolicyRun) -> WeightedReward:
    """Build the reward of the mode; the other score gets weight 0 and is logged only."""
    check_judged(run.train, config.reward)
    first = len(run.train.samples)

    def both(place: int, prompt: int) -> Verdict:
        return run.train(place, prompt) if place < first else run.val(place - first, prompt)

    share = {RewardMode.reward_net: 0.0, RewardMode.gt_dice: 1.0, RewardMode.mix: config.dice_share}
    weights = {"reward_net": 1 - share[config.reward], "gt_dice": share[config.reward]}
    functions = {
        "reward_net": VerdictReward(both),
        "gt_dice": VerdictReward(both, use_truth=True),
    }
    # Pictures without masks are allowed here, so unknown Dice is no reason for a warning.
    return WeightedReward(functions, weights, max_unjudged=1.0)
