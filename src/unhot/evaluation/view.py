"""Views: the logits and features of every model on every split, computed once and shared by all measures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from unhot.data.images import CACHED, LabelledImages, at_once
from unhot.errors import ModelError, ModelWarning, shortened
from unhot.models.classifier import Classifier
from unhot.models.layers import pooled, stages
from unhot.records.audit import Split, Subject
from unhot.records.model import ClassLabel
from unhot.runtime import Runtime

T = TypeVar("T")

LAYERS = 4  # earlier ones at most whose features are kept, at even distances
LOWEST = -50.0  # log-probability: less counts as this
LAST = 2  # and of those just before the head, since something may be hidden there


class ModelResults:
    """A model, and what was computed of it; it is kept for as long as this object lives.

    Args:
        model: The model, which must not change meanwhile.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = model
        self._done: dict[Hashable, object] = {}

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Compute something once and keep it; the key names all that it depends on beside the model."""
        if key not in self._done:
            self._done[key] = compute()
        return cast(T, self._done[key])

    def sha256(self) -> str:
        """Return the SHA-256 of the model's weights; see :meth:`unhot.models.classifier.Classifier.sha256`."""
        return self.once("sha256", self.model.sha256)


def results_of(model: Classifier | ModelResults, known: Iterable[ModelResults] = ()) -> ModelResults:
    """Return what was computed of a model: what is known already, or nothing yet."""
    if isinstance(model, ModelResults):
        return model
    return next((r for r in known if r.model is model), None) or ModelResults(model)


@dataclass(frozen=True)
class View:
    """One model on one split.

    Attributes:
        logits: (N, K) float32, in the columns of the original model; minus infinity where the model has no such output.
        features: (N, d) float32, the input of the head.
        layers: What some earlier layers give, averaged over positions, (N, channels) float32, by name.
        y: int64 (N,), columns of the original model.
        forgotten: The columns of the forgotten classes.
        earlier: Those of classes that were forgotten before, of which there are no images.
    """

    logits: Tensor
    features: Tensor
    layers: dict[str, Tensor]
    y: Tensor
    forgotten: list[int]
    earlier: tuple[int, ...] = ()

    def layer(self, name: str | None) -> Tensor:
        """Return the features of a layer; the penultimate ones for None."""
        return self.features if name is None else self.layers[name]

    @property
    def outputs(self) -> Tensor:
        """Log-probabilities (N, K), at least ``LOWEST``."""
        return log_softmax(self.logits, dim=1).clamp_min(LOWEST)

    @property
    def retained_outputs(self) -> Tensor:
        """Log-probabilities among the retained classes, (N, R), at least ``LOWEST``."""
        gone = {*self.forgotten, *self.earlier}
        left = [c for c in range(self.logits.shape[1]) if c not in gone]
        return log_softmax(self.logits[:, left], dim=1).clamp_min(LOWEST)

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
        """The same with the logits of all forgotten classes at minus infinity."""
        logits = self.logits.clone()
        logits[:, [*self.forgotten, *self.earlier]] = -torch.inf
        return replace(self, logits=logits)


