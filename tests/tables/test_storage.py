"""Files: exact bytes, whole or not at all, and what is refused."""

import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from recsparse.errors import DataError, FormatError
from recsparse.tables import LAYOUTS, HashBucket, Mask, PackedTable, ShardedTable, load_table, pack, save_table
from recsparse.tables.seal import FORMAT_VERSION, seal
from recsparse.tables.storage import INDEX, read_tensors


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


def rewrite(path, change, *, sealed=True):
    """Change a file's table header, with the checksum of the change or as it was."""
    metadata, tensors = read_tensors(path)
    from safetensors.numpy import save_file

    header = json.loads(metadata["recsparse"])
    change(header, tensors := {name: tensor.copy() for name, tensor in tensors.items()})
    if sealed:
        header.pop("checksum")
        header = seal(header)
    save_file(tensors, path, metadata={"recsparse": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, _: header.update(format_version=FORMAT_VERSION + 1), f"version {FORMAT_VERSION + 1}"),
        (lambda header, _: header.update(format_version=1), "version 1"),
        (lambda header, _: header.update(format="other"), "not a recsparse table"),
        (lambda header, _: header.update(shape=[10**9, 24]), "damaged"),
        (lambda header, _: header.update(shape=[50.0, 24]), "not a whole number"),
        (lambda header, _: header.update(shape=[50, 16]), "damaged"),
        (lambda header, _: header.update(layout="ell"), "damaged"),
        (lambda header, _: header.update(numbers=10**9), "damaged"),
        (lambda header, _: header.pop("support"), "damaged"),
        (lambda header, _: header["support"].update(kind="unheard of"), "damaged"),
        (lambda header, _: header["support"].update(numbers=1), "damaged"),
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


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        *((layout, lambda header, _: header.update(shape=[60, 5])) for layout in ("ell", "csr", "combination")),
        *(("combination", lambda header, _, rows=rows: header.update(shape=[rows, 8])) for rows in range(61, 65)),
        ("ell", lambda header, _: header["support"].update(per_row=2)),
        ("csr", lambda header, _: header["fallback"].update(first_row=1)),
        ("csr", lambda header, _: header["crc32"].clear()),
        ("csr", lambda header, _: header.pop("checksum")),
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_header_that_was_changed_is_refused(tmp_path, layout, change, verify):
    path = tmp_path / "t.safetensors"
    dense = np.tile(np.array([1, 2, 3, 0, 0, 0, 0, 0], dtype=np.float32), (60, 1))
    fallback = HashBucket(np.ones((2, 8), dtype=np.float32))
    save_table(pack(dense, layout=layout, remap=False, fallback=fallback), path)
    load_table(path, verify=verify)
    rewrite(path, change, sealed=False)
    with pytest.raises(FormatError, match="header is not what was written"):
        load_table(path, verify=verify)


NOT_OBJECTS = ["null", "3", '"x"', "[]", "[" * 100_000, "", "{}", "{", "NaN"]


@pytest.mark.parametrize("text", NOT_OBJECTS)
def test_what_is_json_but_no_header_is_refused(tmp_path, values, text):
    path = tmp_path / "t"
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode())
    with pytest.raises(FormatError):
        load_table(path)
    save_table(pack(values), path, shard_bytes=1500)
    load_table(path)
    (path / INDEX).write_text(text)
    with pytest.raises(FormatError, match="not the index"):
        load_table(path)


