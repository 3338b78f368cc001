"""The command line as a user meets it: real processes, what they print and what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.limits import HUNG

ROOT = Path(__file__).parents[2]
# Importing one of these is what a configuration error must come before.
HEAVY = """
torch lightning transformers tokenizers stable_baselines3 gymnasium av numpy pandas pyarrow scipy
sklearn skimage matplotlib PIL httpx pydantic jinja2 rich psutil
"""


@dataclass(frozen=True)
class Answer:
    """What a process left behind."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture
def tripwire(tmp_path: Path) -> Path:
    """A folder of packages that end Python with code 99 when they are imported."""
    for name in HEAVY.split():
        package = tmp_path / "tripwire" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("import os\nos._exit(99)\n")
    return tmp_path / "tripwire"


def run(*args: str, output: Path, path: Path | None = None, **env: str) -> Answer:
    """Run `python -m experiments.run` with the probe experiment at hand."""
    flags = [arg for arg in args if arg.startswith("-")]
    overrides = [arg for arg in args if not arg.startswith("-")]
    if flags and flags[0] == "--cfg":
        flags, overrides = ["--cfg", overrides[0]], overrides[1:]
    command = [sys.executable, "-m", "experiments.run", "--config-dir", "tests/experiments/conf"]
    search = {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        [*command, *flags, *overrides, f"paths.output={output}"],
        cwd=ROOT,
        env={**os.environ, **search, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HUNG,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("mistake", "cure"),
    [
        ("trainer.lrr=1", "did you mean trainer.lr?"),
        ("trainer.lr=fast", "could not be converted to Float"),
        ("trainer.lr=-1", "trainer.lr=-1.0: expected above 0"),
        ("hardware=gpu3", "did you mean gpu1? There are: cpu, gpu1"),
        ("+exp=stage4", "did you mean stage4_people_focus? There are: hf_doctor"),
        ("trainer.lr=1e-3,1e-4", "put -m first"),
        ("reward=null", "the name of an option, as in reward=stage4"),
    ],
)
def test_a_mistake_is_one_line_with_its_cure(
    mistake: str, cure: str, tmp_path: Path, tripwire: Path
) -> None:
    answer = run(mistake, output=tmp_path / "out", path=tripwire)
    assert answer.code == 2, answer.err
    assert answer.line.startswith("error: ")
    assert cure in answer.line
    assert answer.out == ""


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["--help"], "stage4_people_focus"),
        (["--cfg", "job", "+exp=stage4_people_focus"], "num_generations: 8"),
    ],
)
def test_looking_needs_nothing_heavy(
    args: list[str], shown: str, tmp_path: Path, tripwire: Path
) -> None:
    answer = run(*args, output=tmp_path / "out", path=tripwire)
    assert (answer.code, answer.err) == (0, "")
    assert shown in answer.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shown", [["--help"], ["--cfg", "job"]])
def test_a_reader_that_leaves_early_ends_the_command_quietly(shown: list[str]) -> None:
    command = [sys.executable, "-m", "experiments.run", *shown]
    # The reader is gone before anything is written.
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_the_tripwire_trips(tmp_path: Path, tripwire: Path) -> None:
    assert run("+exp=probe", output=tmp_path / "out", path=tripwire).code == 99


def test_a_run_leaves_its_folder_and_latest(tmp_path: Path) -> None:
    answer = run(
        "+exp=probe", "trainer.lr=.5", "seed=3", "objective=val/reward", output=tmp_path / "out"
    )
    assert (answer.code, answer.err) == (0, "")
    latest = tmp_path / "out" / "latest"
    assert latest.is_symlink()
    metrics = json.loads((latest / "metrics.json").read_text())
    assert metrics["lr"] == 0.5
    assert {"seconds", "peak_rss_gib"} <= metrics.keys()
    assert json.loads((latest / "run.json").read_text())["seed"] == 3
    assert "lr: 0.5" in (latest / "config.yaml").read_text()
    assert "probe says hello" in (latest / "train.log").read_text()


