"""How time and memory of forget and audit grow with the work: samples, classes, forgotten classes, parameters.

    python benchmarks/cost_growth.py [--axes samples classes ...]

Axes that are not asked for stay as they are in the record. Every point is a process of its own, for its peak memory.
Nets are not trained: their head is made of the mean features of random patterns, so that samples are classified
correctly. Forgetting runs to the step cap. The floor is one forward and backward pass over the same samples, and for an
audit one forward pass of its models over its images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unhot import Classifier, InputSpec, Runtime, Samples, audit, build, draw
from unhot.data.images import LabelledImages
from unhot.methods.nhle_cwm import NhleCwm
from unhot.models.cut import cut_classes

USUAL = {"arch": "resnet9", "options": {"width": 16}, "samples": 16, "classes": 10, "forgotten": 1}
AXES = {
    "samples": [{"samples": n} for n in (1, 4, 16, 64, 250, 1000)],
    "classes": [{"classes": n} for n in (10, 30, 100, 300, 1000)],
    "forgotten": [{"forgotten": n, "classes": 100} for n in (1, 3, 10, 30, 50)],
    "parameters": [
        {"options": {"width": 8}},
        {"options": {"width": 32}},
        {"options": {"width": 128}},
        {"arch": "torchvision:vit_b_16", "options": {"image_size": 32}},
        {"arch": "torchvision:vit_l_16", "options": {"image_size": 32}},
    ],
}
SPEC = InputSpec(height=32, width=32, channels=3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
TEST_IMAGES, OTHERS, PATTERN_COPIES = 600, 9, 4


def problem(point: dict) -> tuple[Classifier, Callable[[list[int], int], LabelledImages]]:
    """Return a classifier of random patterns, and what gives noisy copies of those of some classes."""
    with Runtime().seeded("growth"):
        net = build(point["arch"], point["classes"], SPEC, point["options"]).eval()
        named = min(point["classes"], point["forgotten"] + OTHERS)
        patterns = torch.randn(named, *SPEC.shape)
    model = Classifier.wrap(net, example=patterns[:2], input=SPEC)

    def copies(classes: list[int], count: int) -> LabelledImages:
        y = torch.tensor(classes).repeat_interleave(count)
        noise = 0.3 * torch.randn(len(y), *SPEC.shape, generator=Runtime().generator("noise", count))
        return LabelledImages(patterns[y] + noise, y, None, "patterns", tuple(range(len(y))))

    few = copies(list(range(named)), PATTERN_COPIES)
    with torch.no_grad():
        means = model.features(few.x).view(named, PATTERN_COPIES, -1).mean(1)
        centred = means - means.mean(0)
        centred /= centred.norm(dim=1, keepdim=True).clamp_min(1e-9)
        model.head_layer.weight.zero_()[:named] = 20 * centred / means.norm(dim=1).mean()
        model.head_layer.bias.zero_()[:named] = -(model.head_layer.weight[:named] @ means.mean(0))
        model.head_layer.bias[named:] = -100.0
    return model, copies


def samples_of(point: dict, copies: Callable[[list[int], int], LabelledImages]) -> Samples:
    forgotten = list(range(point["forgotten"]))
    return draw(copies(forgotten, point["samples"]), forgotten, point["samples"])


def forget(point: dict) -> dict[str, float]:
    """Measure forgetting, up to the step cap."""
    model, copies = problem(point)
    samples = samples_of(point, copies)
    method = NhleCwm(stop_at=0.0)
    x, y = samples.images.x, samples.images.y
    assert isinstance(x, Tensor)
    runtime = Runtime()
    whole = runtime.median_seconds(lambda: method(model, samples))
    memory = runtime.peak_memory_bytes()
    floor = runtime.median_seconds(lambda: cross_entropy(model.logits(x), y).backward())
    return {"seconds": whole, "floor_seconds": floor, "peak_memory_bytes": memory}


def audited(point: dict) -> dict[str, float]:
    """Measure a quick audit of the masked model."""
    model, copies = problem(point)
    classes = list(range(point["forgotten"]))
    named = min(point["classes"], point["forgotten"] + OTHERS)
    test = copies(list(range(named)), -(-TEST_IMAGES // named))
    after = cut_classes(model.copy(), [model.classes[c] for c in classes], "mask")
    x = test.x
    assert isinstance(x, Tensor)
    runtime = Runtime()
    whole = runtime.median_seconds(
        lambda: audit(original=model, unlearned=after, classes=classes, test=test, quick=True), 1
    )
    memory = runtime.peak_memory_bytes()
    with torch.no_grad():
        floor = runtime.median_seconds(lambda: [model.logits(part) for part in x.split(64) for _ in range(2)], 1)
    return {"seconds": whole, "floor_seconds": floor, "peak_memory_bytes": memory}


def one(what: str, point: dict) -> dict[str, float]:
    found = {"forget": forget, "audit": audited}[what](point)
    net = build(point["arch"], point["classes"], SPEC, point["options"])
    return found | {"parameters": sum(p.numel() for p in net.parameters())}


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    args.add_argument("--one", nargs=2, metavar=("WHAT", "POINT"), help="for the processes that this one starts")
    args.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "cost-growth.json")
    given = args.parse_args()
    if given.one:
        print(json.dumps(one(given.one[0], json.loads(given.one[1]))))
        return
    done = []
    if given.out.exists():
        done = [c for c in json.loads(given.out.read_text())["cells"] if c["axis"] not in given.axes]
    for axis in given.axes:
        for change in AXES[axis]:
            point = USUAL | change
            for what in ("forget", "audit"):
                if axis == "samples" and what == "audit":
                    continue  # an audit does not see the samples
                call = [sys.executable, __file__, "--one", what, json.dumps(point)]
                text = subprocess.run(call, capture_output=True, text=True, check=True, env=os.environ).stdout
                done.append({"axis": axis, "what": what, "point": point, **json.loads(text.splitlines()[-1])})
                print(done[-1], flush=True)
    content = {"environment": Runtime().environment().model_dump(), "cells": done}
    given.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
