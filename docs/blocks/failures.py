"""The table of failures: what went wrong in committed records, worst cases first."""

from __future__ import annotations

import json
import statistics
from typing import Any

import verdict_noise
from blocks.catalogue import catalogue_results
from blocks.deep import deep_cells
from blocks.guard import GUARD, guard_grids
from blocks.records import RECORDS, read
from unhot.bench import tables
from unhot.records.results import CellRow

HIDDEN = "hidden at the output only"


def failures() -> str:
    """One row a failure: what happened, where, what was measured, and what to do instead."""
    rows = [
        _hidden(),
        _weights_hidden(),
        _not_forgotten(),
        _damaged(),
        _one_class_pays(),
        _plain_net(),
    ]
    rows += [_judged_wrongly(), _escapes(), _bad_reference()]
    return tables.grid(["what went wrong", "where", "measured", "what to do"], rows, text=4)


def _cells(data: str, run: str) -> list[dict[str, Any]]:
    return [c for name, c in deep_cells() if name == data and c["run"] == run]


def _labelled(cells: list[dict[str, Any]], holder: str) -> str:
    count = sum(c["labels"][holder] == HIDDEN for c in cells)
    return f"“{HIDDEN}” for whoever holds the {holder}: {count} of {len(cells)} runs"


def _hidden() -> list[str]:
    measured = _labelled(_cells("digits", "nhle-cwm"), "features")
    todo = "nhle-renew, with images or statistics of other classes if there are any"
    return ["The class is hidden, not forgotten", "nhle-cwm, LeNet-5, digits", measured, todo]


def _weights_hidden() -> list[str]:
    measured = _labelled(_cells("digits", "nhle-renew"), "weights")
    where = "nhle-renew from 16 images, LeNet-5, digits"
    return ["Layers that were kept still tell the class", where, measured, "Retrain, if the weights are given away"]


def _catalogue(method: str, dataset: str) -> list[CellRow]:
    return [r for r in catalogue_results().rows if (r.method, r.dataset) == (method, dataset)]


def _mean(rows: list[CellRow], measure: str) -> str:
    return f"{statistics.mean(tables.of_classes(rows, lambda r: r.values[measure]['unlearned'])):.3f}"


def _not_forgotten() -> list[str]:
    left = _mean(_catalogue("ssd", "cifar10"), "forget_accuracy")
    where = "ssd at its defaults, resnet9, CIFAR-10, cat"
    return [
        "The class is still recognised",
        where,
        f"forget accuracy {left}",
        "Heed what unhot forget prints; choose another method",
    ]


def _damaged() -> list[str]:
    lost = _mean(_catalogue("boundary-shrink", "cifar10"), "retain_drop_masked")
    where = "boundary-shrink from 16 images, resnet9, CIFAR-10"
    todo = "Give test images with --data, and compare methods"
    return ["The other classes are wrecked", where, f"retain drop {lost}, mean", todo]


def _one_class_pays() -> list[str]:
    bare = [
        r for r in guard_grids().rows if (r.method, r.dataset) == (GUARD, "cifar100") and "guarded" not in r.options
    ]
    worst = max(r.values["worst_class_drop"]["unlearned"] for r in bare)
    where = "nhle-guard without a guard, resnet9, CIFAR-100, leopard"
    return [
        "One class pays for the others",
        where,
        f"worst class drop {worst:.3f}",
        "Look at the accuracy of each class",
    ]


def _plain_net() -> list[str]:
    cells = read("plain-nets-nhle-cwm")["cells"]
    worst = max(cells, key=lambda c: c["worst_class_drop"])
    where = f"nhle-cwm, a plain net ({worst['net']}), {worst['dataset']}"
    return [
        "One class pays for the others, on a plain net",
        where,
        f"worst class drop {worst['worst_class_drop']:.3f}",
        "Look at the accuracy of each class",
    ]


def _judged_wrongly() -> list[str]:
    cells = json.loads((RECORDS / "verdict-noise-digits-lenet5.json").read_text())["cells"]
    labels = [
        label
        for cell in cells
        for name, holder, label in verdict_noise.judged(cell["models"], 1)
        if name.startswith("retrained") and holder == "features"
    ]
    wrong = sum(not label.startswith("at the level") for label in labels)
    where = "audit with one retrained model and a few dozen test images, LeNet-5, digits"
    todo = "More retrained models, more test images"
    return ["A retrained model gets a worse verdict", where, f"{wrong} of {len(labels)} verdicts", todo]


def _escapes() -> list[str]:
    cells = [c for c in read("tricks-digits")["cells"] if c["model"] == "features delayed"]
    good = sum(c["labels"]["features"].startswith(("at the level", "beyond")) for c in cells)
    where = "features that bypass the layer before the output, LeNet-5, digits"
    measured = f"not seen by whoever holds the features: {good} of {len(cells)}"
    return ["A model that was built to deceive", where, measured, "Ask for the weights"]


def _bad_reference() -> list[str]:
    cells = json.loads((RECORDS / "partial-references-svhn-10k-resnet9.json").read_text())["cells"]
    gaps = []
    for cell in cells:
        value = {
            name: found["recovery_1_shot"][0] for name, found in cell["models"].items() if "recovery_1_shot" in found
        }
        gaps.append(value["fewer"] - statistics.fmean(v for name, v in value.items() if name.startswith("retrained")))
    where = "a net trained on few images as the retrained model, resnet9, SVHN"
    measured = f"{-statistics.fmean(gaps):.3f} less recovered from one image than from retrained models"
    return ["A reference that knows too little", where, measured, "Use unhot reference, or retrain on all images"]
