"""Entries in an MLflow store: a local SQLite file or a server."""

import time
from collections.abc import Mapping
from typing import Any

from recsparse.errors import ConfigError
from recsparse.tracking.tracker import INSTALL, Tracker, flat


class MLflow(Tracker):
    """A run of MLflow.

    Args:
        name: of the run.
        settings: its parameters; nested ones get dotted names.
        uri: of the store: ``sqlite:///mlflow.db`` is a file here, ``http://...`` a server. MLflow takes no plain
            folders any more.
        experiment: what it belongs to; made where it is not there.
        tags: text by name.
        replace: delete what the experiment holds of this name with these tags, as of a stage that was killed.

    MLflow allows no ``@`` in a name: ``ndcg@20`` is kept as ``ndcg_at_20``.

    Raises:
        ConfigError: MLflow is not installed, or does not take the store.

    Example:
        >>> from recsparse.models import IALS
        >>> with MLflow("iALS 8", {"dim": 8}, uri="sqlite:///mlflow.db") as track:  # doctest: +SKIP
        ...     IALS(dim=8).fit(split.train, validation=split.validation, on_epoch=track)
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any] | None = None,
        *,
        uri: str,
        experiment: str = "recsparse",
        tags: Mapping[str, str] | None = None,
        replace: bool = False,
    ) -> None:
        super().__init__()
        try:
            from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 (optional)
            from mlflow.exceptions import MlflowException  # noqa: PLC0415
            from mlflow.tracking import MlflowClient  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(INSTALL) from error
        self._metric = Metric
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            place = self._client.create_experiment(experiment) if found is None else found.experiment_id
            if replace:
                same = [f"tags.`{each}` = '{value}'" for each, value in (tags or {}).items()]
                where = " and ".join([f"attributes.run_name = '{name}'", *same])
                for old in self._client.search_runs([place], where):
                    self._client.delete_run(old.info.run_id)
            self._run = self._client.create_run(place, run_name=name).info.run_id
        except MlflowException as error:
            raise ConfigError(f"MLflow does not take the store {uri!r}: {error.message}") from error
        self._client.log_batch(
            self._run,
            params=[Param(each, str(value)) for each, value in flat(settings or {})],
            tags=[RunTag(each, value) for each, value in (tags or {}).items()],
        )

    def log(self, figures: Mapping[str, float], step: int = 0) -> None:
        """Keep figures by name."""
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run,
            metrics=[self._metric(name.replace("@", "_at_"), value, now, step) for name, value in figures.items()],
        )

    def close(self, *, failed: bool = False) -> None:
        """Say that no more will come."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
