"""The doctor as a user types it: tables, files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core_rl.hf.lost_cache import release_loses_it
from tests.core_rl.hf.text_policy import build_model, byte_tokenizer
from tests.end_to_end.running import latest, run, start, typed

SMALL = ("trainer=smoke", "model.warm_start=none", "rollout.max_completion=16", "rollout=g2")


def checks(folder: Path) -> dict[str, str]:
    """Verdict of each check."""
    rounds = json.loads((folder / "health.json").read_text())["rounds"]
    return {row["check"]: row["verdict"] for row in rounds[-1]["findings"]}


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language_model")
    # Room for what AutoTokenizer adds to a tokenizer of this kind.
    build_model(vocab_size=272).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_the_shipped_pipeline_is_well(tmp_path: Path) -> None:
    folder = typed("+exp=omni_doctor", "side_by_side=true", *SMALL, output=tmp_path)
    found = checks(folder)
    assert {"media/video_moves", "two_clips/audio_content", "parity/decoding_max"} <= found.keys()
    assert {"weights/changed_share", "environment/torch"} <= found.keys()
    assert [name for name, verdict in found.items() if verdict == "FAIL"] == []
    assert "media/video_moves" in (folder / "doctor.txt").read_text()
    assert "<table" in (folder / "doctor.html").read_text()
    both = (folder / "side_by_side.txt").read_text()
    assert both.count("same: True") == both.count("plain inference: ") == 6


def test_a_language_model_drawn_in_the_wrong_state_ends_with_code_3(
    language_model: Path, tmp_path: Path
) -> None:
    """A state is wrong where the installed transformers loses its cache in it."""
    asked = ("+exp=hf_doctor", f"path={language_model}")
    assert checks(run(*asked, output=tmp_path))["cache/length"] == "ok"
    loses = release_loses_it()
    said = start(*asked, "state=train_checkpointing", output=tmp_path, code=3 if loses else 0).err
    assert checks(latest(tmp_path))["cache/length"] == ("FAIL" if loses else "ok")
    assert ("lost cache" in said and "cure:" in said) is loses
    assert "Traceback" not in said


def test_what_a_run_lacks_is_named_before_it_starts(tmp_path: Path) -> None:
    done = start(
        "+exp=stage4_people_focus",
        "data_mix=stage4_people_focus",
        "paths.data=/no/such/folder",
        "preflight=only",
        output=tmp_path,
        code=3,
    )
    assert "data_mix.val_path=val.json: no such file or folder" in done.err
