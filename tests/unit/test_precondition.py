from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unhot.methods.parts.preconditioning import ROWS, Preconditioner
from unhot.models.arch import build
from unhot.models.classifier import Classifier
from unhot.models.layers import nearest_head, weight_layers
from unhot.records.model import InputSpec


@pytest.fixture(autouse=True)
def _seeded(keep_generators: None) -> None:
    torch.manual_seed(0)


def classifier(*layers: nn.Module, x: Tensor) -> Classifier:
    """Some layers, a head after them, in float64."""
    body = nn.Sequential(*layers, nn.Flatten()).double()
    head = nn.Linear(body(x).shape[1], 3).double()
    return Classifier.wrap(nn.Sequential(*body, head).eval(), x)


def of(model: Classifier, x: Tensor, strength: float, seed: int = 0) -> Preconditioner:
    names = weight_layers(model, x)
    return Preconditioner.of(model, names, x, strength, torch.Generator().manual_seed(seed))


def rows_slowly(layer: nn.Module, x: Tensor) -> Tensor:
    """What each output value is a product of, told by autograd: the gradient of one output by the weights."""
    out = layer(x)
    places = out[:, 0].flatten() if isinstance(layer, nn.Conv2d) else out.reshape(-1, out.shape[-1])[:, 0]
    return torch.stack(
        [torch.autograd.grad(o, layer.weight, retain_graph=True)[0][0].flatten() for o in places]
    ).detach()


CONVS: dict[str, Callable[[], nn.Conv2d]] = {
    "plain": lambda: nn.Conv2d(2, 3, 3),
    "padding": lambda: nn.Conv2d(2, 3, 3, padding=1),
    "oblong": lambda: nn.Conv2d(2, 3, (2, 3), padding=(1, 2), stride=(1, 2)),
    "stride": lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
    "dilation": lambda: nn.Conv2d(2, 3, 2, dilation=2, padding=1),
    "same": lambda: nn.Conv2d(2, 3, 4, padding="same"),
    "valid": lambda: nn.Conv2d(2, 3, 2, padding="valid"),
    "circular": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    "reflect": lambda: nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect"),
    "replicate": lambda: nn.Conv2d(2, 3, 3, padding=2, padding_mode="replicate"),
    "pointwise": lambda: nn.Conv2d(2, 3, 1),
}

EVEN = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def images(batch: int = 3, size: int = 5) -> Tensor:
    return torch.randn(batch, 2, size, size, dtype=torch.float64)


def dense(rows: Tensor, gradient: Tensor, strength: float) -> Tensor:
    second = rows.T @ rows
    inverse = torch.linalg.inv(torch.eye(len(second), dtype=torch.float64) + strength * second / second.trace())
    return (gradient.flatten(1) @ inverse).view_as(gradient)


@EVEN
@pytest.mark.parametrize("strength", [0.0, 0.3, 20.0, 1e4])
@pytest.mark.parametrize("name", CONVS)
def test_convolutions_agree_with_the_dense_inverse(name: str, strength: float) -> None:
    x = images()
    model = classifier(CONVS[name](), x=x)
    conv = model.module[0]
    rows = rows_slowly(conv, x)
    assert len(rows) <= ROWS  # none is left out
    gradient = torch.randn_like(conv.weight)
    (got,) = of(model, x, strength)((gradient,))
    torch.testing.assert_close(got, dense(rows, gradient, strength), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("strength", [0.0, 0.3, 20.0, 1e4])
def test_linear_layers_agree_with_the_dense_inverse(strength: float) -> None:
    x = images()
    model = classifier(nn.Flatten(), nn.Linear(50, 8), nn.Tanh(), nn.Linear(8, 6), x=x)
    first, second = model.module[1], model.module[3]
    gradients = torch.randn_like(first.weight), torch.randn_like(second.weight)
    got = list(of(model, x, strength)(gradients))
    torch.testing.assert_close(got[0], dense(x.flatten(1), gradients[0], strength))
    torch.testing.assert_close(got[1], dense(first(x.flatten(1)).tanh().detach(), gradients[1], strength))


def test_a_linear_layer_on_tokens() -> None:
    x = images()
    model = classifier(nn.Flatten(2), nn.Linear(25, 6), x=x)
    gradient = torch.randn(6, 25, dtype=torch.float64)
    (got,) = of(model, x, 50.0)((gradient,))
    torch.testing.assert_close(got, dense(x.reshape(6, 25), gradient, 50.0))


def test_strength_0_is_the_identity() -> None:
    x = images()
    model = classifier(CONVS["padding"](), nn.ReLU(), nn.Flatten(), nn.Linear(75, 4), x=x)
    gradients = tuple(torch.randn_like(w) for w in of(model, x, 0.0).weights())
    for got, given in zip(of(model, x, 0.0)(gradients), gradients, strict=True):
        assert torch.equal(got, given)


@EVEN
@pytest.mark.parametrize("name", CONVS)
def test_infinite_strength_keeps_a_convolutions_outputs(name: str) -> None:
    x = images()[:, :1].expand(-1, 2, -1, -1)  # both channels the same: their difference is free
    conv = CONVS[name]().double()
    model = classifier(conv, x=x)
    gradient = torch.randn_like(conv.weight)
    (free,) = of(model, x, 0.0)((gradient,))
    (spared,) = of(model, x, 1e12)((gradient,))
    before = conv(x).detach()
    with torch.no_grad():
        conv.weight += spared
        kept = (conv(x) - before).norm()
        conv.weight += free - spared
        moved = (conv(x) - before).norm()
    assert kept < 1e-8 * moved
    assert spared.norm() > 1e-3 * free.norm()  # there are free directions


def test_infinite_strength_keeps_linear_outputs_to_first_order() -> None:
    """All layers step at once: on the recorded inputs what the net returns changes by the square of the step."""
    x = images(batch=3)
    model = classifier(nn.Flatten(), nn.Linear(50, 8), nn.Tanh(), nn.Linear(8, 6), x=x)
    guard = of(model, x, 1e14)
    directions = list(guard(tuple(torch.randn_like(w) for w in guard.weights())))
    assert all(d.norm() > 0.1 for d in directions)
    start = model.logits(x).detach()
    with torch.no_grad():
        for w, d in zip(guard.weights(), directions, strict=True):
            w += d
        assert (model.logits(x) - start).abs().max() < 1e-6
        other = images(batch=3)
        assert (model.logits(other) - start).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_factorised_in_float32(dtype: torch.dtype) -> None:
    x = images()
    double = classifier(CONVS["padding"](), nn.Flatten(), nn.Linear(75, 4), x=x)
    half = replace(double, module=copy.deepcopy(double.module).to(dtype))
    guard = of(half, x.to(dtype), 20.0)
    assert {t.dtype for pair in guard.factors.values() for t in pair} == {torch.float32}
    gradients = tuple(torch.randn_like(w) for w in guard.weights())
    wanted = of(double, x, 20.0)(tuple(g.double() for g in gradients))
    for got, exact in zip(guard(gradients), wanted, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), exact, rtol=0.05, atol=0.05)


