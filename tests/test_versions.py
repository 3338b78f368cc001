"""Caches are keyed by version constants; each is held to the code that decides the result.

`versions.json` has a digest of that code.  After a change of it, decide whether a result may differ
from what is in users' caches.  If so raise the constant.  Then, in either case:

    python -m tests.test_versions --write

Docstrings, comments, imports, annotations, log lines and the texts of errors do not count, nor does
the file that the code is in.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEPT = Path(__file__).with_name("versions.json")

# Constant -> what decides the result: modules, or definitions with all that they use of their file.
DECIDED_BY = {
    "lever.answerers.api:API_VERSION": ["lever.answerers.api:ApiAnswerer"],
    "lever.answerers.huggingface:HF_VERSION": ["lever.answerers.huggingface:HFAnswerer"],
    "lever.answerers.protocol:KERNEL_VERSION": [
        "lever.answerers.protocol:KernelICLAnswerer",
        "lever.data.world_reader:KernelReader",
    ],
    "lever.answerers.text_kernel:TEXT_KERNEL_VERSION": [
        "lever.answerers.text_kernel:TextKernelAnswerer"
    ],
    "lever.data.pools:POOLS_VERSION": ["lever.data.pools:draw_pools"],
    "lever.data.world:WORLD_VERSION": [
        "lever.data.world:make_world",
        "lever.data.world:shifted_settings",
        "lever.data.world_reader:KernelReader",
    ],
    "lever.features.encoders:ENCODERS_VERSION": [
        "lever.features.encoders:encode_pictures",
        "lever.features.encoders:encode_questions",
    ],
    "lever.policy.neighbours:NEIGHBOURS_VERSION": ["lever.policy.neighbours:neighbour_rows"],
    "omni_rl.data.scenes:SCENES_VERSION": [
        "omni_rl.data.scenes",
        "omni_rl.data.drawing",
        "omni_rl.data.media:write_clip",
    ],
    "omni_rl.policy.tiny:TINY_VERSION": ["omni_rl.policy.tiny"],
    "omni_rl.learning.warm_start:WARM_START_VERSION": [
        "omni_rl.learning.warm_start:make_warm_start"
    ],
    "sa2va_rl.data.features:FEATURES_VERSION": ["sa2va_rl.data.features"],
    "sa2va_rl.learning.grpo:GRPO_VERSION": [
        "sa2va_rl.learning.grpo",
        "sa2va_rl.policy.prompt_selector",
        "sa2va_rl.rewards.verdicts",
    ],
    "sa2va_rl.learning.ppo:PPO_VERSION": [
        "sa2va_rl.learning.ppo",
        "sa2va_rl.learning.ppo_callbacks",
        "sa2va_rl.learning.prompt_env",
        "sa2va_rl.rewards.verdicts",
    ],
    "sa2va_rl.results.mask_methods:MASK_METHODS_VERSION": [
        "sa2va_rl.results.mask_methods",
        "sa2va_rl.learning.finetune",
        "sa2va_rl.learning.differentiable_segmenter",
        "sa2va_rl.segmenters.postprocess",
    ],
    "sa2va_rl.results.methods:METHODS_VERSION": [
        "sa2va_rl.results.methods",
        "sa2va_rl.policy.baselines",
    ],
    "sa2va_rl.rewards.reward_net:REWARD_NET_VERSION": [
        "sa2va_rl.rewards.reward_net",
        "sa2va_rl.rewards.reward_fit",
        "sa2va_rl.rewards.reward_pairs",
    ],
    "sa2va_rl.segmenters.vesselness:VESSELNESS_VERSION": [
        "sa2va_rl.segmenters.vesselness",
        "sa2va_rl.prompts:controls_of",
    ],
}


def version_of(constant: str) -> int:
    module, _, name = constant.partition(":")
    value = getattr(importlib.import_module(module), name)
    assert isinstance(value, int)
    return value


def digest_of(sources: list[str]) -> str:
    """Digest what `DECIDED_BY` names, e.g. `package.module:function`."""
    parts = []
    for source in sources:
        module, _, name = source.partition(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        parts.append(json.dumps(digested(tree, name)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def digested(tree: ast.Module, name: str = "") -> list[object]:
    """Lay a file out as nested lists; of one definition, that and what it uses of the file."""
    statements = [node for node in map(essential, tree.body) if node is not None]
    if name:
        own = used_by(name, statements)
        statements = [node for node in statements if own & defined_by(node)]
    return [laid_out(node) for node in statements if not is_version(node)]


def essential(node: ast.AST) -> ast.AST | None:
    """A statement without what decides nothing; None where nothing is left."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass):
        return None
    if isinstance(node, ast.Expr):
        # Docstrings and log lines.
        call = node.value
        if isinstance(call, ast.Constant) or ast.unparse(call).startswith(("log.", "warnings.")):
            return None
    if isinstance(node, ast.Raise):
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(kind, None)
    for field, value in ast.iter_fields(node):
        if isinstance(value, list):
            parts = [essential(v) if isinstance(v, ast.AST) else v for v in value]
            setattr(node, field, [part for part in parts if part is not None])
        elif isinstance(value, ast.AST):
            setattr(node, field, None if field in ("annotation", "returns") else essential(value))
    return node


