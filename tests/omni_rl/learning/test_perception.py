"""Forced choice between the values of a fact."""

from __future__ import annotations

import pytest
import torch

from omni_rl.data import scenes
from omni_rl.learning.perception import perceived

EXPECTED_SLOTS = {"colour", "voice", "gesture", "expression", "count"}


@pytest.fixture(scope="module")
def policy(fresh_policy):
    return fresh_policy(early=False)


def choose(policy, record, slot: str) -> str:
    """The value whose telling, token by token and without an end, is the most probable."""
    before = []
    for clause in scenes.clauses(scenes.scene_of(record)):
        before.append(clause)
        if record.facts[slot] in clause.split():
            break
    scored = {}
    for value in scenes.SLOTS[slot]:
        words = [value if w == record.facts[slot] else w for w in before[-1].split()]
        text = f"<context>{', '.join([*before[:-1], ' '.join(words)])}"
        ids = torch.tensor(policy.tokenizer(text)["input_ids"]).unsqueeze(0)
        inputs = policy.collate([record])
        start = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = policy.model(**inputs).logits[0, start - 1 : -1]
        logits[:, policy.suppress_ids] = float("-inf")
        scored[value] = logits.log_softmax(-1).gather(1, ids.T).sum().item()
    return max(scored, key=scored.__getitem__)


def test_the_share_of_true_values_that_are_the_most_probable(policy, splits) -> None:
    told = splits.test[1::2]
    shares = perceived(policy, told, batch_size=3)
    assert shares.keys() == EXPECTED_SLOTS
    for slot, share in shares.items():
        asked = [record for record in told if slot in record.facts]
        right = [choose(policy, record, slot) == record.facts[slot] for record in asked]
        assert share == pytest.approx(sum(right) / len(asked)), slot


def test_only_facts_that_occur_are_asked_for(policy, splits) -> None:
    social = [record for record in splits.val if record.source == "social_iq"]
    instruction = splits.test[-1]
    assert instruction.facts == {}
    shares = perceived(policy, [*social, instruction])
    assert shares.keys() == {"colour", "voice", "gesture"}
    assert all(share in (0.0, 0.5, 1.0) for share in shares.values())
