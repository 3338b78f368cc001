"""Open picture files, and tell whether one was replaced by its size and time of writing.

Digesting the bytes of all pictures would read the whole data set before a run.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

CURE = "check data_mix.files.pictures and picture_name, or replace the file by the whole picture"


def open_picture(path: Path) -> Image.Image:
    """Read a picture in RGB.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is no picture, or is truncated.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such picture: {CURE}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}): {CURE}") from error


def written(path: Path) -> tuple[str, int, int]:
    """Return name, size in bytes and time of writing in ns, which change with the picture."""
    stat = path.stat()
    return path.name, stat.st_size, stat.st_mtime_ns
