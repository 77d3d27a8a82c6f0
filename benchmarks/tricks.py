"""What the verdict says of masked originals whose features are changed by reversible tricks.

    python benchmarks/tricks.py --dataset digits
    python benchmarks/tricks.py --dataset fashion-mnist --epochs 3 --train-images 20000
    python benchmarks/tricks.py --dataset cifar10 --original DIR --retrained DIR --again DIR --classes 3

None of them is worth a better label than "hidden at the output only" to whoever can undo it. The masked original and a
second retrained model are judged, too. The record is written after every class and seed.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

import unhot
from tricked import TRICKS, Given, given_of, tricked

LEARNT_FROM = 5_000  # train images; as many test images at most are asked for answers

Cell = dict[str, Any]


class Setting(NamedTuple):
    """A class and its nets: what tricks are made of, an auditor, the masked original and test inputs."""

    given: Given
    auditor: unhot.Auditor
    masked: unhot.Classifier
    asked: torch.Tensor

    def judged(self, name: str, model: unhot.Classifier, quick: bool) -> Cell:
        """Audit a model; compare its answers with those of the masked original."""
        began = time.perf_counter()
        with torch.no_grad():
            answers, masked = (m.logits(self.asked).argmax(1) for m in (model, self.masked))
        verdict = self.auditor.audit(model, [self.given.label], quick=quick).record.verdict
        labels = {holder: found.label for holder, found in verdict.holders.items()}
        print(self.given.label, name, labels, f"{time.perf_counter() - began:.0f} s", flush=True)
        same = float((answers == masked).float().mean())
        return {"class": self.given.label, "model": name, "same_answers": same, "labels": labels}


def main() -> None:
    given = _arguments()
    warnings.simplefilter("ignore")
    source = unhot.load_source(given.dataset)
    for part, count in (("train", given.train_images), ("test", given.test_images)):
        if count is not None:
            source = replace(source, **{part: getattr(source, f"{part}_images").select(torch.arange(count))})
    cells: list[Cell] = []
    made = [_setting(given, source, label, i) for i, label in enumerate(given.classes)]
    for seed in range(given.seeds):
        for setting in made:
            start = replace(setting.given, seed=seed)
            if seed == 0:
                cells.append(setting.judged("masked", setting.masked, not given.full))
                cells.append(setting.judged("retrained", start.retrained, not given.full))
            for name, trick in TRICKS.items():
                cell = setting.judged(name, tricked(name, start), not given.full)
                cells.append(cell | {"seed": seed, "undone_by": trick.holder})
                _write(given, cells)


def _arguments() -> argparse.Namespace:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--dataset", default="digits")
    args.add_argument("--arch", default="lenet5")
    args.add_argument("--classes", type=int, nargs="+", default=[3, 5, 8], help="one net for each")
    args.add_argument("--seeds", type=int, default=3, help="of what the tricks draw")
    args.add_argument("--epochs", type=int)
    args.add_argument("--train-images", type=int, help="take so many of them only")
    args.add_argument("--test-images", type=int, help="ask so many of them only")
    args.add_argument("--full", action="store_true", help="audits with everything instead of quick ones")
    for name in ("original", "retrained", "again"):
        args.add_argument(f"--{name}", type=Path, help="a bundle, instead of training; one for each class", nargs="+")
    args.add_argument("--out", type=Path)
    return args.parse_args()


def _nets(
    given: argparse.Namespace, source: unhot.Source, label: int, i: int
) -> tuple[unhot.Classifier, unhot.Classifier, unhot.Classifier]:
    """Load or train the original, the retrained model and a second one for a class."""
    settings = {} if given.epochs is None else {"epochs": given.epochs}
    found = []
    for name, seed in (("original", i), ("retrained", 10 + i), ("again", 20 + i)):
        if folders := getattr(given, name):
            found.append(unhot.load(folders[min(i, len(folders) - 1)]))
        else:
            gone = [] if name == "original" else [label]
            found.append(unhot.train(source, given.arch, seed=seed, exclude=gone, settings=settings)[0])
    return found[0], found[1], found[2]


def _setting(given: argparse.Namespace, source: unhot.Source, label: int, i: int) -> Setting:
    """Prepare what is common to all tricks on a class."""
    original, retrained, again = _nets(given, source, label, i)
    auditor = unhot.Auditor(original, retrained=retrained, test=source.test_images, train=source.train_images)
    train, test = (original.align(images) for images in (source.train_images, source.test_images))
    x, asked = (
        part.inputs(torch.arange(min(len(part), LEARNT_FROM)), original.input, original.device)
        for part in (train, test)
    )
    samples = unhot.draw(source.train_images, classes=[label], shots=1, seed=0)
    masked = unhot.forget(original, samples, method="mask", force=True).classifier
    return Setting(given_of(original, again, label, x, train.y[: len(x)], 0), auditor, masked, asked)


def _write(given: argparse.Namespace, cells: list[Cell]) -> None:
    out = given.out or Path(__file__).parent / "records" / f"tricks-{given.dataset}.json"
    head = {"dataset": given.dataset, "arch": given.arch, "quick": not given.full, "epochs": given.epochs}
    head |= {"train_images": given.train_images, "test_images": given.test_images}
    head |= {"environment": unhot.Runtime().environment().model_dump()}
    out.write_text(json.dumps(head | {"cells": cells}, indent=1) + "\n")


if __name__ == "__main__":
    main()
