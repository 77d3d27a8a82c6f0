"""A million images: only those that are drawn are decoded, and few of them are in memory at a time."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from handmade import runtime
from PIL import Image
from torch import nn

from unhot.data import images as module
from unhot.data.images import LabelledImages, Pictures
from unhot.evaluation import auditor as audits
from unhot.evaluation.auditor import audit
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.records.model import InputSpec
from unhot.report.content import facts

pytestmark = pytest.mark.filterwarnings(  # the nets are random, and there are few different pictures
    "ignore:The original model classifies", "ignore:.* test images are among the train images"
)

MILLION = 1_000_000
SPEC = InputSpec(height=4, width=4, channels=1, mean=(0.5,), std=(0.25,))
MODELS = 3  # original, unlearned, one retrained; the masked original is the original
LOOKED_AT = {"test": 1_500, "train": 600}  # stands in for 20,000 and 5,000, for the sake of time


class Lazy:
    """Pictures that are made from their index when they are asked for, and watched."""

    def __init__(self, count: int) -> None:
        self.decoded: Counter[int] = Counter()
        self.alive = self.most_alive = 0
        self._lock = threading.Lock()
        self.images = LabelledImages(
            Pictures(self._load, count), torch.arange(count) % 5, None, "a million", tuple(range(count))
        )

    def _load(self, i: int) -> Image.Image:
        pixels = np.full((4, 4), 40 * (i % 5), np.uint8)
        pixels[0, 0] = i % 97
        picture = Image.fromarray(pixels)
        with self._lock:
            self.decoded[i] += 1
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(picture, self._gone)
        return picture

    def _gone(self) -> None:
        with self._lock:
            self.alive -= 1


@pytest.fixture(scope="module")
def models() -> list[Classifier]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = [nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5)) for _ in range(2)]
    original, retrained = (Classifier.wrap(n.eval(), input=SPEC) for n in nets)
    unlearned = cut_classes(original.copy(), [original.label(3)], "mask")
    return [original, unlearned, retrained]


@pytest.fixture(scope="module", params=["held in memory", "too many to be held"])
def looked_at(request, models) -> Iterator[tuple[Any, ...]]:
    """An audit of a million test and a million train images, and what was decoded."""
    held = request.param == "held in memory"
    test, train = Lazy(MILLION), Lazy(MILLION)
    original, unlearned, retrained = models
    with pytest.MonkeyPatch.context() as patch:
        for split, count in LOOKED_AT.items():
            patch.setattr(audits, f"{split.upper()}_IMAGES", count)
        if not held:
            patch.setattr(module, "CACHED_BYTES", 0)
        found = audit(
            original=original, unlearned=unlearned, retrained=retrained, classes=[3], test=test.images,
            train=train.images, runtime=runtime(),
        )  # fmt: skip
    return found, {"test": test, "train": train}, held


def test_of_a_million_images_only_those_drawn_are_decoded(looked_at) -> None:
    found, sets, held = looked_at
    assert found.record.inputs.images == LOOKED_AT
    for split, lazy in sets.items():
        count = LOOKED_AT[split]
        assert len(lazy.decoded) == count
        if held:  # once each, and two to look at what each net returns
            assert lazy.decoded.total() <= count + 2 * MODELS
        else:  # once for each model, once for the digest, and what the attacks draw
            assert lazy.decoded.total() <= (MODELS + 2) * count + 2 * MODELS * 41 * 16
    assert found["forget_accuracy"].n == int((np.array([*sets["test"].decoded]) % 5 == 3).sum())


def test_the_images_that_are_looked_at_are_drawn_at_random_by_the_seed(models, monkeypatch) -> None:
    """The first ones of a set that is sorted by class are of few classes."""
    for split in LOOKED_AT:
        monkeypatch.setattr(audits, f"{split.upper()}_IMAGES", 100)

    def chosen(seed: int) -> list[set[int]]:
        sets = {"test": Lazy(2_000), "train": Lazy(2_000)}
        original, unlearned, _ = models
        images = {split: replace(lazy.images, origin=split) for split, lazy in sets.items()}
        audit(original=original, unlearned=unlearned, classes=[3], quick=True, runtime=runtime(seed), **images)
        return [set(lazy.decoded) for lazy in sets.values()]

    test, train = first = chosen(0)
    for found in first:
        assert len(found) == 100
        assert 600 < sum(found) / 100 < 1_400  # 1,000 expected, standard deviation 56
        assert min(found) < 200
        assert max(found) >= 1_800
    assert test != train
    assert chosen(0) == first
    assert all(len(a & b) < 30 for a, b in zip(chosen(1), first, strict=True))  # by chance 5 are in both


def test_few_pictures_are_in_memory_at_a_time(looked_at) -> None:
    _, sets, _ = looked_at
    assert all(lazy.most_alive <= 128 for lazy in sets.values())
    assert all(lazy.alive == 0 for lazy in sets.values())


def test_the_page_says_how_many_of_how_many(looked_at) -> None:
    found, _, _ = looked_at
    assert found.record.inputs.given == {"test": MILLION, "train": MILLION}
    said = {f.name: f.value for f in facts(found.record)}["Audited on"]
    assert said == "1,500 of 1,000,000 test images and 600 of 1,000,000 train images; seed 0"


def test_the_limits_are_those_of_the_documentation() -> None:
    assert (audits.TEST_IMAGES, audits.TRAIN_IMAGES) == (20_000, 5_000)
