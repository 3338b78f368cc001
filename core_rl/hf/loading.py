"""Load a checkpoint whole, and prepare a model: Transformers fills what a file lacks at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from core_rl.sealed import check_whole


def load_whole(kind: Any, path: str | Path, field: str, **options: Any) -> Any:
    """Load a model by `kind.from_pretrained`.

    Args:
        kind: class of a model.
        path: folder or hub id.
        field: that names it, for messages.
        options: of `from_pretrained`.

    Raises:
        ValueError: the folder is damaged, or lacks tensors of the model.
    """
    check_whole(Path(path), field)
    try:
        model, found = kind.from_pretrained(path, output_loading_info=True, **options)
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # of Rust, and no subclass of anything
            raise
        raise ValueError(
            f"{field}={path}: its weights cannot be read ({error}): fetch or save it again"
        ) from error
    refuse_missing(found["missing_keys"], path, field)
    return model


def refuse_missing(missing: Any, path: str | Path, field: str) -> None:
    """Raise ValueError if a checkpoint lacks tensors."""
    names = sorted(missing)
    if names:
        raise ValueError(
            f"{field}={path}: it lacks {len(names)} tensors of the model, the first {names[0]}: it "
            "is not whole, or of another model; name another checkpoint"
        )


def switch_dropout_off(model: nn.Module) -> None:
    """Set every rate of dropout to 0: activation checkpointing needs train mode."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Layers that call the function keep its rate in an attribute of their own.
        for name, value in list(vars(module).items()):
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
