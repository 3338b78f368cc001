"""Segment one picture with the prompt that a policy chooses for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from core_rl.files import write_json
from sa2va_rl.data.pictures import read_image
from sa2va_rl.learning.policy_stages import learn_ppo, open_inputs
from sa2va_rl.learning.stages import open_masks
from sa2va_rl.policy.saved import PromptPolicy, load_policy
from sa2va_rl.segmenters.mask_cache import Mask
from sa2va_rl.settings import Settings

log = logging.getLogger(__name__)

PAINT = np.array([255, 60, 40])
SHARE = 0.35  # opacity of the paint inside the mask; the outline is opaque


def segment(
    folder: Path, seed: int, image: str, policy: str | None, **groups: Any
) -> dict[str, float]:
    """Segment a picture, and write the mask and the picture with the mask drawn on it.

    Args:
        folder: of the run, for `mask.png` (0 and 255), `overlay.png` and `choice.json`.
        seed: of a policy that is trained here; added to the seed of `trainer.seeds`.
        image: file of the picture.
        policy: folder of a trained policy (`final_model`); None trains PPO on the configured
            pictures, or reuses a finished policy.
        groups: the fields of `sa2va_rl.settings.Settings`.

    Returns:
        `prompt`, the index of the chosen one, its `probability`, and `covered`, the share of the
        picture that the mask covers.

    Raises:
        FileNotFoundError: no such picture, or no policy in the folder.
        ValueError: the file is no picture, the policy was trained with other prompts, or
            `trainer.resume` is set.
    """
    settings = Settings(**groups)
    settings.refuse_resume()
    image_HWC = read_image(Path(image).expanduser())
    chooser = _policy(settings, seed, policy)
    choice = chooser.look_at(image_HWC)
    prompt = settings.prompts[choice.place]
    mask_HW = open_masks(settings)(image_HWC, prompt)
    log.info("prompt %d (%.0f %%): %s", choice.place, 100 * choice.probability, prompt)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask_HW.astype(np.uint8) * 255).save(folder / "mask.png")
    Image.fromarray(draw_over(image_HWC, mask_HW)).save(folder / "overlay.png")
    found = {
        "prompt": float(choice.place),
        "probability": choice.probability,
        "covered": float(mask_HW.mean()),
    }
    write_json(folder / "choice.json", {**found, "prompt": prompt, "image": str(image)})
    return found


def _policy(settings: Settings, seed: int, folder: str | None) -> PromptPolicy:
    if folder is not None:
        return load_policy(Path(folder), settings.prompts)
    log.info("policy=null: training a policy, unless a finished one is found")
    inputs = open_inputs(settings, seed + settings.trainer.seeds[0])
    return learn_ppo(inputs, settings.ppo).policy


def draw_over(image_HWC: NDArray[np.uint8], mask_HW: Mask) -> NDArray[np.uint8]:
    """Tint the pixels of the mask and draw its outline."""
    outline_HW = mask_HW & ~ndimage.binary_erosion(mask_HW)
    share_HW1 = np.where(outline_HW, 1.0, np.where(mask_HW, SHARE, 0.0))[:, :, None]
    return np.rint(image_HWC * (1 - share_HW1) + PAINT * share_HW1).astype(np.uint8)
