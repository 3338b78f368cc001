"""A checkpoint is read by the strategy, ZeRO stage and number of processes that wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core_rl.config import HardwareConfig
from core_rl.run.shards import check_shards
from tests.core_rl.toy import ToyPolicy, forever, grpo, module_of, phases, run, settings

pytest.importorskip("deepspeed")

PLAIN = HardwareConfig()
TWO, THREE = (HardwareConfig(strategy="deepspeed", zero_stage=stage) for stage in (2, 3))
PAIR = HardwareConfig(strategy="deepspeed", devices=2)


def rewards(queries: list[int], actions: object) -> list[list[float]]:
    return [[float(i) for i in range(8)] for _ in queries]


def train(hardware: HardwareConfig, folder: Path, steps: int, resume: Path | None = None) -> None:
    trainer = settings(checkpoint_every=1, resume=None if resume is None else str(resume))
    module = module_of(ToyPolicy(), rewards, phases(grpo(steps)), trainer=trainer)
    run(module, forever([0]), folder, hardware=hardware)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs of one step by ZeRO stage; 0 is without DeepSpeed."""
    made = {}
    for stage, hardware in ((0, PLAIN), (2, TWO), (3, THREE)):
        made[stage] = tmp_path_factory.mktemp(f"zero{stage}")
        train(hardware, made[stage], 1)
    return made


@pytest.mark.parametrize(
    ("stage", "hardware", "there", "here"),
    [
        (2, PLAIN, "ZeRO 1 or 2 and 1 process", "no DeepSpeed and 1 process"),
        (0, TWO, "no DeepSpeed", "ZeRO 1 or 2"),
        (2, THREE, "ZeRO 1 or 2", "ZeRO 3"),
        (3, TWO, "ZeRO 3", "ZeRO 1 or 2"),
        (2, PAIR, "ZeRO 1 or 2 and 1 process", "2 process"),
    ],
)
def test_another_machine_gets_one_line(
    stage: int,
    hardware: HardwareConfig,
    there: str,
    here: str,
    written: dict[int, Path],
) -> None:
    checkpoint = written[stage] / "checkpoints" / "last.ckpt"
    said = rf"written with {there}.*this run has .*{here}.*model.path=.*step-00000001"
    with pytest.raises(ValueError, match=said):
        check_shards(str(checkpoint), hardware)


@pytest.mark.parametrize(("stage", "hardware"), [(0, PLAIN), (2, TWO), (3, THREE)])
def test_the_same_machine_goes_on(
    stage: int, hardware: HardwareConfig, written: dict[int, Path], tmp_path: Path
) -> None:
    train(hardware, tmp_path, 2, resume=written[stage])
    assert (tmp_path / "checkpoints" / "step-00000002").is_dir()
    with pytest.raises(ValueError, match=r"trainer\.resume="):
        train(THREE if stage != 3 else PLAIN, tmp_path / "other", 2, resume=written[stage])
