"""Methods that read samples only: one step against slow obvious code, in float64, and the bugs that circulate."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unhot import methods
from unhot.data.samples import draw
from unhot.methods.base import ForgetResult
from unhot.models.classifier import Classifier
from unhot.models.nets import VitTiny
from unhot.runtime import Runtime
from unhot.testing import FORGOTTEN, Toy, toy_problem

pytestmark = pytest.mark.filterwarnings("ignore:The model assigns only")  # the toy net is not perfect


def run(toy: Toy, name: str, *classes: int, seed: int = 3, **settings: Any) -> ForgetResult:
    method = methods.get(name)(**settings)
    return method(toy.model, toy.samples(*classes), seed=seed, runtime=Runtime(torch.device("cpu")))


def double() -> Toy:
    return toy_problem(dtype=torch.float64)


def one_step(toy: Toy, loss_of: Any, lr: float, clip: float | None = None) -> dict[str, Tensor]:
    """Take one plain step of SGD on a copy, written out."""
    model = copy.deepcopy(toy.model).eval()
    x, y = toy.samples().images.x, toy.samples().images.y
    loss = loss_of(model, x, y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.sqrt(sum((g**2).sum() for g in gradients))
    scale = 1.0 if clip is None else min(1.0, clip / (norm.item() + 1e-6))
    with torch.no_grad():
        for p, g in zip(model.parameters(), gradients, strict=True):
            p -= lr * scale * g
    return model.state_dict()


def assert_same(result: ForgetResult, expected: dict[str, Tensor]) -> None:
    for name, value in result.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12)


def test_neggrad_takes_a_clipped_step_up() -> None:
    toy = double()
    expected = one_step(toy, lambda m, x, y: -cross_entropy(m(x), y), 0.5, clip=0.03)
    assert_same(run(toy, "neggrad", lr=0.5, steps=1, clip=0.03, stop_at=0.0), expected)


def test_delete_distils_the_original_with_the_class_left_out() -> None:
    toy = double()
    x = toy.samples().images.x
    with torch.no_grad():
        z = toy.model(x)
    kept = [c for c in range(z.shape[1]) if c != FORGOTTEN]
    target = z[:, kept].softmax(1)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        log_p = model(x).log_softmax(1)[:, kept]
        return sum((t * (t.log() - lp)).sum() for t, lp in zip(target, log_p, strict=True)) / len(y)

    assert_same(run(toy, "delete", lr=0.2, steps=1), one_step(toy, loss, 0.2))


def test_scrub_and_learn_teaches_the_best_retained_class_of_the_original() -> None:
    toy = double()
    x = toy.samples().images.x
    with torch.no_grad():
        ranked = [row.argsort(descending=True).tolist() for row in toy.model(x)]
    second = torch.tensor([next(c for c in order if c != FORGOTTEN) for order in ranked])
    expected = one_step(toy, lambda m, x, _: cross_entropy(m(x), second), 0.2)
    assert_same(run(toy, "scrub-and-learn", lr=0.2, steps=1), expected)


def test_random_labels_are_never_of_a_class_to_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    # circulating code draws over all classes, so that some samples keep their label
    found: list[int] = []
    kind = methods.get("random-label")
    original = kind.labels

    def spy(self: Any, *args: Any) -> Tensor:
        found.extend(original(self, *args).tolist())
        return original(self, *args)

    monkeypatch.setattr(kind, "labels", spy)
    toy = toy_problem()
    for seed in range(8):
        run(toy, "random-label", 1, 3, seed=seed, steps=0)
    assert set(found) == {0, 2}


def test_boundary_shrink_looks_across_with_the_original_in_eval_mode() -> None:
    # circulating code leaves the net in train mode, so that the samples move the statistics of BatchNorm
    toy = double()
    images = toy.samples().images
    x = images.x.clone().requires_grad_()
    model = copy.deepcopy(toy.model).eval()
    cross_entropy(model(x), images.y, reduction="sum").backward()
    assert x.grad is not None
    low, high = (f(images.x, (0, 2, 3), keepdim=True)[0] for f in (torch.amin, torch.amax))
    with torch.no_grad():
        beside = (images.x + 0.1 * (high - low) * x.grad.sign()).clamp(low, high)
        z = model(beside)
    z[:, FORGOTTEN] = -torch.inf
    expected = one_step(toy, lambda m, x, _: cross_entropy(m(x), z.argmax(1)), 0.2)
    assert_same(run(toy, "boundary-shrink", lr=0.2, steps=1, epsilon=0.1), expected)


def test_jit_slopes_are_distances_of_outputs_over_distances_of_inputs() -> None:
    toy = double()
    images = toy.samples().images
    method = methods.get("jit")(copies=3, sigma=0.4)
    model = Classifier.wrap(toy.model.eval(), example=images.x[:2])
    found = method.slope(model, images.x, model.logits(images.x), torch.Generator().manual_seed(5))
    generator, expected = torch.Generator().manual_seed(5), 0.0
    for _ in range(3):
        noise = 0.4 * torch.randn(images.x.shape, generator=generator).double()
        for i in range(len(images)):
            out = (toy.model(images.x[i : i + 1]) - toy.model((images.x + noise)[i : i + 1])).pow(2).sum().sqrt()
            expected += (out / noise[i].pow(2).sum().sqrt()).item() / 3 / len(images)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["neggrad", "jit", "forsaken"])
def test_a_method_that_stops_by_itself_says_why(name: str) -> None:
    toy = toy_problem()
    done = run(toy, name, stop_at=1.0).record
    assert done.stop_reason == "probability of the forgotten classes at most 1.0"
    assert done.cost.steps == 0
    capped = run(toy, name, stop_at=0.0, **{"rounds" if name == "forsaken" else "steps": 2}).record
    assert capped.stop_reason in ("step cap", "round cap")


def test_forsaken_masks_are_sparse_and_sparser_with_more_penalty() -> None:
    toy = double()
    moved = []
    for l1 in (0.0, 0.3, 0.9):
        result = run(toy, "forsaken", l1=l1, rounds=1, stop_at=0.0)
        before, after = toy.model.state_dict(), result.model.state_dict()
        names = [n for n, _ in toy.model.named_parameters()]
        moved.append(sum(int((before[n] != after[n]).sum()) for n in names))
        total = sum(before[n].numel() for n in names)
        assert result.record.notes["moved"] == pytest.approx(moved[-1] / total)
    assert moved[0] > moved[1] > moved[2] > 0


def test_forsaken_takes_a_proximal_step() -> None:
    toy = double()
    images = toy.samples().images
    model = copy.deepcopy(toy.model).eval()
    weights = list(model.parameters())
    q = torch.full((4,), 0.99 / 3).double()
    q[FORGOTTEN] = 0.01
    p = model(images.x).softmax(1)
    divergence = sum((row * (row / q).log()).sum() for row in p) / len(p)
    gradients = torch.autograd.grad(divergence, weights)
    length = 0.003 * torch.sqrt(sum((w**2).sum() for w in weights)).item()
    a = length / torch.sqrt(sum((g**2).sum() for g in gradients)).item()
    threshold = a * 0.3 * max(g.abs().max().item() for g in gradients)
    with torch.no_grad():
        for w, g in zip(weights, gradients, strict=True):
            step = -a * g
            w += torch.where(step.abs() > threshold, step - step.sign() * threshold, torch.zeros_like(step))
    assert_same(run(toy, "forsaken", rounds=1, inner=1, stop_at=0.0), model.state_dict())


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize(
    "name", ["neggrad", "random-label", "boundary-shrink", "jit", "delete", "scrub-and-learn", "forsaken"]
)
def test_a_vision_transformer_forgets(name: str) -> None:
    torch.manual_seed(0)
    net = VitTiny(3, channels=1, size=8, patch=4)
    net.encoder.layers = net.encoder.layers[:1]
    x = torch.randn(6, 1, 8, 8)
    y = net.eval()(x).argmax(1)
    samples = draw((x, y), [int(y[0])], shots=1)
    short = {"rounds": 3} if name == "forsaken" else {"steps": 3}
    result = methods.get(name)(**short, **({"l1": 0.0} if name == "forsaken" else {}))(net, samples)
    before = net.state_dict()
    changed = {k for k, v in result.model.state_dict().items() if not torch.equal(v, before[k])}
    assert {"encoder.layers.0.self_attn.in_proj_weight", "embed.weight", "head.weight"} <= changed
    with torch.no_grad():
        old, new = (m(samples.images.x).softmax(1)[0, int(y[0])] for m in (net, result.model))
    assert new < old
