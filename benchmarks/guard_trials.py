"""One line of JSON for each class: what nhle-guard does to a model, by a part of the test and the train split.

    python benchmarks/guard_trials.py MODEL fashion-mnist 5=RETRAINED ... [--guard FILE] [--seed N] [-o key=value ...]

The original and the retrained model stand beside it: (original - unlearned) / (original - retrained) of a gap is
closed.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import torch

from unhot import draw, load
from unhot.cli.options import settings
from unhot.data.source import load_source
from unhot.evaluation.attacks.prototype import Prototype
from unhot.evaluation.metric import Case
from unhot.evaluation.metrics.accuracy import FORGET_ACCURACY, RETAIN_DROP_MASKED, WORST_CLASS_DROP
from unhot.evaluation.metrics.features import knn_accuracy, probe
from unhot.evaluation.view import Views
from unhot.guard import Guard
from unhot.methods.base import SampleWarning
from unhot.methods.nhle_guard import NhleGuard
from unhot.runtime import Runtime


def measured(case: Case) -> dict[str, float]:
    """Take the measures of the target table that need no long attack."""
    found = {m.name: m.compute(case).value for m in (FORGET_ACCURACY, RETAIN_DROP_MASKED, WORST_CLASS_DROP)}
    found |= {"knn_accuracy": knn_accuracy(case).value, "probe_accuracy": probe(case, None).value}
    found |= {f"probe of {layer}": probe(case, layer).value for layer in list(case.view.layers)[-3:]}
    found["prototype_attack_accuracy"] = Prototype().run(case).estimates["prototype_attack_accuracy"].value
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("retrained", nargs="+")
    parser.add_argument("--guard", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-images", type=int, default=4_000)
    parser.add_argument("--train-images", type=int, default=3_000)
    parser.add_argument("-o", action="append", default=[])
    given = parser.parse_args()
    warnings.simplefilter("ignore", SampleWarning)
    source, model, runtime = load_source(given.data), load(given.model), Runtime(torch.device("cpu"))
    stored = None if given.guard is None else Guard.load(given.guard)
    method = NhleGuard.of({"cut": "none"} | settings(given.o))
    order = torch.Generator().manual_seed(5)
    splits = {
        name: model.align(images.select(torch.randperm(len(images), generator=order)[:count]).held(model.input))
        for name, images, count in (
            ("test", source.held_out, given.test_images),
            ("train", source.seen, given.train_images),
        )
    }
    for pair in given.retrained:
        name, _, path = pair.partition("=")
        label, reference = model.label(name), load(path)
        started = time.process_time()
        result = method(model, draw(source.seen, [label.index], 16, given.seed), guard=stored, seed=given.seed)
        seconds = time.process_time() - started
        views = Views(model, result.classifier, [reference], [label], splits, runtime)
        line = {s: measured(Case(views, s)) for s in ("original", "retrained", "unlearned")}
        record = {
            "stop": result.record.stop_reason,
            "steps": result.record.cost.steps,
            "cpu_seconds": round(seconds, 1),
        }
        print(json.dumps({"class": label.name, **line, "record": record | result.record.notes}), flush=True)


if __name__ == "__main__":
    main()
