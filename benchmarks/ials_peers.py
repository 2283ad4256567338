"""One peer's iALS, trained epoch by epoch in its own environment; started by ``benchmarks/ials.py``.

    PYTHON benchmarks/ials_peers.py PEER MATRIX.npz SETTINGS.json DIRECTORY

Writes ``EPOCH.npz`` with users and items after each epoch (users once as training left them, once solved anew on the
items as the library does it for new users) and ``times.json``: wall and processor seconds of training alone.
"""

# ruff: noqa: PLC0415 (each process imports its own peer)

import json
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

Factors = tuple[np.ndarray, np.ndarray, np.ndarray]


class Clock:
    """Wall and processor seconds, stopped while factors are written."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.start()

    def start(self) -> None:
        """Go on."""
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Add what has passed."""
        self.wall += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


def implicit(X: sp.csr_matrix, settings: dict[str, Any], clock: Clock) -> Iterator[Factors]:
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=settings["dim"], alpha=settings["alpha"], regularization=settings["reg"], iterations=1,
        num_threads=2, random_state=0,
    )  # fmt: skip
    found: list[Factors] = []
    epochs = settings["epochs"]
    model.iterations = epochs

    def note(epoch: int, seconds: float, loss: float | None) -> None:
        clock.stop()
        model._YtY = None  # it is cached for folding in, of an earlier epoch
        again = model.recalculate_user(np.arange(X.shape[0]), X)
        found.append((model.user_factors.copy(), np.asarray(again), model.item_factors.copy()))
        times.append((clock.wall, clock.cpu))
        clock.start()

    times: list[tuple[float, float]] = []
    clock.start()
    model.fit(X, show_progress=False, callback=note)
    for (wall, cpu), each in zip(times, found, strict=True):
        clock.wall, clock.cpu = wall, cpu
        yield each


def irspack(X: sp.csr_matrix, settings: dict[str, Any], clock: Clock) -> Iterator[Factors]:
    from irspack import IALSRecommender

    clock.start()
    model = IALSRecommender(
        X, n_components=settings["dim"], alpha0=settings["alpha0"], reg=settings["reg"], nu=settings["nu"],
        solver_type=settings.get("solver", "CG"), n_threads=2, random_seed=0,
    )  # fmt: skip
    model.start_learning()
    clock.stop()
    for _ in range(settings["epochs"]):
        clock.start()
        model.run_epoch()
        clock.stop()
        users = np.array(model.get_user_embedding())
        yield users, np.asarray(model.compute_user_embedding(X)), np.array(model.get_item_embedding())


def lenskit(X: sp.csr_matrix, settings: dict[str, Any], clock: Clock) -> Iterator[Factors]:
    import pandas as pd
    from lenskit.als import ImplicitMFScorer
    from lenskit.data import from_interactions_df
    from lenskit.training import TrainingOptions

    pairs = X.tocoo()
    data = from_interactions_df(pd.DataFrame({"user_id": pairs.row, "item_id": pairs.col}))
    columns = np.asarray(data.items.ids(), dtype=np.int64)
    clock.start()
    model = ImplicitMFScorer(
        embedding_size=settings["dim"], weight=settings["weight"], regularization=settings["reg"],
        epochs=settings["epochs"],
    )  # fmt: skip
    trainer = model.create_trainer(data, TrainingOptions(rng=0))
    clock.stop()
    for _ in range(settings["epochs"]):
        clock.start()
        trainer.train_epoch()
        clock.stop()
        items = np.zeros((X.shape[1], settings["dim"]), dtype=np.float32)
        items[columns] = model.item_embeddings
        users = np.zeros((X.shape[0], settings["dim"]), dtype=np.float32)
        users[np.asarray(data.users.ids(), dtype=np.int64)] = model.user_embeddings
        again = np.zeros_like(users)
        shared = items.T @ items + settings["reg"] * np.eye(settings["dim"], dtype=np.float32)
        for user in range(X.shape[0]):
            f = items[X.indices[X.indptr[user] : X.indptr[user + 1]]]
            if len(f):
                again[user] = np.linalg.solve(
                    shared + settings["weight"] * f.T @ f, (settings["weight"] + 1) * f.sum(0)
                )
        yield users, again, items


PEERS = {"implicit": implicit, "irspack": irspack, "lenskit": lenskit}


def main() -> None:
    peer, matrix, settings, directory = sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text()), sys.argv[4]
    X = sp.csr_matrix(sp.load_npz(matrix))
    clock = Clock()
    times = []
    for epoch, (users, again, items) in enumerate(PEERS[peer](X, settings, clock), start=1):
        times.append([clock.wall, clock.cpu])
        if epoch in settings.get("keep", range(1, settings["epochs"] + 1)):
            np.savez(Path(directory) / f"{epoch}.npz", users=users, again=again, items=items)
    (Path(directory) / "times.json").write_text(json.dumps({"times": times, "version": version(peer)}))


if __name__ == "__main__":
    main()
