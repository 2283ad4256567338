"""A training on ranks with fewer rows than items, through every stage to the report."""

from importlib.util import find_spec

import numpy as np
import pytest
from safetensors.numpy import load_file

from recsparse.interactions import read_split
from recsparse.models import Recommender
from recsparse.pipeline import Run

ROWS, DIM = 12, 8
MODELS = f"""
[[models]]
kind = "ials"
params = {{ dim = {DIM}, epochs = 3 }}

[[models]]
kind = "mf"
ranks = 2
params = {{ dim = {DIM}, epochs = 5, batch_size = 64, streams = 4, items.budget = {{ rows = {ROWS}, every = 4 }} }}
value_types = ["fp32", "int8"]
"""
LABELS = {"fp32": "Sharded MF 8 rows 12", "int8": "Sharded MF 8 rows 12 int8"}

pytestmark = [
    pytest.mark.skipif(find_spec("torchrec") is None, reason="the extra `torchrec` is for Linux"),
    pytest.mark.xdist_group("sharded pipeline"),  # one training for all of them
]


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    """A finished run and its results."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "tiny.toml").write_text(text[: text.index("[[models]]")] + MODELS)
    return folder / "run", Run.read(folder / "tiny.toml", directory=folder / "run")()


@pytest.fixture(scope="module", params=LABELS)
def row(run, request):
    """One value type's row, its directory and its model."""
    directory, results = run
    found = results.row(LABELS[request.param])
    place = directory / "models" / found.label.lower().replace(" ", "-")
    return found, place, Recommender.load(place)


def test_a_row_says_what_is_stored(run, row) -> None:
    _, results = run
    found, place, _ = row
    assert (found.family, found.layout) == ("row", "rows")
    assert found.density == ROWS / results.dataset.items
    assert found.nonzeros_per_item == ROWS * DIM / results.dataset.items
    assert found.bytes_total == sum(tensor.nbytes for tensor in load_file(place / "item_table.safetensors").values())
    assert found.breakdown["fallback"] == 4 * DIM
    assert found.breakdown["values"] == {"fp32": 4 * ROWS * DIM, "int8": ROWS * DIM + 8}[found.value_type]
    assert found.bytes_total < min(each.bytes_total for each in results.rows if each.family == "dense") / 2
    assert {"zero", "mean", "group-mean"} <= set(found.pruned_items), "measured under every fallback"


def test_pruned_and_unknown_items_answer_with_the_mean_that_training_had(run, row) -> None:
    directory, _ = run
    _, _, model = row
    table = model.item_table_
    fallback = table.fallback.vector
    assert fallback.any()
    stored = table.row_counts() > 0
    assert stored.sum() == ROWS
    counts = np.bincount(read_split(directory / "split").train.matrix.indices, minlength=len(table))
    assert counts[stored].mean() > counts[~stored].mean(), "popular items have the rows"
    pruned = np.flatnonzero(~stored)
    np.testing.assert_array_equal(table.lookup([*pruned, -1, len(table)]), np.tile(fallback, (len(pruned) + 2, 1)))
    users = model.users_["user_id"].to_pylist()[:1]
    scores = model.score_pairs(users * len(pruned), model.items_["item_id"].take(pruned).to_pylist())
    assert np.isfinite(scores).all()
    assert np.ptp(scores) == 0
