"""Replay points: which places decide all that follows, in nets with and without ways around their layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unhot.models.arch import build
from unhot.models.classifier import Classifier
from unhot.models.layers import weight_layers
from unhot.models.replay import replay_point, replay_points
from unhot.records.model import InputSpec

pytestmark = pytest.mark.usefixtures("keep_generators")


def found(net: nn.Module, x: Tensor) -> dict[str, str]:
    model = Classifier.wrap(net.eval(), x)
    points = replay_points(model, weight_layers(model, x[:1]), x[:1])
    assert points == {layer: replay_point(model, layer, x[:1]) for layer in points}
    return points


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=generator)


def test_layers_in_a_row_are_split_points_of_their_own(x: Tensor) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(576, 5))
    assert found(net, x) == {"0": "", "2": "2"}


@pytest.mark.parametrize(
    ("arch", "last"),
    [("resnet9", "res3"), ("resnet18", "stage4.1"), ("vgg11_bn", ""), ("torchvision:densenet121", "")],
)
def test_what_flows_through_the_last_split_point_decides_the_logits(arch: str, last: str, x: Tensor) -> None:
    torch.manual_seed(0)
    spec = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    x = torch.nn.functional.interpolate(x, size=32)
    net = build(arch, 5, spec, {"width": 4} if arch == "resnet9" else {}).eval()
    point = list(found(net, x).values())[-1]
    assert point != ""
    assert last in ("", point)
    model = Classifier.wrap(net, x)
    with torch.no_grad(), model.recording([point]) as seen:
        wanted = model.logits(x)
        flow = seen[point]
        with model.replacing(point, flow):
            torch.testing.assert_close(model.logits(torch.zeros(1, 3, 32, 32)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ["resnet9", "torchvision:resnet18"])
def test_a_layer_is_not_before_its_split_point(arch: str, x: Tensor) -> None:
    """Given what flows there, the logits still depend on the layer; torchvision's blocks call one ReLU twice."""
    torch.manual_seed(0)
    spec = InputSpec(channels=3, height=16, width=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    net = build(arch, 5, spec, {"width": 4} if arch == "resnet9" else {}).eval()
    model = Classifier.wrap(net, x)
    for layer, point in found(net, x).items():
        with torch.no_grad(), model.recording([point]) as seen:
            model.logits(x)
        with model.replacing(point, seen[point].clone()):
            weight = net.get_submodule(layer).get_parameter("weight")
            (gradient,) = torch.autograd.grad(model.logits(x[:1]).square().sum(), weight)
        assert gradient.abs().max() > 0, layer


class Around(nn.Module):
    """Everything goes past its layer, from the image on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(768, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.conv(x) + x).flatten(1))


def test_a_layer_that_is_gone_around_is_no_split_point(x: Tensor) -> None:
    torch.manual_seed(0)
    assert found(Around(), x) == {"conv": ""}
