"""The promise of nhle-cwm: 16 images of the class and no other data, at least three classes and three draws.

python benchmarks/promise.py BUNDLE --dataset cifar10 --classes 0 3 8 [--retrained CLASS=BUNDLE ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Hashable
from pathlib import Path

import cells
from unhot import load
from unhot.data.source import load_source
from unhot.methods.nhle_cwm import NhleCwm
from unhot.runtime import Runtime


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("bundle", type=Path)
    args.add_argument("--dataset", required=True)
    args.add_argument("--classes", type=int, nargs="+", required=True)
    args.add_argument("--draws", type=int, default=3)
    args.add_argument("--shots", type=int, default=16)
    args.add_argument("--retrained", action="append", default=[], metavar="CLASS=BUNDLE")
    args.add_argument("--out", type=Path)
    given = args.parse_args()
    model, source = load(given.bundle), load_source(given.dataset)
    references = [(int(k), load(v)) for k, _, v in (r.partition("=") for r in given.retrained)]
    test = model.align(source.held_out).held(model.input)
    done = []
    for label in given.classes:
        asked = test.where(test.y == label)
        retrained = [m for c, m in references if c == label]
        shared: dict[Hashable, object] = {}
        alive = []  # what is shared is found by the identity of a model
        for seed in range(given.draws):
            _, uncut = cells.forget(model, source, NhleCwm(cut="none"), label, given.shots, seed)
            _, result = cells.forget(model, source, NhleCwm(), label, given.shots, seed)
            alive.append(result.classifier)
            cell = {"class": label, "seed": seed, "shots": given.shots, "steps": result.record.cost.steps}
            cell |= {"seconds": round(result.record.cost.seconds, 3), "digest": result.record.digest}
            cell |= cells.on_forgotten(model, uncut.classifier, asked, label)
            cell["measurements"] = cells.audited(model, result.classifier, source, label, retrained, shared)
            done.append(cell)
            print({k: v for k, v in cell.items() if k != "measurements"}, flush=True)
    head = {"dataset": given.dataset, "arch": model.arch, "arch_options": model.arch_options}
    head |= {"class_names": {c: model.label(c).name for c in given.classes}, "model_sha256": model.sha256()}
    out = given.out or Path(__file__).parent / "records" / f"promise-{given.dataset}.json"
    environment = Runtime().environment().model_dump()
    cells.write(out, head | {"defaults": NhleCwm().model_dump(), "environment": environment, "cells": done})


if __name__ == "__main__":
    main()
