"""Tables of README: every figure is one of the run that is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import readme
from core_rl.results.stats import as_metrics, mean_interval, paired_interval

RUN = {
    "cpu_seconds": 600.0,
    "revision": "abc123",
    "started": "2026-01-02T03:04:05",
    "hardware": {"cores": 2},
}
TEXT = "# x\n" + "".join(
    f"<!-- table {name} -->\nold\n<!-- end of {name} -->\nbetween\n" for name in readme.TABLES
)


def run_folder(folder: Path, metrics: dict[str, float | None]) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "run.json").write_text(json.dumps(RUN))
    (folder / "report.png").write_bytes(folder.name.encode())
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs" / "images").mkdir(parents=True)
    (tmp_path / "README.md").write_text(TEXT)
    return tmp_path


def stage4_metrics() -> dict[str, float | None]:
    before, after = [[0.5, 0.7], [0.6, 0.6]], [[0.9, 0.9], [1.0, 1.0]]
    metrics: dict[str, float | None] = {"before/grounded_focus_n": 3, "after/grounded_focus_n": 40}
    for name in ("accuracy", "grounded_focus"):
        metrics |= as_metrics(f"before/{name}", mean_interval(before))
        metrics |= as_metrics(f"after/{name}", mean_interval(after))
        metrics |= as_metrics(f"diff/{name}", paired_interval(after, before))
    metrics |= {"before/accuracy_n": 40, "after/accuracy_n": 40, "blind/accuracy": 0.25}
    metrics |= as_metrics("after_vs_blind/accuracy", paired_interval(after, before))
    return metrics | {"diff/grounded_focus_low": None}


def test_a_table_holds_the_figures_of_its_run(root: Path, capsys: pytest.CaptureFixture) -> None:
    folder = run_folder(root / "run", stage4_metrics())
    readme.main([f"stage4={folder}", f"--root={root}"])
    text = (root / "README.md").read_text()
    # Gains .3 and .4: mean .35, t interval 12.706 * .05 wide on each side.
    assert "| accuracy | .600 (40) | .950 (40) | +.350 [-.285, +.985] |" in text
    assert "| +.300 +.400 |" in text
    # n beside a figure that few records say anything of; an end that is not known.
    assert "| grounded_focus | .600 (3) | .950 (40) | +.350 [?, +.985] |" in text
    assert "| the start model without media | .250 | +.350 [-.285, +.985] |" in text
    assert "`make full`, revision abc123, 2026-01-02, 2 cores, 10 minutes" in text
    assert "<!-- table lever -->\nold\n<!-- end of lever -->" in text  # not asked for
    assert (root / "docs" / "images" / "stage4.png").read_bytes() == b"run"
    assert "stage4=" in capsys.readouterr().out


def test_a_start_that_states_nothing_keeps_its_row(root: Path) -> None:
    silent = {key: value for key, value in stage4_metrics().items() if "/grounded" not in key}
    silent |= {"after/grounded_focus": 1.0, "after/grounded_focus_n": 40}
    readme.main([f"stage4={run_folder(root / 'silent', silent)}", f"--root={root}"])
    assert "| grounded_focus | ? (0) | 1.000 (40) | ? | ? | ? |" in (root / "README.md").read_text()


def test_filling_again_replaces(root: Path) -> None:
    folder = run_folder(root / "run", stage4_metrics())
    for _ in range(2):
        readme.main([f"stage4={folder}", f"--root={root}"])
    text = (root / "README.md").read_text()
    assert text.count("| accuracy |") == 1
    assert text.count("between") == len(readme.TABLES)


def test_the_other_pipelines_show_what_their_run_has(root: Path) -> None:
    metrics: dict[str, float | None] = {}
    metrics |= as_metrics("score/grpo", mean_interval([[0.8, 0.9], [0.9, 1.0]]))
    metrics |= as_metrics("diff/grpo_vs_sft", paired_interval([[0.5]] * 2, [[0.4]] * 2))
    sa2va = {"dice/fixed": 0.5, "dice/oracle": 0.75}
    lever, other = run_folder(root / "a", metrics), run_folder(root / "b", sa2va)
    readme.main([f"lever={lever}", f"sa2va={other}", f"--root={root}"])
    text = (root / "README.md").read_text()
    assert "| accuracy, GRPO | .900 [.265, 1.535] |  | .850 .950 |" in text
    assert "| GRPO above supervision | +.100 [+.100, +.100] | .000 | +.100 +.100 |" in text
    assert "GRPO above RCE" not in text
    assert "| Dice, best fixed prompt | .500 |  |  |" in text


@pytest.mark.parametrize("asked", ["stage4", "other=run", "stage4=nowhere"])
def test_a_run_that_is_not_there_is_refused(
    asked: str, root: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        readme.main([asked, f"--root={root}"])
    assert "expected NAME=RUN" in (said := capsys.readouterr().err) or "no metrics.json" in said
    assert (root / "README.md").read_text() == TEXT


def test_a_text_without_the_table_is_refused(root: Path) -> None:
    folder = run_folder(root / "run", stage4_metrics())
    with pytest.raises(ValueError, match="table stage4 -->"):
        readme.fill("# nothing", "stage4", folder)


def test_the_readme_has_a_place_for_every_table() -> None:
    text = (readme.ROOT / "README.md").read_text(encoding="utf-8")
    for name in readme.TABLES:
        assert text.count(f"<!-- table {name} -->") == text.count(f"<!-- end of {name} -->") == 1
