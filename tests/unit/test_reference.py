"""partial_reference(): what is drawn anew, what stays, what is trained on, and what an audit says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import unhot
from unhot.errors import DataError, ModelError
from unhot.reference import last_stage, partial_reference

SPEC = unhot.InputSpec(height=8, width=8, channels=1, mean=(0.0,), std=(1.0,))


class Net(nn.Module):
    """Layers are called in another order than they are defined in."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Linear(24, 24)
        self.norm = nn.BatchNorm2d(16)
        self.first = nn.Conv2d(1, 16, 3)
        self.second = nn.Linear(16, 24)
        self.head = nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.first(x)).relu().flatten(2).mean(2)
        out: torch.Tensor = self.head(self.late(self.second(h).relu()).relu())
        return out


@pytest.fixture
def model() -> unhot.Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return unhot.Classifier.wrap(Net().eval(), input=SPEC)


def images(count: int = 80, classes: int = 4) -> unhot.LabelledImages:
    """Images of stripes, one kind for each class."""
    y = torch.arange(count) % classes
    x = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    for i, c in enumerate(y.tolist()):
        x[i, 0, :: c + 1] = 100 + i % 50
    return unhot.LabelledImages(x, y, tuple("0123"[:classes]), "stripes", tuple(range(count)))


def test_the_last_third_of_the_layers_is_new_in_the_order_they_are_called(model: unhot.Classifier) -> None:
    assert last_stage(model, torch.rand(2, 1, 8, 8, generator=torch.Generator())) == ["late", "head"]


def test_the_rest_stays_bit_for_bit_and_the_class_is_not_trained_on(model: unhot.Classifier) -> None:
    before = {n: w.clone() for n, w in model.module.state_dict().items()}
    found, record = partial_reference(model, images(), [2], settings={"epochs": 30, "lr": 0.1})
    after = found.module.state_dict()
    assert all(torch.equal(model.module.state_dict()[n], w) for n, w in before.items())  # the original is untouched
    changed = {n.partition(".")[0] for n, w in found.module.named_parameters() if not torch.equal(w, before[n])}
    assert changed == {"late", "head"}
    assert not torch.equal(after["norm.running_mean"], before["norm.running_mean"])  # of the retained images
    assert record.fresh == ("late", "head")
    assert (record.train_images, [c.index for c in record.excluded]) == (60, [2])
    assert record.weights_sha256 == found.sha256()
    assert all(w.requires_grad for w in found.module.parameters())
    x = images().inputs(torch.arange(80), SPEC, torch.device("cpu"))
    predicted, y = found.logits(x).argmax(1), images().y
    assert not (predicted == 2).any()
    assert (predicted == y)[y != 2].float().mean() > 0.8


def test_the_same_seed_gives_the_same_weights_and_another_does_not(model: unhot.Classifier) -> None:
    first, again, other = (
        partial_reference(model, images(), [2], settings={"epochs": 1}, runtime=unhot.Runtime(seed=s))[0].sha256()
        for s in (0, 0, 1)
    )
    assert first == again != other


def test_too_little_is_refused(model: unhot.Classifier) -> None:
    with pytest.raises(DataError, match="at least two retained classes"):
        partial_reference(model, images(40, 2), [1])
    bare = replace(model, input=None)
    with pytest.raises(ModelError, match="How pictures become inputs"):
        partial_reference(bare, images(), [1])
    with torch.random.fork_rng():
        flat = unhot.Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), input=SPEC)
    with pytest.raises(ModelError, match="no layers before its head"):
        partial_reference(flat, images(), [1])


@pytest.mark.filterwarnings("ignore:The original model classifies")
def test_an_audit_says_that_it_is_no_retrained_model(model: unhot.Classifier) -> None:
    x = images().inputs(torch.arange(80), SPEC, torch.device("cpu"))
    known = int(model.logits(x).argmax(1).mode().values)  # the net was not trained
    found, _ = partial_reference(model, images(), [known], settings={"epochs": 2})
    other, _ = partial_reference(model, images(), [known], settings={"epochs": 2}, runtime=unhot.Runtime(seed=1))
    audit = unhot.audit(original=model, unlearned=other, classes=[known], test=images(), retrained=found, quick=True)
    (flag,) = [f for f in audit.record.verdict.flags if f.code == "reference_partial"]
    total = sum(w.numel() for w in model.module.parameters())
    fresh = sum(w.numel() for n, w in model.module.named_parameters() if n.partition(".")[0] in ("late", "head"))
    assert flag.numbers["share"] == pytest.approx(1 - fresh / total)
