"""Nothing goes out unasked: the libraries that a bench may use report on their users by default."""

from __future__ import annotations

import os

# of Ray, which also asks cloud providers where it runs; of MLflow; of Hugging Face; and the one that many read
OFF = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "true",
}


def send_nothing() -> None:
    """Switch usage statistics off, here and in processes started from here; what the user has set stays.

    Must be called before these libraries are imported.
    """
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
