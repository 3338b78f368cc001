"""What README.md and docs/ tell people to type composes, and what they link to exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments import schema

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EMBEDDED = ["+exp=stage4_people_focus"]
REAL = [
    *EMBEDDED,
    "model=humanomni_v2",
    "data_mix=stage4_people_focus",
    "hardware=gpu8_zero2",
    "paths.data=FOLDER",
]
OVERRIDE = re.compile(r"\+?[a-z_]+(\.[a-z_]+)*=\S+")
# What the pages of the other pipelines are about.
OTHERS = {
    "lever": ["+exp=lever", "paths.data=FOLDER"],
    "sa2va": ["+exp=sa2va", "paths.data=FOLDER"],
}


def commands(text: str) -> Iterator[list[str]]:
    """Yield the overrides of every command in the code blocks."""
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "experiments.run" in words:
                yield words[words.index("experiments.run") + 1 :]
            elif words[:1] == ["make"] and words[1] in ("quick", "full"):
                given = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
                yield [*EMBEDDED, f"trainer={words[1]}", *shlex.split(" ".join(given))]


def spans(text: str) -> Iterator[list[str]]:
    """Yield the overrides that stand in the text between backticks."""
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        words = span.removeprefix("python -m experiments.run ").split()
        if all(OVERRIDE.fullmatch(word) for word in words):
            yield words


@cache  # pages repeat each other
def composes(overrides: tuple[str, ...]) -> None:
    """Compose each run of a command, every value of a sweep."""
    swept = "-m" in overrides
    parsed = OverridesParser.create().parse_overrides([word for word in overrides if word != "-m"])
    runs: list[list[str]] = [[]]
    for override in parsed:
        choices = [str(override.input_line)]
        if override.is_sweep_override():
            assert swept, f"{choices[0]} needs -m"
            key = override.get_key_element()
            choices = [f"{key}={value}" for value in override.sweep_string_iterator()]
        runs = [[*run, choice] for run in runs for choice in choices]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for run in runs:
            schema.validate(compose("config", overrides=run))


@pytest.fixture(autouse=True)
def nodes() -> None:
    schema.register()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_composes(page: Path) -> None:
    for overrides in commands(page.read_text()):
        assert "-m" not in overrides[1:], "-m goes first"
        composes(tuple(overrides))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_override_composes_on_the_real_world(page: Path) -> None:
    run = OTHERS.get(page.stem.split("_")[0], REAL)
    for overrides in spans(page.read_text()):
        own_experiment = any(word.startswith("+exp=") for word in overrides)
        composes(tuple(overrides if own_experiment else [*run, *overrides]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        place = page.parent / name if name else page
        if name.endswith(".png"):
            continue  # pictures are made by runs
        assert place.is_file(), target
        titles = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in slugs, target


def test_the_readme_names_every_experiment_and_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    experiments = [path.stem for path in (ROOT / "conf" / "exp").glob("[!_]*.yaml")]
    assert [name for name in experiments if f"`{name}`" not in text] == []
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text] == []


def test_the_planted_typo_is_found() -> None:
    with pytest.raises(Exception, match="rollot"):
        composes(("rollot=g4",))
    with pytest.raises(AssertionError, match="needs -m"):
        composes((*EMBEDDED, "trainer.lr=1e-3,3e-3"))
