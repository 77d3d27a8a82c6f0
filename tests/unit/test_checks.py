"""What a run says of itself: whether it forgot, what it did to the other classes, and what it was given."""

from __future__ import annotations

import warnings
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import unhot
from unhot.data.images import LabelledImages
from unhot.errors import DataError, DataWarning, ModelWarning, OptionError, SampleWarning, UnknownNameError
from unhot.methods.base import Data, Outcome
from unhot.methods.finetune import Finetune
from unhot.methods.mask import Mask
from unhot.models.classifier import Classifier
from unhot.models.head_edits.mask import CUT_LOGIT
from unhot.records.forget import ForgetRecord
from unhot.runtime import Runtime
from unhot.testing import Toy, toy_problem

NO_CUT = "Did not forget {}: {} of 8 samples are still classified as it. Try cut=mask, other settings of mask, or"


@pytest.fixture
def toy() -> Toy:
    return toy_problem()


def sure(toy: Toy, c: int, count: int = 8) -> Tensor:
    """Images of a class that the model classifies as it."""
    with torch.no_grad():
        return toy.x[(toy.y == c) & (toy.model(toy.x).argmax(1) == c)][:count]


def samples_of(images: dict[int, Tensor]) -> unhot.Samples:
    x, y = torch.cat(list(images.values())), torch.cat([torch.full((len(v),), c) for c, v in images.items()])
    return unhot.Samples(LabelledImages(x, y, None, "toy", tuple(range(len(y)))), tuple(images))


class Lowers(Mask):
    """Lowers the logit of the first class to forget, and leaves the others."""

    name: ClassVar[str] = "lowers"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        with torch.no_grad():
            model.head_layer.bias[data.columns[0]] = -1e3
        return Outcome(model, "done")


def test_a_class_that_is_still_recognised_is_not_noted_as_forgotten(toy: Toy) -> None:
    samples = samples_of({1: sure(toy, 1)})
    with pytest.warns(SampleWarning, match=f"^{NO_CUT.format(1, 8)}"):
        kept = Mask(cut="none")(toy.model, samples)
    (found,) = kept.record.recognised
    assert (found.label.index, found.n, found.before, found.after, found.forgotten) == (1, 8, 8, 8, False)
    assert kept.classifier.forgotten == ()
    again = Mask()(kept.classifier, samples)  # it has forgotten nothing yet, so it may be asked again
    assert [(c.before, c.after) for c in again.record.recognised] == [(8, 0)]
    assert [c.index for c in again.classifier.forgotten] == [1]
    assert ForgetRecord.model_validate_json(again.record.to_json()) == again.record


@pytest.mark.parametrize("cut", ["mask", "excise"])
def test_what_is_cut_is_forgotten(toy: Toy, cut: str) -> None:
    made = unhot.forget(toy.model, samples_of({1: sure(toy, 1), 3: sure(toy, 3)}), method="mask", cut=cut)
    assert [(c.label.index, c.before, c.after) for c in made.record.recognised] == [(1, 8, 0), (3, 8, 0)]
    assert [c.index for c in made.classifier.forgotten] == [1, 3]


def test_of_two_classes_one_is_forgotten(toy: Toy) -> None:
    with pytest.warns(SampleWarning, match="^Did not forget 3: 8 of 8 samples are still classified as it. Try") as said:
        made = Lowers()(toy.model, samples_of({1: sure(toy, 1), 3: sure(toy, 3)}))
    assert "Did not forget 1" not in str(said[0].message)
    assert [c.index for c in made.classifier.forgotten] == [1]


@pytest.mark.parametrize(("left", "forgotten"), [(1, True), (2, False)])
def test_up_to_five_percent_may_be_left(toy: Toy, left: int, forgotten: bool) -> None:
    images = torch.cat([sure(toy, 1)] * 3)[:20] * torch.linspace(0.98, 1.0, 20).view(-1, 1, 1, 1)
    with torch.no_grad():
        z = toy.model(images)
        margin = (z[:, 1] - z[:, [0, 2, 3]].max(1).values).sort(descending=True).values

    class Less(Mask):
        name: ClassVar[str] = "less"

        def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            with torch.no_grad():
                model.head_layer.bias[1] -= (margin[left - 1] + margin[left]) / 2
            return Outcome(model, "done")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SampleWarning)
        made = Less()(toy.model, samples_of({1: images}))
    assert made.record.recognised[0].after == left
    assert (len(made.classifier.forgotten) == 1) == forgotten


