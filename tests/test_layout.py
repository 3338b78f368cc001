"""The plan of the house: who may import whom, how large a folder is, that what is named exists."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIPELINES = {"lever", "omni_rl", "sa2va_rl"}
OURS = {"core_rl", "experiments", *PIPELINES}
ALLOWED = {
    "core_rl": {"core_rl"},
    "experiments": {"core_rl", "experiments"},
    **{name: {"core_rl", name} for name in PIPELINES},
}
# The rooms of each package from the lowest up; the files at the package's root lie below them all.
ROOMS = {
    "core_rl": "hf objective servers loop doctor doctor/hf run preflight results",
    "omni_rl": "data policy rewards doctor learning results tasks",
    "lever": "features data answerers policy candidates rewards learning results tasks",
    "sa2va_rl": "data segmenters rewards policy learning results tasks",
    "experiments": "",
}
MAX_FILES = 14
SOURCES = sorted(path for name in OURS for path in (ROOT / name).rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


# Arrows between packages


def imported(nodes: list[ast.stmt]) -> set[str]:
    """Top-level packages that these statements and those inside them import."""
    return {name.partition(".")[0] for name in imported_modules(nodes)}


def imported_modules(nodes: list[ast.stmt]) -> set[str]:
    """Modules that these statements and those inside them import, by their full names."""
    found = set()
    for node in (inner for statement in nodes for inner in ast.walk(statement)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else name.rpartition(".")[0] for name in full}
    return found


def at_import(tree: ast.Module) -> list[ast.stmt]:
    """The statements that run on import, without what only a type checker reads."""
    return [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_package_imports_only_what_its_arrow_allows(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert imported(parsed(path).body) & OURS <= ALLOWED[package]


@pytest.mark.parametrize("name", ["job", "schema", "errors", "usage", "__init__"])
def test_the_command_line_starts_without_anything_heavy(name: str) -> None:
    tree = parsed(ROOT / "experiments" / f"{name}.py")
    light = {"hydra", "omegaconf", "core_rl", "experiments"}
    assert third_party(imported(at_import(tree))) <= light


@pytest.mark.parametrize("name", ["run", "malloc"])
def test_what_runs_before_the_process_starts_again_costs_nothing(name: str) -> None:
    body = at_import(parsed(ROOT / "experiments" / f"{name}.py"))
    assert third_party(imported_modules(body)) <= {"experiments.malloc"}


@pytest.mark.parametrize("package", sorted(OURS - {"experiments"}))
def test_settings_are_described_without_anything_heavy(package: str) -> None:
    for path in [ROOT / package / "__init__.py", *(ROOT / package).glob("*config.py")]:
        if path.exists():
            body = at_import(parsed(path))
            # Settings may be made of other settings, which are held to the same.
            others = [node for node in body if not is_settings(node)]
            heavy = third_party(imported(others)) - {"core_rl"}
            assert not heavy, f"{name_of(path)} imports {heavy}"


def is_settings(node: ast.AST) -> bool:
    module = node.module if isinstance(node, ast.ImportFrom) else None
    return module is not None and module.split(".")[0] in OURS and module.endswith("config")


def third_party(packages: set[str]) -> set[str]:
    return packages - sys.stdlib_module_names


# Rooms within a package


def room_of(path: Path) -> str:
    """The folder of a file within its package; empty at the package's root."""
    return "/".join(path.relative_to(ROOT).parts[1:-1])


def edges() -> Iterator[tuple[str, str]]:
    """Yield each import of one of our modules by another, wherever in the file it stands."""
    for name, path in MODULES.items():
        for other in imported_modules(parsed(path).body):
            if other in MODULES and other != name and MODULES[other].name != "__init__.py":
                yield name, other


@pytest.mark.parametrize("package", sorted(OURS))
def test_the_order_names_every_room(package: str) -> None:
    rooms = {room_of(path) for path in SOURCES if path.is_relative_to(ROOT / package)} - {""}
    assert rooms == set(ROOMS[package].split())


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_run_downwards(package: str) -> None:
    order = ["", *ROOMS[package].split()]
    up = [
        f"{name} imports {other}"
        for name, other in edges()
        if name.partition(".")[0] == other.partition(".")[0] == package
        and order.index(room_of(MODULES[name])) < order.index(room_of(MODULES[other]))
    ]
    assert up == []


def test_no_files_import_each_other_in_a_circle() -> None:
    below: dict[str, set[str]] = {name: set() for name in MODULES}
    for name, other in edges():
        below[name].add(other)
    while free := {name for name, others in below.items() if not others}.union(
        below.keys() - set().union(*below.values())
    ):  # that import nothing, or that nobody imports
        for name in free:
            del below[name]
        for others in below.values():
            others.difference_update(free)
    assert below == {}, "each of these imports another of them"


