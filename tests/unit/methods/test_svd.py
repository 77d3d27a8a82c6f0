from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

import support
from support import CPU
from unhot.data.samples import as_images, draw
from unhot.methods.base import ForgetResult
from unhot.methods.svd import Svd, few_of_each, space
from unhot.models.classifier import Classifier
from unhot.models.nets import VitTiny
from unhot.runtime import Runtime
from unhot.testing import toy_problem

DOUBLE = torch.float64
WEIGHTS = ("0.weight", "4.weight", "7.weight", "10.weight")


forget = partial(support.forget, Svd)


def slow_space(inputs: Tensor, alpha: float) -> Tensor:
    """U diag(importance) U^T of a layer's inputs (n, d), by the singular values of their transpose."""
    u, sigma, _ = torch.linalg.svd(inputs.T, full_matrices=False)
    share = sigma**2 / (sigma**2).sum()
    return u @ torch.diag(alpha * share / ((alpha - 1) * share + 1)) @ u.T


def inputs(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return what each weight of the toy net is multiplied with, (n, d), by the name of the weight."""
    found = {}
    for i, layer in enumerate(net):
        if isinstance(layer, nn.Conv2d):
            found[f"{i}.weight"] = unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1)
        elif isinstance(layer, nn.Linear):
            found[f"{i}.weight"] = x
        x = layer(x)
    return {k: v.detach() for k, v in found.items()}


@pytest.mark.parametrize("classes", [(1,), (0, 2)])
@pytest.mark.parametrize(("alpha_r", "alpha_f"), [(100.0, 3.0), (1.0, 0.5)])
def test_weights_are_those_of_the_papers_closed_form(classes: tuple[int, ...], alpha_r: float, alpha_f: float) -> None:
    toy = toy_problem(dtype=DOUBLE)
    net = toy.model.eval()
    mine, others = inputs(net, toy.samples(*classes).images.x), inputs(net, toy.retain(*classes)[0])
    after = forget(toy, *classes, alpha_r=alpha_r, alpha_f=alpha_f, patches=10**9).model.state_dict()
    assert tuple(mine) == WEIGHTS
    for name, before in net.state_dict().items():
        if name not in WEIGHTS:
            assert torch.equal(after[name], before), name
            continue
        m_f, m_r = slow_space(mine[name], alpha_f), slow_space(others[name], alpha_r)
        p = torch.eye(len(m_f), dtype=DOUBLE) - (m_f - m_f @ m_r)
        assert not torch.allclose(p, p.T)  # so that P in the place of its transpose is seen
        torch.testing.assert_close(after[name], (before.flatten(1) @ p.T).view_as(before), msg=name)


def test_a_space_is_the_same_without_the_decomposition() -> None:
    rows = torch.randn(7, 12, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)  # of rank 7 only
    moment = rows.T @ rows
    for alpha in (0.3, 1.0, 30.0):
        torch.testing.assert_close(space(moment / moment.trace(), alpha), slow_space(rows, alpha))


@pytest.mark.usefixtures("keep_generators")
def test_what_only_the_class_uses_is_lost_and_what_others_use_is_kept() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0.3], [0, 0, 1.0, 0]]))
    x = torch.eye(4)[[0, 1, 2]].view(3, 1, 2, 2)
    samples = draw((x, torch.tensor([0, 1, 2])), [1], shots=1)
    retained = x[[0, 2]], torch.tensor([0, 2])
    after = Svd(alpha_f=1e6, alpha_r=1e6)(net, samples, retain=retained, runtime=CPU).model[1].weight
    expected = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0.3], [0, 0, 1.0, 0]])
    torch.testing.assert_close(after.detach(), expected, atol=1e-4, rtol=0)


def test_a_few_images_of_each_class_are_drawn() -> None:
    y = torch.tensor([0] * 9 + [2] * 5 + [3] * 2)
    images = as_images((torch.arange(16.0).view(16, 1, 1, 1), y))
    drawn = few_of_each(images, 3, CPU)
    assert drawn.y.bincount().tolist() == [3, 0, 3, 2]
    assert len(set(drawn.keys)) == 8
    assert len({few_of_each(images, 3, Runtime(torch.device("cpu"), seed=s)).keys for s in range(4)}) > 1


def test_patches_are_drawn_from_all_images_and_places() -> None:
    """Two images of 64 places each; the first is black."""
    toy = toy_problem(dtype=DOUBLE)
    model, x = Classifier.wrap(toy.model.eval(), toy.x[:2]), torch.stack([torch.zeros_like(toy.x[0]), toy.x[0]])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        moments = [Svd(patches=64)._moments(model, ["0"], [x], generator)["0"] for _ in range(2)]
    assert all(m.trace() == pytest.approx(1) for m in moments)
    assert not torch.allclose(*moments)


@pytest.mark.parametrize("fixed", [{}, {"alpha_f": 10.0}, {"alpha_r": 300.0}])  # with the last, one alpha_f is best
def test_the_alphas_are_those_of_the_best_accuracy_and_error(fixed: dict[str, float]) -> None:
    toy = toy_problem()
    (x, y), mine = toy.retain(1), toy.samples(1).images

    def score(result: ForgetResult) -> float:
        right, still = ((result.model(i).argmax(1) == j).float().mean().item() for i, j in ((x, y), (mine.x, mine.y)))
        return right * (1 - still)

    tried = {}
    for alpha_r in (10.0, 30.0, 100.0, 300.0, 1000.0):
        for alpha_f in (1.0, 3.0, 10.0, 30.0, 100.0):
            pair = {"alpha_r": alpha_r, "alpha_f": alpha_f}
            if pair | fixed == pair:
                tried[alpha_r, alpha_f] = score(forget(toy, 1, **pair))
    found = forget(toy, 1, **fixed)
    chosen = found.record.notes["alpha_r"], found.record.notes["alpha_f"]
    assert len(set(tried.values())) > 1
    assert tried[chosen] == max(tried.values()) == score(found)
    assert found.record.weights_sha256 == forget(toy, 1, alpha_r=chosen[0], alpha_f=chosen[1]).record.weights_sha256


def test_the_score_is_the_retained_accuracy_times_the_error_on_the_class() -> None:
    """A quarter of the retained images has a wrong label, so that no net gets all of them right."""
    toy = toy_problem()
    x, y = toy.retain(1)
    y = torch.where(torch.arange(len(y)) % 4 == 0, torch.tensor([2, 1, 3, 0])[y], y)
    result = Svd(alpha_r=30.0, alpha_f=3.0)(toy.model, toy.samples(1), retain=(x, y), runtime=CPU)
    mine = toy.samples(1).images
    right, still = ((result.model(i).argmax(1) == j).float().mean().item() for i, j in ((x, y), (mine.x, mine.y)))
    assert result.record.notes["score"] == pytest.approx(right * (1 - still))
    assert right < 0.8


def test_a_net_of_half_precision_is_projected() -> None:
    """Half precision is too coarse for the solve, and torch does not offer it."""
    before = toy_problem()
    single, half = (forget(toy_problem(dtype=t), 1, alpha_r=30.0, alpha_f=3.0) for t in (torch.float32, torch.bfloat16))
    for name in ("4.weight", "7.weight"):
        old, wanted, found = (m.state_dict()[name].float() for m in (before.model, single.model, half.model))
        assert half.model.state_dict()[name].dtype == torch.bfloat16
        assert (found - wanted).norm() < 0.2 * (wanted - old).norm()


def test_fewer_images_and_patches_than_there_are() -> None:
    toy = toy_problem()
    found = {(n, p): forget(toy, per_class=n, patches=p).record.weights_sha256 for n in (3, 100) for p in (50, 10_000)}
    assert len(set(found.values())) == 4


@pytest.mark.usefixtures("keep_generators")
def test_a_vision_transformer_is_projected_with_its_attention() -> None:
    torch.manual_seed(0)
    net = VitTiny(3, channels=1, size=8, patch=4)
    net.encoder.layers = net.encoder.layers[:1]
    x = torch.randn(12, 1, 8, 8)
    y = net(x).argmax(1)
    gone = int(y[0])
    result = Svd(alpha_f=100, alpha_r=100)(net, draw((x, y), [gone], shots=1), retain=(x, (y + 1) % 3), runtime=CPU)
    before, after = net.state_dict(), result.model.state_dict()
    changed = {k.rpartition("layers.0.")[2] for k, v in after.items() if not torch.equal(v, before[k])}
    wanted = {"embed.weight", "head.weight", "linear1.weight", "linear2.weight", "self_attn.in_proj_weight"}
    assert {k for k in changed if "layers" not in k} == wanted
    attention = net.encoder.layers[0]
    with torch.no_grad():
        tokens = net.embed(x).flatten(2).transpose(1, 2) + net.position
        seen = attention.norm1(tokens)
    samples = draw((x, y), [gone], shots=1)
    mine = attention.norm1(net.embed(samples.images.x).flatten(2).transpose(1, 2) + net.position).flatten(0, 1)
    m_f = slow_space(mine.detach(), 100.0)
    kept = (y + 1) % 3 != gone
    m_r = slow_space(seen[kept].flatten(0, 1), 100.0)
    old = attention.self_attn.in_proj_weight.detach()
    p = torch.eye(len(m_f)) - (m_f - m_f @ m_r)
    new = result.model.encoder.layers[0].self_attn.in_proj_weight
    torch.testing.assert_close(new.detach(), old @ p.T, atol=1e-4, rtol=1e-4)
