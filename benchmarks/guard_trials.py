"""What nhle-guard leaves in every stage of a net, and how fast it comes back: beside original and retrained model.

    python benchmarks/guard_trials.py MODEL fashion-mnist 5=RETRAINED ... --guard FILE [--seeds 0 1] [-o key=value ...]

Each class is forgotten in both modes, without the cut, from 16 images; measured by a part of the test and the train
split.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch

import cells
from unhot import draw, load
from unhot.cli.options import settings
from unhot.data.source import load_source
from unhot.errors import SampleWarning
from unhot.evaluation.attacks.prototype import Prototype
from unhot.evaluation.attacks.relearning import Relearning
from unhot.evaluation.metric import Case
from unhot.evaluation.metrics.accuracy import forget_accuracy, retain_drop_masked, worst_class_drop
from unhot.evaluation.metrics.features import knn_accuracy, probe
from unhot.evaluation.view import Views
from unhot.methods.nhle_guard import NhleGuard
from unhot.runtime import Runtime
from unhot.statistics import ClassStatistics

SHOTS = 16


def measured(case: Case) -> dict[str, float]:
    """Take the measures of the table of targets that need features of earlier stages, or training."""
    found = {m.__name__: m(case).value for m in (forget_accuracy, retain_drop_masked, worst_class_drop)}
    found |= {"knn_accuracy": knn_accuracy(case).value, "probe_accuracy": probe(case, None).value}
    found |= {f"probe of {layer}": probe(case, layer).value for layer in list(case.view.layers)[-3:]}
    for attack, name in ((Prototype(), "prototype_attack_accuracy"), (Relearning(), "relearn_steps")):
        found[name] = attack.run(case).estimates[name].value
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("retrained", nargs="+")
    parser.add_argument("--guard", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--test-images", type=int, default=4_000)
    parser.add_argument("--train-images", type=int, default=3_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("-o", action="append", default=[])
    given = parser.parse_args()
    warnings.simplefilter("ignore", SampleWarning)
    source, model, runtime = load_source(given.data), load(given.model), Runtime(torch.device("cpu"))
    stored, method = ClassStatistics.load(given.guard), NhleGuard.of({"cut": "none"} | settings(given.o))
    order = torch.Generator().manual_seed(5)
    splits = {
        name: model.align(images.select(torch.randperm(len(images), generator=order)[:count]).cached(model.input))
        for name, images, count in (
            ("test", source.test_images, given.test_images),
            ("train", source.train_images, given.train_images),
        )
    }
    done: list[dict[str, Any]] = []
    for pair in given.retrained:
        name, _, path = pair.partition("=")
        label, reference = model.label(name), load(path)
        for seed in given.seeds:
            samples = draw(source.train_images, [label.index], SHOTS, seed)
            for mode, guard in (("guarded", stored), ("bare", None)):
                result = method(model, samples, guard=guard, seed=seed, force=True)
                views = Views(model, result.classifier, [reference], [label], splits, runtime)
                if mode == "guarded" and seed == given.seeds[0]:
                    for subject in ("original", "retrained"):
                        done.append({"class": label.name, "subject": subject, **measured(Case(views, subject))})
                        print(done[-1], flush=True)
                cell = {"class": label.name, "subject": mode, "seed": seed, **measured(Case(views, "unlearned"))}
                cell |= {"steps": result.record.cost.steps, "seconds": round(result.record.cost.seconds, 1)}
                done.append(cell | {"stop_reason": result.record.stop_reason} | result.record.notes)
                print(done[-1], flush=True)
    if given.out is not None:
        head = {"dataset": given.data, "arch": model.arch, "arch_options": model.arch_options, "shots": SHOTS}
        head |= {"test_images": given.test_images, "train_images": given.train_images}
        head |= {"hyperparameters": method.model_dump(mode="json")}
        head |= {"environment": runtime.environment().model_dump(mode="json")}
        cells.write(given.out, head | {"cells": done})


if __name__ == "__main__":
    main()
