"""Warnings that point to a fault are recognised in the words of every release, and passed on."""

from __future__ import annotations

import logging
import warnings

import pytest

from core_rl.doctor.findings import Verdict
from core_rl.doctor.known_warnings import Recorded, recorded_warnings


def warn_of_all(argument: str) -> Recorded:
    with recorded_warnings() as recorded:
        warnings.warn("None of the inputs have requires_grad=True", stacklevel=1)
        logging.getLogger("transformers.models.x").warning(
            "Caching is incompatible with gradient checkpointing in XDecoderLayer. "
            f"Setting `{argument}=None`."
        )
        logging.getLogger("transformers").warning(
            "System prompt modified, audio output may not work as expected."
        )
        logging.getLogger("transformers").warning("something else")
    return recorded


@pytest.mark.parametrize("argument", ["past_key_values", "cache"])
def test_known_warnings_are_explained_and_passed_on(argument: str) -> None:
    with pytest.warns(UserWarning, match="requires_grad"):
        recorded = warn_of_all(argument)
    found = {one.check: one for one in recorded.findings()}
    assert set(found) == {
        "warnings/no_input_requires_grad",
        "warnings/cache_dropped",
        "warnings/system_prompt",
    }
    assert "train mode" in found["warnings/no_input_requires_grad"].cause
    assert found["warnings/system_prompt"].verdict is Verdict.ok


def test_without_warnings_there_is_no_finding() -> None:
    with recorded_warnings() as recorded:
        pass
    assert recorded.findings() == []
    assert not [
        one
        for one in logging.getLogger("transformers").handlers
        if type(one).__module__ == "core_rl.doctor.known_warnings"
    ]
