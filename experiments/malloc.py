"""Settings of glibc's heap under which freed tensors leave no holes and memory is reused.

By default glibc keeps small freed pieces in caches (per-thread caches and fast bins) and does not
merge them with the free memory around them.  Torch asks for aligned memory, so glibc cuts small
pieces off at both ends of a tensor.  A small object that lives on takes such a piece.  The hole
between two of them is then too small for another tensor of the same size.  Without these caches a
training process holds a quarter less memory; no difference in speed could be measured.

By default glibc also returns free memory at the end of the heap to the system after every step, and
gets it back, page by page, in the next.  Keeping it makes a small step 4 % cheaper; the peak is the
same.  Blocks above 32 MiB are returned at once, as they finally are by default
(`docs/fast-step.md`).

These settings take effect only before a process starts.
"""

from __future__ import annotations

import os
import platform
import sys

_SETTINGS = {
    "tcache_count": 0,
    "mxfast": 0,
    "trim_threshold": 2**30,  # bytes at the heap's end that are kept
    # glibc's own limit.  The threshold rises to it by itself unless `trim_threshold` is given.
    "mmap_threshold": 2**25,
}
FOR_TENSORS = {
    "GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in _SETTINGS.items())
}


def restart_with_heap_for_tensors() -> None:
    """Start this program again, in the same process, with these settings.

    It does nothing if GLIBC_TUNABLES is set, even to an empty value (after the restart it is), and
    nothing outside Linux with glibc.  Call it before anything else: earlier work is lost.
    """
    on_glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    if on_glibc and FOR_TENSORS.keys().isdisjoint(os.environ):
        os.environ.update(FOR_TENSORS)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
