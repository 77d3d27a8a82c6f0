"""Settings under which each method forgets the toy problem and each of its hyperparameters matters there.

The defaults suit trained nets; where they already do both, nothing is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    # the stop comes late and the guard is weak
    "nhle-cwm": {"step_size": 0.01, "steps": 6, "stop_at": 0.02, "depth": 0.7, "preconditioning": 10.0},
    # larger steps on fewer images; a probability, a distance and a budget that are reached at some of the other values
    "nhle-guard": {
        "lr": 0.007,
        "steps": 4,
        "depth": 1.0,
        "preconditioning": 10.0,
        "spread": 3.0,
        "budget": 0.22,
        "stop_at": 0.23,
        "near": 1.0,
        "images": 24,
        "descent": 5,
    },
    # so few images are held out that no budget below 1 would be kept
    "nhle-renew": {"images": 24, "descent": 5, "steps": 30, "depth": 0.7, "lr": 0.01, "budget": 1.0},
    # few images, and few steps for the sake of time
    # eight samples: fewer in a step than there are
    "neggrad": {"steps": 12, "stop_at": 0.05, "batch_size": 4},
    "random-label": {"batch_size": 4},
    "boundary-shrink": {"batch_size": 4},
    "jit": {"steps": 12, "batch_size": 4, "clip": 0.05, "copies": 4},
    "delete": {"batch_size": 4},
    "scrub-and-learn": {"batch_size": 4},
    "forsaken": {"rounds": 12, "inner": 2, "step_size": 0.01, "l1": 0.1, "batch_size": 4, "stop_at": 0.1},
    "tarf": {
        "steps": 24,
        "k": 0.5,
        "t0": 12,
        "t1": 3,
        "hidden_share": 0.1,
        "lr": 0.02,
        "batch_size": 16,
        "ceiling": 2.0,
    },
    "wf-net": {"steps": 40, "lr": 0.1, "batch_size": 64, "forget_weight": 0.25},
    # few enough steps that the cap is what stops it
    "mu-mis": {"lr": 2e-3, "steps": 8, "batch_size": 4, "recovered": 50.0},
    # far from neural collapse the bias of the class wins on others
    "pour-p": {"cut": "mask"},
    "pour-d": {"lr": 0.02, "steps": 16, "batch_size": 4, "stop_at": 0.2},
    "spotter": {"lr": 5e-3, "steps": 8, "batch_size": 4},
    # fewer images and patches than there are
    "svd": {"alpha_r": 100.0, "alpha_f": 3.0, "per_class": 6, "patches": 100},
    "ssd": {"alpha": 10.0, "images": 40},
    "lfssd": {"images": 40},
    # from scratch, on 72 images
    "retrain": {"epochs": 12, "batch_size": 16, "lr": 0.1, "clip": 1.0, "shift": 1},
    # few images, and so few steps; a ceiling that is reached
    "finetune": {"epochs": 2, "lr": 0.05, "batch_size": 16},
    "neggrad+": {"epochs": 3, "beta": 0.8, "lr": 0.03, "batch_size": 16, "sample_batch": 4, "ceiling": 4.0},
    "scrub": {"epochs": 3, "max_epochs": 2, "max_steps": 2, "lr": 2e-3, "batch_size": 16},
    "salun": {"epochs": 3, "lr": 0.01, "batch_size": 16, "sample_batch": 4},
    "ugradsl": {"steps": 15, "alpha": None, "lr": 0.02, "batch_size": 16, "sample_batch": 4, "ceiling": 4.0},
    "ugradsl+": {"epochs": 3, "p": 0.8, "alpha": None, "lr": 0.02, "batch_size": 16, "sample_batch": 4, "ceiling": 4.0},
}

# values that must change the result, of hyperparameters whose other values cannot be guessed
ALTERNATIVES: dict[str, dict[str, Sequence[object]]] = {
    "nhle-cwm": {"stop_at": [0.6]},
    "nhle-guard": {"near": [0.0]},
    "nhle-renew": {"minutes": [1e-9], "budget": [0.005]},  # too little: an error; the cut alone
    "ugradsl": {"alpha": [-0.5], "stop_at": [0.5]},
    "ugradsl+": {"alpha": [-0.5]},
}

# methods that leave the layers below the head as they are
HEAD_ONLY = {"mask", "pour-p"}
