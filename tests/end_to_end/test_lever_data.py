"""Lever's data, as a user would make them: real processes, real files, a real kill."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

from lever.candidates.beams import read_beams
from lever.candidates.rl_records import GenMethod, read_candidates
from tests.end_to_end.running import COMMAND, ROOT, metrics, run, start
from tests.lever.completion_server import serving
from tests.lever.tiny_vlm import save_tiny
from tests.lever.worlds import SMALL_WORLD
from tests.limits import HUNG

SMALL = ("trainer=smoke", "logger=none", *SMALL_WORLD)
SELECTOR = (
    "model.features.kind=pca",
    "model.features.dims=8",
    "model.features.directions=4",
)


def test_beam_data_are_made_in_shards_and_once(output: Path) -> None:
    made = ("+exp=lever_beams", *SMALL, "beams.few_shot=3", "beams.construct_order=right")
    first = metrics(run(*made, "beams.end=4", output=output))
    assert first["answerer_calls"] == 4 * (1 + 12 + 5 * 11 + 5 * 10)
    assert "beams/queries" not in first and not list(output.rglob("vqa-*.json"))
    second = metrics(run(*made, "beams.start=4", output=output))
    assert second["beams/queries"] == 6
    assert second["beams/best"] >= second["beams/worst"]
    [path] = output.rglob("vqa-*.json")
    assert all(len(beam.shots) == 3 for record in read_beams(path) for beam in record.beams)
    shard = output / "elsewhere.json"
    again = metrics(run(*made, f"beams.output={shard}", output=output))
    assert again["answerer_calls"] == 0
    assert shard.read_bytes() == path.read_bytes()


def answers(output: Path) -> int:
    """How many answers are kept; each was paid for once."""
    with closing(sqlite3.connect(output / "cache" / "lever" / "answers.sqlite")) as db:
        return int(db.execute("SELECT COUNT(*) FROM entries").fetchone()[0])


def test_rl_data_killed_in_the_middle_are_those_of_one_run(tmp_path: Path) -> None:
    wanted = (*SMALL, *SELECTOR, "data_mix.world.train=40", "rl_data.queries_per_call=1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = subprocess.Popen(
        [*COMMAND, "+exp=lever_rl_data", *wanted, f"paths.output={killed}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + HUNG
    while sum(path.read_text().count("\n") for path in killed.rglob("rl-data-*/part-*")) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = answers(killed)

    first = metrics(run("+exp=lever_rl_data", *wanted, output=whole))
    rest = metrics(run("+exp=lever_rl_data", *wanted, output=killed))
    assert first["rl_data/queries"] == rest["rl_data/queries"] == 40
    files = [next(folder.rglob("rl-data-*.json")) for folder in (whole, killed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    # Nothing is asked twice: what the killed run kept and what the second asked are all there is.
    assert 0 < rest["answerer_calls"] < first["answerer_calls"] == answers(whole)
    assert kept + rest["answerer_calls"] == answers(killed) == answers(whole)
    methods = {one.gen_method for record in read_candidates(files[1]) for one in record.candidates}
    assert methods == set(GenMethod) - {GenMethod.other}


def test_a_bad_setting_is_one_line_and_a_code_of_its_own(output: Path) -> None:
    start("+exp=lever_rl_data", *SMALL, "rl_data.num_beems=3", output=output, code=2)
    start("+exp=lever_rl_data", *SMALL, "rl_data.temps=[0.0]", output=output, code=2)


def test_a_vision_language_model_answers_from_a_folder(tmp_path: Path) -> None:
    """The real class with random weights: what it says is noise, that it is asked is not."""
    save_tiny(tmp_path / "model")
    model = (
        "answerer=lever_qwen2_5_vl",
        f"answerer.path={tmp_path}/model",
        "answerer.dtype=float32",
        "answerer.batch_size=13",
    )
    folder = run(
        "+exp=lever_rl_data",
        *SMALL,
        *SELECTOR,
        *model,
        "beams.beam_size=1",
        "rl_data.save_prompts=true",
        "beams.sample_num=2",
        "rl_data.sample_num=2",
        output=tmp_path,
    )
    found = metrics(folder)
    assert found["rl_data/queries"] == 2
    # Two steps of a beam search of width 1, and each candidate once.
    searched = 2 * (1 + 12 + 11)
    assert found["answerer_calls"] == searched + 2 * found["rl_data/candidates"]


def test_a_server_answers_in_place_of_a_model(tmp_path: Path) -> None:
    with serving() as server:
        folder = run(
            "+exp=lever_rl_data",
            *SMALL,
            *SELECTOR,
            "answerer=lever_api",
            f"answerer.url={server.url}",
            "answerer.model=tiny",
            "rl_data.beams_from=selector",
            output=tmp_path,
        )
        found = metrics(folder)
        assert found["rl_data/queries"] == 6
        assert len(server.bodies) == found["answerer_calls"]
