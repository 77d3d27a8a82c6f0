from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from unhot.models.arch import build
from unhot.models.bundle import load, save
from unhot.models.classifier import Classifier
from unhot.models.head_edits.projection import Projection, ProjectionEdit, project_out, span
from unhot.records.model import ClassLabel, InputSpec

Spec = Callable[..., InputSpec]

NETS = [("lenet5", 12, {}), ("resnet9", 8, {"width": 4}), ("resnet18", 8, {"width": 4}), ("vit_tiny", 8, {})]


def made(name: str, spec: InputSpec, options: dict[str, int]) -> Classifier:
    labels = tuple(ClassLabel(index=i, name=f"class {i}") for i in range(4))
    return Classifier(build(name, 4, spec, options).eval(), labels, "head", spec, name, dict(options), 4)


def project_features(model: Classifier, rows: torch.Tensor) -> Classifier:
    return model.edited(*ProjectionEdit.of(model, rows))


def test_it_takes_out_what_lies_along_its_rows() -> None:
    away = span(torch.randn(2, 6))
    layer = Projection(2, 6)
    layer.away.data.copy_(away)
    h = torch.randn(5, 6)
    dense = torch.eye(6) - sum(torch.outer(u, u) for u in away)
    torch.testing.assert_close(layer(h), h @ dense.T)
    torch.testing.assert_close(layer(layer(h)), layer(h))
    layer.requires_grad_(True)
    layer(h.requires_grad_()).sum().backward()
    assert layer.away.grad is None
    assert h.grad is not None


@pytest.mark.parametrize(("name", "size", "options"), NETS)
def test_a_bundle_of_a_projected_net_loads_as_any_other(
    spec: Spec, tmp_path: Path, name: str, size: int, options: dict[str, int]
) -> None:
    model = made(name, spec(size, 1), options)
    x = torch.randn(3, 1, size, size)
    with torch.no_grad():
        before, again = model.features_and_logits(x)
        taken: list[torch.Tensor] = []
        for rank in (1, 2):  # projected, then projected once more
            taken += torch.randn(rank, before.shape[1]).unbind()
            model = project_features(model, torch.stack(taken[-rank:]))
            torch.testing.assert_close(model.features(x), project_out(before, span(torch.stack(taken))))
        h, z = model.features_and_logits(x)
        torch.testing.assert_close(z, model.head_layer(h))
        assert not torch.allclose(z, again)
        save(model, tmp_path / "bundle")
        loaded = load(tmp_path / "bundle")
        h_loaded, z_loaded = loaded.features_and_logits(x)
    assert torch.equal(h_loaded, h)
    assert torch.equal(z_loaded, z)
    assert (loaded.head, loaded.arch, loaded.arch_options) == (model.head, model.arch, model.arch_options)
    assert (loaded.arch, loaded.arch_options, loaded.head_edits) == (name, options, model.head_edits)
    assert loaded.head_edits[-1].rank == 3


def test_the_head_of_a_projected_net_is_found_again(spec: Spec) -> None:
    model = project_features(made("resnet9", spec(8, 1), {"width": 4}), torch.randn(1, 32))
    wrapped = Classifier.wrap(model.module, torch.randn(2, 1, 8, 8))
    assert wrapped.head == model.head == "head.1"


def test_a_net_that_has_no_name_gets_none() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    model = project_features(Classifier.wrap(net), torch.eye(8)[:1])
    assert (model.arch, model.head) == (None, "3.1")


def test_it_has_the_kind_and_the_mode_of_the_head() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double().eval()
    model = project_features(Classifier.wrap(net), torch.eye(16)[:1])
    assert {p.dtype for p in model.module.parameters()} == {torch.float64}
    assert not any(m.training for m in model.module.modules())


def test_a_span_is_orthonormal_and_counts_nothing_twice() -> None:
    rows = torch.tensor([[3.0, 4.0, 0.0], [-6.0, -8.0, 0.0], [0.0, 0.0, 0.0], [3.0, 4.0, 5.0]])
    found = span(rows)
    torch.testing.assert_close(found @ found.T, torch.eye(2))
    torch.testing.assert_close(project_out(rows, found), torch.zeros(4, 3), atol=1e-5, rtol=0)
    assert span(torch.zeros(2, 3)).shape == (0, 3)
    h = torch.randn(4, 3)
    assert torch.equal(project_out(h, span(torch.zeros(2, 3))), h)


def test_more_is_taken_out_of_a_net_without_a_name_in_the_same_layer() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    model = project_features(project_features(Classifier.wrap(net), torch.eye(16)[:1]), torch.eye(16)[1:3])
    assert (model.arch, model.arch_options, model.head) == (None, {}, "1.1")
    with torch.no_grad():
        h = model.features(torch.randn(2, 1, 4, 4))
    assert torch.equal(h[:, :3], torch.zeros(2, 3))
    assert h[:, 3:].all()
