"""Records that cannot be used: an error, or skipped, named and counted."""

from __future__ import annotations

import logging

from core_rl.config import OnBadRecord

log = logging.getLogger(__name__)

SHOWN = 5  # skipped records named in the log; the rest are counted


class Skips:
    """Raises what is wrong with a record, or counts it and names the first few in the log."""

    def __init__(self, on_bad_record: OnBadRecord) -> None:
        self._raises = OnBadRecord(on_bad_record) is OnBadRecord.error  # also as text
        self.messages: list[str] = []

    @property
    def count(self) -> int:
        return len(self.messages)

    def add(self, error: Exception) -> None:
        if self._raises:
            raise error
        if self.count < SHOWN:
            log.warning("skipped: %s", error)
        self.messages.append(str(error))

    def report(self, what: object) -> None:
        if self.count:
            log.warning("%s: skipped %d records that cannot be used", what, self.count)
