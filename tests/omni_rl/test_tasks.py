"""Tasks refuse at the start what they could not finish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omni_rl.settings import Settings
from omni_rl.tasks import demo, evaluate


@pytest.fixture
def groups(settings: Settings) -> dict[str, Any]:
    """The settings as a configuration hands them over."""
    return dict(vars(settings))


@pytest.mark.usefixtures("offline")
def test_a_missing_checkpoint_is_named_before_the_start_answers(
    groups: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spend(*_: object) -> None:
        raise AssertionError("the start was asked")

    monkeypatch.setattr(evaluate, "start_policy", spend)
    with pytest.raises(FileNotFoundError, match=r"^checkpoint=models/typo: no such folder"):
        evaluate.evaluate(tmp_path, 0, "models/typo", {}, **groups)
    with pytest.raises(FileNotFoundError, match=r"^checkpoint=models/typo: no such folder"):
        demo.demo(tmp_path, 0, "clip.mp4", "who?", [], "models/typo", **groups)
