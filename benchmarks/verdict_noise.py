"""What the verdict says of models trained without a class, of the masked original, and of one that nhle-cwm made.

    python benchmarks/verdict_noise.py --dataset digits --arch lenet5 --classes 1 3 5 8

Every model is measured once, by the measures that decide the verdict, and the record is written after every class.
`judged` then takes one or two of the retrained models as references and gives the verdict on the others: all of these
are to be "at the level of a retrained model", and the masked original "hidden at the output only". docs/audit.md has
the table of it.

With --share .15 two more references are measured, of 15 % of the training images: `partial`, the original with a fresh
last stage (unhot reference), and `fewer`, a net trained on them without the class.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

import cell_lines
import unhot
from unhot.evaluation.catalogue import BUILTIN
from unhot.evaluation.verdict import Thresholds, judge
from unhot.records.audit import Measurement, Subject
from unhot.records.measure import Holder

DECIDING = [m for m in BUILTIN.values() if m.decides is not None]
AT_THE_OUTPUT = ("forget_accuracy", "retain_drop_masked")
SHOTS = 16

Models = dict[str, dict[str, list[float]]]  # value, low and high of each measure, of each model of one class


def judged(models: Models, references: int) -> Iterator[tuple[str, Holder, str]]:
    """Judge every model beside every choice of so many others that were retrained: model, holder, label."""
    retrained = [name for name in models if name.startswith("retrained")]
    for chosen in itertools.combinations(retrained, references):
        for name in models.keys() - set(chosen):
            subjects = {"unlearned": [name], "masked": ["masked"], "retrained": list(chosen)}

            def find(measure: str, subject: Subject, subjects: dict[str, list[str]] = subjects) -> Measurement:
                found = [models[n][measure] for n in subjects.get(subject, ()) if measure in models[n]]
                if not found:
                    return Measurement(name=measure, subject=subject, split="test", absent_because="not measured")
                values, low, high = zip(*found, strict=True)
                return Measurement(
                    name=measure,
                    subject=subject,
                    split="test",
                    value=statistics.fmean(values),
                    low=min(low),
                    high=max(high),
                    runs=values if len(values) > 1 else (),
                )

            verdict = judge(find, DECIDING, Thresholds())
            for holder, one in verdict.holders.items():
                yield name, holder, one.label


def measured(auditor: unhot.Auditor, model: unhot.Classifier, label: int, quick: bool, subject: Subject) -> Any:
    """Return what decides of one model."""
    found = auditor.audit(model, [label], quick=quick).record
    kept = [*AT_THE_OUTPUT, *(m.name for m in DECIDING)]
    rows = {name: found.find(name, subject) for name in kept}
    ends = {n: (m.value, m.low, m.high) for n, m in rows.items() if m is not None}
    return {n: [round(v, 4) for v in found if v is not None] for n, found in ends.items() if found[0] is not None}


def cells(source: unhot.Source, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train and measure, class by class."""
    options, settings = (dict(pair.split("=") for pair in pairs) for pairs in (args.arch_option, args.setting))
    numbers: dict[str, JsonValue] = {name: int(value) for name, value in options.items()}

    def train(seed: int, exclude: Sequence[int] = (), data: unhot.Source = source) -> unhot.Classifier:
        return unhot.train(data, args.arch, options=numbers, settings=settings, seed=seed, exclude=exclude)[0]

    original = train(0)
    auditor = unhot.Auditor(original, test=source.test_images, train=source.train_images)
    for label in args.classes:
        samples = unhot.draw(source.train_images, classes=[label], shots=SHOTS, seed=0)
        made = unhot.forget(original, samples, method="nhle-cwm", force=True).classifier
        models = {"masked": measured(auditor, made, label, not args.full, "masked")}
        models["nhle-cwm"] = measured(auditor, made, label, not args.full, "unlearned")
        for i in range(args.retrained):
            model = train(11 + i, [label])
            models[f"retrained {i}"] = measured(auditor, model, label, not args.full, "unlearned")
        if args.share:
            images = source.train_images
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(label))
            some = images.select(order[: int(args.share * len(images))])
            partial = unhot.partial_reference(original, some, [label], augment=source.augment)[0]
            fewer = train(31, [label], replace(source, train=some))
            for name, model in (("partial", partial), ("fewer", fewer)):
                models[name] = measured(auditor, model, label, not args.full, "unlearned")
        yield {"class": label, "models": models}


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--dataset", default="digits")
    args.add_argument("--arch", default="lenet5")
    args.add_argument("--classes", type=int, nargs="+", default=[1, 3, 5, 8])
    args.add_argument("--retrained", type=int, default=3)
    args.add_argument("--arch-option", nargs="+", default=[], metavar="NAME=NUMBER")
    args.add_argument("--setting", nargs="+", default=[], metavar="NAME=VALUE", help="of training, such as epochs=5")
    args.add_argument("--share", type=float, default=0.0, help="of the images, for references made of fewer")
    args.add_argument("--full", action="store_true", help="with the attacks that --quick leaves out")
    args.add_argument("--out", type=Path)
    given = args.parse_args()
    warnings.simplefilter("ignore", unhot.errors.SampleWarning)
    source = unhot.load_source(given.dataset)
    out = given.out or Path(__file__).parent / "records" / f"verdict-noise-{given.dataset}-{given.arch}.json"
    head = {"dataset": given.dataset, "arch": " ".join([given.arch, *given.arch_option]), "full": given.full}
    head |= {"training": given.setting, "environment": unhot.Runtime().environment().model_dump()}
    done: list[dict[str, Any]] = []
    for cell in cells(source, given):
        done.append(cell)
        cell_lines.write(out, head | {"cells": done})
        print(cell["class"], Counter(judged(cell["models"], 1)), flush=True)


if __name__ == "__main__":
    main()
