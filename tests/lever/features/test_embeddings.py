from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lever.features.embeddings import cached_rows, read_embeddings, write_embeddings


def test_rows_are_made_once_and_read_memory_mapped(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> Tensor:
        calls.append(1)
        return torch.arange(6.0).view(2, 3)

    first = cached_rows(tmp_path / "cache", "key", make)
    again = cached_rows(tmp_path / "cache", "key", make)
    assert len(calls) == 1
    assert torch.equal(first, torch.arange(6.0).view(2, 3))
    assert torch.equal(first, again)
    cached_rows(tmp_path / "cache", "other", make)
    assert len(calls) == 2
    maps = Path("/proc/self/maps")
    if maps.is_file():  # Linux says what is mapped
        assert str(tmp_path / "cache" / "key.safetensors") in maps.read_text()


@pytest.mark.parametrize("damage", ["torn", "flipped"])
def test_damaged_rows_are_made_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = torch.arange(60.0).view(20, 3)
    cached_rows(tmp_path, "key", lambda: rows)
    [path] = tmp_path.iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:-9] if damage == "torn" else data[:-9] + b"x" + data[-8:])
    assert torch.equal(cached_rows(tmp_path, "key", lambda: rows + 1), rows + 1)
    assert f"{path} is damaged" in caplog.text
    assert torch.equal(cached_rows(tmp_path, "key", lambda: rows), rows + 1)


def test_what_fails_leaves_no_file(tmp_path: Path) -> None:
    def make() -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        cached_rows(tmp_path, "key", make)
    assert list(tmp_path.iterdir()) == []


def test_rows_from_elsewhere_come_in_the_order_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    write_embeddings(path, [7, 3, 5], torch.tensor([[0.0, 2], [3, 0], [3, 4]]))
    rows = read_embeddings(path, [5, 7], "text embedding")
    assert torch.allclose(rows, torch.tensor([[0.6, 0.8], [0, 1]]))


@pytest.mark.parametrize("ids", [True, False])
def test_rows_of_the_earlier_programs_are_read(tmp_path: Path, ids: bool) -> None:
    """Rows alone stand in the order of the question file."""
    path, rows = tmp_path / "query_embeddings.pt", torch.tensor([[0.0, 2], [3, 0], [3, 4]])
    torch.save({"ids": torch.tensor([7, 3, 5]), "rows": rows} if ids else rows, path)
    found = read_embeddings(path, [5, 7], "text embedding", [7, 3, 5])
    assert torch.allclose(found, torch.tensor([[0.6, 0.8], [0, 1]]))
    if not ids:
        with pytest.raises(ValueError, match="expected a row for each of the 2 questions"):
            read_embeddings(path, [5, 7], "text embedding", [7, 3])


class Planted:
    """Code in a pickle: reading it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.touch, (self.path,)


def test_code_in_a_file_of_embeddings_is_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "rows.pt", tmp_path / "trace"
    torch.save(Planted(trace), path)
    with pytest.raises(ValueError, match="not a file of plain tensors"):
        read_embeddings(path, [7], "text embedding", [7])
    assert not trace.exists()
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="not a file of plain tensors"):
        read_embeddings(path, [7], "text embedding", [7])


def test_a_question_without_a_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    write_embeddings(path, [7], torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"query 9: image embedding: no embedding .*2 of 3"):
        read_embeddings(path, [7, 9, 4], "image embedding")


def test_a_row_of_nan_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    write_embeddings(path, [7, 9], torch.tensor([[1.0], [torch.nan]]))
    with pytest.raises(ValueError, match=r"query 9: text embedding: .*holds NaN"):
        read_embeddings(path, [7, 9], "text embedding")


def test_bad_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    with pytest.raises(FileNotFoundError, match=r"rows\.safetensors: no such file"):
        read_embeddings(path, [7], "text embedding")
    path.write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="not a safetensors file"):
        read_embeddings(path, [7], "text embedding")
    save_file({"rows": torch.ones(2, 2)}, path)
    with pytest.raises(ValueError, match=r"tensors \['rows'\]: expected \['ids', 'rows'\]"):
        read_embeddings(path, [7], "text embedding")
    write_embeddings(path, [7, 8], torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"ids \(2,\), rows \(3, 2\)"):
        read_embeddings(path, [7], "text embedding")
