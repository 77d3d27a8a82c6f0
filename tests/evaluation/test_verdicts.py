"""The audit audited: four verdicts that must hold on real models, whatever the class and the seed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from handmade import runtime

from conftest import Zoo
from unhot.data.source import load_source
from unhot.evaluation.audit import audit
from unhot.evaluation.verdict import Thresholds, judge
from unhot.models.cut import cut_classes
from unhot.record import Measurement, Subject
from unhot.train import train_classifier

EXPECTED = {
    "second retrained": "at the level of a retrained model",
    "masked": "hidden at the output only",
    "original": "not forgotten",
    "wrecked": "model damaged",
}


@pytest.mark.parametrize("seed", Zoo.seeds)
@pytest.mark.parametrize("label", Zoo.classes)
@pytest.mark.parametrize("name", EXPECTED)
def test_digits(zoo, name, label, seed):
    found = zoo.audited(name, label, seed)
    assert found.record.verdict.label == EXPECTED[name], found.record.verdict.because


@pytest.mark.parametrize("seed", Zoo.seeds)
@pytest.mark.parametrize("label", Zoo.classes)
def test_digits_without_a_retrained_model(zoo, label, seed):
    """What needs no reference is still said; what needs one is not guessed."""
    wanted = EXPECTED | {"second retrained": "not decided without a retrained model"}

    def find(measure: str, subject: Subject) -> Measurement:
        if subject == "retrained":
            return Measurement(name=measure, subject=subject, absent_because="no retrained model was given")
        return zoo.audited(name, label, seed).get(measure, subject)

    for name in wanted:
        assert judge(find, Thresholds()).label == wanted[name], name


@pytest.mark.parametrize("label", Zoo.classes)
def test_the_masked_original_is_found_out_by_what_can_be_read_too(zoo, label):
    """Were its features turned so that CKA does not know them, the probe, neighbours and prototype still would."""
    found = zoo.audited("masked", label)
    by_reading = judge(found.get, Thresholds(unchanged=1.0))
    assert by_reading.label == EXPECTED["masked"]
    assert "0% is closed" in by_reading.because[-1]


@pytest.fixture(scope="module")
def fashion():
    root = os.environ.get("UNHOT_DATA")
    if not root or not (Path(root) / "FashionMNIST").is_dir():
        pytest.skip("UNHOT_DATA holds no FashionMNIST")
    source = load_source("fashion-mnist")

    def train(seed: int, *exclude: int):
        return train_classifier(
            source, "lenet5", exclude=exclude, settings={"epochs": 2}, seed=seed, runtime=runtime(seed)
        )[0]

    return source, train(0), train(10, 3), train(11, 3)


@pytest.mark.data
@pytest.mark.parametrize("name", EXPECTED)
def test_fashion_mnist(fashion, name):
    source, original, reference, second = fashion
    masked = original.copy()
    masked = cut_classes(masked, [masked.label(3)], "mask")
    holder = Zoo(source)
    holder.original = lambda _: original
    models = {"second retrained": second, "masked": masked, "original": original, "wrecked": holder.wrecked(0)}
    found = audit(
        original=original, unlearned=models[name], retrained=reference, classes=[3],
        test=source.held_out, train=source.seen, quick=True, runtime=runtime(),
    )  # fmt: skip
    assert found.record.verdict.label == EXPECTED[name], found.record.verdict.because