def test_runs_that_start_at_once_share_an_output_folder(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda seed: run("+exp=probe", f"seed={seed}", output=output), range(4))
        )
    assert [(answer.code, answer.err) for answer in answers] == [(0, "")] * 4
    folders = {path.parent for path in output.glob("*-*-*/*/metrics.json")}
    seeds = [json.loads((folder / "run.json").read_text())["seed"] for folder in folders]
    assert sorted(seeds) == [0, 1, 2, 3]
    assert (output / "latest").resolve() in folders
    assert not list(output.glob(".latest*"))


def test_the_test_set_does_not_choose_between_runs(tmp_path: Path, tripwire: Path) -> None:
    output = tmp_path / "out"
    answer = run("+exp=probe", "objective=lr", output=output, path=tripwire)
    assert answer.code == 2
    assert "objective='lr': expected a figure of the validation set" in answer.line
    answer = run("+exp=probe", "objective=lr", "objective_on_test=true", output=output)
    assert answer.code == 0, answer.err
    latest = output / "latest"
    assert json.loads((latest / "metrics.json").read_text())["objective_on_test"] == 1
    for name in ("report.txt", "report.html"):
        assert "chose between runs by lr, a figure of the test set" in (latest / name).read_text()
    allowed = run("+exp=probe", "objective=val/reward", output=output)
    assert allowed.code == 0, allowed.err
    assert "objective_on_test" not in json.loads((latest / "metrics.json").read_text())
    assert (latest / "report.txt").read_text() == "lr\n"


def test_an_objective_that_is_not_there_is_named(tmp_path: Path) -> None:
    answer = run("+exp=probe", "objective=val/lr", output=tmp_path / "out")
    assert answer.code == 1
    assert "objective='val/lr': expected one of" in answer.err


def test_a_run_that_cannot_be_linked_keeps_its_metrics(tmp_path: Path) -> None:
    (tmp_path / "out" / "latest").mkdir(parents=True)
    answer = run("+exp=probe", output=tmp_path / "out")
    assert answer.code == 0, answer.err
    assert len(list((tmp_path / "out").glob("*-*-*/*/metrics.json"))) == 1
    answer = run("+exp=probe", "behaviour=user_error", output=tmp_path / "out")
    assert answer.code == 1
    assert "data_mix.size=0" in answer.err.splitlines()[-1]


def test_a_killed_run_is_the_latest_and_resumes_the_one_before_it(tmp_path: Path) -> None:
    output = tmp_path / "out"
    latest = output / "latest"
    first = run("+exp=probe", "behaviour=killed", output=output)
    assert first.code == -signal.SIGKILL, first.err
    before = latest.resolve()
    answer = run("+exp=probe", "behaviour=killed", f"trainer.resume={latest}", output=output)
    assert answer.code == -signal.SIGKILL, answer.err
    assert latest.resolve() != before
    assert (latest / "resumed-0").read_text() == str(before)
    assert f"resume: {before}" in (latest / "config.yaml").read_text()


def test_every_job_of_a_batch_resumes_the_same_run(tmp_path: Path) -> None:
    latest = tmp_path / "out" / "latest"
    assert run("+exp=probe", output=tmp_path / "out").code == 0
    before = latest.resolve()
    jobs = ("-m", "+exp=probe", "seed=1,2", f"trainer.resume={latest}")
    answer = run(*jobs, output=tmp_path / "out")
    assert answer.code == 0, answer.err
    found = list((tmp_path / "out" / "multirun").glob("*/*/*/resumed-0"))
    assert [path.read_text() for path in found] == [str(before)] * 2


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("user_error", "data_mix.size=0: expected above 0"),
        ("no_file", "paths.data: no file data.json"),
        ("no_package", "pip install 'people-focus-rl[judge]'"),
    ],
)
def test_a_failed_run_is_one_line_and_keeps_the_traceback(
    behaviour: str, said: str, tmp_path: Path
) -> None:
    answer = run("+exp=probe", f"behaviour={behaviour}", output=tmp_path / "out")
    assert answer.code == 1
    assert said in answer.line
    log = (tmp_path / "out" / "latest" / "train.log").read_text()
    assert "Traceback" in log
    assert said in log
    assert not (tmp_path / "out" / "latest" / "metrics.json").exists()


def test_a_bug_shows_where(tmp_path: Path) -> None:
    answer = run("+exp=probe", "behaviour=bug", output=tmp_path / "out")
    assert answer.code == 1
    assert "probe.py" in answer.err
    assert answer.err.splitlines()[-1].startswith("error: RuntimeError: the two shapes differ")


