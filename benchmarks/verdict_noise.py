"""How far models trained without a class differ from one another, and what the verdict says of each.

    python benchmarks/verdict_noise.py --dataset digits --arch lenet5 --classes 1 3 5 8

Every retrained model is judged against every other as the only reference: all are to be "at the level of a retrained
model". The original, the masked original and an nhle-cwm model are judged against each of them, too.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from pathlib import Path

import unhot

RECOVERY = ("probe_accuracy", "knn_accuracy", "prototype_attack_accuracy")
SHOTS = 16


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--dataset", default="digits")
    args.add_argument("--arch", default="lenet5")
    args.add_argument("--classes", type=int, nargs="+", default=[1, 3, 5, 8])
    args.add_argument("--originals", type=int, default=2)
    args.add_argument("--retrained", type=int, default=4)
    args.add_argument("--out", type=Path)
    given = args.parse_args()
    warnings.simplefilter("ignore", unhot.errors.SampleWarning)
    source = unhot.load_source(given.dataset)
    originals = [unhot.train(source, given.arch, seed=s)[0] for s in range(given.originals)]
    done = []
    for label in given.classes:
        seeds = range(10, 10 + given.retrained)
        references = [unhot.train(source, given.arch, seed=s, exclude=[label])[0] for s in seeds]
        for seed, original in enumerate(originals):
            samples = unhot.draw(source.train_images, classes=[label], shots=SHOTS, seed=seed)
            made = {
                name: unhot.forget(original, samples, method=method, seed=seed, force=True).classifier
                for name, method in (("masked", "mask"), ("nhle-cwm", "nhle-cwm"))
            }
            judged = {"original": original, **made, **{f"retrained {i}": m for i, m in enumerate(references)}}
            for i, reference in enumerate(references):
                auditor = unhot.Auditor(
                    original, retrained=reference, test=source.test_images, train=source.train_images
                )
                for name, model in judged.items():
                    if name != f"retrained {i}":
                        found = auditor.audit(model, [label], quick=True)
                        cell = {"class": label, "original": seed, "model": name, "reference": i}
                        cell |= {n: found[n].value for n in RECOVERY} | {"verdict": found.record.verdict.label}
                        done.append(cell)
            print(label, seed, Counter((c["model"].split()[0], c["verdict"]) for c in done), flush=True)
    out = given.out or Path(__file__).parent / "records" / f"verdict-noise-{given.dataset}.json"
    head = {"dataset": given.dataset, "arch": given.arch, "environment": unhot.Runtime().environment().model_dump()}
    out.write_text(json.dumps(head | {"cells": done}, indent=1) + "\n")


if __name__ == "__main__":
    main()
