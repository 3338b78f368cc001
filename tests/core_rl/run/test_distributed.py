"""Two processes over gloo learn what one process learns from the same candidates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core_rl.loss_config import Reduction
from tests.core_rl import ddp_run
from tests.two_processes import together

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ddp")
    together(ddp_run.__file__, folder)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("reduction", [Reduction.dapo, Reduction.bnpo])
def test_gradients_are_those_of_one_process_that_accumulates(
    reduction: Reduction, ranks: list[dict[str, Any]], tmp_path: Path
) -> None:
    wanted = torch.stack(ddp_run.alone(reduction, tmp_path).gradients)
    for rank in ranks:
        got = torch.tensor(rank[reduction.value]["gradients"])[: ddp_run.STORED_STEPS]
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("reduction", list(Reduction))
def test_what_a_step_learns_does_not_depend_on_the_processes(
    reduction: Reduction, ranks: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Two processes with two micro-batches each; all groups of the second are flat."""
    wanted = torch.tensor(ddp_run.uneven_gradients(reduction, [[0, 1, 2, 3]], tmp_path))
    assert wanted.abs().max() > 0.01
    for rank in ranks:
        got = torch.tensor(rank["uneven"][reduction.value])
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("reduction", ["dapo", "bnpo"])
def test_processes_that_draw_for_themselves_stay_one_policy(
    reduction: str, ranks: list[dict[str, Any]]
) -> None:
    mine, other = (rank[reduction] for rank in ranks)
    assert mine["policies"] == other["policies"]
    assert mine["gradients"] == other["gradients"]
    assert mine["kl_weights"] == other["kl_weights"]
    assert len(set(mine["kl_weights"])) > 1
    assert mine["rewards"] == other["rewards"]  # what is logged is the mean over processes
    assert len(set(mine["rewards"])) > 2
