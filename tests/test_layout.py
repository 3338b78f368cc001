"""The arrows between packages, and that `conf/` names what exists."""

from __future__ import annotations

import ast
import re
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
SOURCES = sorted(path for name in OURS for path in (ROOT / name).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(nodes: list[ast.stmt]) -> set[str]:
    """Top-level packages that these statements and those inside them import."""
    found = set()
    for node in (inner for statement in nodes for inner in ast.walk(statement)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found.add((node.module or "").partition(".")[0])
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
    assert imported(ast.parse(path.read_text()).body) & OURS <= ALLOWED[package]


@pytest.mark.parametrize("name", ["run", "schema", "errors", "__init__"])
def test_the_command_line_starts_without_anything_heavy(name: str) -> None:
    tree = ast.parse((ROOT / "experiments" / f"{name}.py").read_text())
    light = {"hydra", "omegaconf", "core_rl", "experiments"}
    assert third_party(imported(at_import(tree))) <= light


@pytest.mark.parametrize("package", sorted(OURS - {"experiments"}))
def test_settings_are_described_without_anything_heavy(package: str) -> None:
    for path in [ROOT / package / "__init__.py", *(ROOT / package).glob("*config.py")]:
        if path.exists():
            body = at_import(ast.parse(path.read_text()))
            # Settings may be made of other settings, which are held to the same.
            others = [node for node in body if not is_settings(node)]
            heavy = third_party(imported(others)) - {"core_rl"}
            assert not heavy, f"{name_of(path)} imports {heavy}"


def is_settings(node: ast.AST) -> bool:
    module = node.module if isinstance(node, ast.ImportFrom) else None
    return module is not None and module.split(".")[0] in OURS and module.endswith("config")


def third_party(packages: set[str]) -> set[str]:
    import sys

    return packages - sys.stdlib_module_names


def targets() -> list[str]:
    texts = (path.read_text() for path in sorted((ROOT / "conf").rglob("*.yaml")))
    return sorted({name for text in texts for name in re.findall(r"_target_: *([\w.]+)", text)})


@pytest.mark.parametrize("target", targets())
def test_conf_names_what_exists(target: str) -> None:
    module, _, name = target.rpartition(".")
    path = ROOT / f"{module.replace('.', '/')}.py"
    assert path.exists(), f"no file {name_of(path)}"
    defined = {getattr(node, "name", None) for node in ast.parse(path.read_text()).body}
    assert name in defined, f"{name_of(path)} defines no {name}"


def test_the_schema_names_what_exists() -> None:
    from experiments.schema import PIPELINE_NODES

    for target in PIPELINE_NODES.values():
        module, _, name = target.partition(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        assert name in {getattr(node, "name", None) for node in tree.body}
