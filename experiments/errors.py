"""One line for each mistake of a user: what is wrong, and how to mend it.

Exit codes: 2 for a configuration that cannot run, 3 for a run that failed a health check, 75 for
one that SIGTERM ended and that may be started again (after saving, where it was training), 1 for a
run that failed otherwise.  HYDRA_FULL_ERROR=1 shows tracebacks instead.
"""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from core_rl import secrets
from core_rl.run.signals import REQUEUE, TerminatedError, terminable
from experiments import mishaps
from experiments.schema import ConfigError, UnknownKeyError
from experiments.usage import is_offered

SHOW_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"

CONFIG_ERRORS = (HydraException, OmegaConfBaseException, ConfigError)
USER_ERRORS = (ValueError, FileNotFoundError, ImportError)

# What Hydra or OmegaConf says (over several lines) -> what we say.
CURES = (
    (r"Could not override '(\S+?)'.*use (\+\S+)$", r"\1 has no default to replace: write \2"),
    (r"Ambiguous value for argument '(.*?)'", r"\1: for one run a value put -m first"),
    (r"Sweep parameters '(.*?)' requires", r"\1: for one run a value put -m first"),
    (
        r"Config group override must be a string",
        "what a group is set to must be the name of an option, as in reward=stage4",
    ),
    (r"Missing mandatory value: (\S+)", r"\1 has no value: give \1=VALUE"),
    (r"ValueError raised while resolving interpolation: ([^\n]+)", r"\1"),
)


class JobFailedError(Exception):
    """A job of a batch failed and was reported; the batch goes on and names it at its end."""


@contextmanager
def reported() -> Iterator[None]:
    """Answer an error of composing with one line and exit code 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except JobFailedError as error:
        sys.exit(f"error: a job of this batch failed, see above: {error}")
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(130)
    except TerminatedError as error:
        _say(str(error))
        sys.exit(REQUEUE)
    except (*CONFIG_ERRORS, ValueError) as error:  # a job answers its own: this is Hydra's
        if SHOW_TRACEBACKS:
            raise
        _say(explain(error))
        sys.exit(2)


@contextmanager
def reported_job(folder: Path, in_batch: bool) -> Iterator[None]:
    """Answer an error of one job with one line; the traceback goes to its `train.log`.

    Args:
        folder: the run folder.
        in_batch: raise JobFailedError, so that the batch goes on, instead of leaving Python.
    """
    try:
        with terminable():
            yield
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit):
            error = RuntimeError(f"a part of this run called sys.exit({error.code!r})")
        told = secrets.scrub("".join(traceback.format_exception(error)))
        with suppress(OSError), (folder / "train.log").open("a", encoding="utf-8") as log:
            log.write(told)  # the error may be that of a full disk
        if SHOW_TRACEBACKS:
            raise
        if isinstance(error, CONFIG_ERRORS):
            line, code = explain(error), 2
        elif _is_unhealthy(error):
            line, code = str(error), 3
            if not in_batch:
                line = "\n".join([f"unhealthy, see {folder / 'health.json'}", *_diagnosis(error)])
        elif (mishap := mishaps.told(error)) is not None:
            line, code = f"{mishap} (traceback: {folder / 'train.log'})", 1
        elif isinstance(error, USER_ERRORS):
            line, code = f"{_one_line(str(error))} (traceback: {folder / 'train.log'})", 1
        else:  # not the user's mistake: show where
            sys.stderr.write(told)
            line, code = f"{type(error).__name__}: {_one_line(str(error))}", 1
        if in_batch:
            _say(f"job {folder.name}: {line}")
            raise JobFailedError(f"{folder}: {line}") from error
        _say(line)
        sys.exit(code)


def _is_unhealthy(error: BaseException) -> bool:
    # The module that raised it is imported already; importing it here would slow every start.
    health = sys.modules.get("core_rl.doctor.findings")
    return health is not None and isinstance(error, health.UnhealthyError)


def _diagnosis(error: Any) -> Iterator[str]:
    """Yield a line for each failed check: what is wrong, then what cures it."""
    for one in error.findings:
        yield f"  {one.check}: {one.cause}"
        yield f"    cure: {one.cure}"


def explain(error: BaseException) -> str:
    """Turn an error of composing or checking a configuration into one line with the cure."""
    cause = error.__cause__
    if isinstance(error, UnknownKeyError):
        return _unknown("key", error.key, error.known)
    if isinstance(error, MissingConfigException):
        group, _, option = str(error.missing_cfg_file or "").rpartition("/")
        if group:
            offered = filter(is_offered, error.options or [])
            return _unknown(f"option of {group}:", option, offered)
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: write KEY=VALUE, and quote special characters"
    if isinstance(error, OmegaConfBaseException):
        return _node_error(error, "")
    if isinstance(cause, OmegaConfBaseException):
        return _node_error(cause, str(error))
    if isinstance(error, InstantiationException) and cause is not None:
        return f"{_first_line(error)} {_first_line(_root(cause))}"
    return _cured(str(error)) or _one_line(str(error))


def _node_error(error: OmegaConfBaseException, context: str) -> str:
    """Explain what OmegaConf says about one node; `context` is Hydra's sentence around it."""
    match = re.search(r"'([\w.@/]+)", context)
    override = match[1] if match else ""
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _unknown_key(error, override)
    said = str(error.msg or error)
    field = error.full_key or override
    # The first line suffices; the others repeat the key and name Python types.
    return _cured(said) or (f"{field}: " if field else "") + said.splitlines()[0]


