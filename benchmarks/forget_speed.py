"""How long nhle-cwm takes: as a multiple of one forward and backward pass over the same images, and of training.

    python benchmarks/forget_speed.py [--nets lenet5 resnet9 ...]

Each net is trained for a few steps to tell ten random patterns apart, and forgets one from 16 noisy copies: seconds
depend on the net and on the steps taken, not on what was learned. Median of five runs after one that warms up. The
share of training is that of 50,000 images for the data set's default epochs, at the measured seconds of one step.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unhot import Classifier, Runtime, build, draw
from unhot.data.named import CIFAR10, FASHION_MNIST, NamedSet
from unhot.methods.nhle_cwm import NhleCwm

NETS = {
    "lenet5": FASHION_MNIST,
    "resnet9": CIFAR10,
    "resnet18": CIFAR10,
    "vgg11_bn": CIFAR10,
    "vit_tiny": CIFAR10,
}
SHOTS, BATCH, STEPS, TRAIN_IMAGES = 16, 64, 25, 50_000
REPEATS = 5


def trained(arch: str, named: NamedSet) -> tuple[Classifier, Callable[[int, int], tuple[Tensor, Tensor]]]:
    """Return a net that tells ten patterns apart, and what gives noisy copies of one pattern (or of all, for -1)."""
    runtime = Runtime()
    with runtime.seeded("speed"):
        net = build(arch, 10, named.input)
        patterns = torch.randn(10, *named.input.shape)

    def copies(label: int, count: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(count) % 10 if label < 0 else torch.full((count,), label)
        return patterns[y] + torch.randn(count, *named.input.shape), y

    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with runtime.seeded("training"):
        for _ in range(STEPS):
            x, y = copies(-1, BATCH)
            runtime.step(cross_entropy(net(x), y), optimizer)
    return Classifier.wrap(net.eval(), input=named.input), copies


def measure(arch: str) -> dict[str, float | str]:
    named = NETS[arch]
    model, copies = trained(arch, named)
    x, y = copies(0, SHOTS)
    batch, labels = copies(-1, BATCH)
    samples = draw((x, y), classes=[0], shots=SHOTS)
    default, capped = NhleCwm(), NhleCwm(stop_at=0.0)
    runtime = Runtime()
    lowest = runtime.median_seconds(lambda: cross_entropy(model.logits(x), y).backward(), REPEATS)
    whole = runtime.median_seconds(lambda: default(model, samples), REPEATS)
    most = runtime.median_seconds(lambda: capped(model, samples), REPEATS)
    step = runtime.median_seconds(lambda: cross_entropy(model.logits(batch), labels).backward(), 2)
    return {
        "arch": arch,
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "floor_seconds": round(lowest, 4),
        "forget_seconds": round(whole, 4),
        "steps": default(model, samples).record.cost.steps,
        "multiple_of_floor": round(whole / lowest, 1),
        "multiple_at_step_cap": round(most / lowest, 1),
        "share_of_training": whole / (step * named.epochs * TRAIN_IMAGES / BATCH),
    }


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    args.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "speed.json")
    given = args.parse_args()
    done = []
    for arch in given.nets:
        done.append(measure(arch))
        print(done[-1], flush=True)
    content = {"shots": SHOTS, "environment": Runtime().environment().model_dump(), "cells": done}
    given.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
