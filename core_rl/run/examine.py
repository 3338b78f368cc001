"""The gate's check of a policy where a pipeline has none of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from core_rl.config import DoctorConfig
from core_rl.doctor.agreement import consistency_findings, ratio_findings
from core_rl.doctor.findings import Finding
from core_rl.types import Policy, Query


def examine_policy(
    policy: Policy, queries: Sequence[Query], temperature: float, limits: DoctorConfig
) -> list[Finding]:
    """Draw a few candidates and score them.

    Args:
        policy: as a training step would use it.
        queries: one at least; two show whether they are mixed up.
        temperature: of the run.
        limits: how much to draw.
    """
    if policy.is_language_model:  # importing transformers takes seconds; others do not pay them
        from core_rl.doctor.hf.checks import check_policy
        from core_rl.hf.policy import HFPolicy

        assert isinstance(policy, HFPolicy)
        return check_policy(
            policy,
            queries,
            candidates=limits.candidates,
            temperature=temperature,
            max_new=limits.max_new,
        )
    with torch.no_grad():
        actions = policy.sample(policy.encode(queries), limits.candidates, temperature)
    return [
        *ratio_findings(policy, queries, actions, temperature),
        *consistency_findings(policy, queries, actions, temperature),
    ]