def test_samples_of_another_class_are_refused_by_name_unless_forced(toy: Toy) -> None:
    wrong = samples_of({3: torch.cat([sure(toy, 2, 5), sure(toy, 3, 3), sure(toy, 0, 2)])})
    sentence = r"^5 of 10 samples of '3' are classified as '2', 2 as '0', 3 as '3'\. Check .*: force=True\.$"
    with pytest.raises(DataError, match=sentence) as refused:
        unhot.forget(toy.model, wrong, method="mask")
    assert (refused.value.command_line or "").endswith("all the same: --force.")
    with pytest.warns(SampleWarning, match=r"^3 of 10 samples of '3' are classified as '3', 5 as '2', 2 as '0'\."):
        made = unhot.forget(toy.model, wrong, method="mask", force=True)
    assert (made.record.recognised[0].before, made.record.samples.count) == (3, (10,))
    none = samples_of({3: sure(toy, 2)})
    with pytest.raises(DataError, match=r"^8 of 8 samples of '3' are classified as '2', 0 as '3'\."):
        unhot.forget(toy.model, none, method="mask")
    with (
        pytest.warns(SampleWarning, match=r"^0 of 8 samples of '3' are classified as '3', 8 as '2'"),
        pytest.warns(SampleWarning, match=r"^None of the 8 samples of '3' was .* only cut from the output\."),
    ):
        unhot.forget(toy.model, none, method="mask", force=True)


def test_half_of_the_samples_are_enough(toy: Toy) -> None:
    half = samples_of({1: torch.cat([sure(toy, 1, 4), sure(toy, 2, 4)])})
    with pytest.warns(SampleWarning, match=r"^4 of 8 samples of '1' are classified as '1', 4 as '2'\."):
        unhot.forget(toy.model, half, method="mask")


def test_every_class_whose_samples_do_not_fit_is_named(toy: Toy) -> None:
    swapped = samples_of({1: sure(toy, 2), 2: sure(toy, 1), 3: sure(toy, 3)})
    with pytest.raises(DataError, match=r"8 of 8 samples of '1' are .* as '2', 0 as '1'\. 8 of 8 samples of '2' are"):
        unhot.forget(toy.model, swapped, method="mask")


class Breaks(Mask):
    """Forgets the class, and a part of class 0 too."""

    name: ClassVar[str] = "breaks"
    uses = ("retain",)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        assert len(data.retain)
        with torch.no_grad():
            model.head_layer.bias[0] -= 3
        return Outcome(model, "done", cut="mask")


def test_a_loss_on_the_retained_classes_is_measured_and_warned_of(toy: Toy) -> None:
    samples = samples_of({1: sure(toy, 1)})
    with pytest.warns(
        ModelWarning, match=r"^Accuracy on the retained classes fell by 0\.\d+, more than 0\.035: 100"
    ) as w:
        made = Breaks()(toy.model, samples, retain=(toy.x, toy.y))
    found, kept = made.record.retained_accuracy, toy.y != 1
    with torch.no_grad():
        right = [m(toy.x[kept]).argmax(1) == toy.y[kept] for m in (toy.model, made.model)]
    assert [found.before, found.after] == pytest.approx([r.double().mean().item() for r in right])
    zeros = toy.y[kept] == 0
    assert (found.worst_class.label.index, found.worst_class.n) == (0, 24)
    assert [found.worst_class.before, found.worst_class.after] == [int(r[zeros].sum()) for r in right]
    assert (found.n, found.given, found.read_by_method, found.origin) == (72, 72, True, "tensors")
    assert "images that the method read; class 0 lost most (" in str(w[0].message)
    held_out = (toy.x[kept][::2], toy.y[kept][::2])
    with pytest.warns(ModelWarning, match=r"36.*0.*lost"):
        other = Breaks()(toy.model, samples, retain=(toy.x, toy.y), check=held_out)
    assert (other.record.retained_accuracy.n, other.record.retained_accuracy.read_by_method) == (36, False)
    assert other.record.digest == made.record.digest  # what is only evaluated on determines nothing
    assert other.record.weights_sha256 == made.record.weights_sha256


def test_no_loss_no_word_and_no_images_no_figure(toy: Toy) -> None:
    samples = samples_of({1: sure(toy, 1)})
    good = Mask()(toy.model, samples, check=(toy.x, toy.y)).record.retained_accuracy
    assert good.after >= good.before > 0.9
    assert good.n == 72  # those of the class itself are left out
    assert Mask()(toy.model, samples).record.retained_accuracy is None
    with pytest.raises(DataError, match=r"holds.*image.*retained"):
        Mask()(toy.model, samples, check=(toy.x[toy.y == 1], toy.y[toy.y == 1]))


