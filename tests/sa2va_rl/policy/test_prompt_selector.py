"""The prompt policy of the shared loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sa2va_rl.data.files import Sample
from sa2va_rl.policy.prompt_selector import Look, PromptSelector, VerdictReward, every_prompt
from sa2va_rl.rewards.verdicts import Verdicts


def looks(count: int = 3, size: int = 5) -> list[Look]:
    features_BD = np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)
    return [Look(picture, features_D) for picture, features_D in enumerate(features_BD)]


def selector() -> PromptSelector:
    torch.manual_seed(0)
    policy = PromptSelector(num_features=5, num_prompts=4, hidden=(8,))
    torch.nn.init.normal_(policy.layers[-1].weight)  # decided, so that prompts differ
    return policy


def test_it_starts_undecided() -> None:
    policy = PromptSelector(5, 4)
    probability_BK = policy.encode(looks()).softmax(-1)
    torch.testing.assert_close(probability_BK, torch.full((3, 4), 0.25), atol=0.03, rtol=0)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_draws_are_scored_as_they_were_drawn(temperature: float) -> None:
    policy = selector()
    prompt = policy.encode(looks())
    actions = policy.sample(prompt, 6, temperature)
    assert actions.ids_BGT.shape == (3, 6, 1)
    scored = policy.log_probs(prompt, actions, temperature)
    assert actions.logp_BGT is not None
    torch.testing.assert_close(scored.logp_BGT, actions.logp_BGT)
    assert scored.all_logp_BGTK is not None
    torch.testing.assert_close(scored.all_logp_BGTK.exp().sum(-1), torch.ones(3, 6, 1))


def test_draws_follow_the_probabilities() -> None:
    policy = selector()
    prompt = policy.encode(looks(1))
    drawn = policy.sample(prompt, 20_000).ids_BGT.flatten()
    share = torch.bincount(drawn, minlength=4) / 20_000
    torch.testing.assert_close(share, prompt[0].softmax(-1).detach(), atol=0.02, rtol=0)


def test_temperature_zero_takes_the_most_probable() -> None:
    policy = selector()
    prompt = policy.encode(looks())
    ids_BGT = policy.sample(prompt, 2, temperature=0.0).ids_BGT
    assert ids_BGT[..., 0].tolist() == [[best] * 2 for best in prompt.argmax(-1).tolist()]


def test_every_prompt_is_one_group() -> None:
    policy, queries = selector(), looks()
    actions = every_prompt(policy, policy.encode(queries), queries, 1.0)
    assert actions.ids_BGT[..., 0].tolist() == [[0, 1, 2, 3]] * 3
    assert actions.logp_BGT is None
    total = policy.log_probs(policy.encode(queries), actions).logp_BGT.exp().sum(1)
    torch.testing.assert_close(total, torch.ones(3, 1))


def test_a_frozen_copy_stays() -> None:
    policy = selector()
    copy = policy.frozen_copy()
    before = copy.encode(looks())
    with torch.no_grad():
        policy.layers[-1].bias.add_(torch.arange(4.0))
    torch.testing.assert_close(copy.encode(looks()), before)
    assert not any(p.requires_grad for p in copy.parameters())


def test_choices_are_paid_by_judge_or_truth() -> None:
    image_HWC = np.zeros((4, 4, 3), dtype=np.uint8)
    truth_HW = np.eye(4, dtype=bool)
    samples = [Sample("a", image_HWC, truth_HW, "a"), Sample("b", image_HWC, None, "b")]
    verdicts = Verdicts(
        samples,
        ("exact", "all"),
        lambda image_HWC, prompt: truth_HW if prompt == "exact" else ~np.zeros((4, 4), bool),
        lambda image_HWC, mask_HW: float(mask_HW.mean()),
    )
    queries = looks(2)
    policy = PromptSelector(5, 2)
    actions = every_prompt(policy, policy.encode(queries), queries, 1.0)
    assert VerdictReward(verdicts)(queries, actions) == [[0.25, 1.0], [0.25, 1.0]]
    assert VerdictReward(verdicts, use_truth=True)(queries, actions) == [
        [1.0, pytest.approx(0.4)],
        [None, None],
    ]
