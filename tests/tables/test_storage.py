"""Files: exact bytes, whole or not at all, and what is refused."""

import json
import struct

import numpy as np
import pytest
from safetensors import safe_open

from recsparse.errors import FormatError
from recsparse.tables import LAYOUTS, Mask, load_table, pack, save_table
from recsparse.tables.storage import read_tensors


@pytest.fixture
def values():
    rng = np.random.default_rng(3)
    values = rng.standard_normal((50, 24)).astype(np.float32)
    return np.where(rng.random(values.shape) < 0.4, values, 0) * (rng.random(50) < 0.7)[:, None]


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "ell"])
@pytest.mark.parametrize("value_type", ["fp32", "bf16", "int4"])
def test_a_table_comes_back_bit_for_bit_and_nbytes_is_what_the_file_holds(tmp_path, values, layout, value_type):
    table = pack(values, layout=layout, value_type=value_type, fallback="zero" if layout == "dense" else "mean")
    path = tmp_path / "t.safetensors"
    save_table(table, path)
    loaded = load_table(path)
    ids = np.arange(-1, 52)
    np.testing.assert_array_equal(loaded.lookup(ids), table.lookup(ids))
    assert loaded.header == table.header
    (header_bytes,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert loaded.nbytes == table.nbytes == path.stat().st_size - 8 - header_bytes
    with safe_open(path, "numpy") as file:  # the reference reader sees the same tensors
        assert sum(file.get_tensor(name).nbytes for name in file.keys()) == table.nbytes  # noqa: SIM118


def test_files_cut_short_at_any_byte_are_refused(tmp_path, values):
    path = tmp_path / "t.safetensors"
    save_table(pack(values[:5], value_type="int8"), path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            load_table(path)


def test_bytes_added_missing_files_and_other_files_are_refused(tmp_path, values):
    path = tmp_path / "t.safetensors"
    save_table(pack(values), path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(FormatError, match="damaged"):
        load_table(path)
    with pytest.raises(FormatError, match="cannot be read"):
        load_table(tmp_path / "none.safetensors")
    path.write_bytes(b"PK" + bytes(100))
    with pytest.raises(FormatError):
        load_table(path)


def rewrite(path, change):
    """Change a file's table header."""
    metadata, tensors = read_tensors(path)
    from safetensors.numpy import save_file

    header = json.loads(metadata["recsparse"])
    change(header, tensors := {name: tensor.copy() for name, tensor in tensors.items()})
    save_file(tensors, path, metadata={"recsparse": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, _: header.update(format_version=2), "version 2"),
        (lambda header, _: header.update(format="other"), "not a recsparse table"),
        (lambda header, _: header.update(shape=[10**9, 24]), "damaged"),
        (lambda header, _: header.update(numbers=10**9), "damaged"),
        (lambda header, _: header.pop("support"), "damaged"),
        (lambda header, _: header["support"].update(kind="unheard of"), "damaged"),
        (lambda _, tensors: tensors.pop("counts.bits"), "damaged"),
        (lambda _, tensors: tensors.update({"values.codes": tensors["values.codes"][:5]}), "damaged"),
    ],
)
def test_headers_that_do_not_fit_are_refused(tmp_path, values, change, message):
    path = tmp_path / "t.safetensors"
    save_table(pack(values, Mask.from_dense(values != 0), layout="csr"), path)
    rewrite(path, change)
    with pytest.raises(FormatError, match=message):
        load_table(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, values, monkeypatch):
    path = tmp_path / "t.safetensors"
    save_table(pack(values), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr("recsparse.tables.storage.save_tensors", full)
    with pytest.raises(OSError, match="full"):
        save_table(pack(values * 2), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["t.safetensors"]
