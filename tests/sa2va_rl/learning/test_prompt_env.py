"""The environment: what is seen, what is paid, and what is only told."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest

from sa2va_rl.config import EnvConfig, RewardMode
from sa2va_rl.data.features import FEATURES, Standardiser, features_of
from sa2va_rl.data.files import Sample
from sa2va_rl.learning.prompt_env import PromptEnv
from sa2va_rl.prompts import PROMPTS
from sa2va_rl.rewards.verdicts import Verdicts
from tests.sa2va_rl.rows import Rows, samples, share


def environment(pictures: list[Sample] | None = None, **config: Any) -> PromptEnv:
    pictures = samples() if pictures is None else pictures
    standardiser = Standardiser.fit([features_of(sample.image_HWC) for sample in pictures])
    return PromptEnv(Verdicts(pictures, PROMPTS, Rows(), share), standardiser, EnvConfig(**config))


def act(env: PromptEnv, *actions: int, picture: int = 2) -> list[tuple[float, bool, dict]]:
    env.reset(options={"picture": picture})
    done = []
    for action in actions:
        _, reward, terminated, _, info = env.step(np.int64(action))
        done.append((reward, terminated, info))
    return done


@pytest.mark.parametrize("max_steps", [1, 3])
def test_gymnasium_and_stable_baselines_accept_it(max_steps: int) -> None:
    from gymnasium.utils.env_checker import check_env as check_gymnasium
    from stable_baselines3.common.env_checker import check_env as check_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*spec.*")  # made by hand, not by its name
        check_gymnasium(environment(max_steps=max_steps), skip_render_check=True)
        check_sb3(environment(max_steps=max_steps))


def test_spaces() -> None:
    env = environment()
    assert env.action_space == gymnasium.spaces.Discrete(11)
    assert env.observation_space.shape == (len(FEATURES) + 1,)


def test_the_judge_pays_and_the_truth_is_told() -> None:
    ((reward, terminated, info),) = act(environment(), 8)
    assert terminated
    assert reward == info["reward_net_score"] == info["best_reward"] == pytest.approx(8 / 16)
    assert info["gt_dice"] == pytest.approx(2 * 3 / (8 + 3))
    assert (info["picture"], info["prompt"], info["best_prompt"]) == (2, 8, 8)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"reward": RewardMode.gt_dice}, 6 / 11),
        ({"reward": RewardMode.mix, "dice_share": 0.25}, 0.25 * 6 / 11 + 0.75 * 0.5),
        ({"centre": True}, (8 - 5) / 16),  # the mean over prompts is 5 / 16
        ({"centre": True, "scale": 10.0}, 10 * (8 - 5) / 16),
    ],
)
def test_what_an_action_is_paid(config: dict[str, Any], expected: float) -> None:
    ((reward, _, _),) = act(environment(**config), 8)
    assert reward == pytest.approx(expected)


def test_centred_rewards_of_a_picture_sum_to_nothing() -> None:
    env = environment(centre=True)
    assert sum(act(env, prompt)[0][0] for prompt in range(11)) == pytest.approx(0)


@pytest.mark.parametrize("centre", [False, True])
def test_several_steps_keep_the_best(centre: bool) -> None:
    steps = act(environment(max_steps=4, centre=centre), 4, 2, 9, 9)
    start = 5 / 16 if centre else 0.0
    assert [reward for reward, _, _ in steps] == pytest.approx([4 / 16 - start, 0, 5 / 16, 0])
    assert [done for _, done, _ in steps] == [False, False, False, True]
    assert [info["best_prompt"] for _, _, info in steps] == [4, 4, 9, 9]
    assert [info["best_reward"] for _, _, info in steps] == [4 / 16, 4 / 16, 9 / 16, 9 / 16]


def test_progress_is_the_share_of_steps_done() -> None:
    env = environment(max_steps=2)
    seen, _ = env.reset(options={"picture": 0})
    assert seen[-1] == 0
    assert [env.step(np.int64(0))[0][-1] for _ in range(2)] == [0.5, 1.0]


def test_pictures_are_drawn_without_replacement() -> None:
    env = environment()
    first = [env.reset(seed=3)[1]["picture"], *(env.reset()[1]["picture"] for _ in range(9))]
    assert sorted(first[:5]) == sorted(first[5:]) == [0, 1, 2, 3, 4]
    again = [env.reset(seed=3)[1]["picture"], *(env.reset()[1]["picture"] for _ in range(9))]
    assert again == first


def test_asking_for_a_picture_leaves_the_order_alone() -> None:
    env, other = environment(), environment()
    drawn = [env.reset(seed=1)[1]["picture"]]
    env.reset(options={"picture": 4})
    drawn += [env.reset()[1]["picture"] for _ in range(4)]
    assert drawn == [other.reset(seed=1)[1]["picture"]] + [
        other.reset()[1]["picture"] for _ in range(4)
    ]


def test_the_truth_changes_nothing_that_is_seen_or_paid() -> None:
    with_truth, without = environment(samples()), environment(samples(truth=False))
    for env in (with_truth, without):
        env.reset(seed=0)
    for action in (1, 7, 4):
        (seen, _), (other, _) = with_truth.reset(), without.reset()
        np.testing.assert_array_equal(seen, other)
        left, right = with_truth.step(np.int64(action)), without.step(np.int64(action))
        np.testing.assert_array_equal(left[0], right[0])
        assert left[1] == right[1]
        assert np.isnan(right[4]["gt_dice"])


def test_each_mask_is_judged_once() -> None:
    masks = Rows()
    pictures = samples()
    verdicts = Verdicts(pictures, PROMPTS, masks, share)
    standardiser = Standardiser.fit([features_of(sample.image_HWC) for sample in pictures])
    envs = [PromptEnv(verdicts, standardiser, EnvConfig(centre=True)) for _ in range(2)]
    for env in envs:
        for picture in range(5):
            act(env, 3, picture=picture)
    assert masks.calls == 5 * 11


def test_rewards_that_lack_what_they_need() -> None:
    pictures = samples()
    standardiser = Standardiser.fit([features_of(sample.image_HWC) for sample in pictures])
    with pytest.raises(ValueError, match="reward_net: needs a reward network; train one"):
        PromptEnv(Verdicts(pictures, PROMPTS, Rows()), standardiser, EnvConfig())
    bare = Verdicts(samples(truth=False), PROMPTS, Rows(), share)
    with pytest.raises(ValueError, match="5 pictures have no mask, the first s0"):
        PromptEnv(bare, standardiser, EnvConfig(reward=RewardMode.mix))
    with pytest.raises(ValueError, match="at least one"):
        Verdicts([], PROMPTS, Rows())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_steps": 0}, r"env\.max_steps=0"),
        ({"scale": 0.0}, r"env\.scale=0\.0"),
        ({"dice_share": 1.5}, r"env\.dice_share=1\.5"),
    ],
)
def test_settings_out_of_range(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvConfig(**config)