def laid_out(node: object) -> object:
    """The tree as lists, equal on every version of Python."""
    if isinstance(node, list):
        return [laid_out(part) for part in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
    return [type(node).__name__, *([name, laid_out(value)] for name, value in fields)]


def defined_by(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
    parts = (part for target in targets for part in ast.walk(target))
    return {part.id for part in parts if isinstance(part, ast.Name)}


def used_by(name: str, statements: list[ast.AST]) -> set[str]:
    """Names of the file that a definition uses, itself among them, also by way of others."""
    definitions = {one: node for node in statements for one in defined_by(node)}
    assert name in definitions, f"no {name} in the file"
    found, new = set(), {name}
    while new:
        found |= new
        parts = (part for one in new for part in ast.walk(definitions[one]))
        read = {part.id for part in parts if isinstance(part, ast.Name)}
        new = read & definitions.keys() - found
    return found


def is_version(node: ast.AST) -> bool:
    return any(name.endswith("_VERSION") for name in defined_by(node))


def current() -> dict[str, dict[str, object]]:
    return {
        constant: {"version": version_of(constant), "digest": digest_of(sources)}
        for constant, sources in DECIDED_BY.items()
    }


@pytest.mark.parametrize("constant", DECIDED_BY)
def test_a_version_is_that_of_its_code(constant: str) -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8")).get(constant)
    found = {"version": version_of(constant), "digest": digest_of(DECIDED_BY[constant])}
    assert found == kept, (
        f"{', '.join(DECIDED_BY[constant])}: the code or {constant} has changed. If what users "
        f"have in their caches may be another result now, raise {constant}; if it has been raised, "
        "or every result is the same, run: python -m tests.test_versions --write"
    )


def test_versions_are_kept_for_nothing_else() -> None:
    assert json.loads(KEPT.read_text(encoding="utf-8")).keys() == DECIDED_BY.keys()


BEFORE = '''
"""A file."""
import logging
EDGE_VERSION = 1
EDGE = 3
OTHER = 4

def wanted(x: int) -> int:
    """Double."""
    if x > EDGE:
        raise ValueError(f"{x} is large")
    log.info("doubling")
    return helper(x)

def helper(x):
    return 2 * x
'''


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("A file.", "Another wording.", False),
        ("Double.", "Return twice the number.", False),
        ("doubling", "twice", False),
        ("is large", "is too large", False),
        ("import logging", "import logging, math", False),
        ("x: int", "x: float", False),
        ("EDGE_VERSION = 1", "EDGE_VERSION = 2", False),
        ("OTHER = 4", "OTHER = 5", False),
        ("EDGE = 3", "EDGE = 4", True),
        ("x > EDGE", "x >= EDGE", True),
        ("2 * x", "3 * x", True),
        ("ValueError", "TypeError", True),
    ],
)
def test_only_what_decides_a_result_counts(old: str, new: str, counts: bool) -> None:
    assert old in BEFORE
    after = BEFORE.replace(old, new)
    same = digested(ast.parse(BEFORE), "wanted") == digested(ast.parse(after), "wanted")
    assert same is not counts


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    KEPT.write_text(json.dumps(current(), indent=2) + "\n", encoding="utf-8")
