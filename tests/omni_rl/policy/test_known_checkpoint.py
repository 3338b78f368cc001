"""A checkpoint that is not there is named with the field that asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_rl.config import OmniModelConfig
from omni_rl.policy.policy import known_checkpoint, load_policy


@pytest.mark.parametrize("path", ["./nowhere", "/no/such/folder", "~/no-such-folder", "a/b/c"])
def test_a_missing_folder_is_not_taken_for_a_hub_id(
    tiny_config: OmniModelConfig, path: str
) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.path=.*config\.json"):
        load_policy(tiny_config, path)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("path", ["models/typo", "typo", "not an id"])
def test_an_id_that_the_hub_does_not_know_is_named_with_its_field(
    tiny_config: OmniModelConfig, path: str
) -> None:
    with pytest.raises(FileNotFoundError, match=rf"model\.path={path}: no such folder here"):
        load_policy(tiny_config, path)


def test_a_folder_named_like_a_hub_id_must_hold_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models/mine").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"checkpoint=models/mine: no config\.json there"):
        known_checkpoint("models/mine", "checkpoint")
    Path("models/mine/config.json").touch()
    assert known_checkpoint("models/mine", "checkpoint") == "models/mine"
