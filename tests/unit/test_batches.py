"""No batch of a single image, which batch normalisation cannot normalise in training, unless it was asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import unhot
from unhot.data.augment import Augment
from unhot.data.images import CACHED, LabelledImages, at_once
from unhot.data.samples import Samples
from unhot.data.source import Source
from unhot.errors import DataError
from unhot.evaluation.auditor import _floor
from unhot.evaluation.view import Views
from unhot.methods import get
from unhot.methods.parts.batches import forward
from unhot.methods.parts.data import Batch
from unhot.methods.parts.losses import ENCODINGS, Request
from unhot.methods.svd import Svd
from unhot.models.classifier import Classifier
from unhot.models.unused import unused_weights
from unhot.records.model import InputSpec
from unhot.runtime import Runtime
from unhot.statistics import ClassStatistics
from unhot.training import TrainSettings, batches_of, fit

SPEC = InputSpec.model_validate({"height": 4, "width": 4, "channels": 1, "mean": [0.5], "std": [0.5]})
TRAINING = {
    "finetune": {"epochs": 1}, "scrub": {"epochs": 1}, "neggrad+": {}, "salun": {"epochs": 1}, "ugradsl": {},
    "retrain": {"epochs": 1},
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning")


@pytest.fixture
def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return made.eval()


@pytest.fixture
def images(net: nn.Module, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(200, 1, 4, 4, generator=generator)
    with torch.no_grad():
        return x, net(x).argmax(1)


def runtime() -> Runtime:
    return Runtime(torch.device("cpu"))


@pytest.mark.parametrize(
    ("count", "size", "wanted"),
    [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (5, 4, [5]), (1, 4, [1]), (3, 1, [1, 1, 1]), (3, 2, [3])],
)
def test_what_is_left_over_joins_the_batch_before(count: int, size: int, wanted: list[int]) -> None:
    parts = batches_of(torch.arange(count), size)
    assert [len(p) for p in parts] == wanted
    assert torch.equal(torch.cat(parts), torch.arange(count))


def test_how_many_inputs_a_pass_takes() -> None:
    sizes = {28: 512, 39: 512, 64: 196, 112: 64, 224: 16, 1024: 16}
    assert {side: at_once((3, side, side)) for side in sizes} == sizes
    assert at_once(None) == 512
    assert [at_once((3, side, side), CACHED) for side in (8, 112, 224)] == [64, 64, 16]


PASSES: dict[str, Callable[[Classifier, Source, Samples, Runtime], object]] = {
    "guard collect": lambda m, s, f, r: ClassStatistics.collect(m, s.test_images, r),
    "svd": lambda m, s, f, r: Svd(per_class=4, alpha_r=1.0, alpha_f=1.0)(m, f, retain=s.train_images, runtime=r),
    "audit": lambda m, s, f, r: Views(m, m, [], [m.label(3)], {"test": s.test_images}, r).compute(),
    "the floor of an audit": lambda m, s, f, r: _floor(Views(m, m, [], [m.label(3)], {"test": s.test_images}, r), 70),
    "unused weights": lambda m, s, f, r: unused_weights(m, torch.zeros(70, 1, 16, 16)),
    "logits": lambda m, s, f, r: Views(m, m, [], [m.label(3)], {}, r).logits(m, torch.zeros(70, 1, 16, 16)),
}


@pytest.mark.parametrize("what", PASSES)
def test_no_pass_takes_more_large_pictures_than_fit(
    what: str, original: Classifier, digits: Source, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unhot.data.images.PIXELS", 20 * 16 * 16)
    sizes: list[int] = []
    with nn.modules.module.register_module_forward_hook(
        lambda module, args, out: sizes.append(len(args[0])) if isinstance(module, nn.Conv2d) else None
    ):
        PASSES[what](original, digits, samples, runtime())
    assert max(sizes) == 20


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_gradients_of_batches_are_those_of_all_samples(
    net: nn.Module, images: tuple[Tensor, Tensor], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the last batch is smaller; and no pass takes more than it may."""
    model, sizes = Classifier.wrap(net, example=images[0][:2]), list[int]()
    x, y = images[0][:50].double(), images[1][:50]
    net.double()
    samples = Batch(x, y, model.logits(x + 0.1).detach())
    weights = [p for p in net.parameters() if p.ndim == 2]

    def loss(logits: Tensor, some: Batch) -> Tensor:
        sizes.append(len(logits))
        return ENCODINGS[encoding](logits, Request(some.y, [0], some.logits))

    whole, at_once_ = forward(model, samples, loss)
    expected = at_once_(weights)
    monkeypatch.setattr("unhot.data.images.PIXELS", 16 * 16)
    logits, gradients = forward(model, samples, loss)
    torch.testing.assert_close(logits, whole.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(weights), expected, rtol=1e-9, atol=1e-12)
    assert sizes == [50, 16, 16, 16, 2]


@pytest.mark.parametrize("name", TRAINING)
def test_methods_train_on_any_number_of_images(name: str, net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    label = int(y.mode().values)
    others = (y != label).nonzero().flatten()[:17]
    samples = unhot.draw(images, [label], 9)
    method = get(name)(**TRAINING[name], batch_size=8)
    found = method(net, samples, retain=(x[others], y[others]), runtime=runtime())
    assert all(p.isfinite().all() for p in found.model.parameters())
    if name in ("finetune", "scrub", "retrain"):  # the others put samples beside retained images
        with pytest.raises(DataError, match=r"normalise.*single.*larger"):
            method(net, samples, retain=(x[others[:1]], y[others[:1]]), runtime=runtime())


def test_training_takes_any_number_of_images(net: nn.Module) -> None:
    model = Classifier.wrap(net, input=SPEC)
    pixels = torch.randint(0, 256, (9, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = LabelledImages(pixels, torch.arange(9) % 3, None, "toy", tuple(range(9)))
    run, settings = runtime(), TrainSettings(epochs=2, batch_size=4, lr=0.01)
    fit(model, images, settings, Augment(), run)
    assert run.steps == 4  # of 4 and of 5 images, twice
    with pytest.raises(DataError, match=r"normalise.*batch.*single"):
        fit(model, images, settings.model_copy(update={"batch_size": 1}), Augment(), runtime())
