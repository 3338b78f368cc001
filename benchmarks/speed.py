"""Measure a GRPO step: CPU seconds and memory, beside TRL's and beside the usual multimodal step.

    python -m benchmarks.speed [--quick] [--only text|omni|threads] [--device cuda]

Every side of a comparison runs in a process of its own and all of them take turns, a step each, so
that whatever else the machine does weighs on all alike.  What counts is processor time, not the
clock; each figure is the median over the rounds.  TRL is installed into `outputs/bench/trl-env`
first.  Writes `outputs/bench/speed.json` and, where the groups and clips were gone through,
`docs/images/fast-step.png`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.speed_figures import draw_growth
from benchmarks.text_model import write_model
from benchmarks.workers.trl_env import trl_python
from experiments.malloc import FOR_TENSORS

log = logging.getLogger(__name__)

FOLDER = Path("outputs/bench")
PICTURE = Path("docs/images/fast-step.png")
GROUP, COMPLETION = 8, 64
KL_WEIGHT = 0.04
OURS = Path(sys.executable), "benchmarks.workers.our_worker"
Machine = dict[str, Any]  # settings of a comparison that its cases share


@dataclass(frozen=True)
class Row:
    """One comparison; `theirs` is the other side, whoever that is."""

    bench: str
    prompt: int
    kl: float
    ours_cpu_s: float
    theirs_cpu_s: float
    ratio: float
    ours_mib: float
    theirs_mib: float
    memory_ratio: float


@dataclass
class Side:
    """A process that makes a step when asked."""

    name: str
    process: subprocess.Popen[str]
    cpu_s: list[float]
    wall_s: float = 0.0  # of the last step
    mib: float = 0.0

    def step(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended; its last words are above")
        answer = json.loads(line)
        self.cpu_s.append(answer["cpu_s"])
        self.wall_s = answer["wall_s"]
        self.mib = answer["mib"]


@contextmanager
def started(name: str, python: Path, module: str, settings: dict[str, Any]) -> Iterator[Side]:
    """Start a worker; it ends when its input does."""
    threads = str(settings["threads"])
    # As `experiments.run` starts.  What somebody has set holds for every side.
    heap = FOR_TENSORS if module == OURS[1] and FOR_TENSORS.keys().isdisjoint(os.environ) else {}
    process = subprocess.Popen(
        [str(python), "-m", module, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} | heap,
    )
    try:
        yield Side(name, process, [])
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def take_turns(sides: Sequence[Side], rounds: int) -> None:
    """One step each to warm up, which is forgotten, then `rounds` more."""
    for turn in range(rounds + 1):
        for side in sides:
            side.step()
            if turn == 0:
                side.cpu_s.clear()
        if turn:
            shown = ", ".join(
                f"{side.name} {side.cpu_s[-1]:.2f} s ({side.wall_s:.2f} by the clock)"
                for side in sides
            )
            log.info("round %d of %d: %s", turn, rounds, shown)


def compared(bench: str, prompt: int, kl: float, ours: Side, theirs: Side) -> Row:
    mine, other = median(ours.cpu_s), median(theirs.cpu_s)
    return Row(
        bench,
        prompt,
        kl,
        round(mine, 4),
        round(other, 4),
        round(other / mine, 2),
        round(ours.mib, 1),
        round(theirs.mib, 1),
        round(theirs.mib / ours.mib, 2),
    )


def text_settings(length: int, kl: float, machine: Machine) -> dict[str, Any]:
    """Settings that both trainers read; the model is written first."""
    model = FOLDER / "text-model"
    write_model(model)
    return {
        "model": str(model),
        "prompt": length,
        "group": GROUP,
        "completion": COMPLETION,
        "kl": kl,
        "shared": True,
        "fused": True,
    } | machine


def beside_trl(lengths: Sequence[int], kl: float, rounds: int, machine: Machine) -> Iterator[Row]:
    """Any-model path and fused decoding against TRL."""
    python = trl_python(FOLDER)
    for length in lengths:
        settings = text_settings(length, kl, machine)
        with (
            started("any model", *OURS, settings | {"fused": False}) as any_model,
            started("fused", *OURS, settings) as fused,
            started("TRL", python, "benchmarks.workers.trl_worker", settings) as trl,
        ):
            take_turns((any_model, fused, trl), rounds)
        yield compared("trl_any_model", length, kl, any_model, trl)
        yield compared("trl_fused", length, kl, fused, trl)


def one_thread_beside_two(rounds: int, machine: Machine) -> Iterator[Row]:
    """Our step with one thread of torch against the same with two."""
    settings = text_settings(256, 0.0, machine)
    with (
        started("one thread", *OURS, settings | {"threads": 1}) as one,
        started("two threads", *OURS, settings | {"threads": 2}) as two,
    ):
        take_turns((one, two), rounds)
    yield compared("two_threads", 256, 0.0, one, two)


def beside_copies(
    cases: Sequence[tuple[int, float, bool]], rounds: int, machine: Machine
) -> Iterator[Row]:
    """Our step with the prompt shared against our step with G copies, on clips with sound.

    Args:
        cases: group size, seconds of the clip, sound interleaved with the frames.
        rounds: measured steps a side.
        machine: as `main` reads it.
    """
    for group, seconds, together in cases:
        settings = {
            "seconds": seconds,
            "folder": str(FOLDER / "clips"),
            "together": together,
            "group": group,
            "completion": COMPLETION,
            "kl": 0.0,
            "fused": True,
        } | machine
        with (
            started("shared", *OURS, settings | {"shared": True}) as shared,
            started("copies", *OURS, settings | {"shared": False}) as copies,
        ):
            take_turns((shared, copies), rounds)
        layout = "interleaved" if together else "apart"
        name = f"omni_g{group}_{seconds:g}s_{layout}"
        yield compared(name, 0, 0.0, shared, copies)


def table(rows: Sequence[Row]) -> str:
    """Markdown, as in `docs/fast-step.md`."""
    head = "bench | prompt | KL | ours s | theirs s | ratio | ours MiB | theirs MiB | ratio"
    lines = [f"| {head} |", "|" + " --- |" * 9]
    lines += [
        "| " + " | ".join(f"{value}" for value in asdict(row).values()) + " |" for row in rows
    ]
    return "\n".join(lines)


def measured(given: argparse.Namespace) -> Iterator[Row]:
    """Rows of every comparison that was asked for, one after the other."""
    rounds = given.rounds or (2 if given.quick else 5)
    # Rows without a goal of their own take fewer.
    fewer = min(rounds, 3)
    lengths = given.prompts or ([256] if given.quick else [256, 1024, 2048])
    machine = {
        "threads": given.threads,
        "device": given.device,
        "recompute": given.recompute,
    }
    if given.only in (None, "text"):
        yield from beside_trl(lengths, 0.0, rounds, machine)
    if given.only in (None, "omni"):
        yield from beside_copies([(GROUP, 8.0, False)], rounds, machine)
    if given.quick:
        return
    if given.only in (None, "text"):
        yield from beside_trl(lengths, KL_WEIGHT, fewer, machine)
    if given.only in (None, "threads") and given.device == "cpu":
        yield from one_thread_beside_two(rounds, machine)
    if given.only in (None, "omni"):
        cases = [(GROUP, 8.0, True)]
        cases += [(group, 8.0, False) for group in (2, 4, 16, 32)]
        cases += [(GROUP, seconds, False) for seconds in (2.0, 4.0, 16.0)]
        yield from beside_copies(cases, fewer, machine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="the shortest prompt, two rounds")
    parser.add_argument(
        "--only", choices=("text", "omni", "threads"), help="one part of the comparisons"
    )
    parser.add_argument("--rounds", type=int, help="measured steps a side (5; 2 with --quick)")
    parser.add_argument("--prompts", type=int, nargs="+", help="tokens (256 1024 2048)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads a process (1)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where both sides train (cpu)"
    )
    parser.add_argument(
        "--recompute",
        choices=("auto", "layers", "never"),
        default="auto",
        help="`model.recompute` of our side (auto)",
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    path = FOLDER / "speed.json"
    rows: list[Row] = []
    for row in measured(given):
        rows.append(row)
        # After every row: a long measurement that is cut short has not been for nothing.
        path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    if given.device == "cpu":
        draw_growth([asdict(row) for row in rows], PICTURE)
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main()
