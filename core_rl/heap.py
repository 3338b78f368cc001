"""The heap of a process on Linux, set so that freed tensors leave no holes behind.

glibc keeps small freed pieces apart (per-thread caches and fast bins) instead of joining them with
the free memory around them.  Torch asks for aligned memory, of which such pieces are cut off at
both ends; a small object that lives on takes such a piece, and the hole between two of them is
never large enough again for a tensor of the same size.  Without either cache a process that trains
holds a quarter less memory, at no time that could be measured (`docs/fast-step.md`).

The caches can be switched off only before a process starts.
"""

from __future__ import annotations

import os
import platform
import sys

NO_CACHES = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"}


def restart_without_caches() -> None:
    """Start this program again, in this very process, without the heap's caches.

    Does nothing where that was done, where somebody has set GLIBC_TUNABLES (an empty value will
    do), and outside Linux with glibc.  Call it first of all: what was done until then is lost.
    """
    on_glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    if on_glibc and NO_CACHES.keys().isdisjoint(os.environ):
        os.environ.update(NO_CACHES)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
