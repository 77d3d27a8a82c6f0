"""What forgetting costs nets that are not ours: plain ones, of a page of code each, under- and over-trained.

    python benchmarks/plain_nets.py --cache DIR [--nets mlp conv3 ...] [--datasets digits ...] [--jobs 2]

Every net is trained as a newcomer would, with Adam at its usual rate and without augmentation, on at most 8,000 images;
its weights are kept in DIR. Each forgets three classes, one at a time, from 16 images. A cell of the record holds what
is measured on test images beside what the method itself estimated from its samples.

`role` says what a cell was used for: the estimate was calibrated on some; a first form of it failed in three others,
and its rule for briefly trained nets was made after that; the rest were confirmed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cell_lines
import unhot
from unhot.data.source import folder_input
from unhot.errors import UnhotWarning
from unhot.models.cut import cut_classes
from unhot.models.nets import LeNet5
from unhot.records.environment import Environment

SHOTS, CLASSES = 16, 3
TRAIN_IMAGES, TEST_IMAGES = 8_000, 2_000
BATCH, LR = 64, 1e-3
TRAINED = {"briefly": (60, TRAIN_IMAGES), "usually": (250, TRAIN_IMAGES), "too long": (300, 300)}  # steps, images
DATASETS = ("digits", "mnist", "fashion-mnist", "svhn-10k")
CALIBRATED = ("mlp", "conv2", "conv3", "conv3-bn", "conv3-gap", "lenet5")
CALIBRATED_ON = ("mnist", "fashion-mnist")
MADE_AFTER = ("conv3-gn", "separable")


def mlp(channels: int, size: int, *widths: int) -> nn.Module:
    """Return a multilayer perceptron of ten outputs."""
    sizes = (channels * size * size, *widths)
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(sizes[-1], 10))


def convolutional(
    channels: int,
    size: int,
    widths: tuple[int, ...],
    norm: Callable[[int], nn.Module] | None = None,
    hidden: tuple[int, ...] = (),
    average: bool = False,
) -> nn.Module:
    """Return convolutions of 3x3 with pooling, then linear layers on the flattened or averaged map."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise((channels, *widths)):
        layers += [nn.Conv2d(a, b, 3, padding=1), *([norm(b)] if norm else []), nn.ReLU(), nn.MaxPool2d(2)]
    last = widths[-1]
    if average:
        layers.append(nn.AdaptiveAvgPool2d(1))
    else:
        last *= (size // 2 ** len(widths)) ** 2
    layers.append(nn.Flatten())
    for a, b in itertools.pairwise((last, *hidden)):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear((last, *hidden)[-1], 10))


