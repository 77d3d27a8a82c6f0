"""Nothing goes out unasked, and what cannot be reached is said before the work starts."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_grid import SMALL

pytestmark = pytest.mark.process

# stands in for Ray and for MLflow: prints what their own code would see when it is imported
SPY = """
import json, os
names = ("RAY_USAGE_STATS_ENABLED", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY")
print(json.dumps({n: os.environ.get(n) for n in names}))
raise ImportError
"""
OFF = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


@pytest.mark.parametrize(
    ("library", "call"),
    [
        ("ray", "from unhot.bench.backends import RayCluster; RayCluster()"),
        ("mlflow", "from unhot.bench.tracking import MlflowTracker; MlflowTracker('x', 'y')"),
    ],
)
@pytest.mark.parametrize("asked", [{}, {"RAY_USAGE_STATS_ENABLED": "1", "MLFLOW_DISABLE_TELEMETRY": "false"}])
def test_statistics_are_off_before_a_library_is_imported(
    tmp_path: Path, library: str, call: str, asked: dict[str, str]
) -> None:
    (tmp_path / f"{library}.py").write_text(SPY)
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {k: v for k, v in os.environ.items() if k not in OFF} | {"PYTHONPATH": paths} | asked
    done = subprocess.run([sys.executable, "-c", call], env=env, capture_output=True, text=True)
    assert "is not installed" in done.stderr
    assert json.loads(done.stdout) == OFF | asked


LOOKED_UP = """
from unhot.bench.privacy import send_nothing
send_nothing()
from mlflow.telemetry.utils import is_telemetry_disabled
from ray._common.usage.usage_lib import usage_stats_enabled
print(is_telemetry_disabled(), usage_stats_enabled())
"""


@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("ray", "mlflow"))), reason="both are optional extras")
def test_ray_and_mlflow_themselves_say_that_they_are_off() -> None:
    own = ("CI", "PYTEST_CURRENT_TEST", *OFF)  # MLflow is silent in tests anyway
    env = {k: v for k, v in os.environ.items() if k not in own}
    done = subprocess.run([sys.executable, "-c", LOOKED_UP], env=env, capture_output=True, text=True)
    assert done.stdout == "True False\n", done.stderr


TRY_ALL = """
import sys
from unhot.cli import main
for uri in sys.argv[3:]:
    print(main(["bench", sys.argv[1], "--out", sys.argv[2], "--mlflow", uri]), flush=True)
"""
BAD = ["nonsense://x", "http://127.0.0.1:9", "http://[bad", "file:///proc/none", "postgresql://h/db", ""]


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is an optional extra")
def test_a_bad_mlflow_uri_is_said_before_the_work_starts(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(SMALL)
    call = [sys.executable, "-c", TRY_ALL, str(tmp_path / "grid.toml"), str(tmp_path / "out"), *BAD]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.stdout.split() == ["2"] * len(BAD), done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert errors.pop() == "Error: --mlflow is empty. Is a variable of the shell not set?"
    for uri, line in zip(BAD[:-1], errors, strict=True):
        assert line.startswith(f"Error: MLflow cannot use {uri!r}: ")
        assert line.endswith(". Check --mlflow.")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/models/*"))
