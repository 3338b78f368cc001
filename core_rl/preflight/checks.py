"""Checks before a run: packages, devices, files, memory and disk, for any pipeline.

The composed configuration is read as plain values.  Whether a field names a file is decided by its
name and the form of its value, so no pipeline needs to be known.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from core_rl.doctor.findings import (
    Finding,
    UnhealthyError,
    Verdict,
    failed,
    finding,
    health_table,
    skipped,
)
from core_rl.doctor.report import round_of, warn_of, write_rounds
from core_rl.files import write_text
from core_rl.preflight import packages as environment
from core_rl.preflight.memory import GIB, checkpoint_bytes, device_bytes, host_bytes
from core_rl.preflight.plan import plan_of
from core_rl.preflight.rehearsal import as_rehearsed, real_run_finding
from core_rl.preflight.shapes import Shapes, shapes_of

log = logging.getLogger(__name__)

Config = Mapping[Any, Any]

SUFFIXES = (".json", ".jsonl", ".yaml", ".yml", ".safetensors", ".npz", ".csv", ".parquet", ".mp4")
MADE = (
    "output",
    "output_path",
    "out",
    "cache",
    "log_path",
)  # fields that name what a run will write


def before_run(config: Config, folder: Path) -> bool:
    """Do what `preflight` asks for: off, warn (the default) or only.

    Args:
        config: the composed configuration.
        folder: of the run; `only` writes `health.json` and `preflight.txt` there.

    Returns:
        Whether the run ends here.

    Raises:
        UnhealthyError: `preflight=only` and a check failed.
    """
    mode = config.get("preflight", "warn")
    if mode == "off":
        return False
    found = preflight(config, thorough=mode == "only")
    warn_of(found)
    if mode != "only":
        return False
    table = health_table(found).to_string(index=False)
    log.info("before the run\n%s", table)
    write_text(folder / "preflight.txt", table + "\n")
    write_rounds(folder, [round_of(0, found)])
    if failed(found):
        raise UnhealthyError(found)
    return True


def preflight(config: Config, thorough: bool = True) -> list[Finding]:
    """Check what a configuration needs against what there is.

    Args:
        config: plain values; the groups hardware, model, loss, rollout, trainer and paths are read
            where they are there, files everywhere.
        thorough: also start Python anew to import what may be broken; seconds.

    Returns:
        Findings under `environment/`, `files/` and `resources/`.
    """
    asked, config = config, as_rehearsed(config)
    found = environment.version_findings()
    found.append(environment.soundfile_finding())
    if thorough:
        found.append(environment.torchvision_finding())
    found += requested_findings(config)
    found += file_findings(config)
    found += resource_findings(config)
    if _group(asked, "hardware").get("rehearse"):
        found.append(real_run_finding(_group(asked, "hardware"), _least_bytes(asked)))
    return found


# -- what the configuration asks for ---------------------------------------------------------------


def requested_findings(config: Config) -> list[Finding]:
    """Check devices and packages that settings ask for."""
    hardware, model = _group(config, "hardware"), _group(config, "model")
    found = [_devices(hardware)]
    cuda = torch.cuda.is_available()
    attention = str(model.get("attention", "sdpa"))
    found.append(environment.flash_attention_finding(attention, cuda))
    if hardware.get("strategy") == "deepspeed":
        reason = "hardware.strategy=deepspeed"
        found.append(environment.package_finding("deepspeed", "deepspeed", reason))
    rank = _group(model, "lora").get("r", 0)
    if rank:
        found.append(environment.package_finding("peft", "hf", f"model.lora.r={rank}"))
    if str(_group(_group(config, "rollout"), "engine").get("kind")) == "vllm":
        found.append(environment.package_finding("httpx", "judge", "rollout.engine.kind=vllm"))
    return found


def _devices(hardware: Config) -> Finding:
    check = "environment/devices"
    if hardware.get("accelerator", "cpu") not in ("gpu", "cuda"):
        return skipped(check, "no accelerator is asked for")
    wanted, there = int(hardware.get("devices", 1)), torch.cuda.device_count()
    if there == 0 and torch.backends.mps.is_available():
        there = 1
    built = f"torch {torch.__version__}"
    without_cuda = torch.version.cuda is None
    return finding(
        check,
        float(there),
        f">= {wanted}",
        there >= wanted,
        f"hardware.devices={wanted}, and {built} sees {there}"
        + (": it is built without CUDA" if without_cuda else ""),
        "install torch for your GPU, or hardware=cpu",
    )


# -- files -----------------------------------------------------------------------------------------


def file_findings(config: Config) -> list[Finding]:
    """Check that weights, annotations, reward networks and data lie where the fields say."""
    base = _group(config, "paths").get("data")
    bases = [Path(), *([Path(base).expanduser()] if base else [])]
    found = []
    for key, value in input_files(config):
        there = any((one / Path(value).expanduser()).exists() for one in bases)
        if there:
            found.append(Finding(f"files/{key}", None, "there", Verdict.ok))
        elif _is_hub_id(value):
            found.append(_hub_finding(key, value))
        else:
            cause = f"{key}={value}: no such file or folder"
            cure = f"give {key}=PATH" + (
                f", or put it under {base}" if base else ", or paths.data=FOLDER that holds it"
            )
            found.append(finding(f"files/{key}", None, "there", False, cause, cure))
    return found


def input_files(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Walk a configuration; yield the fields that name something to be read.

    Yields:
        Dotted key and value.
    """
    if isinstance(node, Mapping):
        for name, value in node.items():
            if str(name) not in MADE and (key or name != "task"):  # a task repeats the groups
                yield from input_files(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from input_files(value, f"{key}[{index}]")
    elif isinstance(node, str) and _names_file(node, key):
        yield key, node


def _names_file(value: str, key: str) -> bool:
    if any(char in value for char in " <>{}\n") or "://" in value:
        return False
    rooted = value.startswith(("/", "./", "../", "~/"))
    return rooted or value.endswith(SUFFIXES) or (key.endswith("path") and "/" in value)


def _is_hub_id(value: str) -> bool:
    return value.count("/") == 1 and not value.startswith((".", "/", "~")) and "." not in value[-6:]


def _hub_finding(key: str, value: str) -> Finding:
    """A hub id is there when its files were loaded before; else it has to be loaded now."""
    from huggingface_hub import try_to_load_from_cache

    check = f"files/{key}"
    if isinstance(try_to_load_from_cache(value, "config.json"), str):
        return Finding(check, None, "in the hub's cache", Verdict.ok)
    offline = os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True")
    return finding(
        check,
        None,
        "in the hub's cache",
        False,
        f"{key}={value} is no folder and not in the hub's cache"
        + (", and HF_HUB_OFFLINE forbids loading it" if offline else ": it will be downloaded"),
        f"give {key}=FOLDER, or let it be downloaded",
        Verdict.fail if offline else Verdict.warn,
    )


# -- memory and disk -------------------------------------------------------------------------------


def resource_findings(config: Config) -> list[Finding]:
    """Compare a simple estimate of memory and disk with what is free."""
    shapes = _shapes(config)
    if shapes is None:
        why = "the model is built here, or its size is not known"
        return [skipped(f"resources/{name}", why) for name in ("memory", "disk")]
    plan = plan_of(config, shapes)
    parts = device_bytes(shapes, plan)
    need, free = sum(parts.values()), _free_memory(_group(config, "hardware"))
    shown = ", ".join(f"{name} {value / GIB:.1f}" for name, value in parts.items() if value)
    found = [
        _fits(
            "resources/memory",
            need,
            free,
            f"{shapes.parameters / 1e9:.2f} billion parameters need about {need / GIB:.1f} GiB a "
            f"device ({shown})",
            "plan=true shows what would fit: hardware=gpu8_zero2, model.recompute=layers, "
            "model.lora.r=16, rollout=g4, or a smaller rollout.max_completion",
        )
    ]
    if plan.offload:
        host = host_bytes(shapes, plan)
        memory = float(psutil.virtual_memory().available)
        cause = f"the offloaded optimiser needs {host / GIB:.0f} GiB of the machine's memory"
        found.append(_fits("resources/host", host, memory, cause, "hardware.offload=false"))
    kept = int(_group(config, "trainer").get("keep_checkpoints", 1))
    disk = checkpoint_bytes(shapes, plan, kept)
    output = Path(str(_group(config, "paths").get("output", ".")))
    cause = f"checkpoints need {disk / GIB:.1f} GiB under {output}"
    cure = "paths.output=FOLDER on a larger disk, or trainer.keep_checkpoints=1"
    return [*found, _fits("resources/disk", disk, _free_disk(output), cause, cure)]


def _shapes(config: Config) -> Shapes | None:
    model = _group(config, "model")
    return shapes_of(model) if model.get("path") else None


def _least_bytes(config: Config) -> float | None:
    shapes = _shapes(config)
    return sum(device_bytes(shapes, plan_of(config, shapes)).values()) if shapes else None


def _fits(check: str, need: float, free: float | None, cause: str, cure: str) -> Finding:
    if free is None:
        return Finding(check, need / GIB, "no device to compare with", Verdict.skipped)
    said = f"{cause}, and {free / GIB:.1f} GiB are free"
    return finding(check, need / GIB, f"<= {free / GIB:.1f} GiB", need <= free, said, cure)


def _free_memory(hardware: Config) -> float | None:
    if hardware.get("accelerator", "cpu") == "cpu":
        return float(psutil.virtual_memory().available)
    return float(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None


def _free_disk(folder: Path) -> float:
    folder = folder.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return float(shutil.disk_usage(folder).free)


def _group(config: Config, name: str) -> Config:
    node = config.get(name)
    return node if isinstance(node, Mapping) else {}
