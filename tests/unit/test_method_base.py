"""What the base class does once for every method."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from pydantic import model_validator
from torch import nn

import unhot
from unhot.data.samples import Samples, as_images
from unhot.errors import (
    DataError,
    DataWarning,
    MethodFailedError,
    ModelError,
    OptionError,
    SampleWarning,
    UndeclaredReadError,
    UnknownNameError,
)
from unhot.methods.base import Data, Method, Outcome
from unhot.methods.mask import Mask
from unhot.methods.nhle_cwm import NhleCwm
from unhot.methods.nhle_renew import NhleRenew
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime
from unhot.testing import Toy, toy_problem


@pytest.fixture
def toy() -> Toy:
    return toy_problem()


class Retaining(Mask):
    name: ClassVar[str] = "retaining"
    uses = ("retain",)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        assert set(data.retain.y.tolist()) == {0, 2, 3}
        return super().run(model, data, runtime)


def test_the_model_given_to_run_is_ready_to_be_changed(toy: Toy) -> None:
    class Looks(Mask):
        name: ClassVar[str] = "looks"
        uses = ("forget",)

        def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            assert not any(m.training for m in model.module.modules())
            assert all(p.requires_grad and p.grad is None for p in model.module.parameters())
            assert data.columns == [1]
            assert data.forget.y.tolist() == [1] * 8
            assert torch.equal(data.forget.logits, model.logits(data.forget.x))
            assert "tensor" not in repr(data)
            return super().run(model, data, runtime)

    toy.model.train()
    toy.model.requires_grad_(False)
    for p in toy.model.parameters():
        p.grad = torch.ones_like(p)
    assert Looks()(toy.model, toy.samples()).record.stop_reason == "done"


def test_an_undeclared_read_is_refused(toy: Toy) -> None:
    class Peeks(Mask):
        name: ClassVar[str] = "peeks"

        def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            return Outcome(model, str(len(data.retain)))

    with pytest.raises(UndeclaredReadError, match=r"read.*'retain'.*declares"):
        Peeks()(toy.model, toy.samples())


def test_retained_images_are_labelled_with_columns_and_needed_where_they_are_used(toy: Toy) -> None:
    assert Retaining()(toy.model, toy.samples(), retain=toy.retain()).record.uses == ("retain",)
    with pytest.raises(DataError, match=r"images.*retained.*classes"):
        Retaining()(toy.model, toy.samples())


@pytest.mark.parametrize("what", ["weight", "buffer"])
def test_an_unusable_model_is_not_returned(toy: Toy, what: str) -> None:
    class Breaks(Mask):
        name: ClassVar[str] = "breaks"

        def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            with torch.no_grad():
                if what == "weight":
                    model.module[0].weight[0, 0, 0, 0] = torch.inf
                model.module[1].running_var[0] += what == "buffer"
            return super().run(model, data, runtime)

    said = {"weight": "NaN or infinite values in 0.weight", "buffer": "it moved 1.running_var"}[what]
    with pytest.raises(MethodFailedError, match=said):
        Breaks()(toy.model, toy.samples())


def test_the_record_says_what_was_done(toy: Toy) -> None:
    samples = toy.samples(1, 3)
    result = unhot.forget(toy.model, samples, method=NhleCwm(steps=2, stop_at=0.0), seed=4)
    record = result.record
    assert (record.method, record.seed, record.uses, record.cost.steps) == ("nhle-cwm", 4, ("forget",), 2)
    assert record.hyperparameters["steps"] == 2
    assert [c.index for c in record.classes] == [1, 3]
    assert record.samples.count == (8, 8)
    assert record.samples.indices == samples.images.keys
    assert record.samples.sha256 == samples.images.digests()
    assert record.model_sha256 == Classifier.wrap(toy.model).sha256()
    assert record.weights_sha256 == result.classifier.sha256() != record.model_sha256
    assert result.model is result.classifier.module
    assert record.cost.seconds > 0


def test_the_digest_depends_on_all_that_determines_the_result(toy: Toy) -> None:
    def of(model: nn.Module = toy.model, classes: tuple[int, ...] = (1,), seed: int = 0, cut: str = "mask") -> str:
        return Mask(cut=cut)(model, toy.samples(*classes), seed=seed).record.digest  # type: ignore[arg-type]

    other = toy_problem(batch_norm=False).model
    digests = [of(), of(other), of(classes=(2,)), of(classes=(1, 2)), of(seed=1), of(cut="excise")]
    assert len(set(digests)) == len(digests)
    assert of() == digests[0]


def test_classes_forgotten_one_after_the_other(toy: Toy) -> None:
    first = unhot.forget(toy.model, toy.samples(1), method=Mask(cut="excise")).classifier
    second = unhot.forget(first, toy.samples(3), method=Mask()).classifier
    assert [c.index for c in second.classes] == [0, 2, 3]
    assert [c.index for c in second.forgotten] == [1, 3]
    assert set(second.logits(toy.x).argmax(1).tolist()) == {0, 1}
    masked = unhot.forget(toy.model, toy.samples(1), method=Mask()).classifier
    with pytest.raises(DataError, match="has forgotten 1 already"):
        unhot.forget(masked, toy.samples(1))
    with pytest.raises(DataError, match=r"Every.*class.*forgotten"):
        unhot.forget(masked, toy.samples(0, 2, 3))


def test_samples_of_other_classes_are_refused_or_warned_of(toy: Toy) -> None:
    x, y = toy.x, toy.y
    wrong = torch.where(y == 1, 2, 1)
    with pytest.raises(DataError, match=r"^5 of 5 samples of '2' are classified as '1', 0 as '2'"):
        unhot.forget(toy.model, unhot.draw((x, wrong), [2], 5))
    mixed = torch.cat([x[y == 1][:6], x[y == 2][:2]]), torch.ones(8)
    with pytest.warns(SampleWarning, match="^6 of 8 samples of '1' are classified as '1', 2 as '2'"):
        assert unhot.forget(toy.model, unhot.draw(mixed, [1], 8)).record.samples.count == (8,)
    with pytest.raises(DataError, match=r"samples.*class.*'3'"):
        unhot.forget(toy.model, Samples(toy.samples(1).images, (3,)))
    with pytest.raises(DataError, match=r"images.*class.*none"):
        unhot.forget(toy.model, Samples(toy.samples().images.select(torch.arange(0)), (1,)))


def test_a_model_that_is_none_is_refused(toy: Toy) -> None:
    with pytest.raises(ModelError, match=r"torch\.nn\.Module.*unhot\.Classifier.*str"):
        unhot.forget("model", toy.samples())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="it fails on inputs of shape"):
        unhot.forget(toy.model, unhot.draw((toy.x.expand(-1, 3, -1, -1), toy.y), [1], 4))


def test_options_are_checked_together() -> None:
    with pytest.raises(OptionError, match=r"'steps'.*1.*'depth'.*2"):
        NhleCwm.of({"steps": -1, "depth": 2})
    with pytest.raises(UnknownNameError, match=r"hyperparameter.*'stepss'.*'steps'"):
        NhleCwm.of({"stepss": 1})
    assert NhleCwm.of({"steps": 3}) == NhleCwm(steps=3)


@pytest.mark.parametrize("train", [False, True])
def test_the_new_model_has_the_flags_of_the_old_one(toy: Toy, train: bool) -> None:
    toy.model.train(train)
    toy.model.requires_grad_(train)
    toy.model[0].requires_grad_(False)
    made = unhot.forget(toy.model, toy.samples(), method=Mask()).model
    assert [m.training for m in made.modules()] == [m.training for m in toy.model.modules()]
    assert [p.requires_grad for p in made.parameters()] == [p.requires_grad for p in toy.model.parameters()]


def test_an_error_about_two_hyperparameters_is_reported() -> None:
    class Both(Mask):
        name: ClassVar[str] = "both"
        low: int = 0
        high: int = 1

        @model_validator(mode="after")
        def ordered(self) -> Both:
            if self.low > self.high:
                raise ValueError("low must not be above high")
            return self

    with pytest.raises(OptionError, match="low must not be above high"):
        Both.of({"low": 2})


def test_a_buffer_that_is_new_is_no_crash(toy: Toy) -> None:
    class Adds(Mask):
        name: ClassVar[str] = "adds"

        def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            model.module.register_buffer("threshold", torch.zeros(1))
            return super().run(model, data, runtime)

    with pytest.raises(MethodFailedError, match="threshold"):
        Adds()(toy.model, toy.samples())


def test_it_works_where_the_caller_has_switched_gradients_off(toy: Toy) -> None:
    with torch.no_grad():
        assert unhot.forget(toy.model, toy.samples(), method=NhleCwm(steps=1)).record.cost.steps == 1


@pytest.mark.parametrize("method", [NhleCwm(), NhleRenew(images=16, descent=1, steps=2, budget=1)])
def test_it_works_with_weight_normalisation(toy: Toy, method: Method) -> None:
    for i in (4, 7):
        nn.utils.parametrizations.weight_norm(toy.model[i])
    assert unhot.forget(toy.model, toy.samples(), method=method).record.cost.steps > 0


def test_images_of_other_classes_are_not_trained_on(toy: Toy) -> None:
    read: list[int] = []

    class Looks(Mask):
        name: ClassVar[str] = "looks"
        uses = ("forget",)

        def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            read.extend(data.forget.y.unique().tolist())
            return super().run(model, data, runtime)

    samples = Samples(as_images((toy.x[:20], toy.y[:20])), (1,))
    try:
        Looks()(toy.model, samples)
    except DataError:
        return
    assert read == [1]


def test_arguments_of_another_kind_are_refused(toy: Toy) -> None:
    samples = unhot.draw((toy.x, toy.y), [1], 4)
    for wrong, sentence in (
        ({"samples": None}, r"from unhot\.draw or unhot\.folder\. Got NoneType"),
        ({"samples": (toy.x, toy.y)}, "Got tuple"),
        ({"seed": "a"}, "A seed is a whole number. Got 'a'"),
        ({"head": 3}, "The head is named by text, such as 'fc'. Got 3"),
    ):
        with pytest.raises(unhot.UnhotError, match=sentence):
            unhot.forget(**{"model": toy.model, "samples": samples, "method": "mask", "device": "cpu"} | wrong)


@pytest.mark.filterwarnings("ignore::unhot.errors.SampleWarning")
@pytest.mark.parametrize("cut", ["mask", "excise", "bottleneck", "none"])
def test_a_result_keeps_the_model_before_the_cut(toy: Toy, cut: str) -> None:
    """It is what the method leaves without a cut, and holds no second copy of the weights."""
    uncut_by_itself = NhleCwm.of({"cut": "none"})(toy.model, toy.samples(), seed=1)
    result = NhleCwm.of({"cut": cut})(toy.model, toy.samples(), seed=1)
    assert result.uncut.sha256() == uncut_by_itself.classifier.sha256()
    assert result.uncut.classes == uncut_by_itself.classifier.classes
    assert torch.equal(result.uncut.logits(toy.x), uncut_by_itself.classifier.logits(toy.x))
    if cut == "none":
        assert result.uncut is result.classifier
        return
    assert result.uncut.forgotten == ()
    assert result.classifier.sha256() != result.uncut.sha256()
    head = {id(p) for p in result.uncut.head_layer.parameters()}
    cut_weights = {id(p) for p in result.model.parameters()}
    assert all((id(p) in cut_weights) != (id(p) in head) for p in result.uncut.module.parameters())
    assert all(not p.requires_grad or p.grad is None for p in result.uncut.module.parameters())


def test_cutting_once_more_leaves_the_model_before_that_cut(toy: Toy) -> None:
    once = Mask()(toy.model, toy.samples()).classifier
    before = once.logits(toy.x)
    again = Mask()(once, unhot.draw((toy.x, toy.y), classes=[2], shots=4))
    assert torch.equal(again.uncut.logits(toy.x), before)
    assert again.uncut.forgotten == once.forgotten


def test_images_of_other_classes_than_the_models_are_noticed(toy: Toy) -> None:
    x, y = toy.retain()
    names = y.unique()
    mixed_up = names.roll(1)[torch.searchsorted(names, y)]
    with pytest.warns(DataWarning, match=r"images of the other classes correctly; guessing would give 0\.250"):
        Mask()(toy.model, toy.samples(), check=(x, mixed_up))
