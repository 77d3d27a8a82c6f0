"""Views: the logits and features of every model on every split, computed once and shared by all measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unhot.data.images import LabelledImages
from unhot.errors import ModelError
from unhot.models.classifier import Classifier
from unhot.record import ClassLabel, Split, Subject
from unhot.runtime import Runtime


@dataclass(frozen=True)
class View:
    """One model on one split.

    Attributes:
        logits: (N, K) float32, in the columns of the original model; minus infinity where the model has no such output.
        features: (N, d) float32, the input of the head.
        y: int64 (N,), columns of the original model.
        forgotten: The columns of the forgotten classes.
    """

    logits: Tensor
    features: Tensor
    y: Tensor
    forgotten: list[int]

    @cached_property
    def is_forget(self) -> Tensor:
        """Which images are of the forgotten classes, bool (N,)."""
        return torch.isin(self.y, torch.tensor(self.forgotten))

    @cached_property
    def correct(self) -> Tensor:
        """Which images are classified correctly, bool (N,)."""
        return self.logits.argmax(1) == self.y

    @cached_property
    def masked(self) -> View:
        """The same with the forgotten logits at minus infinity."""
        logits = self.logits.clone()
        logits[:, self.forgotten] = -torch.inf
        return View(logits, self.features, self.y, self.forgotten)


class Views:
    """All models of an audit on all splits.

    Args:
        original: The model before.
        unlearned: The model after.
        retrained: Models trained without the classes.
        labels: The forgotten classes.
        splits: Images labelled with columns of the original model.
        runtime: Device and progress.
    """

    def __init__(
        self,
        original: Classifier,
        unlearned: Classifier,
        retrained: Sequence[Classifier],
        labels: Sequence[ClassLabel],
        splits: dict[Split, LabelledImages],
        runtime: Runtime,
    ) -> None:
        self.models: dict[Subject, tuple[Classifier, ...]] = {
            "original": (original,),
            "masked": (original,),
            "unlearned": (unlearned,),
            "retrained": tuple(retrained),
        }
        self.labels = tuple(labels)
        self.columns = original.columns(labels)
        self.splits = splits
        self._runtime = runtime
        self._places = {id(m): self._columns_of(m) for m in [original, unlearned, *retrained]}
        self._done: dict[tuple[int, Split], View] = {}

    def of(self, subject: Subject, split: Split, run: int = 0) -> View:
        """Return what a model does on a split; ``run`` picks one of several retrained models."""
        model = self.models[subject][run]
        if (id(model), split) not in self._done:
            self._done[id(model), split] = self._view(model, split)
        view = self._done[id(model), split]
        return view.masked if subject == "masked" else view

    def _view(self, model: Classifier, split: Split) -> View:
        device, images = self._runtime.device, self.splits[split]
        size = 64 if device.type == "cpu" else 1024  # small batches stay in a CPU's cache: twice as fast as 512
        work = model.copy(device)
        work.module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        features, logits = [], []
        bar = self._runtime.progress(f"{split} images", len(images))
        with torch.inference_mode(), bar as advance:
            for index in torch.arange(len(images)).split(size):
                x = images.inputs(index, model.input, device).contiguous(memory_format=torch.channels_last)
                f, z = work.features_and_logits(x)
                features.append(f.float().cpu())
                logits.append(z.float().cpu())
                advance(len(index))
        places = self._places[id(model)]
        placed = torch.full((len(images), len(self.models["original"][0].classes)), -torch.inf)
        placed[:, places] = torch.cat(logits)
        return View(placed, torch.cat(features), images.y, self.columns)

    def _columns_of(self, model: Classifier) -> list[int]:
        """Return which column of the original each output of a model stands for."""
        original = self.models["original"][0]
        known = {c.index: i for i, c in enumerate(original.classes)}
        k = len(model.classes)
        if k == len(known):
            return [known.get(c.index, i) for i, c in enumerate(model.classes)]
        if (
            k == len(known) - len(self.columns) and model.outputs == k
        ):  # trained with fewer outputs: the others, in order
            return [i for i in range(len(known)) if i not in self.columns]
        if missing := [c.name for c in model.classes if c.index not in known]:
            raise ModelError(f"A model has classes that the original does not have: {', '.join(missing)}.")
        return [known[c.index] for c in model.classes]
