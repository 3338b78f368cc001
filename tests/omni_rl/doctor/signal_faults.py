"""Faults of weights, reference, rewards and prompts, planted in the same thinker as media's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from core_rl.config import DoctorConfig
from core_rl.doctor.degeneration import RewardWatch
from core_rl.doctor.findings import Finding
from core_rl.doctor.weights import reference_findings, weight_findings
from core_rl.hf.encoded_prompt import EncodedPrompt
from core_rl.types import Actions, RewardTable
from omni_rl.data.record import Record
from omni_rl.doctor.gate import examine
from omni_rl.doctor.media_probes import Probe
from omni_rl.policy.policy import OmniPolicy

Find = Callable[[OmniPolicy, Sequence[Record]], list[Finding]]
PROBE = Probe(max_new=4)


def _stale(policy: OmniPolicy, records: Sequence[Record]) -> list[Finding]:
    """Draw with the weights of an earlier step, as an engine that was not told."""
    engine = OmniPolicy(copy.deepcopy(policy.model), policy.processor, policy.config)

    def drawn(prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0) -> Actions:
        engine.max_completion = policy.max_completion
        return engine.sample(engine.encode(prompt.queries), num_candidates, temperature)

    policy.sample = drawn  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.get_decoder().parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return examine(policy, records, PROBE)


def _other_template(policy: OmniPolicy, records: Sequence[Record]) -> list[Finding]:
    """Render chats by a template that never hands over to the assistant."""
    tokenizer = copy.deepcopy(policy.processor.tokenizer)
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "{%- if add_generation_prompt -%}", "{%- if false -%}"
    )
    processor = replace(policy.processor, tokenizer=tokenizer)
    return examine(OmniPolicy(policy.model, processor, policy.config), records, PROBE)


def _nan(policy: OmniPolicy, records: Sequence[Record]) -> list[Finding]:
    with torch.no_grad():
        next(policy.model.get_decoder().parameters()).view(-1)[0] = torch.nan
    return weight_findings(policy)


def _frozen(policy: OmniPolicy, records: Sequence[Record]) -> list[Finding]:
    policy.requires_grad_(False)
    return weight_findings(policy)


def _aliased(policy: OmniPolicy, records: Sequence[Record]) -> list[Finding]:
    return reference_findings(policy, policy)


def _constant_reward(policy: OmniPolicy, records: Sequence[Record]) -> list[Finding]:
    """Give every candidate of a stretch of training the same reward."""
    limits = DoctorConfig()
    watch = RewardWatch(limits)
    values = torch.full((1, limits.flat_groups, 4), 0.1)
    flat = torch.zeros(limits.flat_groups, dtype=torch.bool)
    watch.add(RewardTable(("people_focus",), values, values[0]), flat)
    return watch.findings()


# Name, part of the cause that must be named, how it is planted and looked at.
SIGNAL_FAULTS: tuple[tuple[str, str, Find], ...] = (
    ("stale rollout weights", "weights", _stale),
    ("chat template without hand-over", "wrong chat template", _other_template),
    ("NaN weights", "NaN or infinite weights", _nan),
    ("frozen parameters", "frozen parameters", _frozen),
    ("aliased reference", "the reference is aliased", _aliased),
    ("constant reward", "people_focus is 0.1 everywhere", _constant_reward),
)
