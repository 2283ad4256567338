"""Tables of tables: factored and sharded, their files, and conversions."""

import json

import numpy as np
import pytest

from recsparse.errors import BudgetError, ConfigError, DataError, FormatError
from recsparse.tables import (
    HashBucket,
    Mask,
    ShardedTable,
    choose_layout,
    convert,
    ideal_bytes,
    inspect,
    layout_sizes,
    load_table,
    pack,
    save_table,
    to_scipy,
)  # fmt: skip
from recsparse.tables.storage import INDEX, read_tensors
from recsparse.tensors import save_tensors
from tests.tables.damage import damage

RNG = np.random.default_rng(11)
VALUES = np.where(RNG.random((100, 32)) < 0.25, RNG.standard_normal((100, 32)), 0).astype(np.float32)
IDS = np.array([0, 99, -1, 100, 57, 57, -(2**60), 2**60])


def test_shards_answer_as_the_whole_and_a_rank_loads_only_its_rows(tmp_path):
    fallback = HashBucket.fit(RNG.standard_normal((100, 32)), VALUES.any(axis=1), 3)
    table = pack(VALUES * (np.arange(100) % 4 > 0)[:, None], value_type="int8", layout="csr", fallback=fallback)
    save_table(table, tmp_path / "t", shard_bytes=900)
    loaded = load_table(tmp_path / "t")
    assert isinstance(loaded, ShardedTable)
    assert len(loaded.shards) > 2
    assert loaded.nbytes == json.loads((tmp_path / "t" / INDEX).read_text())["metadata"]["total_size"]
    np.testing.assert_array_equal(loaded.to_dense(), table.to_dense())
    for ids in (IDS, -np.arange(1, 50), np.arange(100, 150)):
        np.testing.assert_array_equal(loaded.lookup(ids), table.lookup(ids))
    with pytest.raises(DataError, match="has 100"):
        loaded.slice_rows(50, 101)
    for rows in ((0, 100), (0, 0), (100, 100), (30, 31), (20, 80)):
        part = load_table(tmp_path / "t", rows=rows)
        np.testing.assert_array_equal(part.to_dense(), table.to_dense()[slice(*rows)])
    with pytest.raises(DataError, match="has 100"):
        load_table(tmp_path / "t", rows=(50, 101))
    next((tmp_path / "t").glob("*.safetensors")).unlink()
    with pytest.raises(FormatError):
        load_table(tmp_path / "t")
    (tmp_path / "t" / INDEX).write_text("{")
    with pytest.raises(FormatError, match="index"):
        load_table(tmp_path / "t")


@pytest.mark.parametrize("shard_bytes", [None, 600, 1500, 10**9])
@pytest.mark.parametrize("target", ["t", "new"])
def test_a_sharded_table_is_saved_again_in_place_and_elsewhere(tmp_path, shard_bytes, target):
    table = pack(VALUES, value_type="int8", layout="csr", fallback="mean")
    save_table(table, tmp_path / "t", shard_bytes=1000)
    first = load_table(tmp_path / "t")
    save_table(first, tmp_path / target, shard_bytes=shard_bytes)
    again = load_table(tmp_path / target)
    np.testing.assert_array_equal(
        again.lookup(np.append(np.arange(100), IDS)), table.lookup(np.append(range(100), IDS))
    )
    if shard_bytes == 600:
        assert len(again.shards) > len(first.shards)
        assert max(shard.nbytes for shard in again.shards) < 1.2 * 600
    else:  # shards are not joined
        assert again.starts.tolist() == first.starts.tolist()


def test_shards_of_shards_are_saved_as_shards(tmp_path):
    parts = [pack(number * VALUES[:30], layout="csr", fallback="mean") for number in (1, 2, 3)]
    table = ShardedTable((ShardedTable((parts[0], parts[1][0:0])), parts[1], ShardedTable((parts[2],))))
    for shard_bytes in (None, 800):
        save_table(table, tmp_path / "t", shard_bytes=shard_bytes)
        again = load_table(tmp_path / "t")
        np.testing.assert_array_equal(again.lookup(np.arange(-2, 93)), table.lookup(np.arange(-2, 93)))
        assert inspect(again)["nbytes"] == again.nbytes


