"""Make the gallery of verdicts: real audits of nets of handwritten digits, one or more for each label.

    python docs/pages/gallery.py OUT

Every model is trained or made to forget here, in seconds each. An example that does not earn the label that it stands
for is an error, so that the gallery cannot show another one unnoticed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import unhot
from unhot.data.source import load_source
from unhot.evaluation.audit import Audit
from unhot.records.codes import VerdictLabel
from unhot.records.measure import Holder


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
    def auditor(self) -> unhot.Auditor:
        """Compares with two retrained nets."""
        references = [self.retrained(seed) for seed in (1, 2)]
        return unhot.Auditor(self.original, retrained=references, test=self.digits.test_images, train=self.digits.train)

    @cached_property
    def lone_auditor(self) -> unhot.Auditor:
        """Has no retrained net to compare with."""
        return unhot.Auditor(self.original, test=self.digits.test_images, train=self.digits.train)

    def forgotten(self, method: str, retain: bool = False, guard: bool = False) -> unhot.Classifier:
        """Make the original forget the digit from 16 images; ``retain`` and ``guard`` give the method more to read."""
        images = self.digits.train_images
        samples = unhot.draw(images, classes=[self.digit], shots=16, seed=0)
        others = images if retain else None
        known = unhot.ClassStatistics.collect(self.original, images) if guard else None
        return unhot.forget(self.original, samples, method=method, retain=others, guard=known, seed=0).classifier


@dataclass(frozen=True)
class Example:
    """A model that earns a label.

    Attributes:
        label: The verdict.
        title: What it is, in a few words.
        made: How it was made, in a sentence or two.
        model: Makes it.
        holder: Whom the verdict is for.
        alone: Whether it is audited without a retrained model.
        quick: Whether the attacks that train are left out.
    """

    label: VerdictLabel
    title: str
    made: str
    model: Callable[[Lab], unhot.Classifier]
    holder: Holder = "features"
    alone: bool = False
    quick: bool = True


EXAMPLES = {
    "masked": Example(
        "hidden at the output only",
        "The output is cut",
        "The row of the digit was taken out of the last layer, by the method mask. Nothing else was changed.",
        lambda lab: lab.forgotten("mask"),
    ),
    "hidden": Example(
        "hidden at the output only",
        "nhle-cwm, from 16 images",
        "The default method of `unhot forget`, at its defaults.",
        lambda lab: lab.forgotten("nhle-cwm"),
        quick=False,
    ),
    "level": Example(
        "at the level of a retrained model",
        "A third retrained net",
        "A net that was trained without the digit, from another seed than the two that it is compared with. It is "
        "what the label describes.",
        lambda lab: lab.retrained(3),
    ),
    "short": Example(
        "short of a retrained model",
        "salun, with the training images of the other digits",
        "Fine-tuned with random labels for the 16 images, and with the training images of all other digits.",
        lambda lab: lab.forgotten("salun", retain=True),
    ),
    "beyond": Example(
        "beyond a retrained model",
        "nhle-renew, with statistics of the training images",
        "The last stage of the net was made partly new, with what `unhot guard collect` collects. The label is that "
        "for whoever holds the outputs; the features are another matter, as the sentences below say.",
        lambda lab: lab.forgotten("nhle-renew", guard=True),
        holder="outputs",
    ),
    "not-forgotten": Example(
        "not forgotten",
        "finetune, on the other digits",
        "The net was trained further on the images of the other digits. That does not forget the digit.",
        lambda lab: lab.forgotten("finetune", retain=True),
    ),
    "damaged": Example(
        "model damaged",
        "neggrad, from 16 images",
        "Gradient ascent on the 16 images, without any image of the other digits.",
        lambda lab: lab.forgotten("neggrad"),
    ),
    "undecided": Example(
        "undecided",
        "A retrained net, and nothing to compare with",
        "The third retrained net again, audited without the other two. Nothing is wrong with the model; without a "
        "reference it cannot be told from one that hides the digit well.",
        lambda lab: lab.retrained(3),
        alone=True,
    ),
}


def audited(lab: Lab, example: Example) -> Audit:
    """Audit the model of an example.

    Raises:
        SystemExit: It earns another label.
    """
    auditor = lab.lone_auditor if example.alone else lab.auditor
    audit = auditor.audit(example.model(lab), [lab.digit], quick=example.quick, holder=example.holder)
    found = audit.record.verdict.label
    if found != example.label:
        sys.exit(f"{example.title} is now {found!r}, not {example.label!r}. Choose another example.")
    return audit


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("out", type=Path)
    out = args.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    lab = Lab(1)
    for name, example in EXAMPLES.items():
        audited(lab, example).save(out / name)
        print(f"{name}: {example.label}")


if __name__ == "__main__":
    main()
