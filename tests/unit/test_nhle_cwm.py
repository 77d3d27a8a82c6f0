from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from support import DEVICE
from unhot.data.augment import Augment, distort
from unhot.data.samples import Samples, as_images, draw
from unhot.data.source import Source
from unhot.errors import DataError, OptionError, UnhotError, UnknownNameError
from unhot.methods.base import ForgetResult
from unhot.methods.nhle_cwm import NhleCwm
from unhot.methods.parts.losses import ENCODINGS
from unhot.models.classifier import Classifier
from unhot.models.head_edits.mask import CUT_LOGIT
from unhot.runtime import Runtime
from unhot.testing import Toy, toy_problem
from unhot.training import train

# most runs here take a few steps and do not cut the class out of the output
pytestmark = pytest.mark.filterwarnings("ignore::unhot.errors.SampleWarning")
GENTLE: dict[str, Any] = {
    "step_size": 0.02,
    "steps": 6,
    "stop_at": 0.0,
    "depth": 0.7,
    "guard": 10.0,
    "budget": 1,
    "cut": "none",
}


@pytest.fixture
def toy() -> Toy:
    """Convolutions 0 and 4, linear layer 7, head 10; 4 classes."""
    return toy_problem()


def forget(model: nn.Module | Classifier, samples: Samples, seed: int = 0, **settings: Any) -> ForgetResult:
    return NhleCwm.of(GENTLE | settings)(model, samples, seed=seed, runtime=Runtime(DEVICE))


def state(net: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def changed(before: dict[str, Tensor], net: nn.Module) -> set[str]:
    return {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}


def left(model: nn.Module, samples: Samples, columns: list[int]) -> float:
    with torch.no_grad():
        return float(model(samples.images.x).softmax(1)[:, columns].sum(1).mean())


def test_it_stops_when_the_class_is_gone(toy: Toy) -> None:
    samples = toy.samples()
    start = left(toy.model, samples, [1])
    result = forget(toy.model, samples, stop_at=0.3, steps=100, shift=0)
    assert result.record.stop_reason == "probability of the forgotten classes at most 0.3"
    assert 0 < result.record.cost.steps < 100
    assert left(result.model, samples, [1]) == pytest.approx(result.record.notes["probability_left"], abs=1e-6)
    assert left(result.model, samples, [1]) <= 0.3 < start
    shorter = forget(toy.model, samples, stop_at=0.3, steps=result.record.cost.steps - 1, shift=0)
    assert shorter.record.stop_reason == "all steps done"
    assert shorter.record.notes["probability_left"] > 0.3


def test_it_stops_at_the_cap(toy: Toy) -> None:
    result = forget(toy.model, toy.samples(), steps=3)
    assert (result.record.stop_reason, result.record.cost.steps) == ("all steps done", 3)


def test_nothing_is_done_where_the_class_is_gone_already(toy: Toy) -> None:
    before = state(toy.model)
    result = forget(toy.model, toy.samples(), stop_at=1.0)
    assert result.record.cost.steps == 0
    assert result.record.stop_reason == "probability of the forgotten classes at most 1.0"
    assert changed(before, result.model) == set()


@pytest.mark.parametrize("settings", [{"steps": 0}, {"depth": 0}])
def test_without_steps_or_layers_only_the_cut_is_left(toy: Toy, settings: dict[str, int]) -> None:
    before = state(toy.model)
    assert changed(before, forget(toy.model, toy.samples(), **settings).model) == set()
    masked = forget(toy.model, toy.samples(), cut="mask", **settings)
    assert changed(before, masked.model) == {"10.weight", "10.bias"}
    assert masked.record.cost.steps == 0
    assert masked.record.stop_reason == "all steps done"


def test_a_net_that_is_a_head_alone(toy: Toy, keep_generators: None) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(toy.x), toy.y).backward()
        optimizer.step()
    before = state(net)
    result = forget(net, toy.samples(), cut="mask")
    kept = [0, 2, 3]
    assert torch.equal(result.model[1].weight[kept], before["1.weight"][kept])
    assert result.model(toy.x).argmax(1).ne(1).all()
    assert result.record.cost.steps == 0


