import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from recsparse.cli import main


@dataclass(frozen=True)
class Said:
    """What came of a command line."""

    code: int
    out: str
    err: str


@pytest.fixture
def say(monkeypatch, capsys):
    """Run a command line in this process, through the same entry point as the installed command."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["recsparse", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        said = capsys.readouterr()
        return Said(exit_.value.code or 0, said.out, said.err)

    return run


@pytest.fixture
def refused(say):
    """Run a command line that must fail, and give the one sentence it fails with."""

    def run(*words, code=1):
        said = say(*words)
        sentence = said.err.splitlines()[-1]
        assert said.code == code, said
        assert sentence.startswith("Error: "), said.err
        assert said.err.count("Error: ", 0, len(said.err) - len(sentence)) == 0, said.err
        assert sentence.endswith((".", "?")), sentence
        assert "Traceback" not in said.err
        assert "defect" not in said.err
        assert said.out == ""
        return sentence.removeprefix("Error: ")

    return run


def ratings(seed=0, n_users=60, n_items=30):
    """Two tastes, as a frame of user_id (text), item_id, rating, time."""
    rng = np.random.default_rng(seed)
    side = np.arange(n_users)[:, None] % 2 == np.arange(n_items)[None, :] % 2
    user, item = np.nonzero(rng.random((n_users, n_items)) < np.where(side, 0.5, 0.08))
    return pd.DataFrame(
        {
            "user_id": [f"u{one}" for one in user],
            "item_id": item * 10 + 7,
            "rating": rng.integers(1, 6, len(user)),
            "time": 1_600_000_000 + rng.integers(0, 10**6, len(user)),
        }
    )


@pytest.fixture(scope="session")
def csv(tmp_path_factory):
    file = tmp_path_factory.mktemp("csv") / "ratings.csv"
    ratings().to_csv(file, index=False)
    return file


@pytest.fixture(scope="session")
def dataset(csv, tmp_path_factory):
    from recsparse.interactions import Column, Ratings, Source, build

    source = Source(ratings=Ratings(path=str(csv), value=Column(name="rating"), time=Column(name="time")))
    return build(source, tmp_path_factory.mktemp("dataset") / "data")


@pytest.fixture(scope="session")
def parts(dataset, tmp_path_factory):
    from recsparse.interactions import read, split, write_split

    made = split(read(dataset), "strong", validation=0.15, test=0.25, seed=1)
    return write_split(made, tmp_path_factory.mktemp("split") / "split")


@pytest.fixture(scope="session")
def model(parts, tmp_path_factory):
    from recsparse.interactions import read
    from recsparse.models import IALS

    directory = tmp_path_factory.mktemp("model") / "model"
    IALS(dim=8, epochs=3, recipe={"density": 0.25}).fit(read(parts / "train")).save(directory)
    return directory
