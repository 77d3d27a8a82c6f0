"""How far models trained without a class differ from one another, and what the verdict says of each.

    python benchmarks/verdict_noise.py --dataset digits --arch lenet5 --classes 1 3 5 8

Every retrained model is judged against every other as the only reference: all are to be "at the level of a retrained
model". The original, the masked original and an nhle-cwm model are judged against each of them, too.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

import cells
from unhot.data.source import load_source
from unhot.evaluation.auditor import audit
from unhot.methods.mask import Mask
from unhot.methods.nhle_cwm import NhleCwm
from unhot.runtime import Runtime
from unhot.training import train

RECOVERY = ("probe_accuracy", "knn_accuracy", "prototype_attack_accuracy")


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--dataset", default="digits")
    args.add_argument("--arch", default="lenet5")
    args.add_argument("--classes", type=int, nargs="+", default=[1, 3, 5, 8])
    args.add_argument("--originals", type=int, default=2)
    args.add_argument("--retrained", type=int, default=4)
    args.add_argument("--out", type=Path)
    given = args.parse_args()
    source = load_source(given.dataset)
    originals = [train(source, given.arch, seed=s)[0] for s in range(given.originals)]
    done = []
    for label in given.classes:
        seeds = range(10, 10 + given.retrained)
        references = [train(source, given.arch, seed=s, exclude=[label])[0] for s in seeds]
        for seed, original in enumerate(originals):
            _, result = cells.forget(original, source, NhleCwm(), label, 16, seed)
            _, mask = cells.forget(original, source, Mask(), label, 16, seed)
            judged = {"original": original, "masked": mask.classifier, "nhle-cwm": result.classifier}
            judged |= {f"retrained {i}": m for i, m in enumerate(references)}
            shared: dict[Hashable, object] = {}
            runtime = Runtime()
            for i, reference in enumerate(references):
                for name, model in judged.items():
                    if name == f"retrained {i}":
                        continue
                    found = audit(
                        original=original,
                        unlearned=model,
                        retrained=reference,
                        classes=[label],
                        test=source.test_images,
                        train=source.train_images,
                        quick=True,
                        runtime=runtime,
                        shared=shared,
                    )
                    cell = {"class": label, "original": seed, "model": name, "reference": i}
                    cell |= {n: found[n].value for n in RECOVERY} | {"verdict": found.record.verdict.label}
                    done.append(cell)
            print(label, seed, Counter((c["model"].split()[0], c["verdict"]) for c in done), flush=True)
    out = given.out or Path(__file__).parent / "records" / f"verdict-noise-{given.dataset}.json"
    head = {"dataset": given.dataset, "arch": given.arch, "environment": Runtime().environment().model_dump()}
    cells.write(out, head | {"cells": done})


if __name__ == "__main__":
    main()
