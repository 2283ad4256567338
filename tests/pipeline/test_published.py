"""A pipeline on the split that a dataset was published with."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from recsparse.config import RunConfig
from recsparse.errors import DataError
from recsparse.interactions import read_split
from recsparse.pipeline import Run

USERS, ITEMS = 40, 30


@pytest.fixture(scope="module")
def parts():
    """Part -> user -> items from 100 on, which first appear in another order than in the training part."""
    rng = np.random.default_rng(0)
    chosen = {user: rng.permutation(ITEMS)[: 8 + user % 5] + 100 for user in range(USERS)}
    cut = {"train": slice(None, -4), "valid": slice(-4, -2), "test": slice(-2, None)}
    return {part: {user: items[where].tolist() for user, items in chosen.items()} for part, where in cut.items()}


def config(folder, name="gowalla", **options):
    models = [{"kind": "popularity"}, {"kind": "ials", "params": {"dim": 4, "epochs": 2}}]
    data, split = {"source": name, "from_path": folder}, {"protocol": "published", "seed": 3, "options": options}
    document = {"name": "x", "data": data, "split": split, "models": models}
    return RunConfig.model_validate(document | {"evaluation": {"few_shot": [], "effects": False}})


def write(folder, parts):
    for part, lines in parts.items():
        text = "\n".join(" ".join(map(str, [user, *items])) for user, items in lines.items())
        (folder / f"{part}.txt").write_text(text + "\n")


def pairs(part):
    frame = part.to_frame()
    return set(zip(frame["user_id"].tolist(), frame["item_id"].tolist(), strict=True))


def lines_of(part):
    return {(user, item) for user, items in part.items() for item in items}


def test_each_line_is_in_the_part_it_was_published_in(parts, tmp_path):
    write(tmp_path, parts)
    results = Run(config(tmp_path), directory=tmp_path / "run")()
    found = read_split(tmp_path / "run/split")
    assert pairs(found.train) == lines_of(parts["train"])
    assert pairs(found.validation.target) == lines_of(parts["valid"])
    assert pairs(found.test.target) == lines_of(parts["test"])
    assert pairs(found.test.history) == lines_of(parts["train"]) | lines_of(parts["valid"])
    assert (results.split.protocol, results.split.seed) == ("published", None)
    assert results.split.test_users == USERS


def test_everybody_is_recommended_what_is_new_to_them_in_all_parts(parts, tmp_path):
    write(tmp_path, parts)
    Run(config(tmp_path), directory=tmp_path / "run")()
    files = (tmp_path / "run/recommendations").rglob("*.parquet")
    frame = pd.concat([pq.ParquetFile(file).read().to_pandas() for file in files])
    assert set(frame["user_id"]) == set(range(USERS))
    assert frame["item_id"].between(100, 100 + ITEMS).all()
    assert not set(zip(frame["user_id"], frame["item_id"], strict=True)) & set.union(*map(lines_of, parts.values()))


def test_a_missing_validation_part_is_drawn_from_training(parts, tmp_path):
    write(tmp_path, {part: parts[part] for part in ("train", "test")})
    results = Run(config(tmp_path, validation=0.25), directory=tmp_path / "run")()
    found = read_split(tmp_path / "run/split")
    drawn = pairs(found.validation.target)
    assert pairs(found.train) | drawn == lines_of(parts["train"])
    assert not pairs(found.train) & drawn
    assert len(drawn) == pytest.approx(0.25 * len(lines_of(parts["train"])), rel=0.3)
    assert pairs(found.test.target) == lines_of(parts["test"])
    assert results.split.seed == 3


def test_a_form_without_the_parts_is_refused_and_the_one_with_them_named(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::2::3::4\n2::2::3::4\n")
    with pytest.raises(DataError, match=r"as grouplens, without a published split. infinite-ae: .*one Parquet file"):
        Run(config(tmp_path, "ml-1m"), directory=tmp_path / "run")()


def test_a_column_that_names_the_parts(tmp_path):
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((40, 20)) < 0.5)
    frame = pd.DataFrame({"user_id": user, "item_id": item, "rating": 1.0})
    frame["split"] = rng.choice(["train", "validation", "test"], len(frame), p=[0.7, 0.15, 0.15])
    frame.to_parquet(tmp_path / "ratings.parquet", index=False)
    Run(config(tmp_path, "ml-1m"), directory=tmp_path / "run")()
    found = read_split(tmp_path / "run/split")
    for name, part in (("train", found.train), ("validation", found.validation.target), ("test", found.test.target)):
        own = frame[frame["split"] == name]
        assert pairs(part) == set(zip(own["user_id"], own["item_id"], strict=True)), name


@pytest.mark.parametrize(
    ("name", "train", "validation", "test"),
    [("gowalla", 719_081, 91_047, 217_242), ("ml-1m", 791_718, 99_692, 108_799)],
)
@pytest.mark.slow
def test_real_files_have_the_published_counts(name, train, validation, test, real_data, tmp_path):
    run = Run(config(real_data / name, name), directory=tmp_path)
    assert (parts := run._cut()).train.nnz == train
    assert (parts.validation.target.nnz, parts.test.target.nnz) == (validation, test)
