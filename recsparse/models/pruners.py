"""The recipes of MF's two tables at work."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import ConfigError
from recsparse.kernels.sgd import SGD, Side
from recsparse.models.bpr import bpr_gradient, bpr_loss
from recsparse.models.checkpoint import Arrays
from recsparse.models.side import Drawn, Floats, confine, piece_rows, rows_of, shape_of, whole
from recsparse.sparsity import Evidence, LossIncrease, Piecewise, Pruner
from recsparse.tables import Mask

Sides = tuple[Side, Side]

USERS, ITEMS = 0, 1


@dataclass
class Pruners:
    """What MF's user and item tables keep: each by its own recipe and budget, both by one, or all of it.

    Attributes:
        of: name -> the tables, ``USERS`` and ``ITEMS``, and the pruner that takes their rows, one table's below the
            other's, as those of one table.
        matrix: X (U, I).
        seed: of the samples that gradients and losses are taken over.
    """

    of: dict[str, tuple[tuple[int, ...], Pruner]]
    matrix: sp.csr_array
    seed: int

    def __bool__(self) -> bool:
        return bool(self.of)

    def check(self, dim: int, epochs: int) -> None:
        """Refuse recipes that tables of ``dim`` columns could not follow in so many epochs.

        Raises:
            ConfigError: see :meth:`Recipe.check`; or one goes by a curvature that MF does not have.
        """
        for tables, pruner in self.of.values():
            pruner.recipe.check((sum(self.matrix.shape[table] for table in tables), dim), epochs)
            if isinstance(pruner.recipe.criterion, LossIncrease):
                raise ConfigError("MF has no least-squares curvature; use another criterion than loss-increase.")

    @property
    def kept(self) -> tuple[Mask | None, Mask | None]:
        """The masks of both tables; None for all entries."""
        masks: list[Mask | None] = [None, None]
        for tables, pruner in self.of.values():
            for table, first, end in self._places(tables):
                masks[table] = pruner.kept and pruner.kept.select_rows(first, end)
        return masks[USERS], masks[ITEMS]

    def start(self, drawn: tuple[Drawn, Drawn], optimiser: int) -> Sides:
        """The tables to begin with; of one that never is dense, what lives from the first step on."""
        begun: list[Side | None] = [None, None]

        def sides() -> Sides:
            users, items = (side or each.side(SGD) for side, each in zip(begun, drawn, strict=True))
            return users, items

        def look(table: int, start: int, stop: int) -> Floats:
            return drawn[table].rows(start, stop)

        for tables, pruner in self.of.values():
            if pruner.recipe.schedule.density(0.0, 0.0) < 1.0:
                pruner.step(self._knowledge(tables, pruner, drawn[USERS].shape[1], look, sides, 0), 0.0)
            for table, first, end in self._places(tables):
                support = pruner.support and pruner.support.select_rows(first, end)
                begun[table] = drawn[table].side(optimiser, support)
        users, items = (side or each.side(optimiser) for side, each in zip(begun, drawn, strict=True))
        return users, items

    def step(self, sides: Sides, epoch: int, progress: float) -> Sides:
        """Let the recipes choose after an epoch, and confine the tables and their optimiser state to that."""
        for tables, pruner in self.of.values():
            sides = self._step(tables, pruner, sides, epoch, progress)
        return sides

    def _step(self, tables: tuple[int, ...], pruner: Pruner, sides: Sides, epoch: int, progress: float) -> Sides:
        def look(table: int, start: int, stop: int) -> Floats:
            return rows_of(sides[table], start, stop)

        packed = bool(sides[tables[0]].dim)
        known = self._knowledge(tables, pruner, shape_of(sides[tables[0]])[1], look, lambda: sides, epoch)
        # A whole table is no larger when it is looked at as a whole.
        changed = pruner.step(known if packed else known.whole(), progress)
        if not changed and (pruner.support is not None or not packed):
            return sides
        new = list(sides)
        for table, first, end in self._places(tables):
            support = pruner.support and pruner.support.select_rows(first, end)
            new[table] = confine(sides[table], support, None if pruner.values is None else pruner.values[first:end])
        return new[USERS], new[ITEMS]

    def _knowledge(
        self, tables: tuple[int, ...], pruner: Pruner, dim: int, look: Callable[[int, int, int], Floats],
        sides: Callable[[], Sides], epoch: int,
    ) -> Piecewise:  # fmt: skip
        """What is known of the tables' rows: ``look`` gives some of one table's, ``sides`` both tables."""
        of_items = np.bincount(self.matrix.indices, minlength=self.matrix.shape[1])
        counts = _stacked([(np.diff(self.matrix.indptr), of_items)[table].astype(np.float32) for table in tables])
        shape = len(counts), dim

        def loss(chosen: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]) -> float:
            both = [whole(side) for side in sides()]
            pruned = np.concatenate([both[table] for table in tables])
            pruned[chosen] *= kept
            for table, first, end in self._places(tables):
                both[table] = pruned[first:end]
            return bpr_loss(self.matrix, both[USERS], both[ITEMS], self.seed, epoch)

        def piece(start: int, stop: int) -> Evidence:
            parts = [
                (table, max(start, first) - first, min(stop, end) - first)
                for table, first, end in self._places(tables)
                if start < end and first < stop
            ]

            def gradients() -> Floats:
                both = sides()
                found = [bpr_gradient(self.matrix, *both, table, self.seed, epoch, *rows) for table, *rows in parts]
                return _stacked(found)

            return Evidence(_stacked([look(*part) for part in parts]), counts[start:stop], gradients, loss=loss)

        return Piecewise(shape, counts, piece, piece_rows(shape, pruner.recipe.granularity.group_shape(shape)[0]))

    def _places(self, tables: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
        """Each of the tables, with where its rows begin and end among those of all."""
        end = 0
        for table in tables:
            first, end = end, end + self.matrix.shape[table]
            yield table, first, end

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """What :meth:`restore` needs to go on from here."""
        arrays: Arrays = {}
        progress: dict[str, Any] = {}
        for name, (_, pruner) in self.of.items():
            masks, progress[name] = pruner.state()
            arrays |= {f"{name}.{key}": mask for key, mask in masks.items()}
        return arrays, progress

    def restore(self, arrays: Arrays, progress: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        for name, (_, pruner) in self.of.items():
            start = f"{name}."
            own = {key.removeprefix(start): array for key, array in arrays.items() if key.startswith(start)}
            pruner.restore(own, progress[name])


def _stacked(parts: list[Floats]) -> Floats:
    """One below the other; a lone one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
