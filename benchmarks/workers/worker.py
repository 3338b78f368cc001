"""What a process under measurement says to the one that measures: one line a step.

Standard library alone, but for torch where a GPU is measured: TRL's process, in its own
environment, reads this file too.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any, TextIO


def peak_mib() -> float:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Gate:
    """Let a training loop make one step for each line that comes in, and say what it took.

    Make it when everything is imported and nothing is built: memory counts from there.  On a CPU
    seconds are processor time and memory is resident memory; on a GPU seconds are the clock's,
    with nothing left to compute, and memory is the most that torch had allocated.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self.on_gpu = device == "cuda"
        self.base = peak_mib()
        # Libraries print; the answers go where the measuring process listens.
        self.answers: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.began = self.began_wall = 0.0

    def wait(self) -> None:
        """Block until a step is asked for; end the process when nobody asks any more."""
        if not sys.stdin.readline():
            os._exit(0)
        self.began, self.began_wall = self._seconds(), time.perf_counter()

    def report(self, **more: Any) -> None:
        answer = {
            "cpu_s": self._seconds() - self.began,
            "wall_s": time.perf_counter() - self.began_wall,
            "mib": self._mib(),
            **more,
        }
        print(json.dumps(answer), file=self.answers, flush=True)

    def _seconds(self) -> float:
        if not self.on_gpu:
            return time.process_time()
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    def _mib(self) -> float:
        if not self.on_gpu:
            return peak_mib() - self.base
        import torch

        return torch.cuda.max_memory_allocated() / 2**20


def vowels(text: str) -> float:
    """Reward of the text benchmarks: the share of vowels."""
    return sum(letter in "aeiou" for letter in text) / max(1, len(text))
