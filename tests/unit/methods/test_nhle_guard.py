"""NHLE-Guard: its arithmetic beside slow obvious code, its two modes, and when it stops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unhot import statistics as guards
from unhot.data.samples import draw
from unhot.errors import DataError, OptionError
from unhot.methods import nhle_guard
from unhot.methods.base import Data, ForgetResult, Outcome
from unhot.methods.mask import Mask
from unhot.methods.nhle_guard import NhleGuard, _Draws
from unhot.methods.parts.likeness import energy
from unhot.methods.parts.preconditioning import Spared
from unhot.methods.parts.stand_ins import stand_ins
from unhot.models.classifier import Classifier
from unhot.models.layers import input_rows, weight_layers
from unhot.runtime import Runtime
from unhot.testing import Toy, toy_problem

RUNTIME = Runtime(torch.device("cpu"))
FAST = {"steps": 6, "lr": 0.01, "images": 24, "descent": 4, "preconditioning": 10.0, "budget": 99.0, "depth": 1.0}


@pytest.fixture
def toy() -> Toy:
    return toy_problem()


def test_energy_is_the_mean_distance_between_less_those_within(generator: torch.Generator) -> None:
    x, y = torch.randn(5, 3, generator=generator), torch.randn(7, 3, generator=generator)
    between = sum((a - b).norm() for a in x for b in y) / 35
    within = [
        sum((z[i] - z[j]).norm() for i in range(len(z)) for j in range(len(z)) if i != j) / (len(z) * (len(z) - 1))
        for z in (x, y)
    ]
    torch.testing.assert_close(energy(x, y), 2 * between - within[0] - within[1])


def test_energy_is_small_only_for_like_distributions(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 600, 4, generator=generator)
    assert abs(energy(a, b)) < 0.02
    assert energy(a, b + 0.5) > 0.1
    assert energy(a, 2 * b) > 0.1
    assert torch.isfinite(energy(a[:1], b))


@pytest.mark.parametrize("strength", [0.0, 3.0, 1e4])
@pytest.mark.parametrize("rest", [0.0, 0.3])
def test_spared_is_the_root_of_the_dense_inverse(strength: float, rest: float, generator: torch.Generator) -> None:
    weight, rows = torch.randn(4, 2, 3, generator=generator).double(), torch.randn(5, 6, generator=generator).double()
    made = Spared(weight, rows, torch.tensor(rest).double(), strength)
    s = rows.T @ rows + rest * torch.eye(6).double()
    values, vectors = torch.linalg.eigh(torch.eye(6).double() + strength * s / s.trace())
    root = vectors @ (values**-0.5).diag() @ vectors.T
    change = torch.randn(4, 6, generator=generator).double()
    with torch.no_grad():
        made.change.copy_(change)
        torch.testing.assert_close(made(weight), weight + (change @ root).view(4, 2, 3))


@pytest.mark.usefixtures("keep_generators")
def test_an_endless_guard_leaves_outputs_on_the_statistics_data_as_they_were(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 4, 3).double(), torch.randn(2, 3, 4, 4, generator=generator).double()
    rows = input_rows(layer, x)  # 8 of 27 directions
    moves = {}
    for strength in (0.0, 1e3, 1e12):
        made = Spared(layer.weight, rows, torch.zeros(()).double(), strength)
        with torch.no_grad():
            made.change.copy_(torch.randn(4, 27, generator=generator))
            changed = made(layer.weight)
            moves[strength] = (changed - layer.weight).flatten(1)
    out = {s: (m @ rows.T).norm().item() for s, m in moves.items()}
    assert out[0.0] > 1
    assert out[1e12] < 1e-4 * out[0.0]
    assert moves[1e12].norm() > 1  # what these inputs do not use is free


def draws(toy: Toy, *forgotten: int, **options: float) -> _Draws:
    """What a guarded run on these classes draws."""
    made: list[_Draws] = []

    class Looking(NhleGuard):
        def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            made.append(_Draws(self, model, data, data.guard.to(data.forget.x), ["0", "4", "7"], runtime))
            return super().run(model, data, runtime)

    Looking(**FAST | options)(toy.model, toy.samples(*forgotten), guard=toy.guard(), runtime=RUNTIME)
    return made[0]


def test_the_target_is_a_distribution_over_retained_classes(toy: Toy) -> None:
    drawn = draws(toy, 1, 3)
    request = drawn._target(drawn.forget)
    target = request.without_forgotten(request.original).softmax(1)
    assert (target[:, [1, 3]] == 0).all()
    torch.testing.assert_close(target.sum(1), torch.ones(len(target)))
    assert set(drawn.retained.y.tolist()) == {0, 2}
    assert set(drawn.forget.y.tolist()) == {1, 3} == set(drawn.around.y.tolist())


def test_features_are_drawn_of_each_class_as_often_as_the_target_says(toy: Toy) -> None:
    drawn = draws(toy, 1)
    request = drawn._target(drawn.forget)
    samples = nhle_guard.VIEWS * len(toy.samples(1))
    wanted = request.without_forgotten(request.original).softmax(1)[:samples].mean(0)
    weights = drawn.weights[1]
    found = torch.stack([weights[drawn.retained.y == k].sum() for k in range(4)])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_what_a_run_is_judged_by_is_not_trained_on(toy: Toy) -> None:
    drawn = draws(toy, 1)
    trained = {row.sum().item() for row in drawn.forget.x}
    assert trained.isdisjoint({row.sum().item() for row in drawn.around.x})
    count = len(drawn.around.y)
    assert count == nhle_guard.AROUND // nhle_guard.HELD_OUT
    assert len(drawn.forget.y) == nhle_guard.VIEWS * len(toy.samples(1)) + nhle_guard.AROUND - count


def test_before_the_first_step_the_retained_draws_differ_from_the_masked_original_by_what_was_masked(toy: Toy) -> None:
    drawn = draws(toy, 1)
    p = drawn.retained.logits[: nhle_guard.REPLAYED // nhle_guard.HELD_OUT].softmax(1)
    lost = -(1 - p[:, 1]).log().mean()  # KL of p without a class, renormalised, from p
    result = NhleGuard(**FAST | {"steps": 0})(toy.model, toy.samples(), guard=toy.guard(), runtime=RUNTIME)
    assert result.record.notes["divergence"] == pytest.approx(lost.item(), rel=1e-4)


@pytest.mark.parametrize("guarded", [False, True])
def test_weights_of_layers_change_and_nothing_else(toy: Toy, guarded: bool) -> None:
    before = {n: v.clone() for n, v in toy.model.state_dict().items()}
    guard = toy.guard() if guarded else None
    result = NhleGuard(**FAST, cut="none")(toy.model, toy.samples(), guard=guard, runtime=RUNTIME)
    after = result.model.state_dict()
    assert after.keys() == before.keys()
    changed = {n for n, v in after.items() if not torch.equal(v, before[n])}
    assert changed == {f"{n}.weight" for n in weight_layers(Classifier.wrap(toy.model, toy.x[:2]), toy.x[:1])}
    notes = result.record.notes
    assert notes["mode"] == ("guarded" if guarded else "bare")
    assert notes["trained"] == 3
    assert {"probability_left", "energy", "divergence"} <= notes.keys()
    assert result.record.cost.steps == (6 if guarded else 10)


def test_the_record_tells_guarded_from_bare(toy: Toy) -> None:
    guard = toy.guard()
    bare, guarded = (NhleGuard(**FAST)(toy.model, toy.samples(), guard=g, runtime=RUNTIME) for g in (None, guard))
    assert (bare.record.uses, guarded.record.uses) == (("forget",), ("forget", "guard"))
    assert (bare.record.guard_sha256, guarded.record.guard_sha256) == (None, guard.sha256())
    assert bare.record.digest != guarded.record.digest


def test_what_the_guard_holds_of_the_class_makes_no_difference(toy: Toy) -> None:
    guard = toy.guard()
    less = guard.excluding([guard.info.classes[1]])
    found = [NhleGuard(**FAST)(toy.model, toy.samples(), guard=g, runtime=RUNTIME) for g in (guard, less)]
    assert found[0].record.weights_sha256 == found[1].record.weights_sha256
    # both are the same request: what is used of the two guards is the same
    assert found[0].record.digest == found[1].record.digest


def test_it_stops_when_both_goals_are_reached(toy: Toy) -> None:
    easy = NhleGuard(**FAST | {"steps": 50, "stop_at": 1.0, "near": 9.0})
    result = easy(toy.model, toy.samples(), guard=toy.guard(), runtime=RUNTIME)
    assert result.record.stop_reason == "probability at most 1.0 and energy at most 9.0"
    assert result.record.cost.steps == 0
    never = NhleGuard(**FAST, stop_at=1.0, near=0.0)(toy.model, toy.samples(), guard=toy.guard(), runtime=RUNTIME)
    assert never.record.stop_reason == "all steps done"


def test_the_energy_distance_is_no_goal_where_it_is_not_trained_for(toy: Toy) -> None:
    settings = FAST | {"stop_at": 1.0, "near": 0.0}
    bare = NhleGuard(**settings)(toy.model, toy.samples(), runtime=RUNTIME)
    assert bare.record.stop_reason == "probability at most 1.0"
    told = NhleGuard(**settings, spread=3.0)(toy.model, toy.samples(), runtime=RUNTIME)
    assert told.record.stop_reason == "all steps done"


@pytest.mark.parametrize(
    ("guarded", "settings"),
    [(True, {"preconditioning": 2e4, "spread": 3.0}), (False, {"preconditioning": 1e6, "spread": 0.0})],
)
def test_what_is_not_given_is_chosen_for_the_mode(toy: Toy, guarded: bool, settings: dict[str, float]) -> None:
    guard, plain = toy.guard() if guarded else None, {n: v for n, v in FAST.items() if n != "preconditioning"}

    def weights(**given: float) -> str:
        found = NhleGuard(**plain | given)(toy.model, toy.samples(), guard=guard, runtime=RUNTIME)
        return found.record.weights_sha256

    assert weights() == weights(**settings)
    assert all(weights(**settings | {name: value + 1e3}) != weights() for name, value in settings.items())


def test_a_run_that_harms_is_taken_back_to_the_last_look(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nhle_guard, "CHECK", 2)
    guard = toy.guard()

    def run(steps: int, budget: float) -> ForgetResult:
        made = NhleGuard(**FAST | {"steps": steps, "budget": budget, "lr": 0.1, "replay": 0.0, "near": 0.0}, cut="none")
        return made(toy.model, toy.samples(), guard=guard, runtime=RUNTIME)

    looks = [float(str(run(steps, 99.0).record.notes["divergence"])) for steps in (0, 2, 4, 6)]
    worse = next(i for i in (1, 2, 3) if looks[i] > max(looks[:i]))
    bound = run(6, (looks[worse] + max(looks[:worse])) / 2)
    assert bound.record.stop_reason.startswith("divergence more than")
    assert bound.record.cost.steps == 2 * worse
    assert bound.record.weights_sha256 == run(2 * (worse - 1), 99.0).record.weights_sha256
    assert bound.record.notes["divergence"] == looks[worse - 1]


def test_a_loss_that_is_not_a_number_is_taken_back(toy: Toy) -> None:
    wild = NhleGuard(**FAST | {"lr": 1e30}, cut="none")(toy.model, toy.samples(), guard=toy.guard(), runtime=RUNTIME)
    assert wild.record.stop_reason.startswith("divergence more than")
    assert all(torch.equal(v, toy.model.state_dict()[n]) for n, v in wild.model.state_dict().items())


def test_a_guard_must_be_of_the_model_and_of_use(toy: Toy) -> None:
    other = toy_problem(batch_norm=False)
    with pytest.raises(DataError, match="collected from another model"):
        NhleGuard(**FAST)(toy.model, toy.samples(), guard=other.guard(), runtime=RUNTIME)
    with pytest.raises(OptionError, match=r"mask.*stored.*statistics"):
        Mask()(toy.model, toy.samples(), guard=toy.guard(), runtime=RUNTIME)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_bare_mode_says_what_it_looks_at(batch_norm: bool) -> None:
    toy = toy_problem(batch_norm=batch_norm)
    result = NhleGuard(**FAST)(toy.model, toy.samples(), runtime=RUNTIME)
    assert result.record.notes["mode"] == "bare"
    assert result.record.cost.steps == FAST["steps"] + FAST["descent"]


def test_stand_ins_are_taken_for_retained_classes_and_every_other_one_for_a_mix(toy: Toy) -> None:
    model, retained = Classifier.wrap(toy.model, toy.x[:2]), torch.tensor([0, 2, 3])
    x = toy.x[toy.y == 1][:5]
    with torch.no_grad():
        logits = model.logits(x)
    made = stand_ins(model, x, logits, retained, 24, 60, RUNTIME)
    assert made.shape == (24, 1, 8, 8)
    assert x.min() <= made.min()
    assert made.max() <= x.max()
    with torch.no_grad():
        p = model.logits(made).softmax(1)
    assert p[:, 1].max() < 0.2
    first = retained[torch.arange(24) % 3]
    assert (p.argmax(1) == first)[::2].float().mean() > 0.9
    assert p.amax(1)[::2].mean() > p.amax(1)[1::2].mean() + 0.05
    assert torch.equal(made, stand_ins(model, x, logits, retained, 24, 60, RUNTIME))
    assert all(p.grad is None for p in toy.model.parameters())


@pytest.mark.parametrize("count", [1, 40, 300])
def test_as_many_stand_ins_as_are_asked_for(toy: Toy, count: int) -> None:
    model, x = Classifier.wrap(toy.model, toy.x[:2]), toy.x[:8]
    assert stand_ins(model, x, torch.zeros(8, 4), torch.tensor([0]), count, 1, RUNTIME).shape == (count, 1, 8, 8)


def test_a_temperature_below_one_sharpens_the_target(toy: Toy) -> None:
    """The target is the original's distribution without the class, to the power 1 / T."""
    targets = {}
    for temperature in (0.5, 1.0):
        drawn = draws(toy, 1, temperature=temperature)
        request = drawn._target(drawn.around)
        targets[temperature] = request.without_forgotten(drawn.around.logits / temperature).softmax(1)
        torch.testing.assert_close(request.original, drawn.around.logits / temperature)
    assert targets[0.5].amax(1).mean() > targets[1.0].amax(1).mean()


