"""Case and Attack: what a measure is computed from, and what spends compute on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from unhot.data.images import LabelledImages
from unhot.evaluation.scores import Score
from unhot.evaluation.stats import Estimate
from unhot.evaluation.view import View, Views
from unhot.models.classifier import Classifier
from unhot.records.audit import PlotData, Split, Subject
from unhot.records.measure import Measure
from unhot.runtime import Runtime

T = TypeVar("T")


class NotMeasurable(Exception):  # noqa: N818
    """Raised by a measure that cannot be taken; the message is the reason."""


class Labelled(NamedTuple):
    """Features (N, d) and their classes, int64 (N,)."""

    features: Tensor
    y: Tensor


@dataclass(frozen=True)
class Case:
    """What a measure is computed from: one model on one split, and all others beside it."""

    views: Views
    subject: Subject
    split: Split = "test"
    run: int = 0

    @property
    def model(self) -> Classifier:
        """The model; for ``masked`` the original, whose forgotten outputs are then to be left out."""
        return self.views.models[self.subject][self.run]

    @property
    def runtime(self) -> Runtime:
        """Device, seed and progress."""
        return self.views.runtime

    @property
    def view(self) -> View:
        """What the model does on the split."""
        return self.views.of(self.subject, self.split, self.run)

    @property
    def original(self) -> View:
        """What the original model does on the split."""
        return self.views.of("original", self.split)

    def images(self, split: Split) -> LabelledImages:
        """Return the images of a split.

        Raises:
            NotMeasurable: There are none.
        """
        if split not in self.views.splits:
            raise NotMeasurable(f"no {split} images were given")
        return self.views.splits[split]

    def on(self, split: Split) -> View:
        """Return what the model does on a split.

        Raises:
            NotMeasurable: There are no images of it.
        """
        self.images(split)
        return self.views.of(self.subject, split, self.run)

    def references(self) -> list[View]:
        """Return what the retrained models do on the split; for a retrained model, what the others do.

        Raises:
            NotMeasurable: There are none.
        """
        if not self.views.models["retrained"]:
            raise NotMeasurable("no retrained model was given")
        runs = [i for i in range(len(self.views.models["retrained"])) if (self.subject, i) != ("retrained", self.run)]
        if not runs:
            raise NotMeasurable("a second retrained model is needed to say how far retrained models differ")
        return [self.views.of("retrained", self.split, i) for i in runs]

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Compute something of this model once; ``masked`` and ``original`` have the same features and share it."""
        return self.views.once(key, compute, self.subject, self.run)

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """Positions of the test images in two halves, the same for every model."""
        n = len(self.images("test"))
        first, second = torch.randperm(n, generator=self.runtime.generator("halves")).tensor_split(2)
        return first.sort().values, second.sort().values

    @property
    def learns_from(self) -> Split:
        """The split that probes and attacks learn from: "train", unless it lacks images of a forgotten class."""
        train = self.views.splits.get("train")
        return "train" if train is not None and set(self.views.columns) <= set(train.y.tolist()) else "test"

    def gallery(self, layer: str | None = None) -> Labelled:
        """Return labelled features to learn from: of the train images, or of one half of the test images.

        Args:
            layer: A layer of ``View.layers``; the penultimate one if None.
        """
        return self.gallery_of(lambda view: view.layer(layer))

    def gallery_of(self, read: Callable[[View], Tensor]) -> Labelled:
        """Return what is read of a view, (N, d), of the images to learn from."""
        view = self.on(self.learns_from)
        if self.learns_from == "train":
            return Labelled(read(view), view.y)
        half = self.halves[0]
        return Labelled(read(view)[half], view.y[half])

    def queries(self, layer: str | None = None) -> Labelled:
        """Return labelled features to be classified: of the test images that are not in the gallery."""
        return self.queries_of(lambda view: view.layer(layer))

    def queries_of(self, read: Callable[[View], Tensor]) -> Labelled:
        """Return what is read of a view, (N, d), of the images to be classified."""
        view = self.on("test")
        if self.learns_from == "train":
            return Labelled(read(view), view.y)
        half = self.halves[1]
        return Labelled(read(view)[half], view.y[half])

    def some_forgotten(self, count: int) -> Tensor:
        """Return positions of at most ``count`` test images of the forgotten classes, the same for every model."""
        found = self.is_forget(self.images("test").y).nonzero().flatten()
        order = torch.randperm(len(found), generator=self.runtime.generator("some forgotten"))
        return found[order[:count]].sort().values

    def is_forget(self, y: Tensor) -> Tensor:
        """Return which labels are of forgotten classes, bool (N,)."""
        return torch.isin(y, torch.tensor(self.views.columns))


Compute = Callable[[Case], Estimate]


def measured(measure: Measure, compute: Compute, case: Case) -> Estimate:
    """Compute a metric of a model once.

    Raises:
        NotMeasurable: It cannot be taken.
    """
    masked = case.subject == "masked" and not measure.features_only
    among = case.run if case.subject == "retrained" else None  # one of these is compared with the others only
    return case.once((measure.name, case.split, masked, among), lambda: compute(case))


@dataclass(frozen=True)
class Finding:
    """What an attack found out about one model.

    Attributes:
        estimates: Estimates by the name of the measure; a text is the reason for its absence.
        curves: What the page draws.
        pictures: Images, uint8 (N, C, H, W), by name.
        scores: Scores of single images.
    """

    estimates: Mapping[str, Estimate | str]
    curves: tuple[PlotData, ...] = ()
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()


class Attack(BaseModel, ABC):
    """Something that spends compute on a model: its fields are its settings, ``run`` is the attack.

    What it measures is declared where it is registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def found(self, case: Case) -> Finding:
        """Attack a model once."""
        return case.once((self, case.subject, case.run), lambda: self.run(case))

    @abstractmethod
    def run(self, case: Case) -> Finding:
        """Attack one model.

        Raises:
            NotMeasurable: It cannot be attacked, for all measures alike.
        """
