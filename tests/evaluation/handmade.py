"""Cases of hand-made logits and features, put where an audit would keep those of real models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unhot.data.images import LabelledImages
from unhot.evaluation.metric import Case
from unhot.evaluation.view import View, Views
from unhot.models.classifier import Classifier
from unhot.records.audit import Split, Subject
from unhot.records.model import ClassLabel
from unhot.runtime import Runtime


class Outputs(NamedTuple):
    """What a model does on a split."""

    logits: Tensor
    features: Tensor
    layers: dict[str, Tensor] = {}  # noqa: RUF012


def runtime(seed: int = 0) -> Runtime:
    return Runtime(torch.device("cpu"), seed=seed)


def labels(k: int) -> tuple[ClassLabel, ...]:
    return tuple(ClassLabel(index=i, name=str(i)) for i in range(k))


def nothing(k: int) -> Classifier:
    """A classifier that only stands for one: its outputs are given by hand."""
    with torch.random.fork_rng(devices=[]):
        return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(1, k)), labels(k), "1", outputs=k)


class Handmade(Views):
    """Views of models that are not run: ``outputs`` says of each model what it does on a split."""

    outputs: list[tuple[Classifier, dict[Split, Outputs]]]

    def _view(self, model: Classifier, subject: Subject, split: Split) -> View:
        logits, features, layers = next(given for one, given in self.outputs if one is model)[split]
        return View(logits, features, layers, self.splits[split].y, self.columns)


class Board:
    """Hand-made outputs of all models of an audit, from which cases are made.

    ``original``, ``unlearned`` and each of ``retrained`` are outputs by split.
    """

    def __init__(
        self,
        y: dict[Split, Tensor],
        forgotten: Sequence[int],
        original: dict[Split, Outputs],
        unlearned: dict[Split, Outputs] | None = None,
        retrained: Sequence[dict[Split, Outputs]] = (),
        seed: int = 0,
    ) -> None:
        k = original["test"].logits.shape[1]
        outputs = [original, unlearned or original, *retrained]
        models = [nothing(k) for _ in outputs]
        splits: dict[Split, LabelledImages] = {
            s: LabelledImages(torch.zeros(len(v), 1, 1, 1), v, None, s, tuple(range(len(v)))) for s, v in y.items()
        }
        gone = [labels(k)[i] for i in forgotten]
        self.views = Handmade(models[0], models[1], models[2:], gone, splits, runtime(seed))
        self.views.outputs = list(zip(models, outputs, strict=True))

    def case(self, subject: Subject = "unlearned", run: int = 0, split: Split = "test") -> Case:
        return Case(self.views, subject, split, run)


def random_outputs(y: Tensor, k: int, generator: torch.Generator, d: int = 6, spread: float = 2.0) -> Outputs:
    """Classes as clouds around seeded centres; logits that are mostly, not always, right."""
    centres = torch.randn(k, d, generator=torch.Generator().manual_seed(5)) * 1.5
    features = centres[y] + spread * torch.randn(len(y), d, generator=generator)
    logits = 2.0 * torch.eye(k)[y] + 1.5 * torch.randn(len(y), k, generator=generator)
    return Outputs(logits, features)


def random_board(
    seed: int = 0, n: int = 240, k: int = 4, forgotten: Sequence[int] = (1,), retrained: int = 2, train: bool = True
) -> Board:
    """Four classes, random outputs of an original, an unlearned and some retrained models."""
    generator = torch.Generator().manual_seed(seed)
    y: dict[Split, Tensor] = {"test": torch.randint(k, (n,), generator=generator)}
    if train:
        y["train"] = torch.randint(k, (n,), generator=generator)
    made = [{s: random_outputs(v, k, generator) for s, v in y.items()} for _ in range(2 + retrained)]
    return Board(y, forgotten, made[0], made[1], made[2:], seed)


def shuffled(board: Board, seed: int) -> Board:
    """The same board with the images of every split in another order."""
    orders = {
        s: torch.randperm(len(i), generator=torch.Generator().manual_seed(seed)) for s, i in board.views.splits.items()
    }

    def turned(subject: Subject, run: int = 0) -> dict[Split, Outputs]:
        found = {s: board.views.of(subject, s, run) for s in orders}
        return {s: Outputs(v.logits[orders[s]], v.features[orders[s]]) for s, v in found.items()}

    y = {s: i.y[orders[s]] for s, i in board.views.splits.items()}
    retrained = [turned("retrained", i) for i in range(len(board.views.models["retrained"]))]
    return Board(y, board.views.columns, turned("original"), turned("unlearned"), retrained)
