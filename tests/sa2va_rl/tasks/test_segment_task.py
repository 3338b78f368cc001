"""Segmenting one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_rl.config import Sa2VAModelConfig
from sa2va_rl.data.features import FEATURES, Standardiser
from sa2va_rl.policy.prompt_selector import PromptSelector
from sa2va_rl.policy.saved import PromptPolicy, save_policy
from sa2va_rl.prompts import PROMPTS
from sa2va_rl.tasks.segment import draw_over, segment
from tests.sa2va_rl.workshop import small_settings


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Always the third prompt."""
    selector = PromptSelector(len(FEATURES), 3, [4])
    selector.layers[-1].bias.data = selector.layers[-1].bias.data.new_tensor([0.0, 0.0, 9.0])
    count = len(FEATURES)
    seen = Standardiser(np.zeros(count, np.float32), np.ones(count, np.float32))
    save_policy(PromptPolicy(selector, seen, PROMPTS[:3], False), tmp_path / "policy")
    return tmp_path / "policy"


def run(folder: Path, image: Path, policy: Path, **model: object) -> dict[str, float]:
    prompts = {"prompts": list(PROMPTS[:3])} | model
    groups = vars(small_settings(folder, model=Sa2VAModelConfig(**prompts)))  # type: ignore[arg-type]
    return segment(folder, 0, str(image), str(policy), **groups)


def test_the_outline_is_painted_and_the_inside_tinted() -> None:
    image_HWC = np.full((7, 7, 3), 100, dtype=np.uint8)
    mask_HW = np.zeros((7, 7), dtype=bool)
    mask_HW[1:6, 1:6] = True
    drawn_HWC = draw_over(image_HWC, mask_HW)
    assert drawn_HWC[0, 0].tolist() == [100, 100, 100]
    assert drawn_HWC[1, 1].tolist() == [255, 60, 40]
    assert drawn_HWC[3, 3].tolist() == [154, 86, 79]


def test_a_grey_picture_gets_mask_overlay_and_choice(policy: Path, tmp_path: Path) -> None:
    grey = np.full((64, 64), 180, dtype=np.uint8)
    grey[:, 30:33] = 90
    Image.fromarray(grey).save(tmp_path / "one.png")
    found = run(tmp_path / "out", tmp_path / "one.png", policy)
    assert found["prompt"] == 2
    assert found["probability"] > 0.99
    mask_HW = np.asarray(Image.open(tmp_path / "out" / "mask.png")) > 0
    assert mask_HW.mean() == pytest.approx(found["covered"])
    assert mask_HW[20:40, 31].all()
    assert (tmp_path / "out" / "overlay.png").is_file()
    assert PROMPTS[2] in (tmp_path / "out" / "choice.json").read_text()


def test_what_cannot_be_segmented_is_named(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no picture at"):
        run(tmp_path, tmp_path / "none.png", policy)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        run(tmp_path, tmp_path / "text.png", policy)
    Image.new("RGB", (64, 64)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="2 given, the policy chooses among 3"):
        run(tmp_path, tmp_path / "one.png", policy, prompts=["one", "two"])
    with pytest.raises(FileNotFoundError, match=r"train one by \+exp=sa2va_ppo"):
        run(tmp_path, tmp_path / "one.png", tmp_path / "nowhere")
