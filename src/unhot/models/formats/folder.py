"""Folders of other libraries that describe their model: of transformers' ``save_pretrained``, and of timm's hub."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch
from pydantic import JsonValue

from unhot.errors import ModelError
from unhot.models.classifier import Classifier
from unhot.models.formats import huggingface, timm_folder
from unhot.models.formats.asked import Asked
from unhot.models.formats.checkpoint import read_folder
from unhot.models.formats.preprocessing import PROCESSOR
from unhot.models.formats.weights import WeightsFile, fit_weights
from unhot.reading import parse_json, read_text
from unhot.records.model import Origin
from unhot.runtime import usual_settings

CONFIG = huggingface.CONFIG


def is_folder_of_others(path: Path) -> bool:
    """Return whether a path is a folder with a ``config.json``, and no bundle."""
    return (path / CONFIG).is_file() and not (path / "bundle.json").exists()


@usual_settings()
def load_folder(path: Path, how: Asked | None = None) -> Classifier:
    """Load a folder of transformers or timm, offline and without running code in it.

    Raises:
        InputError: The library is not installed.
        ModelError: The folder is damaged, of another kind of model, or its parts do not fit each other.
    """
    how = how or Asked()
    config = parse_json(read_text(path / CONFIG), str(path / CONFIG))
    if isinstance(config, dict) and timm_folder.is_of_timm(config):
        return _of_timm(path, config, how)
    if isinstance(config, dict) and huggingface.is_of_transformers(config):
        return _of_transformers(path, config, how)
    raise ModelError(
        f"{path / CONFIG} describes no model of transformers or timm: it has neither model_type nor architecture. Give "
        "the weights file in the folder, with --arch."
    )


def _of_transformers(path: Path, config: dict[str, JsonValue], how: Asked) -> Classifier:
    arch = huggingface.architecture(config, str(path))
    spec = how.preprocessing.applied(huggingface.input_of(path))
    shape = huggingface.example_shape(config) if spec is None else spec.shape
    if shape is None:
        raise ModelError(
            f"{path} does not say how pictures become its inputs. Copy its {PROCESSOR} there, or give --image-size, "
            "--mean and --std."
        )
    net = huggingface.load_net(config, read_folder(path, how.trust_pickle), str(path))
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    model = Classifier.wrap(net, x, None, how.head, spec, huggingface.LOGITS if how.output is None else how.output)
    own = huggingface.class_names(config, model.outputs) or tuple(map(str, range(model.outputs)))
    origin = huggingface.origin(path, config)
    if model.origin is not None:
        origin = origin.model_copy(update={"output": model.origin.output, "heads": model.origin.heads})
    return replace(model, classes=how.labels(own, str(path)), arch=arch, origin=origin)


def _of_timm(path: Path, config: dict[str, JsonValue], how: Asked) -> Classifier:
    arch, options = timm_folder.architecture(config, str(path))
    spec = how.preprocessing.applied(timm_folder.input_of(config, str(path)))
    asked = {f.name: getattr(how, f.name) for f in fields(Asked)}
    known = timm_folder.class_names(config)
    file = WeightsFile(arch=arch, input=spec, arch_options=options, data_names=known, **asked)
    model = fit_weights(read_folder(path, how.trust_pickle), file, path)
    made = model.origin or Origin(kind="timm")
    return replace(model, origin=made.model_copy(update={"kind": "timm", "files": {CONFIG: config}}))
