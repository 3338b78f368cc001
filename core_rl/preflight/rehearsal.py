"""A rehearsal is checked against this machine; what the real run needs is said beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from core_rl.config import HardwareConfig
from core_rl.doctor.findings import Finding, skipped
from core_rl.preflight.memory import GIB


def as_rehearsed(config: Mapping[Any, Any]) -> dict[Any, Any]:
    """The configuration with the machine that a rehearsal really takes."""
    hardware = dict(config.get("hardware") or {})
    if hardware.get("rehearse"):
        hardware = asdict(HardwareConfig(**hardware))
    return {**config, "hardware": hardware}


def real_run_finding(hardware: Mapping[Any, Any], device_bytes: float | None) -> Finding:
    """Say which devices the run needs that is rehearsed.

    Args:
        hardware: as it was asked for.
        device_bytes: the least memory of one device; None where the model's size is not known.
    """
    nodes, devices = int(hardware.get("num_nodes", 1)), int(hardware.get("devices", 1))
    parts = [f"hardware.devices={devices} of kind {hardware.get('accelerator', 'cpu')}"]
    if nodes > 1:
        parts.append(f"on each of {nodes} nodes")
    if device_bytes is not None:
        parts.append(f"with at least {device_bytes / GIB:.1f} GiB each")
    return skipped("environment/real_run", f"without the rehearsal: {' '.join(parts)}")
