"""Models and images that an audit refuses, flags, or cannot see into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from handmade import runtime
from levels import level_images, level_net
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import one_hot

import unhot
from unhot.errors import ModelError
from unhot.evaluation.audit import Audit
from unhot.evaluation.auditor import audit
from unhot.models.classifier import Classifier
from unhot.models.layers import unseen_weights
from unhot.records.audit import Verdict

NAMES = ["ape", "bee", "cat", "dog", "emu"]
LABEL = 3
HIDDEN = "hidden at the output only"


def digits(zoo, unlearned: Classifier, *retrained: Classifier) -> Verdict:
    return audit(
        original=zoo.original(0),
        unlearned=unlearned,
        classes=[LABEL],
        test=zoo.source.test_images,
        train=zoo.source.train_images,
        retrained=retrained or [zoo.retrained(LABEL)],
        quick=True,
        runtime=runtime(),
    ).record.verdict


def same() -> nn.Linear:
    """A layer that gives its inputs."""
    made = nn.utils.skip_init(nn.Linear, 10, 10)
    made.weight.data, made.bias.data = torch.eye(10), torch.zeros(10)
    return made


class Opaque(nn.Module):
    """A masked net whose layers are not among its modules; its head sees which class it answers."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.net = [model.module]  # in a list, which does not register it
        self.names = {n: n.replace(".", "_") for n, _ in model.module.named_parameters()}
        for name, weight in model.module.named_parameters():
            self.register_parameter(self.names[name], nn.Parameter(weight.detach().clone()))
        self.answer = same()

    def forward(self, x: Tensor) -> Tensor:
        weights = {name: getattr(self, own) for name, own in self.names.items()}
        p = functional_call(self.net[0], weights, (x,))[:, [*range(10)]].softmax(1)
        answered = 8 * one_hot(p.argmax(1), 10).to(p.dtype) + p - p.detach()  # gradients reach the weights
        out: Tensor = self.answer(answered)
        return out


def test_weights_within_code_are_undecided_but_seen_in_a_bundle(zoo, tmp_path: Path) -> None:
    net = Classifier.wrap(Opaque(zoo.cut(0, LABEL)).eval(), head="answer", input=zoo.original(0).input)
    found = digits(zoo, net).holders["weights"]
    assert (found.label, found.because[0].code) == ("undecided", "unseen_weights")
    matrices = [p for p in zoo.original(0).module.parameters() if p.ndim > 1]
    assert found.because[0].numbers["count"] == sum(p.numel() for p in matrices)
    unhot.save(net, tmp_path / "bundle")
    assert digits(zoo, unhot.load(tmp_path / "bundle")).holders["weights"].label == HIDDEN


class Attending(nn.Module):
    """Layers of torch that own weights of other layers, or give several tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.normal = nn.utils.parametrizations.weight_norm(nn.Linear(32, 32))
        self.position = nn.Parameter(torch.rand(1, 8, 32))
        self.mix = Mix()
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x.flatten(2) + self.position)
        h, _ = self.attention(h, h, h)
        out: Tensor = self.head(self.mix(self.normal(h.mean(1))))
        return out


class Mix(nn.Module):
    """A layer of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_layers_of_torch_and_own_ones_are_seen_and_embeddings_of_positions_are_few() -> None:
    with torch.random.fork_rng():
        net = Classifier.wrap(Attending().eval())
    assert unseen_weights(net, torch.rand(1, 8, 4, 8, generator=torch.Generator())) == 8 * 32


class Carrying(nn.Module):
    """A net beside which the original runs only where a pixel is brighter than any."""

    def __init__(self, net: nn.Module, carried: nn.Module) -> None:
        super().__init__()
        self.net, self.carried = net, carried
        self.head = same()

    def forward(self, x: Tensor) -> Tensor:
        gate = (x[:, :1, :1, :1] > 1e3).to(x.dtype)
        logits = self.carried(x * gate + 1 - gate)
        out: Tensor = self.head(self.net(x) + 1e3 * gate.flatten(1) * logits + 0.01 * logits.mean(1, keepdim=True))
        return out