def test_layers_that_no_split_point_of_the_guard_reaches_are_not_trained(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "NUMBERS", 0)
    result = NhleGuard(**FAST, cut="none")(toy.model, toy.samples(), guard=toy.guard(), runtime=RUNTIME)
    before, after = toy.model.state_dict(), result.model.state_dict()
    assert {n for n, v in after.items() if not torch.equal(v, before[n])} == {"7.weight"}
    assert result.record.notes["trained"] == 1


@pytest.mark.parametrize(("depth", "trained"), [(0.1, {"7"}), (0.5, {"4", "7"}), (1.0, {"0", "4", "7"})])
def test_depth_counts_layers_from_the_head(toy: Toy, depth: float, trained: set[str]) -> None:
    before = {n: v.clone() for n, v in toy.model.state_dict().items()}
    made = NhleGuard(**FAST | {"depth": depth}, cut="none")(
        toy.model, toy.samples(), guard=toy.guard(), runtime=RUNTIME
    )
    after = made.model.state_dict()
    assert {n for n, v in after.items() if not torch.equal(v, before[n])} == {f"{n}.weight" for n in trained}


def test_a_net_that_is_but_a_head_is_cut(toy: Toy) -> None:
    net = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 64, 4))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([toy.x[toy.y == k].mean(0).flatten() for k in range(4)]))
        net[1].bias.copy_(-net[1].weight.square().sum(1) / 2)
    result = NhleGuard(**FAST)(net, toy.samples(), runtime=RUNTIME)
    assert result.record.cost.steps == FAST["descent"]  # there is nothing to train
    assert not (result.model(toy.x).argmax(1) == 1).any()


def test_one_sample_is_enough(toy: Toy) -> None:
    y = torch.ones(1, dtype=torch.int64)
    image = toy.x[(toy.y == 1) & (toy.model(toy.x).argmax(1) == 1)][:1]
    result = NhleGuard(**FAST)(toy.model, draw((image, y), [1], shots=1), guard=toy.guard(), runtime=RUNTIME)
    assert result.model(toy.x).isfinite().all()