def test_a_failed_write_of_shards_leaves_the_old_ones(tmp_path, monkeypatch):
    table = pack(VALUES)
    save_table(table, tmp_path / "t", shard_bytes=1000)
    before = {file.name: file.read_bytes() for file in (tmp_path / "t").iterdir()}
    written = []

    def full(tensors, path, metadata):
        if len(written) == 2:
            raise OSError("full")
        written.append(save_tensors(tensors, path, metadata))

    monkeypatch.setattr("recsparse.tables.storage.save_tensors", full)
    with pytest.raises(OSError, match="full"):
        save_table(load_table(tmp_path / "t"), tmp_path / "t", shard_bytes=700)
    assert {file.name: file.read_bytes() for file in (tmp_path / "t").iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


def test_files_of_mostly_what_each_repeats_are_refused(tmp_path):
    values = np.tile(VALUES, (20, 1))
    fallback = HashBucket(np.ones((500, 32), dtype=np.float32))
    table = pack(values, layout="csr", value_type="int4", fallback=fallback)
    with pytest.raises(ConfigError, match="every file repeats 64,0") as refused:
        save_table(table, tmp_path / "t", shard_bytes=5000)
    assert not (tmp_path / "t").exists()
    least = int(str(refused.value).split("at least ")[1].split(", or")[0].replace(",", ""))
    save_table(pack(np.tile(values, (20, 1)), layout="csr", fallback=fallback), tmp_path / "t", shard_bytes=least)
    files = [file.stat().st_size for file in (tmp_path / "t").glob("*.safetensors")]
    assert len(files) > 2
    assert max(files) < 1.1 * least
    save_table(table, tmp_path / "t", shard_bytes=table.nbytes)  # nothing to cut
    assert len(load_table(tmp_path / "t").shards) == 1
    for shard_bytes in (0, -1):
        with pytest.raises(ConfigError, match=f"shard_bytes is {shard_bytes}"):
            save_table(table, tmp_path / "t", shard_bytes=shard_bytes)


def test_a_changed_byte_is_noticed_on_opening(tmp_path):
    path = tmp_path / "t"
    save_table(pack(VALUES), path)
    whole = bytearray(path.read_bytes())
    for place in (len(whole) - 1, len(whole) // 2):
        changed = bytearray(whole)
        changed[place] ^= 16
        path.write_bytes(changed)
        with pytest.raises(FormatError):
            load_table(path)


def test_checks_are_left_out_by_the_size_of_all_shards_together(tmp_path, monkeypatch):
    table = pack(VALUES)
    save_table(table, tmp_path / "t", shard_bytes=table.nbytes // 4)
    shard = next((tmp_path / "t").glob("*.safetensors"))
    noise = bytearray(shard.read_bytes())
    noise[-1] ^= 16
    shard.write_bytes(noise)
    with pytest.raises(FormatError, match="checksum"):
        load_table(tmp_path / "t")
    monkeypatch.setattr("recsparse.tables.storage.VERIFY_UP_TO", table.nbytes // 2)
    load_table(tmp_path / "t")
    with pytest.raises(FormatError, match="checksum"):
        load_table(tmp_path / "t", verify=True)


@pytest.mark.parametrize("layout", ["rows", "bitmap", "block", "csr", "combination"])
@pytest.mark.parametrize("value_type", ["int4", "int8"])
def test_a_damaged_table_opened_without_checks_never_reads_outside(tmp_path, layout, value_type):
    path = tmp_path / "t"
    save_table(pack(VALUES, layout=layout, value_type=value_type, remap=True), path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for seed in range(40):
        rng = np.random.default_rng(seed)
        noise = bytearray(whole)
        noise[header:] = rng.integers(0, 256, len(whole) - header, dtype=np.uint8).tobytes()
        path.write_bytes(noise)
        try:
            rows = load_table(path, verify=False).lookup(np.arange(100))
        except FormatError:
            continue
        assert rows.shape == (100, 32)


@pytest.mark.parametrize("layout", ["rows", "bitmap", "block", "csr", "combination"])
def test_slices_and_passes_of_a_damaged_table_never_read_outside(tmp_path, layout):
    path = tmp_path / "t"
    save_table(pack(np.tile(VALUES, (20, 1)), layout=layout, value_type="int4", remap=True), path)
    whole = path.read_bytes()
    _, tensors = read_tensors(path)
    refused = 0
    for name in tensors:
        for seed in range(20):
            path.write_bytes(whole)
            damage(path, name, np.random.default_rng(seed))
            for use in (
                lambda: load_table(path, rows=(33, 1817), verify=False).lookup(np.arange(1784)),
                lambda: to_scipy(load_table(path, verify=False)),
                lambda name=name: name.startswith("scales") or convert(load_table(path, verify=False), layout="csr"),
            ):
                try:
                    use()
                except FormatError:
                    refused += 1
    assert refused


@pytest.mark.parametrize("source", ["dense", "rows", "bitmap", "csr", "combination"])
@pytest.mark.parametrize("target", ["dense", "rows", "bitmap", "csr", "combination", "auto"])
def test_conversions_change_no_value(source, target):
    for value_type in ("fp32", "int4"):
        table = pack(VALUES, layout=source, value_type=value_type)
        np.testing.assert_array_equal(convert(table, layout=target).to_dense(), table.to_dense())
    fewer = convert(pack(VALUES, layout=source), value_type="bf16")
    np.testing.assert_allclose(fewer.to_dense(), VALUES, rtol=2**-8)


ZERO_ROWS = VALUES * (np.arange(100) % 7 > 0)[:, None] * (np.arange(100) % 9 > 0)[:, None]
STORED = Mask.from_dense((ZERO_ROWS != 0) | (np.arange(100) % 9 == 0)[:, None])  # every ninth row is one of zeros


@pytest.mark.parametrize("scales", ["row", "column"])
@pytest.mark.parametrize("value_type", ["fp32", "bf16", "int8", "int4", "int2"])
@pytest.mark.parametrize("source", ["rows", "bitmap", "csr", "combination"])
def test_a_change_of_layout_keeps_every_answer(tmp_path, source, value_type, scales):
    values = ZERO_ROWS * np.where(np.arange(100) % 3 > 0, 1, 1e-9)[:, None]  # a third rounds to zero
    table = pack(values, STORED, layout=source, value_type=value_type, scales=scales, fallback="mean")
    assert not table.lookup([9]).any()
    assert table.lookup([7]).any()
    for target in ("rows", "bitmap", "csr", "combination", "auto"):
        converted = convert(table, layout=target)
        assert target in ("auto", converted.layout)
        assert converted.values.scaled_by == table.values.scaled_by
        np.testing.assert_array_equal(converted.lookup(IDS), table.lookup(IDS))
        np.testing.assert_array_equal(converted.to_dense(), table.to_dense())
        back = convert(converted, layout=source)
        np.testing.assert_array_equal(back.to_dense(), table.to_dense())
        save_table(converted, tmp_path / "t")
        np.testing.assert_array_equal(load_table(tmp_path / "t").to_dense(), table.to_dense())
    with pytest.raises(DataError, match="cannot tell"):
        convert(table, layout="dense")


def test_a_conversion_rounds_again_only_when_asked():
    table = pack(VALUES, value_type="int4", scales="column")
    assert convert(table, value_type="int8").values.scaled_by == "column"
    by_row = convert(table, scales="row")
    assert by_row.values.scaled_by == "row"
    assert (by_row.to_dense() != table.to_dense()).any()
    with pytest.raises(ConfigError, match="layout"):
        convert(table, layout="sparse")


def test_a_table_without_a_stored_row_converts(tmp_path):
    table = pack(np.zeros((5, 4)), layout="rows", value_type="int8")
    save_table(convert(table, layout="csr"), tmp_path / "t")
    np.testing.assert_array_equal(load_table(tmp_path / "t").to_dense(), np.zeros((5, 4)))


@pytest.mark.parametrize("layout", ["auto", "rows"])
def test_a_layout_is_chosen_that_can_tell_pruned_rows(layout):
    values = np.r_[np.ones((999, 8)), np.zeros((1, 8))]
    table = pack(values, fallback="mean", layout=layout)
    np.testing.assert_array_equal(table.to_dense(), np.ones((1000, 8)))
    assert "dense" not in inspect(table)["layouts"]
    assert pack(values).layout == "dense"


@pytest.mark.parametrize("block", [(1, 4), (2, 4), (3, 8), (1, 32)])
def test_blocks_stay_blocks_when_rows_are_left_out(block):
    kept = RNG.random((-(-100 // block[0]), 32 // block[1])) < 0.3
    kept[1::3] = False
    mask = Mask.from_tiles(kept, (100, 32), block)
    table = pack(np.ones((100, 32)), mask, layout="block", value_type="int8", remap=True)
    assert table.tile_mask.block == block
    assert table.tile_mask == table.mask == mask
    for target in (None, "block"):
        converted = convert(table, layout=target)
        assert (converted.layout, converted.nbytes) == ("block", table.nbytes)
    summary = inspect(table)
    assert summary["layouts"]["block + remap"] == table.nbytes
    assert summary["ideal_bytes"] == pytest.approx(ideal_bytes(mask, "int8"))
    assert summary["ideal_bytes"] < table.nbytes
    for start in range(4):
        part = table[start:50]
        np.testing.assert_array_equal(convert(part, layout="csr").to_dense(), table.to_dense()[start:50])
        assert inspect(part)["ideal_bytes"] < part.nbytes


def test_a_budget_is_kept_or_the_nearest_sizes_are_named():
    mask = Mask.from_dense(VALUES != 0)
    types = ("fp32", "int8", "int4", "int2")
    sizes = {each: layout_sizes(mask, value_type=each)[0].nbytes for each in types}
    assert choose_layout(mask, value_type=types, budget=sizes["int8"]).value_type == "int8"
    assert choose_layout(mask, value_type=types, budget=sizes["int8"] - 1).value_type == "int4"
    with pytest.raises(BudgetError, match=f"{sizes['int2']:,}"):
        choose_layout(mask, value_type=types, budget=sizes["int2"] - 1)
    assert f"{sizes['int4']:,}" in str(choose_layout(mask, value_type="int4"))


def test_inspect_is_json_of_a_table_of_nothing_too():
    for layout in ("dense", "rows", "ell", "csr", "bitmap", "combination"):
        summary = inspect(pack(np.zeros((0, 8), dtype=np.float32), layout=layout))
        assert json.loads(json.dumps(summary, allow_nan=False))["dense_fp32_bytes"] == 0
    assert inspect(pack(np.zeros((0, 8), dtype=np.float32), layout="dense"))["ratio"] == 1


def test_inspect_tells_the_sizes_of_what_is_stored():
    table = pack(VALUES, value_type="int8")
    summary = inspect(table)
    assert sum(summary["breakdown"].values()) == summary["nbytes"] == min(summary["layouts"].values())
    assert summary["ideal_bytes"] == ideal_bytes(table.mask, "int8") < summary["nbytes"]
    for layout, nbytes in summary["layouts"].items():
        name, _, remap = layout.partition(" + ")
        options = {} if name in ("dense", "rows") else {"remap": bool(remap)}
        assert pack(VALUES, layout=name, value_type="int8", **options).nbytes == nbytes


def test_a_table_of_ten_million_rows_opens_and_answers(tmp_path):
    kept = np.zeros(10_000_000, dtype=bool)
    kept[::1000] = True
    mask = Mask.from_rows(kept, 4)
    table = pack(np.broadcast_to(np.float32(1), mask.shape), mask, layout="rows", value_type="int8")
    assert table.breakdown()["remap"] * 8 / len(kept) < 1.1
    save_table(table, tmp_path / "t")
    loaded = load_table(tmp_path / "t", verify=False)
    np.testing.assert_allclose(loaded.lookup([0, 1, 9_999_000, 10_000_000])[:, 0], [1, 0, 1, 0], rtol=0.01)
