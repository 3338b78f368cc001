"""The gate clears a healthy policy whatever sizes of its media and of its prompt coincide."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core_rl.doctor.findings import Verdict
from core_rl.doctor.hf.checks import check_policy
from omni_rl.data.record import Record
from omni_rl.doctor.gate import probe_records
from omni_rl.policy.policy import OmniPolicy


def of_length(policy: OmniPolicy, record: Record, tokens: int) -> Record:
    """Lengthen a question until its prompt has so many tokens."""
    while (short := tokens - policy.collate([record])["input_ids"].shape[1]) > 0:
        record = replace(record, problem=record.problem + " people" * short)
    return record


@pytest.mark.parametrize(
    ("side", "name", "axis"), [(56, "input_features", 2), (84, "pixel_values_videos", 0)]
)
def test_a_prompt_may_have_as_many_tokens_as_its_media_have_frames_or_patches(
    fresh_policy, splits, side: int, name: str, axis: int
) -> None:
    policy = fresh_policy(early=False)
    media = replace(policy.config.media, min_pixels=side**2, max_pixels=side**2)
    policy = OmniPolicy(policy.model, policy.processor, replace(policy.config, media=media))
    record, other = probe_records(splits.train)
    inputs = policy.collate([record])
    least = inputs["input_ids"].shape[1]
    tensors = [
        value
        for key, value in inputs.items()
        if isinstance(value, Tensor) and key not in ("input_ids", *policy.per_token)
    ]
    sizes = sorted({size for value in tensors for size in value.shape if least <= size < 300})
    assert inputs[name].shape[axis] in sizes
    for tokens in sizes:
        asked = of_length(policy, record, tokens)
        assert policy.collate([asked])["input_ids"].shape[1] == tokens
        torch.manual_seed(0)
        found = check_policy(policy, [asked, other], max_new=4)
        assert [item for item in found if item.verdict is Verdict.fail] == []
