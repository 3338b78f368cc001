"""Two processes with unlike media learn, under every strategy, what one process learns of both."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from core_rl.config import HardwareConfig, PhaseKind
from tests.omni_rl.learning import ranks_run
from tests.two_processes import together

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ranks")
    together(ranks_run.__file__, made)
    return made


@cache
def alone(folder: Path, media: str, kind: PhaseKind) -> Weights:
    where = folder / "alone" / media / kind.value
    return ranks_run.learned(where, media, kind, HardwareConfig(), [0, 1])


def apart(one: Weights, other: Weights) -> tuple[float, float]:
    """The largest and the root of the mean squared difference."""
    away = torch.cat([(one[name] - other[name]).flatten() for name in one])
    return float(away.abs().max()), float(away.square().mean().sqrt())


@pytest.mark.parametrize(("media", "strategy", "kind"), list(ranks_run.cases()))
def test_two_processes_learn_what_one_does(
    media: str, strategy: str, kind: PhaseKind, folder: Path
) -> None:
    wanted = alone(folder, media, kind)
    start = dict(ranks_run.start().model.named_parameters())
    _, moved = apart(wanted, {name: p.detach() for name, p in start.items()})
    for rank in (0, 1):
        got = load_file(folder / f"{media} {strategy} {kind.value}" / f"{rank}.safetensors")
        worst, usual = apart(got, wanted)
        assert worst <= 1e-5 and usual <= 1e-3 * moved


def test_a_resumed_zero3_run_learns_what_a_whole_one_does(folder: Path) -> None:
    for rank in (0, 1):
        whole = load_file(folder / "alike zero3 grpo" / f"{rank}.safetensors")
        resumed = load_file(folder / "alike zero3 grpo" / f"resumed {rank}.safetensors")
        assert apart(whole, resumed)[0] <= 1e-6
