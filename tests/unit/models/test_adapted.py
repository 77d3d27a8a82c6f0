"""Nets whose outputs or heads have another form than logits of one linear layer."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from unhot.errors import ModelError
from unhot.models.bundle import load, save
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.formats.origin import original_state
from unhot.models.head_edits.mask import CUT_LOGIT

Pair = namedtuple("Pair", "logits features")


@dataclass
class Result:
    logits: Tensor


class Net(nn.Module):
    """Two heads, one of which is a convolution, and what a test makes of their outputs."""

    def __init__(self, forward: Callable[[Net, Tensor], Any], classes: int = 5) -> None:
        super().__init__()
        self.body = nn.Linear(16, 8)
        self.head = nn.Linear(8, classes)
        self.other = nn.Linear(8, classes, bias=False)
        self.conv = nn.Conv2d(8, classes, 1)
        self.gate = nn.Conv2d(8, classes, 1)
        self.use = forward

    def h(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1)).tanh()

    def maps(self, x: Tensor) -> Tensor:
        return torch.stack([self.h(v) for v in (x, x.sin(), x.cos(), x**2)], -1).unflatten(-1, (2, 2))

    def forward(self, x: Tensor) -> Any:
        return self.use(self, x)


OUTPUTS: dict[str, tuple[Callable[[Net, Tensor], Any], str | None]] = {
    "a dictionary": (lambda n, x: {"logits": n.head(n.h(x)), "h": x}, None),
    "a dictionary of another key": (lambda n, x: OrderedDict(scores=n.head(n.h(x)), h=x), "scores"),
    "a tuple": (lambda n, x: (n.h(x), n.head(n.h(x))), "1"),
    "a tuple of one": (lambda n, x: (n.head(n.h(x)),), None),
    "a named tuple": (lambda n, x: Pair(n.head(n.h(x)), x), None),
    "an object": (lambda n, x: Result(n.head(n.h(x))), None),
}
HEADS: dict[str, Callable[[Net, Tensor], Any]] = {
    "the mean of two heads": lambda n, x: (n.head(n.h(x)) + n.other(n.h(x) ** 2)) / 2,
    "a weighted sum of three": lambda n, x: (
        n.head(n.h(x)) - 0.25 * n.other(n.h(x)) + 3 * n.conv(n.h(x)[..., None, None]).flatten(1)
    ),
    "a convolution of kernel 1, averaged": lambda n, x: n.conv(n.maps(x)).mean((2, 3)),
    "a convolution of kernel 1, pooled by a layer, and another head": lambda n, x: (
        functional.avg_pool2d(n.conv(n.maps(x)), 2).flatten(1) - 2 * n.head(n.h(x))
    ),
    "a linear layer at each position, averaged": lambda n, x: n.other(n.maps(x).movedim(1, -1)).mean((1, 2)),
    "a convolution of kernel 1": lambda n, x: n.conv(n.h(x)[..., None, None]).flatten(1),
    "scaled": lambda n, x: n.head(n.h(x)) * 4,
    "one of several in a dictionary": lambda n, x: {"logits": (n.head(n.h(x)) + n.other(n.h(x))) / 2},
}


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(5))


def logits_of(net: nn.Module, x: Tensor, key: str | None = None) -> Tensor:
    out = net(x)
    if isinstance(out, Tensor):
        return out
    if isinstance(out, dict):
        return out[key or "logits"]
    return out.logits if hasattr(out, "logits") else out[int(key or 0)]


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize("kind", OUTPUTS)
def test_logits_among_other_outputs(kind: str, x: Tensor) -> None:
    forward, key = OUTPUTS[kind]
    net = Net(forward).eval()
    model = Classifier.wrap(net, x, output=key)
    assert torch.equal(model.logits(x), logits_of(net, x, key))
    assert model.head == "net.head"
    with pytest.raises(ModelError, match=r"returns no output 'none'\. Name its logits with --output"):
        Classifier.wrap(net, x, output="none")


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("classes", [2, 5])
def test_heads_that_become_one(kind: str, classes: int, x: Tensor, tmp_path: Path) -> None:
    net = Net(HEADS[kind], classes).eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    model = Classifier.wrap(net, x)
    torch.testing.assert_close(model.logits(x), logits_of(net, x))
    assert model.features(x).shape[1] in (8, 16, 24)
    cut = cut_classes(model.copy(), [model.classes[1]], "mask")
    save(cut, tmp_path / "bundle")
    found = load(tmp_path / "bundle")
    assert (found.logits(x)[:, 1] == CUT_LOGIT).all()
    torch.testing.assert_close(found.logits(x)[:, 0], logits_of(net, x)[:, 0])
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())  # the net itself is as it was


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize("kind", HEADS)
def test_joined_heads_are_separate_again(kind: str, x: Tensor) -> None:
    net = Net(HEADS[kind]).eval()
    model = cut_classes(Classifier.wrap(net, x).copy(), [Classifier.wrap(net, x).classes[3]], "mask")
    again = Net(HEADS[kind]).eval()
    again.other = nn.Linear(8, 5)  # the class is cut by a bias, which each head then needs
    own = again.state_dict() | original_state(model)
    again.load_state_dict(own)
    torch.testing.assert_close(logits_of(again, x), model.logits(x))


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize(
    "forward",
    [
        lambda n, x: n.head(n.h(x)).maximum(n.other(n.h(x))),
        lambda n, x: n.conv(n.h(x)[..., None, None]).relu().flatten(1),
        lambda n, x: n.conv(n.maps(x)).relu().mean((2, 3)),
        lambda n, x: n.conv(n.maps(x)).amax((2, 3)),
        lambda n, x: n.head(n.h(x)) + n.other(n.maps(x).movedim(1, -1)).amax((1, 2)),
        lambda n, x: n.head(n.h(x)) * n.gate(n.h(x)[..., None, None]).flatten(1).sigmoid(),
    ],
)
def test_what_is_no_sum_of_heads_is_refused(forward: Callable[[Net, Tensor], Any], x: Tensor) -> None:
    with pytest.raises(
        ModelError,
        match=r"in another way than by adding|is not what its head|last convolution 'conv' are changed",
    ):
        Classifier.wrap(Net(forward).eval(), x)


@pytest.mark.usefixtures("keep_generators")
def test_a_file_of_an_origin_is_kept(x: Tensor, tmp_path: Path) -> None:
    model = Classifier.wrap(Net(HEADS["the mean of two heads"]).eval(), x)
    save(replace(model, arch="elsewhere:Net"), tmp_path / "bundle")
    origin = load(tmp_path / "bundle").origin
    assert origin is not None
    assert [(p.layer, p.columns, p.share) for p in origin.heads] == [("head", 8, 0.5), ("other", 8, 0.5)]
