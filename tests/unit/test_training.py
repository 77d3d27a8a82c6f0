from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support import DEVICE
from unhot import training as module
from unhot.data.augment import Augment
from unhot.data.images import LabelledImages
from unhot.data.source import Source
from unhot.errors import DataError, InputError, OptionError, UnknownNameError
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec
from unhot.runtime import Runtime
from unhot.training import TrainSettings, accuracy, fit, train

SPEC = InputSpec(height=12, width=12, channels=1, mean=(0.5,), std=(0.25,))
NAMES = ("a", "b", "c", "d")
SETTINGS = TrainSettings(epochs=3, batch_size=16, lr=0.05)


def toy(n: int = 40, seed: int = 0) -> LabelledImages:
    """Classes that differ by a bright quarter; the lowest bits of the first pixel are the class."""
    y = torch.arange(n) % 4
    x = torch.randint(0, 100, (n, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    for i, c in enumerate(y.tolist()):
        x[i, 0, 6 * (c // 2) : 6 * (c // 2) + 6, 6 * (c % 2) : 6 * (c % 2) + 6] += 150
    return LabelledImages(x, y, NAMES, "toy", tuple(range(n)))


@pytest.fixture
def source() -> Source:
    return Source("toy", toy(), toy(12, seed=1), SPEC, Augment(1), 5)


@pytest.fixture
def model(keep_generators: None) -> Classifier:
    """Convolution, batch normalisation and dropout: everything that a checkpoint has to keep."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(150, 4),
    )
    return Classifier.wrap(net, class_names=NAMES, input=SPEC)


class InterruptError(Exception):
    pass


def runtime(seed: int = 0, stop_after: float = float("inf")) -> Runtime:
    """A runtime whose progress raises once more images than that were trained on."""

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            if done > stop_after:
                raise InterruptError

        yield advance

    return Runtime(DEVICE, seed=seed, progress=progress)


def trained(model: Classifier, seed: int = 0, images: LabelledImages | None = None, **settings: Any) -> str:
    twin = model.copy()
    values = {"epochs": 3, "batch_size": 16, "lr": 0.05} | settings
    fit(twin, images or toy(), TrainSettings.of(values), Augment(1), runtime(seed))
    return twin.sha256()


def test_the_same_seed_gives_the_same_weights(model: Classifier) -> None:
    first = trained(model)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert trained(model) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert trained(model, seed=1) != first


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 2}, {"batch_size": 8}, {"lr": 0.01}, {"momentum": 0.5}, {"weight_decay": 0.1}, {"clip": 0.01}],
    ids=lambda s: next(iter(s)),
)
def test_every_setting_matters(model: Classifier, settings: dict[str, float]) -> None:
    assert trained(model, **settings) != trained(model)


def test_training_is_that_of_slow_obvious_code(keep_generators: None) -> None:
    """SGD with Nesterov's momentum, decay and a clip; a cosine up in a quarter of the steps, and down to nearly 0."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    model = Classifier.wrap(net, class_names=NAMES, input=SPEC)
    settings = TrainSettings(epochs=3, batch_size=8, lr=0.05, momentum=0.8, weight_decay=0.01, clip=3.0)
    twin, images, run = model.copy(), toy(), runtime()
    fit(twin, images, settings, Augment(2, flip=True), run)
    weights = [w.detach().clone().requires_grad_() for w in net.parameters()]
    velocity, steps, lengths = [torch.zeros_like(w) for w in weights], 15, list[float]()
    for epoch in range(3):
        order = torch.randperm(40, generator=run.generator("order", epoch))
        moving = run.generator("augment", epoch)
        for batch in range(5):
            index, step = order[8 * batch : 8 * batch + 8], 5 * epoch + batch
            x = (Augment(2, flip=True)(images.x[index], moving) / 255 - 0.5) / 0.25
            p = (x.flatten(1) @ weights[0].T + weights[1]).softmax(1)[torch.arange(8), images.y[index]]
            gradients = torch.autograd.grad(-p.log().mean(), weights)
            lengths.append(torch.cat([g.flatten() for g in gradients]).norm().item())
            top = 0.25 * steps - 1  # the step at which the rate is highest
            if step <= top:
                rate = 0.05 + (0.002 - 0.05) * (1 + math.cos(math.pi * step / top)) / 2
            else:
                done = (step - top) / (steps - 1 - top)
                rate = 2e-7 + (0.05 - 2e-7) * (1 + math.cos(math.pi * done)) / 2
            with torch.no_grad():
                for w, v, g in zip(weights, velocity, gradients, strict=True):
                    g = g * min(1.0, 3.0 / lengths[-1]) + 0.01 * w
                    v.mul_(0.8).add_(g)
                    w.sub_(rate * (g + 0.8 * v))
    assert min(lengths) < 3.0 < max(lengths)  # the clip cuts some of them
    for weight, wanted in zip(twin.module.parameters(), weights, strict=True):
        torch.testing.assert_close(weight, wanted, rtol=1e-3, atol=1e-5)


def test_augmentation_matters(model: Classifier) -> None:
    twin = model.copy()
    fit(twin, toy(), TrainSettings(epochs=3, batch_size=16, lr=0.05), Augment(), runtime())
    assert twin.sha256() != trained(model)


def test_every_image_is_seen_once_an_epoch_in_another_order(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(logits: Tensor, y: Tensor) -> Tensor:
        seen.extend(y.tolist())
        return nn.functional.cross_entropy(logits[:, :1].repeat(1, 40), y)

    monkeypatch.setattr(module, "cross_entropy", spy)
    images = replace(toy(), y=torch.arange(40), class_names=None)  # the labels tell which image it is
    fit(model.copy(), images, SETTINGS, Augment(1), runtime())
    epochs = [seen[i : i + 40] for i in (0, 40, 80)]
    assert [sorted(e) for e in epochs] == [list(range(40))] * 3
    assert len({tuple(e) for e in epochs}) == 3


def test_training_learns_and_ends_in_eval_mode(model: Classifier) -> None:
    before = accuracy(model, toy(80, seed=5), runtime())
    twin = model.copy()
    watch = runtime()
    fit(twin, toy(), TrainSettings(epochs=10, batch_size=16, lr=0.05), Augment(), watch)
    assert accuracy(twin, toy(80, seed=5), runtime()) > 0.95 > before
    assert not any(m.training for m in twin.module.modules())
    assert watch.steps == 10 * 3  # batches of 16, 16 and 8


@pytest.mark.parametrize("stop_after", [40, 79, 80, 110])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    model: Classifier, tmp_path: Path, stop_after: int
) -> None:
    settings, file = TrainSettings(epochs=4, batch_size=16, lr=0.05), tmp_path / "checkpoint"
    first, second = model.copy(), model.copy()
    with pytest.raises(InterruptError):
        fit(first, toy(), settings, Augment(1), runtime(stop_after=stop_after), file)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]
    with torch.no_grad():
        for weight in second.module.parameters():
            weight.zero_()  # all is taken from the checkpoint
    watch = runtime(stop_after=160 - 40 * (stop_after // 40))
    saved = torch.load(file, weights_only=True)
    assert saved["seconds"] > 0
    torch.save(saved | {"seconds": 1000.0}, file)
    assert 1000 < fit(second, toy(), settings, Augment(1), watch, file) < 1100
    assert second.sha256() == trained(model, epochs=4)
    assert watch.steps == 12


def test_an_interruption_in_the_first_epoch_starts_again(model: Classifier, tmp_path: Path) -> None:
    first = model.copy()
    with pytest.raises(InterruptError):
        fit(first, toy(), TrainSettings(epochs=3), Augment(1), runtime(stop_after=1), tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_checkpointing_changes_nothing(model: Classifier, tmp_path: Path) -> None:
    twin = model.copy()
    fit(twin, toy(), TrainSettings(epochs=3, batch_size=16, lr=0.05), Augment(1), runtime(), tmp_path / "checkpoint")
    assert twin.sha256() == trained(model)


@pytest.fixture
def checkpoint(model: Classifier, tmp_path: Path) -> Path:
    with pytest.raises(InterruptError):
        fit(model.copy(), toy(), SETTINGS, Augment(1), runtime(stop_after=40), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(
    ("settings", "seed", "images"),
    [
        (SETTINGS.model_copy(update={"epochs": 4}), 0, toy()),
        (SETTINGS.model_copy(update={"lr": 0.06}), 0, toy()),
        (SETTINGS.model_copy(update={"batch_size": 15}), 0, toy()),
        (SETTINGS, 1, toy()),
        (SETTINGS, 0, toy(36)),
        (SETTINGS, 0, replace(toy(), origin="other")),
        (SETTINGS, 0, replace(toy(), x=toy(seed=9).x)),
        (SETTINGS, 0, replace(toy(), class_names=("b", "a", "c", "d"))),
    ],
    ids=["epochs", "lr", "batch_size", "seed", "images", "origin", "pixels", "names"],
)
def test_a_checkpoint_of_another_run_is_refused(
    model: Classifier, checkpoint: Path, settings: TrainSettings, seed: int, images: LabelledImages
) -> None:
    content = checkpoint.read_bytes()
    with pytest.raises(InputError, match=r"checkpoint.*settings.*Remove"):
        fit(model.copy(), images, settings, Augment(1), runtime(seed), checkpoint)
    assert checkpoint.read_bytes() == content


def test_a_checkpoint_of_a_run_without_another_class_is_refused(source: Source, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    with pytest.raises(InterruptError):
        train(source, "lenet5", exclude=["a"], runtime=runtime(stop_after=30), checkpoint=file)
    with pytest.raises(InputError, match=r"other settings"):  # it saw class b, which is now to be excluded
        train(source, "lenet5", exclude=["b"], runtime=runtime(), checkpoint=file)


def test_a_checkpoint_of_another_augmentation_is_refused(model: Classifier, checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"other settings"):
        fit(model.copy(), toy(), SETTINGS, Augment(3), runtime(), checkpoint)


def test_a_checkpoint_of_another_input_is_refused(model: Classifier, checkpoint: Path) -> None:
    other = replace(model.copy(), input=SPEC.model_copy(update={"std": (0.5,)}))
    with pytest.raises(InputError, match=r"other settings"):
        fit(other, toy(), SETTINGS, Augment(1), runtime(), checkpoint)


def test_a_checkpoint_of_another_net_is_refused(checkpoint: Path, keep_generators: None) -> None:
    other = Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(144, 4)), class_names=NAMES, input=SPEC)
    with pytest.raises(InputError):
        fit(other, toy(), SETTINGS, Augment(1), runtime(), checkpoint)


def test_a_file_that_is_no_checkpoint_is_refused(model: Classifier, tmp_path: Path) -> None:
    torch.save(model.module.state_dict(), tmp_path / "checkpoint")
    with pytest.raises(InputError):
        fit(model.copy(), toy(), SETTINGS, Augment(1), runtime(), tmp_path / "checkpoint")


def test_a_damaged_checkpoint_is_refused(model: Classifier, checkpoint: Path) -> None:
    for content in (checkpoint.read_bytes()[:500], b"", b"nonsense"):
        checkpoint.write_bytes(content)
        with pytest.raises(InputError, match=r"checkpoint.*damaged.*Remove.*start"):
            fit(model.copy(), toy(), SETTINGS, Augment(1), runtime(), checkpoint)


def test_a_diverging_run_is_stopped(model: Classifier) -> None:
    with pytest.raises(InputError, match=r"^Training diverged in epoch \d\. Lower --lr \(now 1e\+20\)\.$"):
        trained(model, lr=1e20)


def test_nothing_to_train_on(model: Classifier) -> None:
    for m, images in ((model, toy().select(torch.zeros(0, dtype=torch.int64))), (replace(model, input=None), toy())):
        with pytest.raises(DataError, match=r"Training.*images.*input"):
            fit(m, images, SETTINGS, Augment(), runtime())


@pytest.mark.parametrize(("epochs", "batch_size"), [(4, 64), (2, 20), (1, 10)])
def test_four_steps(model: Classifier, epochs: int, batch_size: int) -> None:
    assert trained(model, epochs=epochs, batch_size=batch_size) != model.sha256()


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
def test_a_few_steps(model: Classifier, steps: int) -> None:
    assert trained(model, epochs=steps, batch_size=64) != model.sha256()


def test_no_momentum(model: Classifier) -> None:
    assert trained(model, momentum=0) != model.sha256()


def test_bad_settings_are_listed() -> None:
    with pytest.raises(OptionError) as caught:
        TrainSettings.of({"epochs": 0, "lr": -1, "warmup": 3, "clip": "far", "momentum": 1})
    said = str(caught.value)
    assert said.startswith("Invalid settings of training: ")
    for part in ("'epochs': ", "Got 0", "'lr': ", "Got -1", "'warmup': ", "'clip': ", "Got 'far'", "'momentum': "):
        assert part in said
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(OptionError, match=r"'lr': "):
            TrainSettings.of({"lr": wrong})
    assert TrainSettings.of({"epochs": 3}).epochs == 3


def test_an_excluded_class_is_never_seen(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[int] = []
    brightest: list[int] = []

    def spy_loss(logits: Tensor, y: Tensor) -> Tensor:
        labels.extend(y.tolist())
        return nn.functional.cross_entropy(logits, y)

    def spy_pixels(pixels: Tensor, spec: InputSpec) -> Tensor:
        quarters = nn.functional.avg_pool2d(pixels.float(), 6).flatten(1)
        brightest.extend(quarters.argmax(1).tolist())
        return original(pixels, spec)

    original = module.prepare
    monkeypatch.setattr(module, "cross_entropy", spy_loss)
    monkeypatch.setattr(module, "prepare", spy_pixels)
    model, record = train(source, "lenet5", exclude=["c", 0], runtime=runtime())
    assert set(labels) == set(brightest) == {1, 3}
    assert len(labels) == 5 * 20
    assert record.train_images == 20
    assert [c.name for c in record.excluded] == ["c", "a"]
    assert [c.name for c in model.classes] == list(NAMES)  # the net keeps the outputs
    assert model.head_layer.out_features == 4


def test_too_few_classes_left(source: Source) -> None:
    for excluded in (["a", "b", "c"], ["a", "b", "c", "d"]):
        with pytest.raises(DataError, match=r"left.*train.*Exclude"):
            train(source, "lenet5", exclude=excluded, runtime=runtime())
    with pytest.raises(UnknownNameError, match=r"Unknown class 'e'\."):
        train(source, "lenet5", exclude=["e"], runtime=runtime())
    with pytest.raises(DataError, match=r"toy has no train split"):
        train(replace(source, train=None), "lenet5", runtime=runtime())


def test_the_record_says_what_was_done(source: Source) -> None:
    model, record = train(source, "lenet5", settings={"lr": 0.03}, seed=7, runtime=runtime())
    assert (record.dataset, record.arch, record.seed, record.train_images) == ("toy", "lenet5", 7, 40)
    assert record.settings["lr"] == 0.03
    assert record.settings["epochs"] == 5  # the data set's
    assert record.settings["precision"] == "fp32"  # a small net
    assert record.test_accuracy == accuracy(model, source.test_images, runtime())
    assert record.weights_sha256 == model.sha256()
    assert record.cost.steps == 5
    assert (model.arch, model.input, model.outputs) == ("lenet5", SPEC, 4)
    again, _ = train(source, "lenet5", settings={"lr": 0.03}, seed=7, runtime=runtime())
    assert again.sha256() == model.sha256()
    other, blind = train(replace(source, test=None), "lenet5", seed=8, runtime=runtime())
    assert other.sha256() != model.sha256()
    assert blind.test_accuracy is None
    assert blind.settings["lr"] == 0.1  # the net's


def test_accuracy_is_that_on_the_classes_trained_on(source: Source) -> None:
    model, record = train(source, "lenet5", exclude=["c", 0], settings={"epochs": 30}, runtime=runtime())
    shown = source.test_images.of([1, 3])
    assert record.test_accuracy == accuracy(model, shown, runtime()) > 0.9
    only_excluded = replace(source, test=source.test_images.of([0, 2]))
    assert train(only_excluded, "lenet5", exclude=["c", 0], runtime=runtime())[1].test_accuracy is None


def test_options_size_and_precision(digits: Source) -> None:
    some = replace(digits, train=digits.train_images.select(torch.arange(60)), test=None)
    settings = {"epochs": 1, "batch_size": 32}
    model, record = train(
        some, "resnet9", options={"width": 4}, image_size=8, settings=settings, precision="bf16", runtime=runtime()
    )
    assert model.input.shape == (1, 8, 8)
    assert record.arch_options == model.arch_options == {"width": 4}
    assert record.settings["precision"] == "bf16"
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert all(p.is_contiguous() for p in model.module.parameters())


def test_accuracy_is_the_share_that_is_right(keep_generators: None) -> None:
    head = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(4))
    model = Classifier.wrap(nn.Sequential(nn.Flatten(), head), class_names=NAMES)
    x = torch.eye(4)[[0, 1, 2, 3, 0]].view(5, 1, 2, 2)
    images = LabelledImages(x, torch.tensor([0, 1, 3, 3, 3]), ("a", "b", "c", "x"), "toy", tuple(range(5)))
    with pytest.raises(DataError, match=r"does not have the classes x"):
        accuracy(model, images, runtime())
    assert accuracy(model, replace(images, class_names=NAMES), runtime()) == pytest.approx(3 / 5)
    backwards = replace(images, class_names=tuple(reversed(NAMES)))
    assert accuracy(model, backwards, runtime()) == pytest.approx(1 / 5)  # d, c, a, a, a against a, b, c, d, a
    assert not any(p.grad is not None for p in model.module.parameters())
