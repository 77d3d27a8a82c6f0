from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from unhot.errors import ModelError, OptionError, UnknownNameError
from unhot.models import catalogue
from unhot.models.arch import build, channels_of, learning_rate
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec

Spec = Callable[..., InputSpec]

BUILT_IN = [
    ("lenet5", 12, 1, {}),
    ("lenet5", 28, 1, {}),
    ("lenet5", 32, 3, {}),
    ("resnet9", 8, 1, {"width": 4}),
    ("resnet9", 32, 3, {"width": 8}),
    ("resnet18", 16, 1, {"width": 8}),
    ("resnet18", 32, 3, {"width": 8}),
    ("vgg11_bn", 16, 1, {}),
    ("vit_tiny", 28, 1, {}),
    ("vit_tiny", 16, 3, {"patch": 8}),
]


@pytest.mark.parametrize(("name", "size", "channels", "options"), BUILT_IN)
def test_built_in_nets(spec: Spec, name: str, size: int, channels: int, options: dict[str, int]) -> None:
    net = build(name, 7, spec(size, channels), options)
    x = torch.randn(3, channels, size, size)
    logits = net(x)
    assert logits.shape == (3, 7)
    logits.logsumexp(1).sum().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []
    model = Classifier.wrap(net, x)
    assert model.head == "head"
    features, again = model.features_and_logits(x)
    torch.testing.assert_close(model.head_layer(features), again)


def test_every_built_in_net_is_tested() -> None:
    assert {name for name, *_ in BUILT_IN} == {n for n in catalogue if catalogue.known(n).summary[:4] != "from"}


@pytest.mark.parametrize(("name", "features"), [("resnet9", 8), ("resnet18", 8)])
def test_width_is_that_of_the_stem(spec: Spec, name: str, features: int) -> None:
    narrow, wide = (build(name, 10, spec(32), {"width": w}) for w in (4, 8))
    assert (narrow.head.in_features, wide.head.in_features) == (4 * features, 8 * features)
    assert narrow.stem[0].out_channels == 4
    assert build(name, 10, spec(32)).head.in_features == 8 * {"resnet9": 32, "resnet18": 64}[name]


def test_known_sizes(spec: Spec) -> None:
    def size(name: str, s: InputSpec) -> int:
        return sum(p.numel() for p in build(name, 10, s).parameters())

    assert size("lenet5", spec(28, 1)) == 61_706  # as in the paper with full connections
    assert size("resnet18", spec(32)) == 11_173_962  # as everybody's ResNet-18 for CIFAR-10
    assert size("vgg11_bn", spec(32)) == 9_228_362


def test_patch_must_divide_the_size(spec: Spec) -> None:
    with pytest.raises(OptionError, match=r"vit_tiny.*built.*divide.*32.*5"):
        build("vit_tiny", 10, spec(32), {"patch": 5})


def test_patch_zero_is_refused(spec: Spec) -> None:
    with pytest.raises(OptionError):
        build("vit_tiny", 10, spec(32), {"patch": 0})


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", ["resnet9", "resnet18"])
def test_width_zero_is_refused(spec: Spec, name: str) -> None:
    with pytest.raises(OptionError):
        build(name, 10, spec(32), {"width": 0})


@pytest.mark.parametrize(
    ("arch", "sentence"),
    [
        ("lenet6", r"Unknown model 'lenet6'\. Did you mean 'lenet5'\?"),
        ("torchvision:resnet1", r"Unknown torchvision model 'resnet1'\. Did you mean 'resnet1"),
        ("torchvision:fasterrcnn_resnet50_fpn", r"Unknown torchvision model 'fasterrcnn_resnet50_fpn'\."),
        (
            "no.such.module:net",
            r"Unknown architecture 'no\.such\.module:net'\. There is no module .* Known: .*:factory",
        ),
        ("lenet5:", r"Unknown model 'lenet5:'\. Did you mean 'lenet5'"),
    ],
)
def test_unknown_architectures(spec: Spec, arch: str, sentence: str, restore_path: None) -> None:
    with pytest.raises(UnknownNameError, match=sentence):
        build(arch, 10, spec(32))


@pytest.mark.parametrize("arch", [":net", "..relative:net"])
def test_names_that_are_no_modules(spec: Spec, arch: str, restore_path: None) -> None:
    with pytest.raises((UnknownNameError, ModelError)):
        build(arch, 10, spec(32))


@pytest.mark.parametrize("arch", ["resnet9", "torchvision:resnet18"])
def test_unknown_and_wrong_options(spec: Spec, arch: str) -> None:
    expected = UnknownNameError if arch == "resnet9" else OptionError
    with pytest.raises(expected, match=r"depth|option of resnet9: 'depth'.*width"):
        build(arch, 10, spec(32), {"depth": 3})
    option = "width" if arch == "resnet9" else "width_per_group"
    for wrong in ("wide", -1, 1.5):
        with pytest.raises(OptionError, match=rf"{arch} cannot be built with .*{option}={wrong!r}"):
            build(arch, 10, spec(32), {option: wrong})


