"""Files: exact bytes, whole or not at all, and what is refused."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from recsparse.errors import FormatError
from recsparse.tables import LAYOUTS, Mask, ShardedTable, load_table, pack, save_table
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


WRITER = """
import sys
import numpy as np
from recsparse.tables import pack, save_table
tables = [pack(np.full((400_000, 16), value, dtype=np.float32), layout="dense") for value in (1, 2)]
print("ready", flush=True)
while True:
    for table in tables:
        save_table(table, sys.argv[1])
"""


def test_a_kill_in_the_middle_of_a_write_leaves_a_whole_table(tmp_path):
    path = tmp_path / "t.safetensors"
    save_table(pack(np.full((400_000, 16), 1, dtype=np.float32), layout="dense"), path)
    halfway = 0
    for number in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        before = set(tmp_path.glob(".*"))
        deadline = time.monotonic() + 20
        while not (set(tmp_path.glob(".*")) - before) and time.monotonic() < deadline:
            pass
        time.sleep(0.01 * number)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        halfway += bool(set(tmp_path.glob(".*")) - before)
        table = load_table(path, verify=True)
        assert set(np.unique(table.dense_rows(0, 400_000))) in ({1.0}, {2.0})
    assert halfway  # some were killed while they wrote


def resident(path):
    """Bytes of a file's pages that this process has mapped in."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(path.name) or f"/{path.name}/" in line
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="Linux tells which pages are mapped in")
def test_opening_and_looking_up_touch_few_pages_of_a_large_sharded_table(tmp_path):
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((100_000, 64)).astype(np.float32)
    shard = pack(dense, np.abs(dense) > 1, layout="csr")
    path = tmp_path / "large-table"
    save_table(ShardedTable((shard,) * 40), path)
    start = time.perf_counter()
    table = load_table(path)
    opened = time.perf_counter() - start
    assert table.nbytes > 350_000_000
    assert opened < 1
    assert resident(path) < 0.05 * table.nbytes
    ids = rng.integers(0, len(table), 20)
    np.testing.assert_array_equal(table.lookup(ids), np.where(np.abs(dense) > 1, dense, 0)[ids % 100_000])
    assert resident(path) < 0.2 * table.nbytes