class Views:
    """All models of an audit on all splits.

    Args:
        original: The model before; like the others, with what was computed of it already for the same original,
            retrained models and runtime, or a classifier of which nothing was.
        unlearned: The model after.
        retrained: Models trained without the classes.
        labels: The forgotten classes.
        splits: Images labelled with columns of the original model.
        runtime: Device and progress.
        earlier: Classes that were forgotten before: neither forgotten nor retained here, and without images.
        chosen: A key of the images of each split, to tell results on these from those on others.
    """

    def __init__(
        self,
        original: Classifier | ModelResults,
        unlearned: Classifier | ModelResults,
        retrained: Sequence[Classifier | ModelResults],
        labels: Sequence[ClassLabel],
        splits: dict[Split, LabelledImages],
        runtime: Runtime,
        earlier: Sequence[ClassLabel] = (),
        chosen: Mapping[Split, Hashable] | None = None,
    ) -> None:
        known: list[ModelResults] = []
        for model in (original, unlearned, *retrained):
            known.append(results_of(model, known))
        before, after, *references = known
        self.results: dict[Subject, tuple[ModelResults, ...]] = {
            "original": (before,),
            "masked": (before,),
            "unlearned": (after,),
            "retrained": tuple(references),
        }
        self.models: dict[Subject, tuple[Classifier, ...]] = {
            subject: tuple(r.model for r in results) for subject, results in self.results.items()
        }
        self.labels = tuple(labels)
        self.columns = before.model.columns(labels)
        self.earlier = tuple(before.model.columns(c for c in earlier if c in before.model.classes))
        self.splits = splits
        self.runtime = runtime
        self._chosen = chosen or {}
        # what a result depends on beside its model, and what the original, the references and the runtime are
        self._scope = (tuple(self.columns), tuple(earlier), tuple(self._chosen.values()))
        self._places = [
            (model, before.model.columns(counterparts(before.model, model, labels, earlier, f"The {subject} model")))
            for subject, models in self.models.items()
            for model in models
        ]

    def of(self, subject: Subject, split: Split, run: int = 0) -> View:
        """Return what a model does on a split; ``run`` picks one of several retrained models."""
        results, model = self.results[subject][run], self.models[subject][run]
        images = ("view", split, self._chosen.get(split), tuple(self.places(model)))
        seen = results.once(images, lambda: self._view(model, subject, split))
        view = results.once((images, self._scope), lambda: replace(seen, forgotten=self.columns, earlier=self.earlier))
        return view.masked if subject == "masked" else view

    def compute(self) -> None:
        """Run every model on every split."""
        for subject, models in self.models.items():
            for split in self.splits:
                for run in range(len(models)):
                    self.of(subject, split, run)

    def once(self, key: Hashable, compute: Callable[[], T], subject: Subject = "original", run: int = 0) -> T:
        """Compute something of a model once for these classes and images, and keep it with what is known of it."""
        return self.results[subject][run].once((key, self._scope), compute)

    def places(self, model: Classifier) -> list[int]:
        """Return which column of the original each output of a model stands for."""
        return next(places for one, places in self._places if one is model)

    @torch.no_grad()
    def logits(self, model: Classifier, x: Tensor) -> Tensor:
        """Return logits (N, K) float32 of inputs (N, C, H, W), in the columns of the original."""
        work = model.copy(x.device)
        work.module.eval()
        out = torch.cat([work.logits(part).float().cpu() for part in x.split(at_once(x, CACHED))])
        return self._placed(model, out)

    def _placed(self, model: Classifier, logits: Tensor) -> Tensor:
        placed = torch.full((len(logits), len(self.models["original"][0].classes)), -torch.inf)
        placed[:, self.places(model)] = logits
        return placed

    def _view(self, model: Classifier, subject: Subject, split: Split) -> View:
        device, images = self.runtime.device, self.splits[split]
        shape = model.input_shape
        size = at_once(shape, CACHED if device.type == "cpu" else 1024, device)
        work = model.copy(device)
        work.module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        names = self._layers(work, images)
        logits: list[Tensor] = []
        flows: dict[str, list[Tensor]] = {n: [] for n in [*names, model.head]}
        bar = self.runtime.progress(f"{split} images", len(images))
        with torch.no_grad(), work.recording([work.head], after=names) as seen, bar as advance:
            for index in self.runtime.processes.shard(torch.arange(len(images))).split(size):
                x = images.inputs(index, model.input, device).contiguous(memory_format=torch.channels_last)
                logits.append(work.logits(x).float().cpu())
                for name, flow in flows.items():
                    flow.append(pooled(seen[name]).float().cpu())
                advance(len(index))
        whole = {name: self._whole(flow, len(images)) for name, flow in flows.items()}
        outputs = self._whole(logits, len(images))
        _check_finite((outputs, *whole.values()), subject, split)
        features = whole.pop(model.head)
        return View(self._placed(model, outputs), features, whole, images.y, self.columns, self.earlier)

    def _whole(self, parts: list[Tensor], count: int) -> Tensor:
        """Put together what the processes of the processes computed of ``count`` images."""
        return self.runtime.processes.all_gather(torch.cat(parts))[:count]

    def _layers(self, model: Classifier, images: LabelledImages) -> list[str]:
        """Choose layers before the head: some at even distances, the first one left out, and the last ones."""
        forgotten = torch.isin(images.y, torch.tensor(self.columns))  # for which two layers may differ only
        some = torch.cat([rows.nonzero().flatten()[:2] for rows in (forgotten, ~forgotten)])
        names = stages(model, images.inputs(some, model.input, self.runtime.device))
        early, last = names[1:-LAST], names[-LAST:]
        return [*(early[i] for i in torch.linspace(0, len(early) - 1, min(LAYERS, len(early))).long()), *last]


def _check_finite(values: Sequence[Tensor], subject: Subject, split: Split) -> None:
    """Refuse a model that computes no numbers for some images, of each of which there is one row in every tensor."""
    bad = torch.stack([~v.isfinite().flatten(1).all(1) for v in values]).any(0)
    if bad.any():
        raise ModelError(
            f"The {subject} model gives NaN or infinite values for {int(bad.sum()):,} of {len(bad):,} {split} images, "
            f"the first of which is number {int(bad.nonzero()[0])}. Check these images and the weights."
        )


def counterparts(
    original: Classifier,
    model: Classifier,
    forgotten: Collection[ClassLabel],
    earlier: Collection[ClassLabel],
    what: str,
) -> list[ClassLabel]:
    """Return which class of the original each output of another model stands for.

    A model without names of its own that has an output for every class that was not forgotten was trained without
    these classes: its outputs are the other classes, in order. All others are matched as classes always are.

    Args:
        original: The model before.
        model: The other one.
        forgotten: The classes that were forgotten.
        earlier: Those that were forgotten before.
        what: What to call the model in errors.

    Raises:
        ModelError: It has classes that the original does not have, or it is unclear which ones they are.
    """
    k, known = len(model.classes), original.classes
    if model.unnamed and k < len(known):
        fewer = [[c for c in known if c not in gone] for gone in (forgotten, {*forgotten, *earlier})]
        left = next((classes for classes in fewer if len(classes) == k), None)
        if left is None:
            raise ModelError(
                f"{what} has {k} outputs, the original {len(known)}. Give it class names, by which they are matched."
            )
        if [c.name for c in left] != [c.name for c in model.classes]:
            warnings.warn(
                f"{what} has {k} outputs without names: these are matched with the classes that were not forgotten, in "
                "their order. Give it class names to be sure.",
                ModelWarning,
                stacklevel=2,
            )
        return left
    found = original.known.match_model(model.classes, what)
    if missing := [c.name for c in found if c not in known]:
        raise ModelError(f"{what} has the classes {shortened(missing)}, which were excised from the original.")
    return found
