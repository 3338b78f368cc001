"""What the preparation of a data set tells, in every pipeline."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from core_rl.config import OnBadRecord, require

log = logging.getLogger(__name__)


def on_bad_record(value: str) -> OnBadRecord:
    """Read the setting of that name.

    Raises:
        ValueError: it is neither error nor skip.
    """
    known = [one.value for one in OnBadRecord]
    require(value in known, "on_bad_record", value, " or ".join(known))
    return OnBadRecord(value)


def told(dataset: str, out: str, counts: Mapping[str, int]) -> dict[str, float]:
    """Log the counts of a data set that was prepared; return them as `prepare/<name>`."""
    lines = "\n".join(f"  {name:<16}{count:>9,}" for name, count in counts.items())
    log.info("%s is in %s\n%s", dataset, out, lines)
    return {f"prepare/{name}": float(count) for name, count in counts.items()}
