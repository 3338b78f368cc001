"""The answer to `--help`: the experiments, and the options of every group.

Hydra's own answer composes anew for each group that it lists, which takes seconds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

CONF = Path(__file__).parents[1] / "conf"

USAGE = """\
python -m experiments.run [-m] +exp=NAME [GROUP=OPTION ...] [KEY=VALUE ...]

Experiments (+exp=NAME)
{experiments}

Groups (GROUP=OPTION)
{groups}

Flags
  --cfg job      show what would run, and run nothing
  -m             run every combination of values, as in trainer.lr=1e-3,1e-4
  --hydra-help   the other flags

Settings (KEY=VALUE), as these overrides compose them:
"""


def is_offered(name: str) -> bool:
    """Whether a user may name this option: those with a leading underscore are parts of others."""
    return not name.rpartition("/")[2].startswith("_")


def answered(arguments: list[str]) -> list[str]:
    """Print the answer where help is asked for.

    Args:
        arguments: of the command line, without the program.

    Returns:
        Arguments for Hydra; it is to show the settings in the place of its own help.
    """
    if not {"--help", "-h"} & set(arguments):
        return arguments
    options = _options([CONF, *_folders(arguments)])
    experiments = {path.stem: _first_comment(path) for path in options.pop("exp")}
    groups = {group: ", ".join(path.stem for path in paths) for group, paths in options.items()}
    sys.stdout.write(USAGE.format(experiments=_table(experiments), groups=_table(groups)))
    sys.stdout.flush()
    kept = [argument for argument in arguments if argument not in ("--help", "-h")]
    return kept if "--cfg" in kept else ["--cfg", "job", *kept]


def _folders(arguments: list[str]) -> list[Path]:
    """The folder of settings that a user adds to ours."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    added = parser.parse_known_args(arguments)[0].config_dir
    return [] if added is None else [added]


def _options(folders: list[Path]) -> dict[str, list[Path]]:
    """The files of each group, without those that are parts of others."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*/*.yaml")):
        if is_offered(path.stem):
            found.setdefault(path.parent.name, []).append(path)
    return dict(sorted(found.items()))


def _first_comment(path: Path) -> str:
    """The first line of an option that says what it is."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = (line[1:].strip() for line in lines if line.startswith("#"))
    return next((text for text in comments if not text.startswith("@")), "")


def _table(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"  {name:{width}}  {text}".rstrip() for name, text in rows.items())
