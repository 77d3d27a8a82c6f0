"""How long an audit takes, as a multiple of running all models over all images once.

    python benchmarks/audit_speed.py --dataset cifar10 --class cat --original DIR --unlearned DIR --retrained DIR

The aim: the full audit within three times the forward passes plus two minutes, `--quick` within 1.5 times.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from unhot import Runtime, audit, load, load_source


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--dataset", default="cifar10")
    args.add_argument("--class", dest="label", required=True)
    args.add_argument("--original", type=Path, required=True)
    args.add_argument("--unlearned", type=Path, required=True)
    args.add_argument("--retrained", type=Path, action="append", default=[])
    args.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "audit-speed.json")
    given = args.parse_args()
    source = load_source(given.dataset)
    done = []
    for quick in (True, False):
        found = audit(
            original=load(given.original),
            unlearned=load(given.unlearned),
            retrained=[load(p) for p in given.retrained],
            classes=[given.label],
            test=source.test_images,
            train=source.train_images,
            quick=quick,
        )
        cost = found.record.cost
        cell = {"quick": quick, "audit_seconds": round(cost.audit_seconds, 1)}
        cell |= {"forward_seconds": round(cost.forward_seconds, 1)}
        done.append(cell | {"ratio": round(cost.audit_seconds / cost.forward_seconds, 2)})
        print(done[-1], flush=True)
    head = {"dataset": given.dataset, "class": given.label, "models": 2 + len(given.retrained)}
    content = head | {"environment": Runtime().environment().model_dump(), "cells": done}
    given.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
