"""Reversible tricks on a masked original, which change no answer, are worth no better a label than masking."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from handmade import runtime

from tricked import TRICKS, Given, given_of, tricked
from unhot.evaluation.auditor import Auditor
from unhot.models.classifier import Classifier
from unhot.models.unused import unused_weights
from unhot.records.audit import VerdictLabel
from unhot.records.measure import Holder

LABEL = 3
HIDDEN = "hidden at the output only"


class Setting(NamedTuple):
    """An auditor, what tricks are made of, the masked original, and test inputs (N, C, H, W)."""

    auditor: Auditor
    given: Given
    masked: Classifier
    x: torch.Tensor

    def labels(self, model: Classifier) -> dict[Holder, VerdictLabel]:
        verdict = self.auditor.audit(model, [LABEL], quick=True).record.verdict
        return {holder: found.label for holder, found in verdict.holders.items()}


@pytest.fixture(scope="module")
def setting(zoo) -> Setting:
    original, source = zoo.original(0), zoo.source
    train, test = (original.align(images) for images in (source.train_images, source.test_images))
    x, asked = (i.inputs(torch.arange(len(i)), original.input, torch.device("cpu")) for i in (train, test))
    auditor = Auditor(
        original,
        retrained=zoo.retrained(LABEL, 10),
        test=source.test_images,
        train=source.train_images,
        runtime=runtime(),
    )
    given = given_of(original, zoo.retrained(LABEL, 11), LABEL, x, train.y, seed=0)
    return Setting(auditor, given, zoo.cut(0, LABEL), asked)


@pytest.mark.parametrize("name", TRICKS)
def test_whoever_can_undo_a_trick_is_not_misled(setting, name) -> None:
    holder, model = TRICKS[name].holder, tricked(name, setting.given)
    keeping = name == "original kept unused"
    if not keeping:
        with torch.no_grad():
            mine, masked = (m.logits(setting.x) for m in (model, setting.masked))
        assert torch.equal(mine.argmax(1), masked.argmax(1))
        assert torch.allclose(mine.softmax(1), masked.softmax(1), atol=1e-3)
    labels = setting.labels(model)
    assert labels[holder] == ("undecided" if keeping else HIDDEN)
    assert labels["weights"] in (HIDDEN, "undecided")


def test_a_retrained_model_is_not_called_hidden(setting) -> None:
    labels = setting.labels(setting.given.retrained)
    assert HIDDEN not in labels.values()
    assert labels["features"] == "at the level of a retrained model"


def test_weights_without_an_effect_are_found_even_if_they_are_multiplied_by_zero(setting) -> None:
    class Idle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.kept = setting.given.original.module, torch.nn.Parameter(torch.ones(5, 7))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) + 0 * self.kept.sum()

    original = setting.given.original
    model = Classifier.wrap(Idle().eval(), head=f"net.{original.head}", input=original.input)
    assert unused_weights(model, setting.x[:8]) == {"kept": 35}
    assert unused_weights(original, setting.x[:8]) == {}
