"""Results for an experiment tracker: MLflow."""

from __future__ import annotations

import json
import os
from typing import Any

from unhot.bench.privacy import send_nothing
from unhot.errors import InputError, first_line
from unhot.records.bench import CellRecord


class MlflowTracker:
    """Logs each cell as a run of an MLflow experiment.

    Args:
        uri: The address of the tracking server, or of a store on disk.
        experiment: The name of the experiment.

    Raises:
        InputError: MLflow is not installed, or the store cannot be used.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        send_nothing()
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # with 7 a server that is not there takes minutes
        try:
            import mlflow
        except ImportError as error:
            raise InputError("MLflow is not installed. Install it with: pip install 'unhot[mlflow]'.") from error
        try:
            self._client: Any = mlflow.MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        except Exception as error:  # each kind of store raises its own
            raise InputError(f"MLflow cannot use {uri!r}: {first_line(error)}. Check --mlflow.") from error

    def log(self, record: CellRecord) -> None:
        """Log what a cell is as parameters, and what was measured of the unlearned model as metrics."""
        run = self._client.create_run(
            self._experiment, run_name=record.spec.title, tags={"unhot.digest": record.digest}
        )
        identity = record.spec.model_dump(exclude={"original", "retrained", "hyperparameters"})
        identity |= {"dataset": record.spec.original.dataset, "arch": record.spec.original.arch}
        identity |= {f"hyperparameters.{k}": v for k, v in record.spec.hyperparameters.items()}
        for name, value in identity.items():
            self._client.log_param(run.info.run_id, name, value if isinstance(value, str) else json.dumps(value))
        measured = {m.name: m.value for m in record.measurements if m.subject == "unlearned" and m.split == "test"}
        for name, number in (measured | {"forget_seconds": record.seconds}).items():
            if number is not None:
                self._client.log_metric(run.info.run_id, name, number)
        self._client.set_terminated(run.info.run_id)
