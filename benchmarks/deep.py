"""What methods leave in the features, beside retrained models, on nets that are given as bundles.

    python benchmarks/deep.py --dataset cifar10 --original DIR --retrained cat=DIR cat=DIR ship=DIR \
        --run nhle-cwm --run nhle-renew --run "nhle-renew retain=1000" --run "nhle-renew guard=20000"

Besides hyperparameters, a run may name what the method is given: `retain=N` training images of the other classes,
`photos=N` images of the data set named by --photos without their labels, or `guard=N`, a guard of so many training
images. Every run is repeated for each class and each draw of samples, and audited beside the retrained models of that
class. The record is written after each; what it has is not run again, and several processes may write into it.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from pydantic import JsonValue

import cell_lines
import unhot
from unhot.evaluation.catalogue import BUILTIN
from unhot.methods import get
from unhot.records.audit import AuditRecord, Subject

SHOTS = 16
SHOWN = ("forget_accuracy", "retain_drop_masked", "worst_class_drop", "knn_accuracy", "probe_accuracy", "relearn_steps")
MEASURES = (*SHOWN, *(m.name for m in BUILTIN.values() if m.decides is not None))
SUBJECTS: tuple[Subject, ...] = ("original", "unlearned", "masked", "retrained")

Cell = dict[str, Any]


def main() -> None:
    given = _arguments()
    warnings.simplefilter("ignore")
    source = unhot.load_source(given.dataset)
    if given.train_images is not None:
        source = replace(source, train=source.train_images.select(torch.arange(given.train_images)))
    original = unhot.load(given.original)
    for label in dict.fromkeys(label for label, _ in given.retrained):
        retrained = [unhot.load(folder) for name, folder in given.retrained if name == label]
        auditor = unhot.Auditor(original, retrained=retrained, test=source.test_images, train=source.train_images)
        for draw in given.draws:
            for run in given.run:
                key = {"run": run, "class": label, "draw": draw}
                if not any(key.items() <= cell.items() for cell in _record(given)["cells"]):
                    _add(given, key | _cell(given, source, original, auditor, label, draw, run))


def _arguments() -> argparse.Namespace:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--dataset", required=True)
    args.add_argument("--train-images", type=int, help="read so many of them only")
    args.add_argument("--photos", default="cifar100", help="a data set of images that are not of the classes")
    args.add_argument("--original", type=Path, required=True)
    args.add_argument("--retrained", type=_pair, nargs="+", required=True, metavar="CLASS=DIR")
    args.add_argument("--run", action="append", required=True, metavar="METHOD [NAME=VALUE ...]")
    args.add_argument("--draws", type=int, nargs="+", default=[0, 1])
    args.add_argument(
        "--cache", type=Path, help="keeps inverted images: only the first run takes the time to make them"
    )
    args.add_argument("--full", action="store_true", help="audits with everything instead of quick ones")
    args.add_argument("--out", type=Path, required=True)
    return args.parse_args()


def _pair(text: str) -> tuple[str, Path]:
    label, _, folder = text.partition("=")
    return label, Path(folder)


def _cell(
    given: argparse.Namespace,
    source: unhot.Source,
    original: unhot.Classifier,
    auditor: unhot.Auditor,
    label: str,
    draw: int,
    run: str,
) -> Cell:
    """Do one run, and audit what it leaves."""
    name, *pairs = run.split()
    settings: dict[str, Any] = dict(pair.split("=") for pair in pairs)
    samples = unhot.draw(source.train_images, classes=[label], shots=SHOTS, seed=draw)
    read = dict(_read(given, source, original, samples, draw, settings))
    settings = {key: json.loads(value) for key, value in settings.items()}
    runtime = unhot.Runtime(cache=given.cache if get(name).makes_images else None)
    result = unhot.forget(original, samples, method=name, seed=draw, force=True, runtime=runtime, **read, **settings)
    started = time.perf_counter()
    record = auditor.audit(result.classifier, [label], quick=not given.full).record
    cell: Cell = {"seconds": round(result.record.cost.seconds, 1), "notes": result.record.notes, **_judged(record)}
    print(label, draw, run, cell["labels"], f"{cell['seconds']} s + {time.perf_counter() - started:.0f} s", flush=True)
    return cell


def _read(
    given: argparse.Namespace,
    source: unhot.Source,
    original: unhot.Classifier,
    samples: unhot.Samples,
    draw: int,
    settings: dict[str, Any],
) -> Iterator[tuple[str, Any]]:
    """Take what the method is given out of the settings of a run."""
    train = source.train_images
    if "guard" in settings:
        yield "guard", unhot.ClassStatistics.collect(original, train, max_images=int(settings.pop("guard")))
    for name in settings.keys() & {"retain", "photos"}:
        others = train.without(samples.positions)
        images = others if name == "retain" else unhot.load_source(given.photos).test_images
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(draw))
        some = images.select(order[: int(settings.pop(name))])
        yield "retain", some if name == "retain" else unhot.unlabelled(some)


def _judged(record: AuditRecord) -> Cell:
    """Return the verdicts, and what they were given for."""
    measures: dict[str, JsonValue] = {}
    for name in MEASURES:
        rows = {s: record.find(name, s) for s in SUBJECTS}
        measures[name] = {s: round(m.value, 4) for s, m in rows.items() if m is not None and m.value is not None}
    return {"labels": {h: j.label for h, j in record.verdict.holders.items()}, "measures": measures}


def _record(given: argparse.Namespace) -> dict[str, Any]:
    """Return the record as it is now."""
    if given.out.exists():
        return dict(json.loads(given.out.read_text()))
    return {
        "dataset": given.dataset,
        "shots": SHOTS,
        "quick": not given.full,
        "train_images": given.train_images,
        "cached": given.cache is not None,
        "environment": unhot.Runtime().environment().model_dump(),
        "cells": [],
    }


def _add(given: argparse.Namespace, cell: Cell) -> None:
    """Write a cell into the record."""
    with FileLock(f"{given.out}.lock"):
        record = _record(given)
        cell_lines.write(given.out, record | {"cells": [*record["cells"], cell]})


if __name__ == "__main__":
    main()
