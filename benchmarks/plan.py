"""Compare the memory that `plan=true` foresees with the peak of real steps on a CPU.

    python -m benchmarks.plan

Each shape is trained for three steps by the loop of every experiment, with a random Qwen2, fp32, in
a process of its own.  The peak is its resident memory above what the imports took.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.speed import OURS, started
from benchmarks.text_model import write_model
from core_rl.files import write_text
from core_rl.hf.log_probs import CHUNK
from core_rl.preflight.memory import Plan, device_bytes, peak_of
from core_rl.preflight.shapes import shapes_of

log = logging.getLogger(__name__)

FOLDER = Path("outputs/bench")
MIB = 2**20
STEPS = 3


@dataclass(frozen=True)
class Case:
    """A model and a question; `kl` above 0 needs a reference."""

    hidden: int
    layers: int
    prompt: int
    completion: int
    group: int
    kl: float
    recompute: str
    shared: bool = True


# Each has another largest part: weights and optimiser, the prompt, the completions, copies.
CASES = (
    Case(768, 12, 256, 32, 4, 0.04, "auto"),
    Case(512, 12, 2048, 32, 8, 0.0, "auto"),
    Case(512, 12, 512, 256, 8, 0.0, "auto"),
    Case(512, 12, 512, 256, 8, 0.04, "layers"),
    Case(512, 12, 512, 128, 8, 0.0, "never"),
    Case(512, 8, 512, 64, 4, 0.0, "never", shared=False),
)


def planned_mib(case: Case, folder: Path) -> tuple[float, str]:
    """Foreseen peak of a case, MiB, and the part of a step that needs it."""
    shapes = shapes_of({"path": str(folder)})
    assert shapes is not None
    plan = Plan(
        reference=case.kl > 0,
        candidates=case.group,
        prompt=case.prompt,
        completion=case.completion,
        shared=case.shared,
        recompute=case.recompute,
        logits_at_once=CHUNK["cpu"],
    )
    return sum(device_bytes(shapes, plan).values()) / MIB, peak_of(shapes, plan)


def measured_mib(case: Case, folder: Path) -> float:
    settings = asdict(case) | {
        "model": str(folder),
        "fused": False,
        "threads": 1,
        "device": "cpu",
    }
    with started("step", *OURS, settings) as side:
        for _ in range(STEPS):
            side.step()
        return side.mib


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = []
    for case in CASES:
        folder = FOLDER / f"plan-{case.hidden}-{case.layers}"
        write_model(folder, case.hidden, case.layers)
        planned, part = planned_mib(case, folder)
        measured = measured_mib(case, folder)
        rows.append(asdict(case) | {"planned_mib": planned, "measured_mib": measured, "at": part})
        log.info("%s: %.0f MiB foreseen (%s), %.0f measured", case, planned, part, measured)
        log.info("  foreseen / measured %.2f", planned / measured)
    write_text(FOLDER / "plan.json", json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
