"""The command line: compose a run, check it, hand it to its task, keep what it measured.

    python -m experiments.run +exp=stage4_people_focus trainer=quick
    python -m experiments.run +exp=stage4_people_focus preflight=only  # is all there?

Nothing slow is imported up here: the process may start itself again first (`malloc`).
"""

from __future__ import annotations

import sys

from experiments import malloc


def main() -> None:
    """Answer the command line."""
    from experiments import errors, schema, usage
    from experiments.job import job

    schema.register()
    with errors.reported():
        sys.argv[1:] = usage.answered(sys.argv[1:])
        job()


if __name__ == "__main__":
    malloc.restart_with_heap_for_tensors()
    main()
