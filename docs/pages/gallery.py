"""Make the gallery of verdicts: real audits of nets of handwritten digits, chosen so that each label is earned by one.

    python docs/pages/gallery.py OUT

Every model is trained or made to forget here, in seconds each. On another machine one may earn another label; the page
shows each under the label that it has.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import unhot
from unhot.data.source import load_source
from unhot.evaluation.audit import Audit


class Lab:
    """The nets that the examples share: a LeNet-5 of the digits, and two that were trained without a digit."""

    def __init__(self, digit: int) -> None:
        self.digit = digit
        self.digits = load_source("digits")

    @cached_property
    def original(self) -> unhot.Classifier:
        """Trained on all digits."""
        return unhot.train(self.digits, "lenet5", seed=0)[0]

    def retrained(self, seed: int) -> unhot.Classifier:
        """Train a net without the digit."""
        return unhot.train(self.digits, "lenet5", exclude=[self.digit], seed=seed)[0]

    @cached_property
    def third(self) -> unhot.Classifier:
        """Trained without the digit, and not among those that others are compared with."""
        return self.retrained(3)

    @cached_property
    def auditor(self) -> unhot.Auditor:
        """Compares with two retrained nets."""
        references = [self.retrained(seed) for seed in (1, 2)]
        return unhot.Auditor(self.original, retrained=references, test=self.digits.test_images, train=self.digits.train)

    @cached_property
    def lone_auditor(self) -> unhot.Auditor:
        """Has no retrained net to compare with."""
        return unhot.Auditor(self.original, test=self.digits.test_images, train=self.digits.train)

    def forgotten(self, method: str, retain: bool = False, **settings: float) -> unhot.Classifier:
        """Make the original forget the digit from 16 images; ``retain`` gives the method those of the others, too."""
        images = self.digits.train_images
        samples = unhot.draw(images, classes=[self.digit], shots=16, seed=0)
        others = images if retain else None
        chosen = unhot.methods.get(method)(**settings)
        return unhot.forget(self.original, samples, method=chosen, retain=others, seed=0).classifier


@dataclass(frozen=True)
class Example:
    """A model of the gallery.

    Attributes:
        title: What it is, in a few words.
        made: How it was made, in a sentence or two.
        model: Makes it.
        alone: Whether it is audited without a retrained model.
        quick: Whether the attacks that train are left out.
    """

    title: str
    made: str
    model: Callable[[Lab], unhot.Classifier]
    alone: bool = False
    quick: bool = True


EXAMPLES = {
    "masked": Example(
        "The output is cut",
        "The row of the digit was taken out of the last layer, by the method mask. Nothing else was changed.",
        lambda lab: lab.forgotten("mask"),
    ),
    "hidden": Example(
        "nhle-cwm, from 16 images",
        "The default method of `unhot forget`, at its defaults.",
        lambda lab: lab.forgotten("nhle-cwm"),
        quick=False,
    ),
    "level": Example(
        "A third retrained net",
        "A net that was trained without the digit, from another seed than the two that it is compared with.",
        lambda lab: lab.third,
    ),
    "short": Example(
        "nhle-renew, stopped early",
        "The last stage of the net was made partly new, and trained on the images of the other digits for 60 steps "
        "instead of 800 (`steps=60`).",
        lambda lab: lab.forgotten("nhle-renew", retain=True, steps=60),
    ),
    "beyond": Example(
        "retrain, for three epochs only",
        "Trained from scratch on the images of the other digits, but so briefly (`epochs=3`) that it knows less of any "
        "image than the retrained nets do. Beyond is no better than at the level.",
        lambda lab: lab.forgotten("retrain", retain=True, epochs=3),
    ),
    "not-forgotten": Example(
        "finetune, on the other digits",
        "The net was trained further on the images of the other digits. That does not forget the digit.",
        lambda lab: lab.forgotten("finetune", retain=True),
    ),
    "damaged": Example(
        "neggrad, from 16 images, without a stop",
        "Gradient ascent on the 16 images, without any image of the other digits, and on after the digit is forgotten "
        "(`stop_at=0`).",
        lambda lab: lab.forgotten("neggrad", stop_at=0),
    ),
    "undecided": Example(
        "A retrained net, and nothing to compare with",
        "The third retrained net again, audited without the other two. Nothing is wrong with the model; without a "
        "reference it cannot be told from one that hides the digit well.",
        lambda lab: lab.third,
        alone=True,
    ),
}


def audited(lab: Lab, example: Example) -> Audit:
    """Audit the model of an example."""
    auditor = lab.lone_auditor if example.alone else lab.auditor
    return auditor.audit(example.model(lab), [lab.digit], quick=example.quick)


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("out", type=Path)
    out = args.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    lab = Lab(1)
    for name, example in EXAMPLES.items():
        audit = audited(lab, example)
        audit.save(out / name)
        print(f"{name}: {audit.record.verdict.label}")


if __name__ == "__main__":
    main()