def test_stronger_means_less_change() -> None:
    x = images()
    model = classifier(nn.Flatten(), nn.Linear(50, 8), x=x)
    gradient = torch.randn(8, 50, dtype=torch.float64)
    changes = [float((x.flatten(1) @ next(of(model, x, s)((gradient,))).T).norm()) for s in (0.0, 1.0, 10.0, 1e3, 1e6)]
    assert changes == sorted(changes, reverse=True)
    assert changes[-1] < 1e-3 * changes[0]


def test_only_some_rows_are_kept_chosen_by_the_generator() -> None:
    x = images(batch=30)
    model = classifier(CONVS["padding"](), x=x)
    first, again, other = of(model, x, 10.0, 1), of(model, x, 10.0, 1), of(model, x, 10.0, 2)
    rows = [p.factors["0"][0] for p in (first, again, other)]
    assert rows[0].shape == (ROWS, 18)
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert float(rows[0].square().sum()) == pytest.approx(10.0)


def test_inputs_of_zeros_guard_nothing() -> None:
    x = torch.zeros(3, 2, 5, 5, dtype=torch.float64)
    model = classifier(CONVS["padding"](), x=x)
    gradient = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    assert torch.equal(next(of(model, x, 1e4)((gradient,))), gradient)


class Branches(nn.Module):
    """Defined in another order than called, with layers that do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.late = nn.Linear(8, 4)
        self.grouped = nn.Conv2d(2, 2, 3, groups=2, padding=1)
        self.unused = nn.Linear(4, 4)
        self.norm = nn.BatchNorm2d(2)
        self.transposed = nn.ConvTranspose2d(2, 2, 1)
        self.early = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.transposed(self.norm(self.grouped(self.early(x)))).mean(3)
        return self.head(self.late(torch.cat([z.amax(2), z.amin(2), z.mean(2), z[:, :, 0]], 1)))


def test_layers_in_the_order_they_are_called() -> None:
    x = images().float()
    net = Branches().eval()
    model = Classifier.wrap(net, x)
    assert weight_layers(model, x) == ["early", "late"]
    assert not [m for m in net.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_a_head_alone_has_no_layers_before_it() -> None:
    x = images()
    model = classifier(x=x)
    assert weight_layers(model, x) == []
    assert list(of(model, x, 1.0)(())) == []


def test_layers_of_a_transformer() -> None:
    spec = InputSpec(height=8, width=8, channels=1, mean=(0.0,), std=(1.0,))
    model = Classifier.wrap(build("vit_tiny", 4, spec).eval())
    layers = weight_layers(model, torch.randn(2, 1, 8, 8))
    assert layers == ["embed", *(f"encoder.layers.{i}.linear{j}" for i in range(6) for j in (1, 2))]


def test_gradients_and_layers_must_match() -> None:
    x = images()
    guard = of(classifier(nn.Flatten(), nn.Linear(50, 8), nn.Linear(8, 8), x=x), x, 1.0)
    assert [w.shape for w in guard.weights()] == [(8, 50), (8, 8)]
    with pytest.raises(ValueError, match=r"shorter"):
        list(guard((torch.zeros(8, 50, dtype=torch.float64),)))


def test_the_share_of_the_layers_is_rounded_up_and_counted_from_the_head() -> None:
    layers = ["a", "b", "c", "d"]
    found = [nearest_head(layers, depth) for depth in (0, 0.01, 0.25, 0.26, 0.75, 1)]
    assert found == [[], ["d"], ["d"], ["c", "d"], ["b", "c", "d"], layers]