def _cured(said: str) -> str | None:
    for pattern, cure in CURES:
        match = re.search(pattern, said, re.DOTALL)
        if match:
            return match.expand(cure)
    return None


def _unknown_key(error: OmegaConfBaseException, override: str) -> str:
    parent = error.parent_node
    prefix, known = "", []
    if isinstance(parent, DictConfig):
        prefix = parent._get_full_key(None) or ""
        known = [f"{prefix}.{key}" if prefix else key for key in map(str, parent) if key != "hydra"]
    name = error.full_key or str(error.key)
    # The error of a key inside a value, as in phases=[{epoch: 2}], does not say where the key is.
    what = "key" if "." in name or name == override.partition(".")[0] else f"key in {override}:"
    return _unknown(what, name, known)


# What other programs call a setting of ours.
OTHER_NAMES = {
    "lr": "trainer.lr",
    "learning_rate": "trainer.lr",
    "max_grad_norm": "trainer.grad_clip",
    "gradient_clip_val": "trainer.grad_clip",
    "num_epochs": "trainer.epochs",
    "num_train_epochs": "trainer.epochs",
    "steps": "trainer.max_steps",
    "num_steps": "trainer.max_steps",
    "batch_size": "trainer.batch_size",
    "per_device_train_batch_size": "trainer.batch_size",
    "gradient_accumulation_steps": "trainer.accumulation",
    "accumulate_grad_batches": "trainer.accumulation",
    "gpus": "hardware.devices",
    "num_gpus": "hardware.devices",
    "nodes": "hardware.num_nodes",
    "group_size": "rollout.num_generations",
    "num_samples": "rollout.num_generations",
    "temp": "rollout.temperature",
    "max_new_tokens": "rollout.max_completion",
    "max_completion_length": "rollout.max_completion",
    "max_prompt_length": "rollout.max_prompt",
    "beta": "loss.kl.weight",
    "kl_coef": "loss.kl.weight",
    "epsilon": "loss.eps_low",
    "experiment": "exp",
}


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is unknown, what was probably meant and what there is."""
    known = list(known)
    group, _, last = name.rpartition(".")
    ours = OTHER_NAMES.get(last, "")
    near = [ours] if ours and group in ("", ours.rpartition(".")[0]) else []
    near += difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    near += [key for key in known if key.startswith(name)]
    meant = f"did you mean {near[0]}? " if near else ""
    return f"unknown {what} {name}; {meant}There are: {', '.join(known)}"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _say(line: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"error: {secrets.scrub(line)}\n")
