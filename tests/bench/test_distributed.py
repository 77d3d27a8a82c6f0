"""Beyond one process: a Ray cluster that loses a worker, MLflow, and several processes on one model."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_grid import SMALL

import unhot
from unhot.bench.grid import read_grid
from unhot.bench.store import Store

pytestmark = pytest.mark.process

RAY = """
import os, signal, sys, threading, time
from pathlib import Path
import psutil, ray
from ray.cluster_utils import Cluster
sys.path.insert(0, sys.argv[3])
from small_grid import Quiet
from unhot.bench.backends import RayCluster
from unhot.bench.grid import read_grid
from unhot.bench.runner import Runner
from unhot.bench.store import Store
from unhot.bench.worker import WorkerConfig

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
grid, store = read_grid(Path(sys.argv[1])), Store(Path(sys.argv[2]))
backend = RayCluster(cluster.address, cpus=1)
assert backend.slots == 2, backend.slots

class Killer(Quiet):
    killed = False
    def end(self, task, problem):
        super().end(task, problem)
        if not Killer.killed and list(store.models.glob("digits*")):
            Killer.killed = True
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            cluster.add_node(num_cpus=1)

board = Killer()
failed = Runner(grid, store, backend, WorkerConfig(), board).run()
cluster.shutdown()
print("KILLED", Killer.killed, "FAILED", [f.error for f in failed], flush=True)
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an optional extra")
def test_a_ray_cluster_that_loses_a_worker_finishes_the_grid(tmp_path: Path, done: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(SMALL)
    call = [sys.executable, "-c", RAY, str(path), str(tmp_path / "out"), str(Path(__file__).parent)]
    ran = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert "KILLED True FAILED []" in ran.stdout, ran.stdout + ran.stderr
    for cell in read_grid(path).cells:
        theirs, mine = Store(tmp_path / "out").record(cell.spec), Store(done).record(cell.spec)
        assert theirs is not None
        assert mine is not None
        assert theirs.verdict == mine.verdict
        assert theirs.digest == mine.digest


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is an optional extra")
def test_every_new_cell_is_logged_to_mlflow(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(SMALL.replace("class = [1, 6]", "class = [1]").replace('"digits"', '"digits"\nretrained = 0'))
    store = (tmp_path / "mlruns").as_uri()
    call = [sys.executable, "-m", "unhot", "bench", str(path), "--out", str(tmp_path / "out"), "--mlflow", store]
    environment = {"MLFLOW_ALLOW_FILE_STORE": "true"}
    ran = subprocess.run(call, capture_output=True, text=True, timeout=200, env={**_environ(), **environment})
    assert ran.returncode == 0, ran.stderr
    metrics = {p.name: p.read_text() for p in (tmp_path / "mlruns").rglob("metrics/*")}
    assert float(metrics["forget_accuracy"].split()[1]) == 0.0
    digests = {p.read_text() for p in (tmp_path / "mlruns").rglob("unhot.digest")}
    assert digests == {c.spec.digest for c in read_grid(path).cells}


def together(*command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unhot"]
    return subprocess.run([*launcher, *command], capture_output=True, text=True, timeout=300, env=_environ())


def test_two_processes_train_and_audit_as_one_does(tmp_path: Path) -> None:
    train = [
        "train",
        "--dataset",
        "digits",
        "--arch",
        "lenet5",
        "--epochs",
        "2",
        "--precision",
        "fp32",
        "--device",
        "cpu",
    ]
    ran = together(*train, "--out", str(tmp_path / "two"), "--json")
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)
    alone = [sys.executable, "-m", "unhot", *train, "--out", str(tmp_path / "one"), "--json"]
    expected = json.loads(subprocess.run(alone, capture_output=True, text=True, timeout=200, check=True).stdout)
    assert record["test_accuracy"] == pytest.approx(expected["test_accuracy"], abs=0.01)
    assert record["cost"]["steps"] == expected["cost"]["steps"]
    one, two = (unhot.load(tmp_path / name).module.state_dict() for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4)

    audit = ["audit", "--original", str(tmp_path / "one"), "--unlearned", str(tmp_path / "one"), "--class", "3"]
    audit += ["--data", "digits", "--device", "cpu", "--quick", "--json"]
    ran = together(*audit, "--out", str(tmp_path / "audit-two"))
    assert ran.returncode == 0, ran.stderr
    theirs = json.loads(ran.stdout)
    alone = [sys.executable, "-m", "unhot", *audit, "--out", str(tmp_path / "audit-one")]
    mine = json.loads(subprocess.run(alone, capture_output=True, text=True, timeout=200, check=True).stdout)
    assert theirs["verdict"] == mine["verdict"]
    for a, b in zip(theirs["measurements"], mine["measurements"], strict=True):
        assert a["value"] == pytest.approx(b["value"], abs=1e-4), a["name"]


def _environ() -> dict[str, str]:
    import os

    return {**os.environ, "OMP_NUM_THREADS": "1"}
