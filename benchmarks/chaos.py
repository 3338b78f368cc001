"""Kill experiments at random moments, go on, and compare the end with that of an uninterrupted run.

    python -m benchmarks.chaos [--kills 40] [--only stage4 lever] [--output FILE]

Every experiment that trains, at its smallest: one process, several seeds with workers, two
processes.  It is run once without interruption.  Then, for each kill, the same command begins in an
empty folder, is struck by SIGKILL or SIGTERM after a random share of the time that the first took,
and is typed again, with `trainer.resume=auto` where there is one training, until it ends.  Its
metrics, but for times and counts of calls, and its weights must be those of the first, bit by bit.
SIGTERM must end a run with code 75, or find that it has ended.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from core_rl.files import write_json
from core_rl.sealed import checksum

log = logging.getLogger(__name__)

REQUEUE = 75
TRIES = 4  # of the same command after a kill
GRACE = 300.0  # seconds in which a run must end after SIGTERM
TIMES = ("seconds", "rss", "calls", "latency")  # parts of names whose figures may differ

STAGE4 = (
    "+exp=stage4_people_focus",
    "trainer=smoke",
    "trainer.max_steps=6",
    "trainer.val_every=2",
    "trainer.controls=[]",
    "data_mix.size=36",
    "model.warm.gate_clips=12",
    "logger=csv",
)
LEVER = (
    "trainer=smoke",
    "logger=none",
    "data_mix.world.demos=60",
    "data_mix.world.train=8",
    "data_mix.world.val=3",
    "data_mix.world.test=5",
    "data_mix.world.entities=20",
    "data_mix.world.topics=5",
    "data_mix.world.width=64",
    "data_mix.world.pool_text=4",
    "data_mix.world.pool_image=4",
    "data_mix.world.pool_random=4",
    "data_mix.candidate_num=12",
    "model.features.dims=6",
    "model.features.directions=4",
    "model.features.epochs=1",
    "model.batch_size=4",
)
SA2VA = (
    "trainer=smoke",
    "data_mix.side=96",
    "reward_net.side=48",
    "reward_net.width=8",
    "ppo.n_steps=32",
    "ppo.batch_size=32",
    "ppo.checkpoint_every=64",
)
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "stage4": (*STAGE4, "model.warm_start=none", "trainer.resume=auto"),
    "stage4, rounds": (
        *STAGE4,
        "model.warm_start=none",
        "trainer.resume=auto",
        "curriculum.phases=[{kind: grpo, steps: 6, num_iterations: 2}]",
    ),
    "stage4, two seeds with workers": (
        *STAGE4,
        "model.warm_start=none",
        "trainer.resume=auto",
        "trainer.seeds=[0,1]",
        "trainer.workers=2",
    ),
    "stage4, two processes": (
        *STAGE4,
        "model.warm_start=none",
        "trainer.resume=auto",
        "hardware.devices=2",
    ),
    "lever_sft": ("+exp=lever_sft", *LEVER, "trainer.resume=auto"),
    "lever_rce_grpo": ("+exp=lever_rce_grpo", *LEVER, "trainer.resume=auto"),
    "lever": ("+exp=lever", *LEVER, "trainer.seeds=[0,1]", "trainer.workers=2"),
    "sa2va_ppo": ("+exp=sa2va_ppo", *SA2VA, "trainer.resume=auto"),
    "sa2va_grpo": ("+exp=sa2va_grpo", *SA2VA, "trainer.resume=auto"),
    "sa2va_reward_net": ("+exp=sa2va_reward_net", *SA2VA),
}


@dataclass(frozen=True)
class End:
    """What a run left.

    Attributes:
        metrics: by name, without times.
        weights: checksums of the final weights, by path.
    """

    metrics: dict[str, float]
    weights: dict[str, int]


@dataclass(frozen=True)
class Strike:
    """A kill and what came of it.

    Attributes:
        experiment: its name.
        signal: SIGKILL or SIGTERM.
        share: of the uninterrupted run's time, after which it came.
        code: of the process that was struck, negative for a signal.
        tries: commands until the run ended.
        differs: metrics and weights that are not those of the uninterrupted run.
        said: the last line of a command that failed.
    """

    experiment: str
    signal: str
    share: float
    code: int
    tries: int
    differs: list[str]
    said: str = ""

    @property
    def survived(self) -> bool:
        return not self.differs and not self.said


def start(overrides: Sequence[str], output: Path) -> subprocess.Popen[str]:
    """Type a command."""
    command = [sys.executable, "-m", "experiments.run", *overrides, f"paths.output={output}"]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(output: Path) -> End:
    """Read what the newest run left."""
    run = (output / "latest").resolve()
    read = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    metrics = {name: one for name, one in read.items() if not any(t in name for t in TIMES)}
    files = [
        path
        for path in sorted(run.rglob("*.safetensors"))
        if {"final", "final_model"} & set(path.parts)
    ]
    return End(metrics, {str(path.relative_to(run)): checksum(path) for path in files})


def strike(
    name: str, whole: End, seconds: float, number: signal.Signals, rng: random.Random
) -> Strike:
    """Kill an experiment once, and see it to its end."""
    overrides, share = EXPERIMENTS[name], rng.random()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        process = start(overrides, output)
        try:
            process.wait(share * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        _, said = process.communicate(timeout=GRACE)
        code = process.returncode
        told = Strike(name, number.name, share, code, 0, [])
        fair = (0, -number) if number is signal.SIGKILL else (0, REQUEUE)
        # Before Python has begun to listen, SIGTERM ends it as any program.
        if code not in fair and not (code == -signal.SIGTERM and not output.exists()):
            return _failed(told, 0, said)
        for tries in range(1, TRIES + 1):
            if tries == 1 and code == 0:
                break
            process = start(overrides, output)
            _, said = process.communicate()
            if process.returncode == 0:
                break
        else:
            return _failed(told, tries, said)
        left = ended(output)
    differs = [
        key
        for mine, theirs in ((left.metrics, whole.metrics), (left.weights, whole.weights))
        for key in sorted({*mine, *theirs})
        if mine.get(key) != theirs.get(key)
    ]
    return Strike(name, number.name, share, code, tries, differs)


def _failed(told: Strike, tries: int, said: str) -> Strike:
    last = (said.strip().splitlines() or ["nothing was said"])[-1]
    return Strike(told.experiment, told.signal, told.share, told.code, tries, [], last)


def main() -> None:
    """Answer the command line; end with 1 if a run did not survive."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40, help="in all")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/chaos.json"))
    asked = parser.parse_args()
    rng, strikes = random.Random(asked.seed), list[Strike]()
    each = -(-asked.kills // len(asked.only))
    for name in asked.only:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            process = start(EXPERIMENTS[name], Path(folder))
            _, said = process.communicate()
            if process.returncode:
                raise SystemExit(f"{name}: without a kill it fails: {said[-2000:]}")
            seconds, whole = time.monotonic() - began, ended(Path(folder))
        log.info("%s: %.0f s, %d weights", name, seconds, len(whole.weights))
        for turn in range(min(each, asked.kills - len(strikes))):
            number = (signal.SIGKILL, signal.SIGTERM)[turn % 2]
            strikes.append(strike(name, whole, seconds, number, rng))
            one = strikes[-1]
            log.info(
                "  %s at %.2f (code %d): %s",
                *(one.signal, one.share, one.code),
                "equal" if one.survived else one.said or f"differs: {one.differs[:5]}",
            )
            write_json(asked.output, [asdict(one) | {"survived": one.survived} for one in strikes])
    survived = sum(one.survived for one in strikes)
    log.info(
        "%d of %d runs end like the uninterrupted one (%s)", survived, len(strikes), asked.output
    )
    sys.exit(survived < len(strikes))


if __name__ == "__main__":
    main()