def separable(channels: int, size: int) -> nn.Module:
    """Return a net of depthwise and pointwise convolutions."""

    def block(a: int, b: int, stride: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(a, a, 3, stride, 1, groups=a, bias=False)
        pointwise = nn.Conv2d(a, b, 1, bias=False)
        return [depthwise, nn.BatchNorm2d(a), nn.ReLU(), pointwise, nn.BatchNorm2d(b), nn.ReLU()]

    stem = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [*block(16, 32, 2), *block(32, 64, 2), *block(64, 64, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class SmallTransformer(nn.Module):
    """Two pre-norm layers on patches of a quarter of the side, averaged."""

    def __init__(self, channels: int, size: int, dim: int = 48) -> None:
        super().__init__()
        patch = size // 4
        self.embed = nn.Conv2d(channels, dim, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        out: Tensor = self.head(self.encoder(tokens).mean(1))
        return out


NETS: dict[str, Callable[[int, int], nn.Module]] = {
    "mlp": lambda c, s: mlp(c, s, 256, 128),
    "mlp-wide": lambda c, s: mlp(c, s, 512, 512),  # that of the quickstart of PyTorch
    "conv2": lambda c, s: convolutional(c, s, (8, 16), hidden=(64,)),
    "conv2-bn": lambda c, s: convolutional(c, s, (8, 16), nn.BatchNorm2d),
    "conv3": lambda c, s: convolutional(c, s, (8, 16, 32)),
    "conv3-bn": lambda c, s: convolutional(c, s, (8, 16, 32), nn.BatchNorm2d),
    "conv3-gn": lambda c, s: convolutional(c, s, (8, 16, 32), lambda n: nn.GroupNorm(4, n), average=True),
    "conv3-gap": lambda c, s: convolutional(c, s, (16, 32, 64), average=True),
    "conv2-mlp": lambda c, s: convolutional(c, s, (8, 16), hidden=(128, 64)),
    "lenet5": lambda c, s: LeNet5(10, c, s),
    "separable": separable,
    "transformer": SmallTransformer,
}


@dataclass(frozen=True)
class Problem:
    """A trained net with its data.

    Attributes:
        model: The net.
        train: Images that its samples are drawn from.
        test: Inputs (N, C, H, W) that it is evaluated on.
        y: Their classes, int64 (N,).
    """

    model: unhot.Classifier
    train: Any
    test: Tensor
    y: Tensor


def some(images: Any, count: int) -> Any:
    """Return at most ``count`` images, drawn at random."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.select(order[:count].sort().values)


def problem(net: str, dataset: str, trained: str, cache: Path) -> Problem:
    """Train a net, unless its weights are in the cache."""
    source = unhot.load_source(dataset)
    spec = source.input or folder_input(source.train_images)
    steps, count = TRAINED[trained]
    runtime = unhot.Runtime(torch.device("cpu"))
    with runtime.seeded("plain", net, dataset, trained):
        module = NETS[net](spec.channels, spec.height)
    file = cache / f"{net}-{dataset}-{trained.replace(' ', '-')}.pt"
    if file.exists():
        module.load_state_dict(torch.load(file, weights_only=True))
    else:
        images = some(source.train_images, count)
        fit(module, images.inputs(torch.arange(len(images)), spec, runtime.device), images.y, steps)
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(module.state_dict(), file)
    test = some(source.test_images, TEST_IMAGES)
    x = test.inputs(torch.arange(len(test)), spec, runtime.device)
    names = source.train_images.class_names
    model = unhot.Classifier.wrap(module.eval(), example=x[:2], class_names=names, input=spec)
    return Problem(model, source.train_images, x, test.y)


def fit(net: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    """Train with Adam on batches drawn at random."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(net.parameters(), LR)
    net.train()
    for _ in range(steps):
        index = torch.randint(len(x), (BATCH,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(net(x[index]), y[index]).backward()
        optimizer.step()


@torch.no_grad()
def logits(model: unhot.Classifier, x: Tensor) -> Tensor:
    return torch.cat([model.logits(part) for part in x.split(1_000)])


def classes_of(net: str, dataset: str) -> list[int]:
    """Return the classes that a net forgets: others for each net, so that all come up."""
    start = list(NETS).index(net) + 5 * DATASETS.index(dataset)
    return [(start + 3 * i) % 10 for i in range(CLASSES)]


def losses(found: Problem, before: Tensor, after: Tensor, label: int) -> dict[str, float]:
    """Return what a class cost the others, from logits (N, K) of the masked original and of the unlearned model."""
    was, now = before.argmax(1) == found.y, after.argmax(1) == found.y
    others = [k for k in found.y.unique().tolist() if k != label]
    drops = {k: (was[found.y == k].float().mean() - now[found.y == k].float().mean()).item() for k in others}
    kept = found.y != label
    return {
        "forget_accuracy": now[~kept].float().mean().item(),
        "retain_drop_masked": (was[kept].float().mean() - now[kept].float().mean()).item(),
        "worst_class_drop": max(drops.values()),
    }


def cells(net: str, dataset: str, trained: str, method: str, options: dict[str, Any], cache: Path) -> list[dict]:
    """Train a net, and forget some classes one at a time."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UnhotWarning)
    found, done = problem(net, dataset, trained, cache), []
    accuracy = (logits(found.model, found.test).argmax(1) == found.y).float().mean().item()
    features = found.model.features(found.test).detach()
    for label in classes_of(net, dataset):
        samples = unhot.draw(found.train, classes=[label], shots=SHOTS, seed=0)
        result = unhot.forget(found.model, samples, method=method, device="cpu", force=True, **options)
        masked = cut_classes(found.model.copy(), [found.model.classes[label]], "mask")
        measured = losses(found, logits(masked, found.test), logits(result.classifier, found.test), label)
        mine = found.y == label
        moved = torch.cosine_similarity(features[mine], result.classifier.features(found.test[mine]).detach()).mean()
        notes = result.record.notes.get("loss_on_other_classes")
        cell = {"net": net, "dataset": dataset, "trained": trained, "accuracy": accuracy, "class": label, **measured}
        cell |= {"feature_cosine": moved.item(), **(notes if isinstance(notes, dict) else {})}
        cell = {k: round(v, 4) if isinstance(v, float) else v for k, v in cell.items()}
        done.append(cell | {"steps": result.record.cost.steps, "stop_reason": result.record.stop_reason})
    return done


def all_cells(given: argparse.Namespace) -> Iterator[dict]:
    options = unhot.methods.get(given.method).of(dict(pair.split("=") for pair in given.option)).model_dump()
    problems = list(itertools.product(given.nets, given.datasets, given.trained))
    with ProcessPoolExecutor(given.jobs) as pool:
        running = [pool.submit(cells, *which, given.method, options, given.cache) for which in problems]
        for future in running:
            yield from future.result()


def role(cell: dict) -> str:
    """Return what a cell was used for when the estimate was made."""
    if cell["dataset"] in CALIBRATED_ON and cell["net"] in CALIBRATED:
        return "calibrated on"
    seen = cell["dataset"] == "digits" or (cell["dataset"] in CALIBRATED_ON and cell["net"] in MADE_AFTER)
    return "seen" if seen else "confirmed"


def asked(cell: dict, given: argparse.Namespace) -> bool:
    """Return whether a cell is one of those that a run makes."""
    return cell["net"] in given.nets and cell["dataset"] in given.datasets and cell["trained"] in given.trained


def save(out: Path, method: str, environment: Environment, done: list[dict]) -> None:
    """Write the record, its cells in a fixed order."""
    done = sorted(done, key=lambda c: (DATASETS.index(c["dataset"]), list(NETS).index(c["net"]), c["trained"]))
    head = {"method": method, "shots": SHOTS, "environment": environment.model_dump()}
    cell_lines.write(out, head | {"cells": done})


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--cache", type=Path, required=True, help="folder of the trained nets")
    args.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    args.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    args.add_argument("--trained", nargs="+", choices=TRAINED, default=list(TRAINED))
    args.add_argument("--method", default="nhle-cwm")
    args.add_argument("--option", nargs="+", default=[], metavar="NAME=VALUE", help="hyperparameters of the method")
    args.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    args.add_argument("--out", type=Path)
    given = args.parse_args()
    out = given.out or Path(__file__).parent / "records" / f"plain-nets-{given.method}.json"
    done = []
    if out.exists():  # cells that are not asked for stay as they are
        done = [c for c in json.loads(out.read_text())["cells"] if not asked(c, given)]
    for cell in all_cells(given):
        done.append(cell)
        print(cell, flush=True)
        save(out, given.method, unhot.Runtime().environment(), done)
    kept = sum(c["forget_accuracy"] == 0 and c["retain_drop_masked"] <= 0.035 for c in done)
    print(f"{kept} of {len(done)} cells keep the promise")


if __name__ == "__main__":
    main()
