"""Load pretrained models: the device for them, and an error that names the setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def device_of_choice() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_or_say(field: str, path: str, load: Callable[..., Any]) -> Any:
    """Load from a local folder or the hub.

    Raises:
        FileNotFoundError: neither has it; the message names the field.
    """
    try:
        return load(path)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{field}={path}: nothing there to load ({str(error).splitlines()[0]}): give a local "
            "folder with the weights, or a hub id and a connection"
        ) from error
