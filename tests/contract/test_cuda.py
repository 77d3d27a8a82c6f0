"""What runs on a CPU runs on a GPU, with the same result; skipped where there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from toy_settings import SETTINGS

import unhot
from unhot import methods
from unhot.data.images import at_once
from unhot.runtime import Runtime
from unhot.testing import Toy, toy_problem

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA"),
    pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning"),  # few steps at settings of the toy problem
]
GPU, CPU = torch.device("cuda"), torch.device("cpu")
LONG = {"pour-d", "retrain", "nhle-renew", "nhle-guard", "wf-net"}  # train for so long that rounding adds up


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_problem()


@pytest.mark.parametrize("name", list(methods.catalogue))
def test_a_method_forgets_on_a_gpu_as_on_a_cpu(toy: Toy, name: str) -> None:
    method = methods.get(name)(**SETTINGS.get(name, {}))
    retain = toy.retain() if "retain" in method.uses else None
    on_gpu, on_cpu = (
        method(toy.model, toy.samples(), retain=retain, runtime=Runtime(device)).model for device in (GPU, CPU)
    )
    assert {p.device for p in on_gpu.parameters()} == {p.device for p in toy.model.parameters()}
    with torch.no_grad():
        before, found, wanted = (net(toy.x) for net in (toy.model, on_gpu, on_cpu))
    assert not torch.equal(found, before)
    assert (found.argmax(1) == wanted.argmax(1)).float().mean() >= (0.9 if name in LONG else 0.98)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_audit_measures_on_a_gpu_what_it_measures_on_a_cpu(toy: Toy, precision: str) -> None:
    unlearned = unhot.forget(toy.model, toy.samples(), method="mask", device="cpu").model
    found, wanted = (
        unhot.audit(
            original=toy.model,
            unlearned=unlearned,
            classes=[1],
            test=(toy.x, toy.y),
            quick=True,
            runtime=Runtime(device, precision=precision),
        ).record
        for device in (GPU, CPU)
    )
    assert {h: j.label for h, j in found.verdict.holders.items()} == {
        h: j.label for h, j in wanted.verdict.holders.items()
    }
    for name in ("forget_accuracy", "retain_accuracy", "knn_accuracy", "recovery_5_shot"):
        assert found.find(name, "unlearned").value == pytest.approx(wanted.find(name, "unlearned").value, abs=0.05)


def test_a_net_trains_on_a_gpu_and_its_bundle_loads_on_a_cpu(tmp_path: Path) -> None:
    source = unhot.load_source("digits")
    some = dataclasses.replace(source, train=source.train_images.select(torch.arange(256)))
    net, _ = unhot.train(some, "lenet5", settings={"epochs": 2}, runtime=Runtime(GPU))
    unhot.save(net, tmp_path / "net")
    again = unhot.load(tmp_path / "net")
    assert all(p.device == CPU for p in again.module.parameters())


def test_a_large_gpu_takes_more_images_at_once() -> None:
    photo = (1, 3, 224, 224)
    memory = torch.cuda.get_device_properties(GPU).total_memory
    assert at_once(photo, device=GPU) >= at_once(photo) == at_once(photo, device=CPU) == 16
    assert at_once(photo, device=GPU) * 224 * 224 <= max(16 * 224 * 224, memory // (16 << 10))
