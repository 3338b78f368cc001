"""Picture files: opened with an error that names the file, and told apart by what is known of them.

Reading a picture's bytes to tell it apart would read a whole data set before a run; size and time
of writing are what a copy under the same name changes.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

CURE = "check data_mix.files.pictures and picture_name, or replace the file by the whole picture"


def open_picture(path: Path) -> Image.Image:
    """Read a whole picture in RGB.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is no picture, or is cut off.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such picture: {CURE}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}): {CURE}") from error


def written(path: Path) -> tuple[str, int, int]:
    """Name, size in bytes and time of writing in ns: others where the picture was replaced."""
    stat = path.stat()
    return path.name, stat.st_size, stat.st_mtime_ns
