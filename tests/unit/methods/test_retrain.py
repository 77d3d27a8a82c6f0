from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from support import CPU
from unhot.data import catalogue as datasets
from unhot.data.samples import Samples, draw
from unhot.data.source import Source
from unhot.errors import UnknownNameError
from unhot.methods import retrain
from unhot.methods.retrain import Retrain, as_it_is, draw_anew
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.nets import ResNet9, VitTiny
from unhot.testing import Toy, toy_problem
from unhot.training import train


def retrained(toy: Toy, **settings: Any) -> Classifier:
    return Retrain.of(settings)(toy.model, toy.samples(), retain=toy.retain(), runtime=CPU).classifier


def test_it_is_training_without_the_class(digits: Source, original: Classifier, samples: Samples) -> None:
    """To the bit, with the seed and the options of that training."""
    wanted, _ = train(digits, "lenet5", exclude=[3], settings={"epochs": 2}, seed=5, runtime=CPU)
    found = Retrain(epochs=2, shift=1)(original, samples, retain=digits.train_images, seed=5, runtime=CPU)
    assert found.record.weights_sha256 == wanted.sha256()
    assert found.record.notes == {"not_reset_by_a_layer": []}
    assert [c.name for c in found.classifier.forgotten] == ["3"]


def scrambled(model: Classifier) -> Classifier:
    """Another model of the same architecture: all its weights and running statistics are others."""
    other = model.copy()
    with torch.no_grad():
        for value in [*other.module.parameters(), *other.module.buffers()]:
            value += 1
    return other


class Rescaled(nn.Module):
    """A layer with a parameter and a bias of its own, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.own_bias = nn.Parameter(torch.full((8,), 5.0)), nn.Parameter(torch.full((8,), 5.0))
        self.register_buffer("constant", torch.full((8,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x + self.own_bias + self.constant


def plain(*layers: nn.Module) -> Classifier:
    return Classifier.wrap(nn.Sequential(nn.Flatten(), *layers, nn.Linear(8, 3)), torch.zeros(2, 1, 4, 4))


NETS = {
    "cnn": lambda: Classifier.wrap(ResNet9(4, 1, 16, 4), torch.zeros(2, 1, 16, 16)),
    "vit": lambda: Classifier.wrap(VitTiny(4, 1, 8), torch.zeros(2, 1, 8, 8)),
    "named vit": lambda: dataclasses.replace(
        NETS["vit"](), arch="vit_tiny", outputs=4, input=as_it_is(torch.zeros(1, 1, 8, 8))
    ),
    "weight norm": lambda: plain(weight_norm(nn.Linear(16, 8))),
    "own": lambda: plain(nn.Linear(16, 8), Rescaled()),
}


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize("name", [n for n in NETS if n != "named vit"])
def test_nothing_of_the_old_weights_is_left(name: str) -> None:
    torch.manual_seed(0)
    model = NETS[name]()
    other = scrambled(model)
    assert draw_anew(model, CPU) == draw_anew(other, CPU)
    weights, statistics = dict(other.module.named_parameters()), ("running_mean", "running_var")
    for key, value in model.module.state_dict().items():
        assert value.isfinite().all(), key
        if key in weights or key.endswith(statistics):
            assert torch.equal(value, other.module.state_dict()[key]), key


@pytest.mark.usefixtures("keep_generators")
def test_what_no_layer_resets_is_drawn_by_rule_and_named() -> None:
    torch.manual_seed(0)
    vit, own = NETS["vit"](), NETS["own"]()
    assert draw_anew(vit, CPU) == ["position"]
    assert 0.015 < float(vit.module.position.detach().std()) < 0.025
    assert draw_anew(own, CPU) == ["2.gain", "2.own_bias"]
    layer = own.module[2]
    assert layer.gain.eq(1).all()
    assert layer.own_bias.eq(0).all()
    assert layer.constant.eq(3).all()  # a constant of the architecture


@pytest.mark.usefixtures("keep_generators")
def test_attention_is_drawn_as_when_it_is_made() -> None:
    torch.manual_seed(0)
    vit = NETS["vit"]()
    draw_anew(vit, CPU)
    attention = vit.module.encoder.layers[0].self_attn
    assert float(attention.in_proj_weight.detach().std()) == pytest.approx((2 / (4 * 192)) ** 0.5, rel=0.05)
    assert attention.in_proj_bias.eq(0).all()
    assert attention.out_proj.bias.eq(0).all()


@pytest.mark.usefixtures("keep_generators")
def test_a_net_with_a_name_is_built_anew() -> None:
    torch.manual_seed(0)
    model = NETS["named vit"]()
    assert draw_anew(model, CPU) == []
    with CPU.seeded("init"):
        built = VitTiny(4, 1, 8)
    for key, value in built.state_dict().items():
        assert torch.equal(model.module.state_dict()[key], value), key


@pytest.mark.usefixtures("keep_generators")
def test_a_head_whose_classes_were_excised_keeps_its_size() -> None:
    torch.manual_seed(0)
    model = dataclasses.replace(NETS["cnn"](), arch="resnet9", arch_options={"width": 4}, outputs=4)
    model = dataclasses.replace(model, input=as_it_is(torch.zeros(1, 1, 16, 16)))
    cut = cut_classes(model, [model.classes[2]], "excise")
    old = cut.head_layer.weight.clone()
    assert draw_anew(cut, CPU) == []
    assert cut.head_layer.weight.shape == (3, 32)
    assert not torch.equal(cut.head_layer.weight, old)


def test_code_that_a_bundle_names_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = dataclasses.replace(Classifier.wrap(toy_problem().model), arch="nowhere.to_be:found")
    with pytest.raises(UnknownNameError):
        draw_anew(model, CPU)
    monkeypatch.setattr(retrain, "GraphNet", nn.Sequential)  # as if it had been loaded from the bundle's graph
    assert draw_anew(model, CPU) == []


def test_presets_are_the_recipes_of_the_data_sets() -> None:
    assert set(Retrain.presets) == {name for name in datasets if hasattr(datasets.get(name), "augment")}
    for name, preset in Retrain.presets.items():
        known = datasets.get(name)
        assert preset == {"epochs": known.epochs, "shift": known.augment.shift, "flip": known.augment.flip}


def test_left_out_settings_are_those_of_training() -> None:
    toy = toy_problem()
    assert retrained(toy, epochs=3).sha256() == retrained(toy, epochs=3, lr=0.05, batch_size=64).sha256()
    assert retrained(toy, epochs=3).sha256() != retrained(toy, epochs=3, lr=0.2, batch_size=64).sha256()


@pytest.mark.usefixtures("keep_generators")
def test_pixels_are_taken_as_the_model_was_shown_them() -> None:
    """Where a model does not say how it takes pixels, they are scaled to 0..1."""
    toy = toy_problem()
    pixels = ((toy.x + 5) * 20).clamp(0, 255).to(torch.uint8)
    as_inputs = pixels.to(torch.float32) / 255
    net, method = _trained_on(as_inputs, toy.y), Retrain(epochs=2)
    runs = [method(net, draw((x, toy.y), [1], 8), retain=(x, toy.y), runtime=CPU) for x in (pixels, as_inputs)]
    assert runs[0].record.weights_sha256 == runs[1].record.weights_sha256


def _trained_on(x: Tensor, y: Tensor) -> nn.Module:
    """A linear net that is right about some images: each class is where its mean is."""
    means = torch.stack([x[y == c].mean(0).flatten() for c in range(4)])
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        net[1].weight.copy_(means)
        net[1].bias.copy_(-(means**2).sum(1) / 2)
    return net
