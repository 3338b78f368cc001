"""Load a checkpoint whole: Transformers fills tensors that a file lacks with random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
