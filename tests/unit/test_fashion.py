"""The promise on real data, in seconds; benchmarks/ hold the full measurements."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

import unhot
from unhot.data.source import Source, load_source
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime
from unhot.training import train

HERE = Path(os.environ.get("UNHOT_DATA", "nowhere"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (HERE / "FashionMNIST").is_dir(), reason="UNHOT_DATA holds no FashionMNIST"),
    pytest.mark.filterwarnings("ignore::unhot.errors.SampleWarning"),
]


@pytest.fixture(scope="module")
def fashion() -> Source:
    source = load_source("fashion-mnist")
    return dataclasses.replace(source, train=source.train_images.select(torch.arange(12_000)))


@pytest.fixture(scope="module")
def lenet(fashion: Source) -> Classifier:
    made, record = train(
        fashion, "lenet5", settings={"epochs": 3, "batch_size": 64}, runtime=Runtime(torch.device("cpu"))
    )
    assert record.test_accuracy is not None
    assert record.test_accuracy > 0.75
    return made


@pytest.mark.parametrize("class_name", ["Sandal", "Trouser"])
def test_a_class_is_forgotten_from_16_images(fashion: Source, lenet: Classifier, class_name: str) -> None:
    samples = unhot.draw(fashion.train_images, [class_name], shots=16, seed=0)
    result = unhot.forget(lenet, samples)
    assert result.record.samples.count == (16,)
    test = fashion.test_images.select(torch.arange(5_000))
    audit = unhot.audit(original=lenet, unlearned=result.classifier, classes=[class_name], test=test, quick=True)
    assert audit["forget_accuracy"].value <= 0.01
    assert audit["retain_drop"].value <= 0.035
    assert audit.get("forget_accuracy", "original").value > 0.75
