import errno
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from recsparse import tensors
from recsparse.errors import FormatError


def test_arrays_come_back(tmp_path: Path) -> None:
    tensors.save_tensors({"a": np.arange(3), "b": np.eye(2)}, tmp_path / "x")
    assert tensors.load_tensors(tmp_path / "x", "a")["a"].tolist() == [0, 1, 2]
    assert sorted(tensors.load_tensors(tmp_path / "x")) == ["a", "b"]


@pytest.mark.parametrize("content", [None, b"", b"\x08\0\0\0\0\0\0\0garbage!"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(FormatError, match="is damaged"):
        tensors.load_tensors(tmp_path / "x")


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    tensors.save_tensors({"a": np.arange(3)}, tmp_path / "x")
    with pytest.raises(FormatError, match="'b'"):
        tensors.load_tensors(tmp_path / "x", "a", "b")


def test_a_full_disk_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        tensors.save_tensors({}, tmp_path / "x")
    assert caught.value.errno == errno.ENOSPC
