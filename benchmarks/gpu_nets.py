"""Seconds and memory of forgetting and auditing with large nets on a GPU: 224 by 224 pixels, 1,000 classes.

    python benchmarks/gpu_nets.py --archs resnet50 vit_b_16 vit_l_16 convnext_base

The nets are torchvision's, with random weights; each row of the head that has images is the mean feature of some of
these, so that the images are classified as what they are. The images are random patterns, one for each of 50 classes,
with noise. Such a net costs what a trained one does, and says nothing about what is forgotten or lost.

Beside the seconds of a run stand those of one forward and backward pass over the same samples; beside those of a quick
audit, those of its forward passes.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy, interpolate, normalize

import cell_lines
import unhot
from unhot import methods
from unhot.models.arch import build
from unhot.runtime import Runtime

OUTPUTS, CLASSES, SHOTS, RETAINED, TEST, SIDE = 1_000, 50, 16, 1_000, 40, 224
INPUT = unhot.InputSpec(height=SIDE, width=SIDE, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# of a random net no change of the last stage keeps a budget
RUNS: dict[str, dict[str, float]] = {"nhle-cwm": {}, "nhle-renew": {"budget": 1.0, "minutes": 1.0}}


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--archs", nargs="+", default=["resnet50", "vit_b_16", "vit_l_16", "convnext_base"])
    args.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    args.add_argument("--device", default="cuda")
    args.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "gpu-nets.json")
    given = args.parse_args()
    warnings.simplefilter("ignore")
    runtime = Runtime(torch.device(given.device))
    record: dict[str, Any] = {"shots": SHOTS, "test_images": CLASSES * TEST, "retained_images": RETAINED}
    record |= {"environment": runtime.environment().model_dump(), "cells": []}
    train, test = (patterns(count, seed) for seed, count in enumerate((SHOTS + RETAINED // CLASSES, TEST)))
    for arch in given.archs:
        model = net(arch, train, runtime.device)
        for precision in given.precisions:
            for cell in cells(model, train, test, Runtime(runtime.device, precision=precision)):
                record["cells"].append({"arch": arch, "precision": precision, **cell})
                print(json.dumps(record["cells"][-1]), flush=True)
                cell_lines.write(given.out, record)


def patterns(count: int, seed: int) -> unhot.LabelledImages:
    """Return ``count`` images of each class: a coarse pattern, the same for all of a class, and noise."""
    coarse = torch.rand(CLASSES, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    whole = interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    noise = torch.Generator().manual_seed(seed + 1)
    x = torch.empty(CLASSES * count, 3, SIDE, SIDE, dtype=torch.uint8)
    for i in range(len(x)):
        spots = 0.2 * torch.randn(3, 28, 28, generator=noise)[None]
        x[i] = (whole[i % CLASSES] + interpolate(spots, (SIDE, SIDE))[0]).clamp(0, 1).mul(255).byte()
    y = torch.arange(len(x)) % CLASSES
    names = tuple(f"class {i}" for i in range(OUTPUTS))
    return unhot.LabelledImages(x, y, names, "patterns", tuple(range(len(x))))


@torch.no_grad()
def net(arch: str, images: unhot.LabelledImages, device: torch.device) -> unhot.Classifier:
    """Return a net whose head has the directions of the mean features of the classes as its rows."""
    torch.manual_seed(0)
    module = build(f"torchvision:{arch}", OUTPUTS, INPUT).eval()
    model = unhot.Classifier.wrap(module, input=INPUT, class_names=images.class_names)
    work, some = model.copy(device), torch.arange(CLASSES * SHOTS)
    h = torch.cat([work.features(images.inputs(i, INPUT, device)) for i in some.split(64)]).cpu()
    h, centre = h - h.mean(0), h.mean(0)
    rows = normalize(torch.stack([h[images.y[some] == c].mean(0) for c in range(CLASSES)]))
    rows *= 10 / (h @ rows.T).amax(1).mean()  # logits of about 10
    head = module.get_submodule(model.head)
    head.weight[:CLASSES], head.weight[CLASSES:] = rows, 0
    head.bias[:CLASSES], head.bias[CLASSES:] = -(rows @ centre), -10
    return model


def cells(
    model: unhot.Classifier, train: unhot.LabelledImages, test: unhot.LabelledImages, runtime: Runtime
) -> Iterator[dict[str, Any]]:
    """Forget a class in each way, and audit the first result."""
    samples = unhot.draw(train, classes=["class 0"], shots=SHOTS)
    others = train.without([0]).select(torch.arange(RETAINED))
    x = samples.images.inputs(torch.arange(SHOTS), INPUT, runtime.device)
    work = model.copy(runtime.device)

    def one_pass() -> None:
        with runtime.autocast():
            loss = cross_entropy(work.logits(x).float(), samples.images.y.to(x.device))
        loss.backward()

    floor = runtime.median_seconds(one_pass)
    for method, settings in RUNS.items():
        torch.cuda.reset_peak_memory_stats(runtime.device)
        retain = others if "retain" in methods.get(method).may_use else None
        cell: dict[str, Any] = {"run": method if retain is None else f"{method} retain={RETAINED}"}
        try:
            done = unhot.forget(model, samples, method=method, retain=retain, force=True, runtime=runtime, **settings)
        except unhot.UnhotError as error:
            yield cell | {"refused": str(error)}
            continue
        cost = done.record.cost
        yield cell | {
            "seconds": round(cost.seconds, 2),
            "pass_seconds": round(floor, 4),
            "steps": cost.steps,
            "stop_reason": done.record.stop_reason,
            "peak_memory_bytes": cost.peak_memory_bytes,
            **{name: done.record.notes[name] for name in ("stand_ins", "work") if name in done.record.notes},
            "recognised": [r.after for r in done.record.recognised],
        }
        if method == "nhle-cwm":
            torch.cuda.reset_peak_memory_stats(runtime.device)
            started = time.perf_counter()
            audit = unhot.audit(
                original=model, unlearned=done.classifier, classes=["class 0"], test=test, quick=True, runtime=runtime
            )
            spent = audit.record.cost
            yield {
                "run": "quick audit",
                "seconds": round(time.perf_counter() - started, 2),
                "forward_seconds": round(spent.forward_seconds, 2),
                "peak_memory_bytes": runtime.peak_memory_bytes(),
            }


if __name__ == "__main__":
    main()