@pytest.mark.parametrize(
    ("depth", "trained"),
    [
        (0.01, {"7.weight"}),
        (1 / 3, {"7.weight"}),
        (0.5, {"4.weight", "7.weight"}),
        (1, {"0.weight", "4.weight", "7.weight"}),
    ],
)
def test_depth_counts_layers_from_the_head(toy: Toy, depth: float, trained: set[str]) -> None:
    before = state(toy.model)
    assert changed(before, forget(toy.model, toy.samples(), depth=depth).model) == trained


def test_a_pass_keeps_nothing_for_layers_that_are_not_trained(toy: Toy) -> None:
    def kept(depth: float) -> int:
        sizes = []

        def keep(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            forget(toy.model, toy.samples(), depth=depth, steps=1)
        return sum(sizes)

    assert kept(0.01) < kept(1) / 4


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("share", [0.01, 0.03])
def test_a_step_has_the_length_that_is_asked_for(toy: Toy, encoding: str, share: float) -> None:
    before = state(toy.model)
    samples = toy.samples()
    result = forget(toy.model, samples, encoding=encoding, steps=1, step_size=share, shift=0, depth=1)
    assert left(result.model, samples, [1]) < left(toy.model, samples, [1])
    for name in ("0.weight", "4.weight", "7.weight"):
        moved = (result.model.state_dict()[name] - before[name]).norm() / before[name].norm()
        assert moved.item() == pytest.approx(share, rel=1e-3)


def test_the_head_is_not_trained(toy: Toy) -> None:
    before = state(toy.model)
    for how in ("none", "mask", "excise"):
        result = forget(toy.model, toy.samples(), cut=how, depth=1)
        head, kept = result.classifier.head_layer, [0, 2, 3]
        rows = result.classifier.columns([result.classifier.label(i) for i in kept])
        assert torch.equal(head.weight[rows], before["10.weight"][kept])
        assert torch.equal(head.bias[rows], before["10.bias"][kept])


def test_every_knob_changes_the_weights(toy: Toy) -> None:
    base = {"shift": 1 / 8, "steps": 4}
    variants: dict[str, dict[str, Any]] = {
        "base": {},
        "guard": {"guard": 1000.0},
        "no guard": {"guard": 0.0},
        "shift": {"shift": 0.0},
        "wide shift": {"shift": 0.4},
        "depth": {"depth": 0.3},
        "step_size": {"step_size": 0.03},
        "steps": {"steps": 3},
        "mask": {"cut": "mask"},
    }
    weights = {k: forget(toy.model, toy.samples(), **(base | v)).record.weights_sha256 for k, v in variants.items()}
    same = [(a, b) for a, b in itertools.combinations(weights, 2) if weights[a] == weights[b]]
    assert same == []


def test_every_encoding_ends_in_other_weights(toy: Toy) -> None:
    settings = {"steps": 8, "step_size": 0.06, "shift": 0}
    found = {e: forget(toy.model, toy.samples(), encoding=e, **settings).record.weights_sha256 for e in ENCODINGS}
    # zero-sum and margin part only once the margin is reached, by their next step
    assert len(set(found.values())) == len(ENCODINGS), found


def test_the_seed_is_all_that_chance_depends_on(toy: Toy) -> None:
    first = forget(toy.model, toy.samples(), seed=1).record.weights_sha256
    assert forget(toy.model, toy.samples(), seed=1).record.weights_sha256 == first
    assert forget(toy.model, toy.samples(), seed=2).record.weights_sha256 != first


class Watched(nn.Module):
    """Keeps the logits of every forward pass."""

    seen: ClassVar[list[Tensor]] = []

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        self.seen.append(out.detach())
        return out


def test_the_best_state_is_restored(toy: Toy) -> None:
    samples = toy.samples()
    Watched.seen.clear()
    result = forget(Watched(toy.model), samples, encoding="mse", step_size=0.6, steps=9, shift=0, depth=1, guard=0)
    path = [float(z.softmax(1)[:, 1].mean()) for z in Watched.seen if len(z) == len(samples)][-11:-1]
    assert min(path) < path[-1] - 0.01, path  # the last step is not the best one, or this test shows nothing
    assert result.record.notes["probability_left"] == pytest.approx(min(path), abs=1e-6)
    assert left(result.model, samples, [1]) == pytest.approx(min(path), abs=1e-6)
    assert result.record.cost.steps == 9


class Fragile(nn.Module):
    """Returns NaN once a layer has moved farther than a limit."""

    def __init__(self, net: nn.Sequential, limit: float) -> None:
        super().__init__()
        self.net, self.limit = net, limit
        self.register_buffer("start", net[7].weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        far = (self.net[7].weight - self.start).norm() > self.limit * self.start.norm()
        out: Tensor = self.net(x)
        return out * (torch.nan if far else 1.0)


@pytest.mark.parametrize(("limit", "steps"), [(0.0, 1), (0.05, 3)])
def test_it_rolls_back_what_is_not_finite(toy: Toy, limit: float, steps: int) -> None:
    samples = toy.samples()
    result = forget(Fragile(toy.model, limit), samples, step_size=0.02, steps=20, shift=0, cut="mask")
    assert result.record.stop_reason == "not finite: rolled back"
    assert result.record.cost.steps >= steps
    assert torch.isfinite(result.model(samples.images.x)).all()
    moved = (result.model.net[7].weight - toy.model[7].weight).norm() / toy.model[7].weight.norm()
    assert moved <= limit
    assert (moved > 0) == (limit > 0)
    assert result.record.notes["probability_left"] <= left(toy.model, samples, [1]) + 1e-6


def test_several_classes(toy: Toy) -> None:
    samples = toy.samples(3, 1)
    before = state(toy.model)
    tuned = forget(toy.model, samples, steps=20, step_size=0.05, shift=0)
    assert tuned.record.notes["probability_left"] == pytest.approx(left(tuned.model, samples, [1, 3]), abs=1e-6)
    assert left(tuned.model, samples, [1, 3]) < 0.5 * left(toy.model, samples, [1, 3])
    assert changed(before, tuned.model) == {"0.weight", "4.weight", "7.weight"}
    for how in ("mask", "excise"):
        cut = forget(toy.model, samples, cut=how)
        predicted = {cut.classifier.classes[i].index for i in cut.model(toy.x).argmax(1).tolist()}
        assert predicted == {0, 2}
        assert [c.index for c in cut.record.classes] == [3, 1]
        assert [c.index for c in cut.classifier.forgotten] == [3, 1]


def test_buffers_and_flags_are_those_of_the_original(toy: Toy) -> None:
    toy.model[0].requires_grad_(False)
    before = state(toy.model)
    result = forget(toy.model, toy.samples(), cut="mask", depth=1)
    assert changed(before, toy.model) == set()
    for name, buffer in result.model.named_buffers():
        assert torch.equal(buffer, before[name])
    flags = {n: p.requires_grad for n, p in result.model.named_parameters()}
    assert [n for n, wanted in flags.items() if not wanted] == ["0.weight"]
    assert all(p.grad is None for p in result.model.parameters())


def test_the_cut_comes_last(toy: Toy) -> None:
    tuned, masked, excised = (forget(toy.model, toy.samples(), cut=how) for how in ("none", "mask", "excise"))
    with torch.no_grad():
        z, m, e = (r.model(toy.x) for r in (tuned, masked, excised))
    assert torch.equal(m[:, [0, 2, 3]], z[:, [0, 2, 3]])
    assert (m[:, 1] == CUT_LOGIT).all()
    torch.testing.assert_close(m.softmax(1)[:, [0, 2, 3]], e.softmax(1))
    assert torch.equal(tuned.classifier.features(toy.x), masked.classifier.features(toy.x))
    notes = [r.record.notes for r in (tuned, masked, excised)]
    assert notes[0] == notes[1] == notes[2]


def test_it_forgets_a_digit_at_its_defaults(digits: Source) -> None:
    runtime = Runtime(DEVICE)
    original, _ = train(digits, "lenet5", settings={"epochs": 8}, runtime=runtime)
    result = NhleCwm()(original, draw(digits.train_images, [0], shots=16), runtime=runtime)
    x = torch.cat([x for x, _ in digits.test_images.batches(original.input, DEVICE)])
    y = digits.test_images.y
    with torch.no_grad():
        before, after = original.logits(x).argmax(1) == y, result.classifier.logits(x).argmax(1) == y
    assert before[y == 0].float().mean() > 0.9
    assert not after[y == 0].any()
    assert after[y != 0].float().mean() > before[y != 0].float().mean() - 0.035
    assert result.record.hyperparameters == NhleCwm().model_dump(mode="json")


def by_hand(toy: Toy, samples: Samples, most: int) -> tuple[Tensor, float, int]:
    """The weight of layer 7 after a run at the defaults, the least probability seen, and the steps; line by line."""
    net, x, runtime = copy.deepcopy(toy.model), samples.images.x, Runtime(DEVICE)
    eight = torch.randperm(len(x), generator=runtime.generator("some"))[:8]
    flowing = net[:7](distort(x[eight], runtime.generator("distort"))).detach()
    second_moment = flowing.T @ flowing
    price = torch.linalg.inv(torch.eye(128).double() + 1e4 * second_moment / second_moment.trace())
    target = net(x).softmax(1).detach()
    target[:, 1] = 0
    target = target / target.sum(1, keepdim=True)
    weight, moving = net[7].weight, runtime.generator("shift")
    path: list[tuple[float, Tensor]] = []
    for step in range(most + 1):
        p = net(Augment(1)(x, moving)).softmax(1)  # an eighth of 8 pixels
        path.append((p[:, 1].mean().item(), weight.detach().clone()))
        if path[-1][0] <= 0.05 or step == most:
            break
        loss = -(target * p.log()).sum(1).mean()
        (gradient,) = torch.autograd.grad(loss, [weight])
        step_taken = gradient @ price
        with torch.no_grad():
            weight -= 0.02 * weight.norm() * step_taken / step_taken.norm()
    best = min(path, key=lambda seen: seen[0])
    return best[1], best[0], len(path) - 1


@pytest.mark.parametrize("most", [None, 200])
def test_a_run_at_the_defaults_is_that_of_slow_obvious_code(most: int | None) -> None:
    toy = toy_problem(dtype=torch.float64)
    samples = draw((toy.x, toy.y), [1], shots=16)
    given = {} if most is None else {"steps": most, "budget": 1}
    result = NhleCwm(**given)(toy.model, samples, runtime=Runtime(DEVICE))
    weight, best, steps = by_hand(toy, samples, most or 16)
    assert result.record.cost.steps == steps
    assert (best <= 0.05) == (most is not None)  # one run ends at the step cap, the other since the class is gone
    assert result.record.notes["probability_left"] == pytest.approx(best, rel=1e-6)
    torch.testing.assert_close(result.model[7].weight, weight, rtol=1e-6, atol=1e-8)
    assert changed(state(toy.model), result.model) == {"7.weight", "10.weight", "10.bias"}
    assert (result.model(toy.x)[:, 1] == CUT_LOGIT).all()


def at_the_defaults(digits: Source, model: Classifier, **settings: Any) -> tuple[float, float, float]:
    """Probability left of a digit, cosine of its features before and after, and how far the outputs of the other
    digits moved (nats), before the cut and on test images; means over the ten digits."""
    x, y = digits.test_images.inputs(torch.arange(len(digits.test_images)), model.input, DEVICE), digits.test_images.y
    found = []
    with torch.no_grad():
        before, features = model.logits(x), model.features(x)
        for digit in range(10):
            samples = draw(digits.train_images, [digit], shots=16)
            result = NhleCwm(cut="none", **settings)(model, samples, runtime=Runtime(DEVICE)).classifier
            after, mine, kept = result.logits(x), y == digit, [k for k in range(10) if k != digit]
            left = after.softmax(1)[mine, digit].mean()
            cosine = torch.cosine_similarity(features, result.features(x))[mine].mean()
            p, q = (z[~mine][:, kept].log_softmax(1) for z in (before, after))
            found.append([left, cosine, (p.exp() * (p - q)).sum(1).mean()])
    left, cosine, moved = torch.tensor(found).mean(0).tolist()
    return left, cosine, moved


def test_what_the_defaults_do_to_the_features_and_to_the_other_digits(digits: Source, original: Classifier) -> None:
    """Measured before the cut, since the cut alone keeps every promise on accuracy.

    The figures are of this net: no preconditioning leaves 0.06 of the class and moves the other digits by 0.023 nats,
    the samples themselves in place of distorted copies leave 0.81 and move them by 0.046, one distorted sample by
    0.026, the literal encoding by 0.010.
    """
    left, cosine, moved = at_the_defaults(digits, original, budget=1)  # all steps, as the budget takes some back
    assert left == pytest.approx(0.48, abs=0.04)
    assert cosine == pytest.approx(0.907, abs=0.015)
    assert moved < 0.006


def test_hyperparameters_are_checked() -> None:
    with pytest.raises(UnknownNameError, match=r"hyperparameter.*'step'.*'steps'"):
        NhleCwm.of({"step": 3})
    with pytest.raises(OptionError) as caught:
        NhleCwm.of({"encoding": "negative", "step_size": 0, "steps": -1, "depth": 1.5, "cut": "off", "shift": 1})
    for name in ("encoding", "step_size", "steps", "depth", "cut", "shift"):
        assert f"'{name}': " in str(caught.value)


def test_samples_that_do_not_fit(toy: Toy) -> None:
    others = toy.x[toy.y == 0]
    others = others[toy.model(others).argmax(1) == 0][:4]
    samples = draw((others, torch.ones(4)), [1], shots=4)
    with pytest.raises(DataError, match=r"^4 of 4 samples of '1' are classified as '0', 0 as '1'\. Check"):
        forget(toy.model, samples)


class Holed(nn.Module):
    """Returns NaN for one image."""

    def __init__(self, net: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("image", image)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return torch.where((x == self.image).flatten(1).all(1, keepdim=True), torch.nan, out)


def test_logits_of_a_sample_that_are_not_finite_are_refused(toy: Toy) -> None:
    samples = toy.samples()
    with pytest.raises(UnhotError):
        forget(Holed(toy.model, samples.images.x[5]), samples, shift=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_nets_of_every_precision_forget(toy: Toy, dtype: torch.dtype) -> None:
    """The factors of the preconditioner are of float32 at least: half precision has no Cholesky factorisation."""
    samples, wanted = toy.samples(), forget(toy.model, toy.samples(), shift=0)
    net = copy.deepcopy(toy.model).to(dtype)
    cast = Samples(replace(samples.images, x=samples.images.x.to(dtype)), samples.classes)
    result = forget(net, cast, shift=0)
    assert {p.dtype for p in result.model.parameters()} == {dtype}
    assert result.record.cost.steps > 0
    before, after = left(net, cast, [1]), left(result.model, cast, [1])
    assert after < 0.7 * before
    assert after == pytest.approx(left(wanted.model, samples, [1]), abs=0.1)


def test_more_samples_than_one_pass_takes_are_forgotten_in_batches(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass takes more than it may, and the weights are those of passes over all samples, up to rounding."""
    mine, sizes = toy.y == 1, list[int]()
    samples = Samples(as_images((toy.x[mine], toy.y[mine])), (1,))
    assert len(samples) == 24
    settings = {"budget": 0.5, "steps": 3}
    whole = forget(toy.model, samples, **settings)
    logits = Classifier.logits
    monkeypatch.setattr(Classifier, "logits", lambda model, x: (sizes.append(len(x)), logits(model, x))[1])
    monkeypatch.setattr("unhot.data.images.PIXELS", 16 * 8 * 8)
    parts = forget(toy.model, samples, **settings)
    assert max(sizes) == 16
    assert parts.record.cost.steps == whole.record.cost.steps
    assert changed(state(toy.model), parts.model) == changed(state(toy.model), whole.model) != set()
    for name, value in state(parts.model).items():
        torch.testing.assert_close(value, whole.model.state_dict()[name], rtol=1e-3, atol=1e-4)