def test_full_errors_on_demand(tmp_path: Path) -> None:
    answer = run("trainer.lr=-1", output=tmp_path / "out", HYDRA_FULL_ERROR="1")
    assert answer.code == 1
    assert "Traceback" in answer.err


def test_a_batch_goes_on_after_a_failed_job_and_says_so(tmp_path: Path) -> None:
    answer = run("-m", "+exp=probe", "seed=0,1", "trainer.lr=1,-1", output=tmp_path / "out")
    assert answer.code == 1
    for job in (1, 3):
        assert f"error: job {job}: trainer.lr=-1.0: expected above 0" in answer.err
    assert answer.err.splitlines()[-1].startswith("error: a job of this batch failed")
    (batch,) = (tmp_path / "out" / "multirun").glob("*/*/")
    done = {path.parent.name: json.loads(path.read_text()) for path in batch.glob("*/metrics.json")}
    assert done.keys() == {"0", "2"}
    assert done["0"]["draw"] != done["2"]["draw"]


def test_every_job_of_a_batch_is_seeded(tmp_path: Path) -> None:
    answer = run("-m", "+exp=probe", "trainer.lr=1,2", output=tmp_path / "out")
    assert answer.code == 0, answer.err
    paths = (tmp_path / "out" / "multirun").glob("*/*/*/metrics.json")
    first, second = (json.loads(path.read_text()) for path in paths)
    assert first["draw"] == second["draw"]


@pytest.mark.parametrize(
    ("mistake", "cure"),
    [("trainer.lrr=1,2", "did you mean trainer.lr?"), ("hardware=cpu,gpu3", "There are: cpu")],
)
def test_a_batch_that_cannot_compose_does_not_start(
    mistake: str, cure: str, tmp_path: Path, tripwire: Path
) -> None:
    answer = run("-m", mistake, output=tmp_path / "out", path=tripwire)
    assert answer.code == 2
    assert cure in answer.line


@pytest.mark.slow
def test_two_processes_share_one_run_folder(tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "latest").symlink_to(before)
    resume = f"trainer.resume={tmp_path / 'out' / 'latest'}"
    answer = run(
        "+exp=probe", "behaviour=fit", "hardware.devices=2", resume, output=tmp_path / "out"
    )
    assert answer.code == 0, answer.err
    found = (tmp_path / "out").glob("*-*-*/*/resumed-*")
    assert {path.name: path.read_text() for path in found} == {
        f"resumed-{rank}": str(before) for rank in (0, 1)
    }
    (metrics,) = (tmp_path / "out").glob("*-*-*/*/metrics.json")
    assert json.loads(metrics.read_text())["world_size"] == 2
    assert len(list((tmp_path / "out").glob("*-*-*/*"))) == 1


def test_no_file_of_a_run_holds_a_key_or_a_password(tmp_path: Path) -> None:
    key, password = "sk-live-0123456789abcdef", "pa55-word"
    url = f"rollout.engine.url=http://me:{password}@host:80"
    answer = run("+exp=probe", "behaviour=leaks", url, output=tmp_path, API_KEY=key)
    assert answer.code == 1
    assert "***" in answer.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    wanted = {"config.yaml", "train.log", "overrides.yaml", "report.json", "part-00000.parquet"}
    assert wanted <= names
    texts = {str(path): path.read_bytes().decode("latin-1") for path in files}
    # Parquet may be compressed.
    import pandas as pd

    texts["samples"] = str(pd.read_parquet(next(tmp_path.rglob("samples.parquet"))).to_dict())
    for name, text in {**texts, "out": answer.out, "err": answer.err}.items():
        assert key not in text and password not in text, name


@pytest.mark.parametrize(
    ("behaviour", "code", "says"),
    [
        ("terminated", 75, "ended by SIGTERM"),
        ("exits", 1, "a part of this run called sys.exit(0)"),
    ],
)
def test_a_run_that_does_not_end_by_itself_never_ends_well(
    behaviour: str, code: int, says: str, tmp_path: Path
) -> None:
    answer = run("+exp=probe", f"behaviour={behaviour}", output=tmp_path)
    assert answer.code == code
    assert says in answer.err.splitlines()[-1]