def test_no_folder_holds_more_than_a_reader_can_keep_in_mind() -> None:
    everything = {*SOURCES, *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "tests").rglob("*.py")}
    sizes = Counter(path.parent for path in everything if path.name != "__init__.py")
    too_large = {name_of(folder): size for folder, size in sizes.items() if size > MAX_FILES}
    assert too_large == {}


# What is named exists


def defined(path: Path) -> set[str]:
    """The names that a module defines, and those of its classes as `Class.name`."""
    return set(_defined(parsed(path).body))


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{name}" for name in _defined(node.body))
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def targets() -> list[str]:
    texts = (path.read_text() for path in sorted((ROOT / "conf").rglob("*.yaml")))
    return sorted({name for text in texts for name in re.findall(r"_target_: *([\w.]+)", text)})


@pytest.mark.parametrize("target", targets())
def test_conf_names_what_exists(target: str) -> None:
    module, _, name = target.rpartition(".")
    assert module in MODULES, f"no module {module}"
    assert name in defined(MODULES[module]), f"{module} defines no {name}"


def test_the_schema_names_what_exists() -> None:
    from experiments.schema import PIPELINE_NODES

    for target in PIPELINE_NODES.values():
        module, _, name = target.partition(":")
        assert name in defined(MODULES[module])


FOLDERS = ("benchmarks", "conf", "docs", "tests", *sorted(OURS))
PAGES = [
    *sorted(ROOT.glob("[!C]*.md")),
    ROOT / "CONTRIBUTING.md",  # CHANGELOG.md also names what there was
    ROOT / "Makefile",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "conf").rglob("*.yaml")),
    *SOURCES,
    *sorted((ROOT / "benchmarks").glob("*.py")),
]
# `core_rl/loop/module.py: GroupPolicyModule`, `media.py`, `conf/exp/`
FILE = re.compile(r"(?P<file>[\w./-]+\.(?:py|yaml|md)|[\w/-]+/)(?:: (?P<names>[\w., ]+))?")
DOTTED = re.compile(rf"(?:{'|'.join(FOLDERS)})(?:\.\w+)+")


def unknown_in(span: str) -> Iterator[str]:
    """Yield what the text between two backticks names and is not there."""
    match = FILE.fullmatch(span)
    if match and (match["file"].startswith(FOLDERS) or match["file"].endswith(".py")):
        file = match["file"].removesuffix("/")
        places = [ROOT / file] if "/" in match["file"] else files_called(file)
        found = [place for place in places if place.exists()]
        if not found:
            yield f"no file {file}"
        for name in re.findall(r"[\w.]+", match["names"] or ""):
            if not any(name in defined(place) for place in found if place.suffix == ".py"):
                yield f"{file} defines no {name}"
    elif DOTTED.fullmatch(span):
        yield from unknown_dotted(span)


def unknown_dotted(name: str) -> Iterator[str]:
    """Yield a dotted name unless it is a folder, a module, or a name that a module defines."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        rest = ".".join(parts[length:])
        if path.with_suffix(".py").is_file():
            if rest and rest not in defined(path.with_suffix(".py")):
                yield f"{'.'.join(parts[:length])} defines no {rest}"
            return
        if path.is_dir() and not rest:
            return
    yield f"nothing is called {name}"


@cache
def files_called(name: str) -> list[Path]:
    return [path for folder in FOLDERS for path in (ROOT / folder).rglob(name)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_what_exists(page: Path) -> None:
    text = page.read_text()
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    unknown = [line for span in spans for line in unknown_in(span)]
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        nodes = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
        names = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
        unknown += [line for name in names for line in unknown_in(name)]
    assert unknown == []


@pytest.mark.parametrize(
    ("span", "wrong"),
    [
        ("core_rl/loop/module.py: GroupPolicyModule.training_step", None),
        (
            "core_rl/loop/module.py: GroupPolicyModule.nothing",
            "defines no GroupPolicyModule.nothing",
        ),
        ("core_rl/loop/nothing.py", "no file core_rl/loop/nothing.py"),
        ("nothing.py", "no file nothing.py"),
        ("module.py", None),
        ("conf/exp/", None),
        ("conf/exp/nothing.yaml", "no file conf/exp/nothing.yaml"),
        ("outputs/latest/", None),  # a run's, not ours
        ("core_rl.run.fit.fit", None),
        ("core_rl.run.fit.nothing", "core_rl.run.fit defines no nothing"),
        ("core_rl.run.nothing", "nothing is called core_rl.run.nothing"),
        ("lever.answerers", None),
    ],
)
def test_a_planted_name_is_found(span: str, wrong: str | None) -> None:
    assert [wrong] * (wrong is not None) == [
        line.removeprefix("core_rl/loop/module.py ") for line in unknown_in(span)
    ]
