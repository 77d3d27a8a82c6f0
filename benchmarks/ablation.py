"""Which encoding, and how far, through which layers: the trials behind the defaults of nhle-cwm.

    python benchmarks/ablation.py BUNDLE --dataset fashion-mnist --classes 0 5 6

Every encoding at 1, 5, 16 and 50 images, then one setting at a time at 16 images. `sample_*`, `drift` and `steps` are
what a method may see; the rest is measured on test images. docs/nhle-cwm.md says how the defaults were chosen.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import cells
from unhot import load
from unhot.bench.work import signals
from unhot.data.source import load_source
from unhot.methods.nhle_cwm import NhleCwm
from unhot.methods.parts.losses import ENCODINGS
from unhot.runtime import Runtime

SETTINGS: dict[str, list[Any]] = {
    "guard": [0.0, 1e2, 1e3, 1e4, 1e5],
    "depth": [0.1, 0.25, 0.5, 1.0],
    "step_size": [0.005, 0.01, 0.02, 0.05],
    "stop_at": [0.5, 0.1, 0.05, 0.01],
    "shift": [0.0, 1 / 16, 1 / 8, 1 / 4],
}


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("bundle", type=Path)
    args.add_argument("--dataset", default="fashion-mnist")
    args.add_argument("--classes", type=int, nargs="+", default=[0, 5, 6])
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--test-images", type=int, default=4_000)
    args.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "ablation.json")
    given = args.parse_args()
    model, source = load(given.bundle), load_source(given.dataset)
    test = model.align(source.test_images.select(torch.arange(given.test_images))).cached(model.input)
    trials = [({"encoding": e}, shots) for e in ENCODINGS for shots in (1, 5, 16, 50)]
    trials += [({key: value}, 16) for key, values in SETTINGS.items() for value in values]
    done = []
    for options, shots in trials:
        for label in given.classes:
            samples, result = cells.forget(model, source, NhleCwm(cut="none", **options), label, shots, given.seed)
            uncut, record = result.classifier, result.record
            cell = {"class": label, "shots": shots, "options": options, "steps": record.cost.steps}
            cell |= {"stop_reason": record.stop_reason, "seconds": round(record.cost.seconds, 3), **record.notes}
            seen = signals(model, uncut, samples, Runtime())
            cell |= {"sample_feature_cosine": seen["feature_cosine"], "drift": seen["drift_nats"]}
            cell |= cells.effects(model, uncut, test, label)
            done.append(cell)
            print(cell, flush=True)
    head = {"dataset": given.dataset, "arch": model.arch, "arch_options": model.arch_options, "seed": given.seed}
    head["test_images"] = given.test_images
    defaults = NhleCwm().model_dump()
    environment = Runtime().environment().model_dump()
    cells.write(given.out, head | {"defaults": defaults, "environment": environment, "cells": done})


if __name__ == "__main__":
    main()
