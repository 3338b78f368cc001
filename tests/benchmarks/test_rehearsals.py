"""The table of rehearsals."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rehearsals import Result, Row, rows, said, table
from core_rl.doctor.findings import at_most
from core_rl.doctor.report import round_of, write_rounds


def test_every_preset_meets_every_objective_weight_and_precision_once() -> None:
    every = list(rows())
    assert len(set(every)) == len(every) == 5 * 2 * 2 * 3


def test_a_row_is_the_command_that_a_user_types(tmp_path: Path) -> None:
    command = Row("ddp", "rce", "lora", "32-true").command(tmp_path)
    assert {"hardware.strategy=ddp", "curriculum=rce", "model.lora.r=4"} <= set(command)
    assert {"hardware.precision=32-true", "hardware.rehearse=true"} <= set(command)


def test_the_doctor_is_quoted(tmp_path: Path) -> None:
    assert said(tmp_path) == "not asked"
    well, ill = at_most("a/well", 0, 1), at_most("b/ill", 2, 1)
    write_rounds(tmp_path, [round_of(0, [well])])
    assert said(tmp_path) == "quiet"
    write_rounds(tmp_path, [round_of(0, [well, ill]), round_of(1, [ill])])
    assert said(tmp_path) == "FAIL b/ill"


def test_rows_that_were_not_run_say_so() -> None:
    known = Row("gpu1", "grpo", "full", "bf16-true")
    lines = table({known.name: Result(0, "quiet", 41.2)}).splitlines()
    assert "| gpu1 | grpo | full | bf16-true | 0 | quiet | 41 |" in lines
    assert sum("not run" in line for line in lines) == 59
