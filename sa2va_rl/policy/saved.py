"""A trained prompt policy on disk: weights as safetensors, the rest as JSON, no pickle.

PPO's actor and the shared loop's selector have the same architecture and are stored alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from core_rl.files import write_json
from core_rl.sealed import check_whole
from sa2va_rl.data.features import FEATURES, Floats, Standardiser, features_of, observation
from sa2va_rl.policy.baselines import Choices
from sa2va_rl.policy.prompt_selector import PromptSelector
from sa2va_rl.prompts import check_prompts

WEIGHTS = "policy.safetensors"
SETTINGS = "policy.json"
STANDARDISER = "standardiser.json"


@dataclass(frozen=True)
class Choice:
    """The index of a prompt, and its probability under the policy."""

    place: int
    probability: float


@dataclass(frozen=True)
class PromptPolicy:
    """A policy with everything it needs to choose a prompt for a picture.

    Attributes:
        selector: the net.
        standardiser: of the training pictures.
        prompts: texts of the options, in order.
        sees_progress: the input ends with the share of the episode's steps that are done.
    """

    selector: PromptSelector
    standardiser: Standardiser
    prompts: tuple[str, ...]
    sees_progress: bool

    @torch.no_grad()
    def probabilities(self, features_BD: Floats) -> NDArray[np.float64]:
        """Return the probability BK of each prompt.

        Args:
            features_BD: of `features.features_of`, not standardised.
        """
        seen_BD = self.standardiser(features_BD)
        if self.sees_progress:
            seen_BD = np.stack([observation(seen_D, 0.0) for seen_D in seen_BD])
        logits_BK = self.selector.layers(torch.from_numpy(seen_BD))
        return logits_BK.double().softmax(-1).numpy()

    def choose(self, features_BD: Floats) -> Choices:
        """Return the index of each picture's most probable prompt, B."""
        return self.probabilities(features_BD).argmax(axis=1).astype(np.int64)

    def look_at(self, image_HWC: NDArray[np.uint8]) -> Choice:
        """Choose for one picture."""
        probability_K = self.probabilities(features_of(image_HWC)[None])[0]
        place = int(probability_K.argmax())
        return Choice(place, float(probability_K[place]))


def save_policy(policy: PromptPolicy, folder: Path) -> None:
    """Write weights, prompts, sizes and the standardiser."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(policy.selector.state_dict(), folder / WEIGHTS)
    policy.standardiser.save(folder / STANDARDISER)
    settings = {
        "prompts": list(policy.prompts),
        "hidden": policy.selector.hidden,
        "sees_progress": policy.sees_progress,
    }
    write_json(folder / SETTINGS, settings)


def load_policy(folder: Path, prompts: tuple[str, ...] | None = None) -> PromptPolicy:
    """Read what `save_policy` wrote.

    Args:
        folder: of the policy, e.g. `checkpoints/final`.
        prompts: the run's prompts; None = the policy's own.

    Raises:
        FileNotFoundError: the folder holds no policy.
        ValueError: the weights do not fit, or the policy was trained with other prompts.
    """
    for name in (WEIGHTS, SETTINGS, STANDARDISER):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"no policy in {folder}: {name} is missing; train one by +exp=sa2va_ppo"
            )
    check_whole(folder, "policy")
    stored = json.loads((folder / SETTINGS).read_text(encoding="utf-8-sig"))
    own = tuple(stored["prompts"])
    if prompts is not None:
        check_prompts(prompts, expected=len(own))
        if tuple(prompts) != own:
            raise ValueError(
                f"model.prompts are not those of the policy in {folder}: use its list or train a "
                "new policy"
            )
    sees_progress = bool(stored["sees_progress"])
    selector = PromptSelector(len(FEATURES) + sees_progress, len(own), stored["hidden"])
    try:
        selector.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit {SETTINGS}: {error}") from error
    return PromptPolicy(selector, Standardiser.load(folder / STANDARDISER), own, sees_progress)
