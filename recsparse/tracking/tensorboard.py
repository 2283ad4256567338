"""Entries as TensorBoard's event files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsparse.errors import ConfigError
from recsparse.tracking.tracker import INSTALL, Tracker, flat


class TensorBoard(Tracker):
    """A directory of events, which ``tensorboard --logdir`` of its parent shows beside its neighbours.

    Args:
        directory: of this training; its name is the entry's.
        settings: shown as a table under "text"; nested ones get dotted names.
        replace: remove the events there; TensorBoard would join them to the new ones.

    Raises:
        ConfigError: TensorBoard is not installed.

    Example:
        >>> from recsparse.models import IALS
        >>> with TensorBoard("logs/ials-8", {"dim": 8}) as track:  # doctest: +SKIP
        ...     IALS(dim=8).fit(split.train, validation=split.validation, on_epoch=track)
    """

    def __init__(
        self, directory: str | Path, settings: Mapping[str, Any] | None = None, *, replace: bool = False
    ) -> None:
        super().__init__()
        try:
            from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415 (optional)
        except ImportError as error:
            raise ConfigError(INSTALL) from error
        if replace:
            for old in Path(directory).glob("events.out.tfevents.*"):
                old.unlink()
        self._writer = SummaryWriter(str(directory))
        if settings:
            rows = (f"| {name} | {value} |" for name, value in flat(settings))
            self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def log(self, figures: Mapping[str, float], step: int = 0) -> None:
        """Keep figures by name."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, failed: bool = False) -> None:
        """Say that no more will come."""
        self._writer.close()
