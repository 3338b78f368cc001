"""Completions of many records, and the look at one before the first step."""

from __future__ import annotations

import pytest

from omni_rl.config import Blank
from omni_rl.policy.rollout import (
    batched,
    describe_first,
    folded,
    folded_text,
    greedy_texts,
)


@pytest.fixture(scope="module")
def policy(fresh_policy):
    return fresh_policy()


def test_batches_keep_order_and_leave_nothing_out(splits) -> None:
    batches = list(batched(splits.train, 4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [record for batch in batches for record in batch] == splits.train


def test_the_size_of_a_batch_changes_no_text(policy, records) -> None:
    texts = greedy_texts(policy, records, batch_size=1)
    assert texts == greedy_texts(policy, records, batch_size=3)
    assert len(texts) == len(records)


@pytest.mark.parametrize("record", range(4))
def test_the_first_look_shows_everything_the_policy_is_given(policy, records, record: int) -> None:
    asked = records[record]
    shown = describe_first(policy, asked)
    assert asked.id in shown and asked.origin in shown
    assert asked.problem in shown and policy.config.system_prompt in shown
    assert str(asked.videos[0]) in shown
    for option in asked.options:
        assert option in shown
    inputs = policy.collate([asked])
    assert f"ids: {folded(inputs['input_ids'][0].tolist())}" in shown
    assert f"mask: [1 x {inputs['attention_mask'].sum():,}]" in shown
    assert "'pixel_values_videos'" in shown and "'input_features'" in shown
    assert "use_audio_in_video=False" in shown
    videos = int((inputs["input_ids"] == video_id(policy)).sum())
    assert f"<|VIDEO|> x {videos:,}<" in shown and shown.count("<|VIDEO|>") == 1


def test_runs_of_placeholders_are_folded() -> None:
    prompt = f"<|vision_bos|>{'<|VIDEO|>' * 4032}<|vision_eos|><|AUDIO|>"
    assert folded_text(prompt) == "<|vision_bos|><|VIDEO|> x 4,032<|vision_eos|><|AUDIO|>"
    assert folded([7, 1, 1, 1, 2, 2, 2, 2]) == "[7, 1, 1, 1, 2 x 4]"


def video_id(policy) -> int:
    return policy.tokenizer.convert_tokens_to_ids("<|VIDEO|>")


def test_media_are_looked_at(fresh_policy, records) -> None:
    """A model without its media says something else, if only because it knows nothing."""
    seeing, blind = fresh_policy(early=False), fresh_policy(early=False).blank(Blank.all)
    for policy in (seeing, blind):
        policy.whiten_towers(records)
    assert greedy_texts(seeing, records) != greedy_texts(blind, records)