@pytest.mark.parametrize("entry", [3, {}, {"dtype": [], "shape": [1], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": [float("inf")], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]},
    {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}])  # fmt: skip
def test_tensors_that_are_not_in_the_file_are_refused(tmp_path, entry):
    path = tmp_path / "t"
    text = json.dumps({"a": entry, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(8))
    with pytest.raises(FormatError):
        load_table(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["metadata"].pop("shape"),
        lambda index: index["metadata"].update(shape=[50, 23]),
        lambda index: index["metadata"].update(shape=[51, 24]),
        lambda index: index["metadata"].update(shape=[50.0, 24]),
        lambda index: index.update(shards=[]),
        lambda index: index.update(shards={"0-50": "table.safetensors"}),
        lambda index: index["metadata"].update(total_size="many"),
        lambda index: index["shards"][0].update(rows="abc"),
        lambda index: index["shards"][0].update(rows=-1),
        lambda index: index["shards"][0].update(checksum=1),
        lambda index: index["shards"][0].pop("checksum"),
        lambda index: index["shards"].reverse(),
        lambda index: index.update(format_version=1),
    ],
)
def test_an_index_that_does_not_fit_is_refused_sealed_or_not(tmp_path, values, change):
    save_table(pack(values), tmp_path / "t", shard_bytes=1500)
    load_table(tmp_path / "t")
    file = tmp_path / "t" / INDEX
    index = json.loads(file.read_text())
    change(index)
    file.write_text(json.dumps(index))
    with pytest.raises(FormatError):
        load_table(tmp_path / "t")
    index.pop("checksum")
    file.write_text(json.dumps(seal(index)))
    with pytest.raises(FormatError):
        load_table(tmp_path / "t")


def test_a_shard_of_another_table_is_refused(tmp_path, values):
    for name, table in (("one", pack(values)), ("other", pack(-values))):
        save_table(table, tmp_path / name, shard_bytes=1500)
    shard = min((tmp_path / "one").glob("*.safetensors")).name
    (tmp_path / "one" / shard).write_bytes((tmp_path / "other" / shard).read_bytes())
    with pytest.raises(FormatError, match="not the shard"):
        load_table(tmp_path / "one")


@pytest.mark.parametrize("shard_bytes", [None, 1500])
def test_what_could_not_be_opened_again_replaces_nothing(tmp_path, values, shard_bytes):
    class Unheard(PackedTable):
        @property
        def header(self):
            return {**super().header, "kind": "unheard of"}

        def slice_rows(self, start, stop):
            return Unheard(**vars(super().slice_rows(start, stop)))

    path = tmp_path / "t"
    table = pack(values)
    save_table(table, path, shard_bytes=shard_bytes)
    with pytest.raises(DataError, match=r"Unheard.* was not saved.*unheard of"):
        save_table(Unheard(**vars(table)), path, shard_bytes=shard_bytes)
    np.testing.assert_array_equal(load_table(path).to_dense(), table.to_dense())
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("bits", [0, 8])
def test_widths_of_counts_that_no_chunk_has_are_refused(tmp_path, bits):
    path = tmp_path / "t.safetensors"
    save_table(pack(np.eye(3, 100, dtype=np.float32), layout="combination"), path)

    def change(header, tensors):
        header["support"].update(count_bits=bits)
        tensors["counts.bits"] = np.zeros(3 * 2 * bits // 8 + 8, dtype=np.uint8)

    rewrite(path, change)
    with pytest.raises(FormatError, match=f"{bits} bits for a count"):
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


SHARDS_WRITER = """
import sys
import numpy as np
from recsparse.tables import pack, save_table
tables = [pack(np.full((400_000, 16), value, dtype=np.float32), layout="dense") for value in (1, 2)]
print("ready", flush=True)
while True:
    for table in tables:
        save_table(table, sys.argv[1], shard_bytes=table.nbytes // 8)
"""


def test_a_kill_in_the_middle_of_a_write_of_shards_leaves_a_whole_table(tmp_path):
    path = tmp_path / "t"
    ones = pack(np.full((400_000, 16), 1, dtype=np.float32), layout="dense")
    save_table(ones, path, shard_bytes=ones.nbytes // 8)
    aside = str(tmp_path / ".*" / "*.safetensors")
    halfway = 0
    for number in range(3):
        writer = subprocess.Popen([sys.executable, "-c", SHARDS_WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        before = set(glob(aside))
        deadline = time.monotonic() + 20
        while len(written := set(glob(aside)) - before) <= 2 * number and time.monotonic() < deadline:
            pass
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        halfway += 0 < len(written) < 8
        table = load_table(path, verify=True)
        assert len(table) == 400_000
        assert set(np.unique(table.dense_rows(0, 400_000))) in ({1.0}, {2.0})
    assert halfway  # some were killed between two shards


def drop_from_memory(*paths):
    """Have the system forget what it holds of these files."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_from_disk():
    """Bytes this process has had read from disks so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


LINUX = pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="Linux tells what was read")


@LINUX
def test_lookups_read_their_pages_and_passes_read_ahead(tmp_path):
    table = pack(np.ones((400_000, 16), dtype=np.float32), layout="dense", value_type="fp32")
    path = tmp_path / "t"
    save_table(table, path)
    drop_from_memory(path)
    before = read_from_disk()
    loaded = load_table(path, verify=False)
    loaded.lookup(np.arange(0, 400_000, 40_000))
    assert read_from_disk() - before < 40 * mmap.PAGESIZE
    drop_from_memory(path)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    assert loaded.to_dense().all()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults
    assert faults < table.nbytes // mmap.PAGESIZE // 4


@pytest.mark.slow
@LINUX
def test_opening_and_looking_up_read_few_pages_of_a_large_sharded_table(tmp_path):
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((100_000, 64)).astype(np.float32)
    shard = pack(dense, np.abs(dense) > 1, layout="csr")
    path = tmp_path / "large-table"
    save_table(ShardedTable((shard,) * 40), path)
    drop_from_memory(*path.iterdir())
    before = read_from_disk()
    table = load_table(path)
    opened = read_from_disk() - before
    assert table.nbytes > 350_000_000
    assert opened < 0.05 * table.nbytes
    ids = rng.integers(0, len(table), 200)
    np.testing.assert_array_equal(table.lookup(ids), np.where(np.abs(dense) > 1, dense, 0)[ids % 100_000])
    assert read_from_disk() - before - opened < 200 * 12 * mmap.PAGESIZE
