"""How the loop's strategies write a checkpoint file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from core_rl.sealed import sync


class WholeFiles(TorchCheckpointIO):
    """Write a checkpoint where it is asked for: Lightning goes through the folder TMPDIR."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Save and flush to the disk."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)
        sync(Path(path))
