"""Policies on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sa2va_rl.data.features import FEATURES, Standardiser
from sa2va_rl.policy.prompt_selector import PromptSelector
from sa2va_rl.policy.saved import PromptPolicy, load_policy, save_policy

PROMPTS = ("one", "two", "three")


def policy(sees_progress: bool = False) -> PromptPolicy:
    torch.manual_seed(0)
    selector = PromptSelector(len(FEATURES) + sees_progress, len(PROMPTS), (8, 4))
    torch.nn.init.normal_(selector.layers[-1].weight)
    return PromptPolicy(selector, Standardiser.fit(seen(20)), PROMPTS, sees_progress)


def seen(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.normal(3, 2, (count, len(FEATURES))).astype(np.float32)


@pytest.mark.parametrize("sees_progress", [False, True])
def test_a_policy_comes_back_as_it_was(sees_progress: bool, tmp_path: Path) -> None:
    own = policy(sees_progress)
    save_policy(own, tmp_path)
    again = load_policy(tmp_path, PROMPTS)
    np.testing.assert_array_equal(own.probabilities(seen(9)), again.probabilities(seen(9)))
    assert again.sees_progress is sees_progress
    np.testing.assert_allclose(again.probabilities(seen(9)).sum(axis=1), 1)


def test_a_choice_is_the_most_probable_prompt() -> None:
    image_HWC = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    choice = policy().look_at(image_HWC)
    assert 1 / 3 < choice.probability < 1
    assert 0 <= choice.place < 3


def test_prompts_of_another_list_are_refused(tmp_path: Path) -> None:
    save_policy(policy(), tmp_path)
    with pytest.raises(ValueError, match="2 given, the policy chooses among 3"):
        load_policy(tmp_path, ("one", "two"))
    with pytest.raises(ValueError, match="are not those of the policy"):
        load_policy(tmp_path, ("one", "two", "four"))


def test_what_is_missing_or_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"policy\.safetensors is missing; train one"):
        load_policy(tmp_path)
    save_policy(policy(), tmp_path)
    weights = load_file(tmp_path / "policy.safetensors")
    weights["layers.0.weight"] = weights["layers.0.weight"][:, :-1].clone()
    save_file(weights, tmp_path / "policy.safetensors")
    with pytest.raises(ValueError, match=r"does not fit policy\.json"):
        load_policy(tmp_path)