def test_a_near_option_is_offered(spec: Spec) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown.*'widht'.*'width'"):
        build("resnet9", 10, spec(32), {"widht": 3})


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_torchvision(spec: Spec, name: str) -> None:
    net = build(f"torchvision:{name}", 4, spec(32)).eval()
    model = Classifier.wrap(net, torch.randn(2, 3, 32, 32), input=spec(32))
    assert model.head == {"resnet18": "fc", "mobilenet_v3_small": "classifier.3"}[name]
    assert model.head_layer.out_features == 4


def test_torchvision_takes_colour_only(spec: Spec) -> None:
    grey = spec(28, 1)
    colour = channels_of("torchvision:resnet18", grey)
    assert colour.shape == (3, 28, 28)
    assert (colour.mean, colour.std) == ((0.5,) * 3, (0.25,) * 3)
    assert channels_of("torchvision:resnet18", spec(28)) == spec(28)
    for arch in ("lenet5", "timm:resnet18", "my.module:net"):
        assert channels_of(arch, grey) is grey


@pytest.mark.parametrize(("channels", "options"), [(1, {}), (3, {})])
def test_timm_resnet(spec: Spec, channels: int, options: dict[str, int]) -> None:
    pytest.importorskip("timm")
    net = build("timm:resnet18", 4, spec(32, channels), options).eval()
    assert Classifier.wrap(net, torch.randn(2, channels, 32, 32)).head == "fc"


def test_timm_vit_of_another_size(spec: Spec) -> None:
    pytest.importorskip("timm")
    net = build("timm:vit_tiny_patch16_224", 4, spec(32), {"img_size": 32}).eval()
    assert Classifier.wrap(net, torch.randn(2, 3, 32, 32)).head == "head"
    with pytest.raises(UnknownNameError, match=r"Unknown.*'resnet1x'.*resnet"):
        build("timm:resnet1x", 4, spec(32))
    with pytest.raises(OptionError, match=r"timm.*resnet18.*built.*nothing=1"):
        build("timm:resnet18", 4, spec(32), {"nothing": 1})


def test_learning_rate_is_that_of_the_net() -> None:
    assert learning_rate("resnet9") == 0.2
    assert learning_rate("vit_tiny") == 0.05
    assert learning_rate("timm:resnet18") == learning_rate("my.module:net") == 0.05


MODULE = """
from torch import nn

NUMBER = 3

def net(num_classes, in_channels, image_size, hidden=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size ** 2, hidden), nn.Linear(hidden, num_classes))

class Linear(nn.Sequential):
    def __init__(self, num_classes, **options):
        super().__init__(nn.Flatten(), nn.Linear(options.get("inputs", 16), num_classes))

def nothing():
    return None

def fails():
    raise RuntimeError("no luck")
"""


@pytest.fixture
def restore_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restore_path: None) -> Iterator[str]:
    """A module of the user's in the working directory; forgotten afterwards."""
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "__init__.py").touch()
    (tmp_path / "mynets" / "small.py").write_text(MODULE)
    (tmp_path / "mynets" / "broken.py").write_text("import a_package_that_is_not_installed\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    yield "mynets.small"
    for name in [m for m in sys.modules if m.partition(".")[0] == "mynets"]:
        del sys.modules[name]


def test_a_factory_is_given_what_it_takes(mine: str, spec: Spec) -> None:
    net = build(f"{mine}:net", 3, spec(4, 1), {"hidden": 6})
    assert (net[1].in_features, net[1].out_features, net[2].out_features) == (16, 6, 3)
    assert build(f"{mine}:Linear", 3, None)[1].weight.shape == (3, 16)
    assert build(f"{mine}:Linear", 3, spec(5, 1), {"inputs": 25})[1].weight.shape == (3, 25)


def test_what_is_wrong_with_a_factory(mine: str, spec: Spec) -> None:
    s = spec(4, 1)
    with pytest.raises(ModelError, match=r"Module.*'mynets\.small'.*'nett'.*--arch"):
        build(f"{mine}:nett", 3, s)
    with pytest.raises(ModelError, match=r"mynets\.small.*NUMBER.*callable"):
        build(f"{mine}:NUMBER", 3, s)
    with pytest.raises(ModelError, match=r"mynets\.small.*returned.*NoneType"):
        build(f"{mine}:nothing", 3, s)
    with pytest.raises(OptionError, match=r"mynets\.small.*fails.*built"):
        build(f"{mine}:fails", 3, s)
    with pytest.raises(OptionError, match=r"mynets\.small.*net.*built.*missing"):
        build(f"{mine}:net", 3, None)
    with pytest.raises(UnknownNameError, match=r"Unknown.*mynets\.small.*'hiden'.*'hidden'"):
        build(f"{mine}:net", 3, s, {"hiden": 4})


def test_a_module_that_cannot_be_imported_says_why(mine: str, spec: Spec) -> None:
    with pytest.raises((ModelError, UnknownNameError), match=r"a_package_that_is_not_installed"):
        build("mynets.broken:net", 3, spec(4, 1))


def test_a_built_net_is_a_module_with_fresh_weights(spec: Spec) -> None:
    first, second = build("lenet5", 10, spec(28, 1)), build("lenet5", 10, spec(28, 1))
    assert isinstance(first, nn.Module)
    assert not torch.equal(first.head.weight, second.head.weight)
