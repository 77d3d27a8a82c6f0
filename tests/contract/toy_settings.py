"""Settings under which each method forgets the toy problem and each of its hyperparameters matters there.

The defaults suit trained nets; where they already do both, nothing is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    # the stop comes late and the guard is weak
    "nhle-cwm": {"step_size": 0.01, "steps": 6, "stop_at": 0.02, "depth": 0.7, "guard": 10.0},
    # few images: a strong ascent that lasts
    "tarf": {"steps": 40, "k": 0.5, "t0": 15, "t1": 4, "hidden_share": 0.1, "lr": 0.02, "batch_size": 16},
    "wf-net": {"steps": 30, "lr": 0.05, "batch_size": 16},
    # from scratch, on 72 images
    "retrain": {"epochs": 25, "batch_size": 16, "lr": 0.05, "clip": 1.0, "shift": 1},
    # few images, and so few steps
    "finetune": {"epochs": 8, "lr": 0.05, "batch_size": 16},
    "neggrad+": {"epochs": 6, "beta": 0.8, "lr": 0.02, "batch_size": 16},
    "scrub": {"epochs": 6, "lr": 3e-3, "batch_size": 16},
    "salun": {"epochs": 6, "lr": 0.02, "batch_size": 16},
    "ugradsl": {"steps": 30, "p": 0.6, "lr": 0.01, "batch_size": 4},
    "ugradsl+": {"epochs": 6, "p": 0.8, "lr": 0.02, "batch_size": 16},
}

# values that must change the result, of hyperparameters whose other values cannot be guessed
ALTERNATIVES: dict[str, dict[str, Sequence[object]]] = {"nhle-cwm": {"stop_at": [0.6]}}
