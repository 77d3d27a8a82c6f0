"""Folders for ``timm.create_model("local-dir:FOLDER", pretrained=True)``, and for timm's hub."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from unhot.errors import ModelError
from unhot.models.classifier import Classifier
from unhot.models.formats import timm_folder
from unhot.models.formats.exports.target import Run, give_usual_mode
from unhot.models.formats.exports.weights_alone import WeightsAlone
from unhot.models.formats.origin import original_state
from unhot.models.weights import write_tensors
from unhot.packages import needed
from unhot.records.model import InputSpec
from unhot.runtime import torchvision_ops
from unhot.runtime.silence import silence

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FAMILY = "timm:"
LABELS = "label_names", "label_descriptions", "label_offset"  # of the classes before
Config = dict[str, JsonValue]


class TimmFolder(WeightsAlone):
    """A folder like the one that the model came from, or one that is made for the weights of a net of timm.

    A head without a bias stays one, since the class of the net decides on that.
    """

    def __init__(self, model: Classifier, keep_keys: bool) -> None:
        arch = model.arch or ""
        if not arch.startswith(FAMILY):
            raise ModelError(
                f"This model is no net of timm by name (--arch {FAMILY}NAME), so it cannot be written as its folder. "
                "Export it as state_dict, onnx, torchscript or pt2."
            )
        torchvision_ops.prepare()
        with silence():
            needed("hf", "timm")
        super().__init__(model, keep_keys=True)

    def write(self, path: Path) -> None:
        """Write the folder."""
        write_tensors(original_state(self.model), path / WEIGHTS, {"format": "pt"})
        text = json.dumps(self._config(), indent=2, ensure_ascii=False)
        (path / CONFIG).write_text(text + "\n", encoding="utf-8")
        give_usual_mode(path)

    def load(self, path: Path) -> Run:
        """Load the folder by ``timm.create_model``, offline."""
        with silence():
            (timm,) = needed("hf", "timm")
            net: Run = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        return net

    def _config(self) -> Config:
        """Return the content of ``config.json`` for the classes that the model has now."""
        origin = self.model.origin
        if origin is not None and origin.kind == "timm":
            config = dict(cast(Config, origin.files[CONFIG]))
        else:
            config = self._new_config()
        names = [c.name for c in self.model.classes]
        if timm_folder.class_names(config) not in (None, tuple(names)) or config.get("num_classes") != len(names):
            config |= {"num_classes": len(names), "label_names": list(names)}
            config.pop("label_descriptions", None)
            for key in ("pretrained_cfg", "model_args"):
                if isinstance(part := config.get(key), dict):
                    kept = {k: v for k, v in part.items() if k not in LABELS}
                    config[key] = kept | ({"num_classes": len(names)} if "num_classes" in part else {})
        return config

    def _new_config(self) -> Config:
        """Return the content for a net that came as a file of weights."""
        from timm.models import get_pretrained_cfg

        name, spec = (self.model.arch or "").removeprefix(FAMILY), self.model.input
        known: Any = get_pretrained_cfg(name)
        own = {k: getattr(known, k, None) for k in ("first_conv", "classifier", "pool_size", "fixed_input_size")}
        options: Config = dict(self.model.arch_options)
        if spec is not None:
            own |= {
                "input_size": list(spec.shape),
                "mean": list(spec.mean),
                "std": list(spec.std),
                "interpolation": spec.interpolation,
                "crop_pct": _share_of(spec),
                "crop_mode": "center" if isinstance(spec.resize, int) else "squash",
            }
            options |= {"in_chans": spec.channels} if spec.channels != 3 else {}
        made: Config = {"architecture": name, "num_classes": -1, "model_args": options}
        return made | {"pretrained_cfg": {k: v for k, v in own.items() if v is not None}}


def _share_of(spec: InputSpec) -> float:
    """Return the share of the resized picture that is cropped: timm resizes to the input's size over it, rounded down.

    Raises:
        ModelError: Pictures are stretched to another size than that of the input and then cropped.
    """
    size = spec.resize or (spec.height, spec.width)
    if not isinstance(size, int):
        if size != (spec.height, spec.width):
            raise ModelError(
                f"The model's pictures are stretched to {size[0]} by {size[1]} pixels and then cropped, which a folder "
                "of timm cannot say. Export to another format."
            )
        return 1.0
    share = spec.height / size
    return share if math.floor(spec.height / share) == size else math.nextafter(share, 0.0)
