"""Gates on weights: select at run time, bake for good, keep on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unhot.errors import ModelError, UnknownNameError
from unhot.models.arch import build
from unhot.models.classifier import Classifier
from unhot.models.head_edits.filter import gated_weights
from unhot.models.weight_filter import WeightFilter
from unhot.records.model import InputSpec

NETS = [("resnet9", {"width": 4}), ("lenet5", {}), ("vit_tiny", {"patch": 8})]


@pytest.fixture(params=NETS, ids=[name for name, _ in NETS])
def model(request: pytest.FixtureRequest, spec: Callable[..., InputSpec]) -> Classifier:
    arch, options = request.param
    return Classifier.wrap(build(arch, 3, spec(16), options).eval(), class_names=["a", "b", "c"], input=spec(16))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def drawn(model: Classifier) -> WeightFilter:
    """A filter with gates between 0 and 1."""
    generator = torch.Generator().manual_seed(5)
    ones = WeightFilter.of(model)
    return replace(ones, gates={n: torch.rand(g.shape, generator=generator) for n, g in ones.gates.items()})


def test_gates_of_one_select_the_original_exactly(model: Classifier, x: Tensor) -> None:
    before = model.sha256()
    model.module.requires_grad_(False)  # torch may run a transformer whose weights want gradients by another kernel
    ones = WeightFilter.of(model)
    with torch.no_grad():
        assert torch.equal(ones.select("b").logits(x), model.logits(x))
        assert torch.equal(ones.bake("b").logits(x), model.logits(x))
    assert ones.bake("b").sha256() == before == model.sha256()


def test_baking_equals_selecting(model: Classifier, x: Tensor) -> None:
    gates, before = drawn(model), model.sha256()
    for classes in ("a",), ("b",), ("a", "c"):
        with torch.no_grad():
            selected, baked = gates.select(*classes).logits(x), gates.bake(*classes).logits(x)
            original = model.logits(x)
        assert torch.allclose(selected, baked, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(selected, original, rtol=1e-2)
    assert model.sha256() == before


def test_gates_scale_output_filters_and_rows_and_nothing_else(model: Classifier) -> None:
    gates = drawn(model)
    baked, original = gates.bake("c").module.state_dict(), model.module.state_dict()
    for name, value in original.items():
        if name in gates.gates:
            slow = torch.stack([gate * weight for gate, weight in zip(gates.gates[name][2], value, strict=True)])
            assert torch.equal(baked[name], slow)
        else:
            assert torch.equal(baked[name], value)
    kernels = {n for n, v in original.items() if v.ndim > 1 and n != "position"}
    assert gates.gates.keys() == kernels


def test_the_projections_of_an_attention_have_gates(spec: Callable[..., InputSpec]) -> None:
    weights = gated_weights(build("vit_tiny", 3, spec(16), {"patch": 8}))
    assert len(weights["encoder.layers.0.self_attn.in_proj_weight"]) == 3 * 192
    assert "encoder.layers.0.self_attn.out_proj.weight" in weights


def test_several_classes_are_the_product_of_their_rows(model: Classifier) -> None:
    gates = drawn(model)
    for name, row in gates.row("a", 2).items():
        assert torch.equal(row, gates.gates[name][0] * gates.gates[name][2])


def test_what_is_selected_is_a_classifier(model: Classifier, x: Tensor) -> None:
    selected = drawn(model).select("a")
    with torch.no_grad():
        features, logits = selected.features_and_logits(x)
    assert features.shape == (5, selected.head_layer.in_features)
    assert logits.shape == (5, 3)
    assert selected.forgotten == ()  # it is hidden, and not forgotten
    assert drawn(model).bake("a").forgotten == (model.label("a"),)


def test_the_gates_are_those_of_columns_also_when_a_class_is_missing(model: Classifier) -> None:
    fewer = replace(model, classes=tuple(c for c in model.classes if c.name != "a"))
    gates = WeightFilter.of(fewer)
    gates.gates["head.weight"][0] = 0.5
    assert gates.row("b")["head.weight"].unique().tolist() == [0.5]
    with pytest.raises(UnknownNameError):
        gates.select("a")


def test_a_weight_that_two_layers_share_has_one_gate() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    net[3].weight = net[1].weight
    gates = drawn(Classifier.wrap(net))
    assert gates.gates.keys() == {"1.weight", "4.weight"}
    x = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(gates.select(1).logits(x), gates.bake(1).logits(x))


def test_a_filter_is_kept_on_disk(model: Classifier, tmp_path: Path) -> None:
    gates = drawn(model)
    gates.save(tmp_path / "gates.safetensors")
    read = WeightFilter.load(tmp_path / "gates.safetensors", model)
    assert read.gates.keys() == gates.gates.keys()
    assert all(torch.equal(read.gates[n], g) for n, g in gates.gates.items())


def test_files_that_are_no_filter_of_this_model(model: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "gates.safetensors"
    drawn(model).save(path)
    with torch.no_grad():
        model.head_layer.weight[0, 0] += 1
    with pytest.raises(ModelError, match="of another model"):
        WeightFilter.load(path, model)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ModelError, match="not a readable file"):
        WeightFilter.load(path, model)
    with pytest.raises(ModelError, match="not a readable file"):
        WeightFilter.load(tmp_path / "none", model)
    save_file({"head.weight": torch.ones(3, 3)}, path)
    with pytest.raises(ModelError, match="that this unhot can read"):
        WeightFilter.load(path, model)


def test_a_net_without_such_layers_is_refused() -> None:
    with pytest.raises(ModelError, match=r"convolution.*linear.*attention"):
        gated_weights(nn.Sequential(nn.BatchNorm1d(3)))
