"""What a representation costs to serve and to make: latency, loading, conversion, memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsparse.interactions.interactions import Interactions
from recsparse.kernels.topk import top_k
from recsparse.models.factors import FactorModel
from recsparse.report.kept import NOTHING, Kept
from recsparse.report.results import Cost, Latency
from recsparse.tables import FactoredTable, load_table, pack

LOOKUP_BATCH = 64
Milliseconds = npt.NDArray[np.float64]


def measure_costs(
    model: FactorModel, file: Path, histories: Interactions, *, k: int = 20, calls: int = 200, seed: int = 0,
    kept: Kept = NOTHING,
) -> Cost:  # fmt: skip
    """Time the packed table as it is served, on one machine and beside whatever else runs there.

    - ``lookup``: one call for 64 random ids.
    - ``top_k``: one user, already folded in, to the best ``k`` of all items.
    - ``load_seconds``: the file to a table that has answered one lookup.
    - ``convert_seconds``: the dense float32 array to the packed table; of low-rank x sparse, S to its own.

    Args:
        model: fitted.
        file: the saved item table.
        histories: users to fold in for ``top_k``.
        k: how many items.
        calls: timed calls of each; a tenth as many go before, untimed.
        seed: of the ids.
        kept: where each call's time goes, ``timings``.
    """
    table = model.item_table_
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, table.shape[0], size=(calls, LOOKUP_BATCH))
    queries = np.asarray(model.queries(histories.select_users(rng.integers(0, histories.shape[0], size=64))))
    none, nothing = np.zeros(2, dtype=np.int64), np.zeros(0, dtype=np.int32)

    def best(call: int) -> Any:
        return top_k(table.scores(queries[call % 64][None, :]), k, none, nothing)

    stored = table.sparse if isinstance(table, FactoredTable) else table
    dense = stored.to_dense()
    dense[stored.row_counts() == 0] = 0.0  # not the fallback's vectors
    taken = {
        "convert": _once(lambda: pack(dense, value_type=stored.value_type, layout=stored.layout)),
        "load": _once(lambda: load_table(file).lookup(ids[0])),
        "lookup": _often(lambda call: table.lookup(ids[call]), calls),
        "top-k": _often(best, calls),
    }
    what = np.repeat(list(taken), [len(each) for each in taken.values()])
    kept.columns("timings", {"what": what, "milliseconds": np.concatenate(list(taken.values()))})
    return Cost(
        convert_seconds=taken["convert"][0] / 1000.0,
        load_seconds=taken["load"][0] / 1000.0,
        file_bytes=file.stat().st_size,
        lookup=_latency(taken["lookup"], LOOKUP_BATCH),
        top_k=_latency(taken["top-k"], 1),
    )


@dataclass
class Peak:
    """The most memory the process held at one time, bytes; None where the system does not say."""

    bytes: int | None = None


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the process's peak resident memory within the block (Linux; elsewhere ``bytes`` stays None)."""
    peak = Peak()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        known = True
    except OSError:
        known = False
    yield peak
    if known:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak.bytes = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _often(call: Callable[[int], Any], calls: int) -> Milliseconds:
    for number in range(max(1, calls // 10)):
        call(number)
    taken = np.empty(calls)
    for number in range(calls):
        began = time.perf_counter()
        call(number)
        taken[number] = time.perf_counter() - began
    return 1000.0 * taken


def _once(work: Callable[[], Any]) -> Milliseconds:
    """The second of two runs: the first may compile a kernel."""
    return _often(lambda _: work(), 1)


def _latency(taken: Milliseconds, batch: int) -> Latency:
    p50, p99 = np.quantile(taken, [0.5, 0.99])
    return Latency(p50_ms=float(p50), p99_ms=float(p99), batch=batch, calls=len(taken))