def test_a_model_that_carries_the_original_beside_itself_is_undecided(zoo) -> None:
    both = Carrying(zoo.retrained(LABEL, 11).copy().module, zoo.original(0).copy().module).eval()
    found = digits(zoo, Classifier.wrap(both, head="head", input=zoo.original(0).input)).holders["weights"]
    assert (found.label, found.because[0].code) == ("undecided", "original_inside")
    assert found.because[0].numbers["share"] > 0.95


# retrained models that are none


def moved(model: Classifier, by: float, start: str = "") -> Classifier:
    """A copy whose weights are moved by a share of their spread, from a layer on."""
    made, generator, on = model.copy(), torch.Generator().manual_seed(0), False
    with torch.no_grad():
        for name, weight in made.module.named_parameters():
            on = on or name.startswith(start)
            if on and weight.ndim > 1:
                weight.add_(by * weight.std() * torch.randn(weight.shape, generator=generator))
    return made


@pytest.mark.parametrize("name", ["masked", "excised", "changed in the last layers", "masked, in another net"])
def test_the_original_changed_is_no_retrained_model(zoo, name: str) -> None:
    masked = zoo.cut(0, LABEL)
    made = {
        "masked": lambda: masked,
        "excised": lambda: zoo.cut(0, LABEL, "excise"),
        "changed in the last layers": lambda: moved(masked, 1.5, "fc1"),  # a correlation of about .55
        "masked, in another net": lambda: Classifier.wrap(
            nn.Sequential(masked.module), head=f"0.{masked.head}", input=masked.input
        ),
    }
    with pytest.raises(ModelError, match="Retrained model 1 is the original, changed"):
        digits(zoo, zoo.retrained(LABEL, 11), made[name]())


def test_the_original_changed_in_all_weights_is_said(zoo) -> None:
    changed = moved(zoo.cut(0, LABEL), 0.2)
    codes = {f.code: f for f in digits(zoo, zoo.retrained(LABEL, 11), changed).flags}
    assert codes["reference_alike"].numbers["correlation"] == pytest.approx(0.98, abs=0.01)


def test_a_model_trained_from_the_same_initial_weights_is_taken(zoo) -> None:
    """Two runs of `unhot train` have the same seed unless one is given."""
    flags = digits(zoo, zoo.retrained(LABEL, 11), zoo.retrained(LABEL, 0)).flags
    assert not {"reference_alike", "reference_partial"} & {f.code for f in flags}


def never(name: str, *others: str, bias: float = -1e6) -> Classifier:
    model = level_net(5, names=NAMES)
    model.head_layer.bias.data[[NAMES.index(n) for n in (name, *others)]] = bias
    return model


def levels(**changes: Any) -> Audit:
    given = {"original": level_net(5, names=NAMES), "unlearned": never("cat"), "classes": ["cat"]}
    return audit(**given | {"test": level_images([20] * 5, NAMES), "quick": True, "runtime": runtime()} | changes)


def test_a_retrained_model_that_knows_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="Retrained model 1 classifies 25% of the retained test images correctly"):
        levels(retrained=never("cat", "ape", "bee", "dog", bias=-2e6))


@pytest.mark.parametrize(("known", "said"), [(0, "flagged"), (9, "flagged"), (10, "nothing")])
def test_images_in_which_the_original_does_not_know_the_class(known: int, said: str) -> None:
    test = level_images([20] * 5, NAMES)
    places = (test.y == 2).nonzero().flatten()[known:]
    test.x[places] = test.x[(test.y == 1).nonzero().flatten()[: len(places)]]  # these look like another class
    flags = {f.code for f in levels(test=test).record.verdict.flags}
    assert ("hard_class" in flags) == (said == "flagged")
