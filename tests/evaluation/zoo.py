"""Models of digits, trained when a test asks for them and kept."""

from __future__ import annotations

from functools import cache

import sklearn.preprocessing  # noqa: F401  (imports rich, which draws from Python's generator: not within a test)
import torch
from handmade import runtime

from unhot.data.source import Source
from unhot.evaluation.audit import Audit
from unhot.evaluation.auditor import audit
from unhot.evaluation.view import Views
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut, cut_classes
from unhot.training import train

EPOCHS = 10


class Zoo:
    """Models of the digits, each trained once in a session, and audits of them."""

    classes = (3, 8)
    seeds = (0, 1)

    def __init__(self, source: Source) -> None:
        self.source = source
        self.original = cache(self._original)
        self.retrained = cache(self._retrained)
        self.audited = cache(self._audited)

    def _train(self, seed: int, exclude: tuple[int, ...]) -> Classifier:
        settings = {"epochs": EPOCHS}
        return train(self.source, "lenet5", exclude=exclude, settings=settings, seed=seed, runtime=runtime(seed))[0]

    def _original(self, seed: int = 0) -> Classifier:
        return self._train(seed, ())

    def _retrained(self, label: int = 3, seed: int = 10) -> Classifier:
        return self._train(seed, (label,))

    def cut(self, seed: int = 0, label: int = 3, how: Cut = "mask") -> Classifier:
        model = self.original(seed).copy()
        return cut_classes(model, [model.label(label)], how)

    def wrecked(self, seed: int = 0) -> Classifier:
        model, generator = self.original(seed).copy(), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in model.module.parameters():
                p.add_(2 * p.std(correction=0) * torch.randn(p.shape, generator=generator))
        return model

    def model(self, name: str, label: int, seed: int) -> Classifier:
        made = {
            "second retrained": lambda: self.retrained(label, 11),
            "masked": lambda: self.cut(seed, label),
            "original": lambda: self.original(seed),
            "wrecked": lambda: self.wrecked(seed),
        }
        return made[name]()

    def _audited(self, name: str, label: int = 3, seed: int = 0) -> Audit:
        """Audit one of the models against the first retrained one, quickly; what all share is computed once."""
        return audit(
            original=self.original(seed),
            unlearned=self.model(name, label, seed),
            classes=[label],
            test=self.source.test_images,
            train=self.source.train_images,
            retrained=self.retrained(label),
            quick=True,
            runtime=runtime(),
        )

    def board(
        self, *, unlearned: Classifier | None = None, classes: tuple[int, ...] = (3,), train: bool = True
    ) -> Views:
        """Views of the original, an unlearned and two retrained models on the digits."""
        o = self.original(0)
        splits = {"test": o.align(self.source.test_images).cached(o.input)}
        if train:
            splits["train"] = o.align(self.source.train_images).cached(o.input)
        references = [self.retrained(3, 10), self.retrained(3, 11)]
        return Views(o, unlearned or o, references, [o.label(c) for c in classes], splits, runtime())
