"""The sum of memory, by hand and against what torch holds."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.text_model import write_model
from benchmarks.workers.our_worker import prompts, text_policy
from core_rl.preflight.memory import (
    Plan,
    checkpoint_bytes,
    host_bytes,
    peak_of,
    standing_bytes,
    step_bytes,
)
from core_rl.preflight.shapes import Shapes, shapes_of

SHAPES = Shapes(
    1000, layers=2, hidden=8, intermediate=12, heads=2, kv_heads=1, head_width=4, vocabulary=10
)


def test_what_stands_is_what_a_hand_adds() -> None:
    plain = standing_bytes(SHAPES, Plan(reference=True))
    assert plain == {"weights": 4000, "optimiser": 8000, "reference": 4000, "buckets": 0}
    two = Plan(weight_bytes=2, masters=True, zero_stage=2, devices=4, trainable=400)
    assert standing_bytes(SHAPES, two) == {
        "weights": 2000,
        "optimiser": 12 * 400 / 4,
        "reference": 0,
        "buckets": 2 * 400 * 2,
    }
    three = Plan(weight_bytes=2, masters=True, zero_stage=3, devices=4, offload=True)
    found = standing_bytes(SHAPES, three)
    assert (found["weights"], found["optimiser"]) == (2500, 0)  # shards, and whole for a step
    ends = 2 * SHAPES.vocabulary * SHAPES.hidden
    kept = standing_bytes(SHAPES, replace(three, reference=True))["reference"]
    assert kept == 2 * (ends + (SHAPES.parameters - ends) / 4)
    assert host_bytes(SHAPES, three) == 12000
    assert standing_bytes(SHAPES, Plan(devices=2))["buckets"] == 4000  # DDP's


def test_a_step_is_what_a_hand_adds() -> None:
    plan = Plan(candidates=3, prompt=5, completion=7, recompute="layers")
    parts = step_bytes(SHAPES, plan)
    assert parts["scoring"]["prompt"] == 4 * 2 * 5 * (8 + 2 * 4)
    assert parts["scoring"]["completions"] == 4 * 21 * (2 * 8 + 3 * 8)
    assert parts["drawing"]["candidates' keys and values"] == 4 * 2 * 2 * 4 * (21 + 5)
    assert parts["backward"]["gradients"] == 4000
    copies = step_bytes(SHAPES, replace(plan, shared=False))
    assert copies["scoring"]["prompt"] == 3 * parts["scoring"]["prompt"]
    assert parts["scoring"]["gradients"] == 4 * 10 * 8  # the head's alone, as yet
    accumulated = step_bytes(SHAPES, replace(plan, accumulates=True))
    assert accumulated["scoring"]["gradients"] == 4000 + 4 * 10 * 8
    assert peak_of(SHAPES, plan) == "scoring"
    assert peak_of(SHAPES, replace(plan, prompt=500)) == "backward"


def test_the_disk_holds_policies_and_a_point_to_resume_from() -> None:
    assert checkpoint_bytes(SHAPES, Plan(), kept=2) == 4 * 4000 + 3 * (4000 + 8000)


class Held(TorchDispatchMode):
    """Count the bytes of storages that operations make, as long as they live."""

    def __init__(self, before: torch.nn.Module) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.known = {p.untyped_storage()._cdata for p in before.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.known and key not in self.sizes:
                    self.sizes[key] = storage.nbytes()
                    weakref.finalize(storage, self.sizes.pop, key, 0)
        return out

    @property
    def held(self) -> int:
        return sum(self.sizes.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recompute", ["auto", "layers", "never"])
def test_what_scoring_keeps_is_foreseen(recompute: str, dtype: torch.dtype, tmp_path: Path) -> None:
    write_model(tmp_path, hidden=128, layers=6)
    policy = text_policy({"model": str(tmp_path), "completion": 48})
    policy.model.to(dtype)
    policy.recompute = recompute
    queries = prompts(512)[:1]
    actions = policy.sample(policy.encode(queries), 6)
    shapes = shapes_of({"path": str(tmp_path)})
    assert shapes is not None
    size = dtype.itemsize
    plan = Plan(
        weight_bytes=size,
        compute_bytes=size,
        candidates=6,
        prompt=512,
        completion=48,
        recompute=recompute,
    )
    foreseen = step_bytes(shapes, plan)["scoring"]
    with Held(policy.model) as memory:
        prompt = policy.encode(queries)
        after_prompt = memory.held
        scores = policy.log_probs(prompt, actions)
        after_scores = memory.held
    assert scores.logp_BGT.requires_grad
    assert after_prompt == pytest.approx(foreseen["prompt"], rel=0.15)
    assert after_scores - after_prompt == pytest.approx(foreseen["completions"], rel=0.15)
