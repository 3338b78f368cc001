"""Greedy completions of many records, and a description of one prompt."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Sequence

import torch

from core_rl.hardware import over_ranks
from omni_rl.data.record import Record
from omni_rl.policy.placeholders import PLACEHOLDERS
from omni_rl.policy.policy import OmniPolicy

log = logging.getLogger(__name__)


def batched(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    """Cut records into batches, in order."""
    for start in range(0, len(records), size):
        yield records[start : start + size]


@torch.no_grad()
def greedy_texts(policy: OmniPolicy, records: Sequence[Record], batch_size: int = 24) -> list[str]:
    """Complete every record with the most probable tokens, each process of the run its share."""

    def complete(share: Sequence[Record]) -> list[str]:
        texts: list[str] = []
        for batch in batched(share, batch_size):
            actions = policy.sample(policy.encode(batch), 1, temperature=0.0)
            texts.extend(group[0] for group in actions.texts)
        return texts

    return over_ranks(records, complete)


@torch.no_grad()
def describe_first(policy: OmniPolicy, record: Record) -> str:
    """Describe the complete input of one record as text, for the log."""
    inputs = policy.collate([record])
    ids = inputs["input_ids"][0]
    media = {
        name: tuple(value.shape)
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor)
    }
    lines = [
        f"record {record.id} from {record.origin}",
        *(f"{turn['role']}: {turn['content']}" for turn in policy.builder.conversation(record)),
        f"tensors: {media}, use_audio_in_video={inputs['use_audio_in_video']}",
        f"prompt: {folded_text(str(policy.tokenizer.decode(ids)))}",
        f"ids: {folded(ids.tolist())}",
        f"mask: {folded(inputs['attention_mask'][0].tolist())}",
    ]
    return "\n".join(lines)


def folded_text(prompt: str) -> str:
    """Write a run of one placeholder as its number: `<|VIDEO|> x 4,032`."""

    def count(run: re.Match[str]) -> str:
        return f"{run.group(1)} x {len(run.group()) // len(run.group(1)):,}"

    return re.sub(rf"({'|'.join(map(re.escape, PLACEHOLDERS.values()))})\1+", count, prompt)


def folded(numbers: Sequence[int]) -> str:
    """Write numbers with runs of four or more as `1 x 4,032`."""
    parts: list[str] = []
    for number, run in itertools.groupby(numbers):
        length = len(list(run))
        parts += [f"{number} x {length:,}"] if length > 3 else [str(number)] * length
    return f"[{', '.join(parts)}]"
