"""Fresh towers speak of every direction alike after whitening."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omni_rl.policy.tower_init import FLOOR, SCALE


def features(policy, records) -> dict[str, Tensor]:
    inputs = policy.collate(records)
    model = policy.model
    with torch.no_grad():
        video = model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        audio = model.get_audio_features(inputs["input_features"], inputs["feature_attention_mask"])
    return {
        "video": torch.cat(list(video.pooler_output)),
        "audio": audio.last_hidden_state.flatten(0, -2),
    }


@pytest.fixture(scope="module")
def before_and_after(fresh_policy, splits) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    policy = fresh_policy()
    records = splits.train
    before = features(policy, records)
    policy.whiten_towers(records)
    return before, features(policy, records)


@pytest.mark.parametrize("tower", ["video", "audio"])
def test_features_have_mean_0_and_one_scale_in_every_direction(
    tower: str, before_and_after
) -> None:
    before, after = (features[tower] for features in before_and_after)
    torch.testing.assert_close(after.mean(0), torch.zeros_like(after[0]), atol=2e-3, rtol=0)
    variance = torch.linalg.eigvalsh(torch.cov(before.T).double()).clamp(min=0)
    floored = variance.clamp(min=FLOOR * variance.max())
    wanted = SCALE**2 * variance / floored
    got = torch.linalg.eigvalsh(torch.cov(after.T).double())
    torch.testing.assert_close(got, wanted.sort().values, atol=0.05 * SCALE**2, rtol=0)
    # What it is for: a few directions held nearly all, and now share it evenly.
    few = len(got) // 8
    assert variance.sort().values[-few:].sum() > 0.5 * variance.sum()
    assert (got > 0.9 * SCALE**2).sum() > 2 * few


def test_clips_stay_as_they_are_told_apart(before_and_after) -> None:
    """Whitening is linear: it loses nothing that the tower said."""
    before, after = (features["audio"] for features in before_and_after)
    assert len(before.unique(dim=0)) == len(after.unique(dim=0))


def test_the_thinker_itself_is_untouched(fresh_policy, splits) -> None:
    policy = fresh_policy()
    start = {name: value.clone() for name, value in policy.model.state_dict().items()}
    policy.whiten_towers(splits.train[:4])
    changed = {
        name
        for name, value in policy.model.state_dict().items()
        if not torch.equal(value, start[name])
    }
    assert len(changed) == 4
    assert all("merger.mlp.2" in name or "audio_tower.proj" in name for name in changed)