def test_many_images_are_drawn_from(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unhot.methods.checks.IMAGES", 20)
    samples = samples_of({1: sure(toy, 1)})
    some = [Mask()(toy.model, samples, check=(toy.x, toy.y), seed=s).record.retained_accuracy for s in (0, 0, 1, 2, 3)]
    assert {(s.n, s.given) for s in some} == {(20, 72)}
    assert some[0] == some[1]
    assert len({(s.before, s.worst_class.n, s.worst_class.label.index) for s in some}) > 1


def test_images_that_the_method_does_not_read_are_only_evaluated_on(toy: Toy) -> None:
    samples = samples_of({1: sure(toy, 1)})
    with pytest.warns(DataWarning, match=r"^mask does not read images of the retained classes\. Those given are only"):
        made = Mask()(toy.model, samples, retain=toy.retain()).record
    assert made.retained_accuracy.n == 72
    assert not made.retained_accuracy.read_by_method
    assert (made.uses, made.retain) == ((), None)
    assert made.digest == Mask()(toy.model, samples).record.digest


@pytest.mark.filterwarnings("ignore::unhot.errors.SampleWarning")
def test_images_that_are_read_are_described_and_in_the_digest(toy: Toy) -> None:
    samples, (x, y) = samples_of({1: sure(toy, 1)}), toy.retain()

    def tuned(x: Tensor, y: Tensor) -> ForgetRecord:
        return Finetune(epochs=1, batch_size=16)(toy.model, samples, retain=(x, y)).record

    even, odd, relabelled = tuned(x[::2], y[::2]), tuned(x[1::2], y[1::2]), tuned(x[::2], (y[::2] + 2) % 4)
    assert len({r.weights_sha256 for r in (even, odd, relabelled)}) == 3
    assert len({r.digest for r in (even, odd, relabelled)}) == 3
    assert len({r.retain.sha256 for r in (even, odd, relabelled)}) == 3
    assert tuned(x[::2], y[::2]).digest == even.digest
    assert (even.retain.origin, even.retain.count) == ("tensors", 36)
    whole, without = tuned(toy.x, toy.y), tuned(x, y)
    assert (whole.digest, whole.retain) == (without.digest, without.retain)  # those of the class are left out


def test_the_preprocessing_determines_the_result(toy: Toy) -> None:
    pixels = (sure(toy, 1) * 20 + 128).clamp(0, 255).to(torch.uint8)

    def digest(mean: float) -> str:
        spec = unhot.InputSpec(height=8, width=8, channels=1, mean=(mean,), std=(20 / 255,))
        return Mask()(Classifier.wrap(toy.model, input=spec), samples_of({1: pixels})).record.digest

    assert digest(128 / 255) == digest(128 / 255) != digest(129 / 255)


def test_images_of_a_class_that_went_before_are_not_retained(toy: Toy) -> None:
    first = Mask()(toy.model, samples_of({1: sure(toy, 1)})).classifier
    seen: set[int] = set()

    class Looks(Breaks):
        name: ClassVar[str] = "looks"

        def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            seen.update(data.retain.y.tolist())
            return Outcome(model, "done", cut="mask")

    with pytest.warns(DataWarning, match=r"24.*1.*forget"):
        made = Looks()(first, samples_of({3: sure(toy, 3)}), retain=(toy.x, toy.y), check=(toy.x, toy.y))
    record = made.record
    assert seen == {0, 2}
    assert (record.retain.count, record.retained_accuracy.n) == (48, 48)


def test_a_method_goes_by_its_name(toy: Toy) -> None:
    samples = samples_of({1: sure(toy, 1)})
    made = unhot.forget(toy.model, samples, method="nhle-cwm", steps=1)
    assert (made.record.method, made.record.hyperparameters["steps"]) == ("nhle-cwm", 1)
    assert unhot.forget(toy.model, samples, steps=2).record.hyperparameters["steps"] == 2
    assert (made.model(samples.images.x)[:, 1] == CUT_LOGIT).all()
    with pytest.raises(UnknownNameError, match=r"Unknown.*'nhle-cvm'.*'nhle-cwm'"):
        unhot.forget(toy.model, samples, method="nhle-cvm")
    with pytest.raises(UnknownNameError, match=r"Unknown.*hyperparameter.*'steps'"):
        unhot.forget(toy.model, samples, method="mask", steps=1)
    with pytest.raises(OptionError, match=r"method.*itself.*Mask"):
        unhot.forget(toy.model, samples, method=Mask(), cut="none")
    with pytest.raises(OptionError, match="method takes the name of a method, or a method such as"):
        unhot.forget(toy.model, samples, method=Mask)
    with pytest.raises(OptionError, match=r"guard takes unhot\.ClassStatistics.* Got 0\.5"):
        unhot.forget(toy.model, samples, method="nhle-cwm", guard=0.5)
