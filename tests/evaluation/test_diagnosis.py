"""What is said of a model and a request before anything is changed is what happens then."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import unhot
from support import CPU
from unhot.data.source import Source
from unhot.errors import DataError
from unhot.methods import get, nhle_renew
from unhot.models.classifier import Classifier
from unhot.testing import toy_problem


def test_a_request_that_goes_on(original: Classifier, digits: Source, samples: unhot.Samples) -> None:
    before = original.sha256()
    found = unhot.diagnose(original, samples, get("mask")(), check=digits.test_images, runtime=CPU, force=True)
    assert found.refusal is None
    assert original.sha256() == before
    assert (found.model.arch, found.model.head, found.model.features) == ("lenet5", "head", 84)
    assert [c.name for c in found.model.classes] == [str(i) for i in range(10)]
    assert found.model.input == original.input
    assert found.model.weights == sum(p.numel() for p in original.module.parameters())
    (answers,) = found.samples
    with torch.no_grad():
        wanted = original.logits(samples.images.inputs(torch.arange(16), original.input, CPU.device)).argmax(1)
        x, y = next(digits.test_images.batches(original.input, CPU.device, 10_000))
        right = original.logits(x).argmax(1) == y
    assert {c.index: n for c, n in answers.answers} == {i: n for i, n in enumerate(wanted.bincount().tolist()) if n}
    assert [n for _, n in answers.answers] == sorted((n for _, n in answers.answers), reverse=True)
    assert answers.right == int((wanted == 3).sum())
    assert (found.data.n, found.data.correct) == (len(y), int(right.sum()))
    shares = [right[y == c].float().mean().item() for c in range(10)]
    assert found.data.worst.label.index == shares.index(min(shares))
    assert found.plan.pass_seconds > 0
    assert (found.plan.seconds is None) == (found.plan.method != "nhle-cwm")
    assert found.plan.reads == ()
    assert type(found).parse(found.to_json(), "it") == found


@pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning")
@pytest.mark.parametrize(("stop_at", "budget", "end"), [(1.0, 0.035, 0), (0.0, 1.0, 1)])
def test_the_time_is_that_of_the_images_that_pass(
    original: Classifier, samples: unhot.Samples, stop_at: float, budget: float, end: int
) -> None:
    """Each of them costs no less than a third of a pass forward and back, and no more than all of it."""
    method, forward = get("nhle-cwm")(stop_at=stop_at, steps=40, budget=budget), list[int]()
    with nn.modules.module.register_module_forward_hook(
        lambda module, args, out: forward.append(len(args[0]) * (getattr(module, "in_channels", 0) == 1))
    ):
        method(original, samples, runtime=CPU)
    found = unhot.diagnose(original, samples, method, runtime=CPU).plan
    counted = found.seconds[end] / found.pass_seconds * 16
    assert sum(forward) / 3 < counted < sum(forward)
    assert found.seconds[0] < found.seconds[1]


def test_the_refusal_is_that_of_the_request(original: Classifier, digits: Source) -> None:
    samples = unhot.draw(digits.train_images, [7], shots=8, seed=0)
    relabelled = unhot.draw(
        (samples.images.inputs(torch.arange(8), original.input, CPU.device), torch.full((8,), 3)), [3], 8, 0
    )
    method = get("nhle-cwm")()
    found = unhot.diagnose(original, relabelled, method, runtime=CPU)
    with pytest.raises(DataError) as refused:
        method(original, relabelled, runtime=CPU)
    assert found.refusal == refused.value.command_line
    assert "are classified as '7'" in found.refusal
    assert found.samples[0].answers[0][0].name == "7"
    assert found.plan.most_steps == 16
    assert found.plan.pass_seconds is None


def test_data_that_a_method_needs_is_asked_for(original: Classifier, samples: unhot.Samples) -> None:
    found = unhot.diagnose(original, samples, get("scrub")(), runtime=CPU, force=True)
    assert found.refusal == "scrub needs images of the retained classes. Give --retain, or choose another method."


def test_samples_that_cannot_be_read_are_a_refusal_too(original: Classifier) -> None:
    def fail() -> unhot.Samples:
        raise DataError("There is no image.")

    found = unhot.diagnose(original, fail, get("mask")(), runtime=CPU)
    assert (found.refusal, found.samples) == ("There is no image.", ())
    assert found.model.head == "head"


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x.flatten(1)).detach())
        return logits


def test_what_would_be_warned_of_is_said(keep_generators: None) -> None:
    torch.manual_seed(0)
    x = torch.randn(12, 1, 4, 4)
    model = Classifier.wrap(Detached(), example=x[:2])
    y = model.logits(x).argmax(1)
    label = int(y.mode().values)
    found = unhot.diagnose(model, unhot.draw((x, y), [label], 2, 0), get("mask")(), runtime=CPU)
    assert found.refusal is None
    assert "no gradient reaches the layers before its head" in found.warnings[-1]


def test_the_plan_of_the_default_method_is_what_forget_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives a time, and where nobody asked for the method and it does not suit, it names the one that is used."""
    monkeypatch.setattr(nhle_renew, "sharpening", lambda *_, **__: 1.0)
    toy = toy_problem()
    model, method = Classifier.wrap(toy.model, toy.x[:2]), get("nhle-renew")(images=16, descent=2, steps=8)
    found = unhot.diagnose(model, toy.samples(), method, runtime=CPU, asked=False)
    assert (found.plan.method, found.refusal, found.warnings) == ("nhle-renew", None, ())
    assert 0 < found.plan.seconds[0] < found.plan.seconds[1]
    hurried = method.model_copy(update={"minutes": 1e-9})
    asked, unasked = (unhot.diagnose(model, toy.samples(), hurried, runtime=CPU, asked=a) for a in (True, False))
    assert asked.refusal.startswith("Even an eighth of the work may take")
    assert (unasked.plan.method, unasked.refusal) == ("nhle-cwm", None)
    assert unasked.warnings[-1].startswith("nhle-renew is not used: it would take too long here. nhle-cwm is used")
    monkeypatch.setattr(nhle_renew, "sharpening", lambda *_, **__: 0.9)
    brief = unhot.diagnose(model, toy.samples(), method, runtime=CPU, asked=False)
    assert brief.plan.method == "nhle-cwm"
    assert "it can only guess what the other classes would lose" in brief.warnings[-1]
