"""Embeddings on disk: safetensors files, named by a fingerprint in the cache."""

from __future__ import annotations

import logging
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from core_rl.files import atomically

log = logging.getLogger(__name__)

ROWS, IDS, CRC = "rows", "ids", "crc32"


def cached_rows(folder: Path, key: str, make: Callable[[], Tensor]) -> Tensor:
    """Read rows [N, D] from the cache, or make and store them.

    `key` is a fingerprint of everything that the rows depend on; it names the file.  A file that is
    damaged is made again.
    """
    path = folder / f"{key}.safetensors"
    kept = _kept_rows(path) if path.is_file() else None
    if kept is not None:
        return kept
    rows_ND = make().contiguous()
    with atomically(path) as beside:
        save_file({ROWS: rows_ND}, beside, {CRC: _crc(rows_ND)})
    log.info("embeddings: %d rows of %d into %s", *rows_ND.shape, path)
    return _tensors(path, (ROWS,))[ROWS]  # mapped into memory, and shared with other processes


def _kept_rows(path: Path) -> Tensor | None:
    """Rows of the cache; None, with a warning, if their checksum is another one."""
    try:
        with safe_open(path, "pt") as file:
            rows_ND: Tensor = file.get_tensor(ROWS)
            noted = (file.metadata() or {}).get(CRC)
    except SafetensorError as error:
        log.warning("%s is damaged (%s) and made again", path, error)
        return None
    if noted not in (None, _crc(rows_ND)):
        log.warning("%s is damaged (its checksum differs) and made again", path)
        return None
    return rows_ND


def _crc(rows_ND: Tensor) -> str:
    return str(zlib.crc32(rows_ND.contiguous().view(torch.uint8).numpy().data))


def write_embeddings(path: str | Path, ids: Sequence[int], rows_ND: Tensor) -> None:
    """Write rows by question id, as `data_mix.text_encoder.kind=file` reads them."""
    tensors = {IDS: torch.tensor(ids, dtype=torch.long), ROWS: rows_ND.contiguous()}
    save_file(tensors, str(path))


def read_embeddings(
    path: str | Path, ids: Sequence[int], field: str, order: Sequence[int] = ()
) -> Tensor:
    """Read the rows of questions from a file, unit length, in the order asked for.

    Args:
        path: a safetensors file with `ids` [M] (question ids, int64) and `rows` [M, D], or a `.pt`
            file with the same two, or with the rows alone as the earlier programs wrote it.  A
            `.pt` file is read with `weights_only`: code in it is not run.
        ids: of the questions asked for.
        field: the kind of embedding, for messages.
        order: ids of all questions in the order of their files, which is that of rows alone.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it has another layout, a NaN, or no row for a question.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a safetensors file of {field}")
    found = _pickled(path, order) if path.suffix == ".pt" else _tensors(path, (IDS, ROWS))
    held, rows_MD = found[IDS], found[ROWS]
    if held.ndim != 1 or rows_MD.ndim != 2 or len(held) != len(rows_MD):
        raise ValueError(
            f"{path}: ids {tuple(held.shape)}, rows {tuple(rows_MD.shape)}: expected [M] and [M, D]"
        )
    place = {key: i for i, key in enumerate(held.tolist())}
    missing = [key for key in ids if key not in place]
    if missing:
        raise ValueError(
            f"query {missing[0]}: {field}: no embedding in {path} ({len(missing)} of {len(ids)} "
            "questions have none)"
        )
    rows_ND = rows_MD[[place[key] for key in ids]].float()
    bad = (~rows_ND.isfinite().all(dim=-1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"query {ids[bad[0]]}: {field}: {path} holds NaN or infinite numbers")
    return normalize(rows_ND, dim=-1)


def _pickled(path: Path, order: Sequence[int]) -> dict[str, Tensor]:
    """Read a `.pt` file without running code that it may hold."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: not a file of plain tensors ({reason}): expected rows [M, D], or ids and rows"
        ) from error
    if isinstance(found, Tensor):
        if len(found) != len(order):
            raise ValueError(
                f"{path}: {tuple(found.shape)} without ids: expected a row for each of the "
                f"{len(order)} questions of data_mix.files, in their order; or give `ids` too"
            )
        return {IDS: torch.tensor(order), ROWS: found}
    if not isinstance(found, dict) or not all(
        isinstance(found.get(n), Tensor) for n in (IDS, ROWS)
    ):
        raise ValueError(f"{path}: expected rows [M, D], or tensors {[IDS, ROWS]} by name")
    return found


def _tensors(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a safetensors file ({error}); delete or replace it"
        ) from error
    if not set(names) <= set(found):
        raise ValueError(f"{path}: tensors {sorted(found)}: expected {list(names)}")
    return found
