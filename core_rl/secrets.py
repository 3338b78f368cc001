"""Keep keys and passwords out of all that a run writes.

A server may echo the Authorization header in its error, and a password may stand in the URL of a
setting.  `scrub` takes both out of a text.  Log records, the files of `core_rl.files`, samples and
the messages of errors go through it.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from pathlib import Path
from typing import Any

HIDDEN = "***"
SHORTEST = 8  # characters; a shorter value is found in innocent texts

_NAMES = re.compile(
    r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE
)
_IN_URL = re.compile(r"(?<=://)[^\s/@:'\"<>]*:[^\s/@'\"<>]+(?=@)")
_IN_QUERY = re.compile(r"(?<=[?&])((?:api[_-]?key|key|token|secret|password)=)[^\s&#'\"<>]+", re.I)
_IN_HEADER = re.compile(r"(\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}")


def known_secrets() -> list[str]:
    """Values of environment variables that are named like a key, the longest first."""
    values = {value.strip() for name, value in os.environ.items() if _NAMES.search(name)}
    # A plain number, as of TOKEN=100000, is no secret, and stands in every table.
    kept = [one for one in values if len(one) >= SHORTEST and not one.replace(".", "").isdigit()]
    return sorted(kept, key=len, reverse=True)


def scrub(text: str) -> str:
    """Replace known secrets, credentials in URLs and Authorization headers by `***`."""
    for secret in known_secrets():
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _IN_URL.sub(HIDDEN, text)
        text = _IN_QUERY.sub(rf"\1{HIDDEN}", text)
    return _IN_HEADER.sub(rf"\1{HIDDEN}", text)


def scrub_file(path: Path) -> None:
    """Scrub a text file that another program wrote."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    clean = scrub(text)
    if clean != text:
        path.write_text(clean, encoding="utf-8", errors="surrogateescape")


def scrub_logs() -> None:
    """Scrub every log record of this process from now on, tracebacks included."""
    make = logging.getLogRecordFactory()
    if getattr(make, "scrubs", False):
        return

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        try:
            said = made.getMessage()
        except Exception:  # the logger itself reports arguments that do not fit
            return made
        clean = scrub(said)
        if clean != said:
            made.msg, made.args = clean, ()
        if made.exc_info and made.exc_info[0] is not None:
            made.exc_text = scrub("".join(traceback.format_exception(*made.exc_info)).rstrip("\n"))
        return made

    vars(record)["scrubs"] = True
    logging.setLogRecordFactory(record)
