"""NHLE-Renew: its loss beside slow obvious code, its stand-ins, what it renews, and how it keeps to its budgets."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unhot.data.samples import as_images, draw
from unhot.data.unlabelled import unlabelled
from unhot.errors import DataError, InputError, OptionError, OutputError
from unhot.methods import nhle_renew
from unhot.methods.base import Data, ForgetResult
from unhot.methods.checks import estimated
from unhot.methods.finetune import Finetune
from unhot.methods.nhle_cwm import NhleCwm
from unhot.methods.nhle_renew import NhleRenew, _Distillation
from unhot.methods.parts.data import Batch
from unhot.methods.parts.last_stage import Flow, LastStage
from unhot.methods.parts.sources import sources_of
from unhot.methods.parts.sources.inverted import Inversion, Inverted, _departures, _of_waves, _units, inverted
from unhot.methods.parts.sources.retained import Retained, UnlabelledImages
from unhot.methods.parts.work import Work, halvings
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime
from unhot.testing import Toy, toy_problem

FAST = {"images": 32, "descent": 4, "steps": 8, "lr": 0.01, "budget": 1.0}


@pytest.fixture
def toy() -> Toy:
    return toy_problem()


def run(toy: Toy, runtime: Runtime | None = None, seed: int = 0, **options: object) -> ForgetResult:
    given = {k: options.pop(k) for k in ("retain", "guard") if k in options}
    method = NhleRenew.of(FAST | options)  # type: ignore[arg-type]
    return method(toy.model, toy.samples(), seed=seed, runtime=runtime or Runtime(torch.device("cpu")), **given)  # type: ignore[arg-type]


def stage_of(toy: Toy, depth: float = 0.3) -> tuple[LastStage, Data]:
    model = Classifier.wrap(toy.model, toy.x[:2])
    x, y = toy.samples().images.x, toy.samples().images.y
    assert isinstance(x, Tensor)
    with torch.no_grad():
        data = Data((model.classes[1],), [1], ("forget",), Batch(x, y, model.logits(x)), None)
    return LastStage(model, x[:1], depth), data


def distillation(method: NhleRenew, stage: LastStage, data: Data, stand_ins: Flow) -> _Distillation:
    forget = stage.flow(data.forget.x, nhle_renew.COPIES, 1, torch.Generator().manual_seed(0))
    return _Distillation(method, stage, data, forget, stand_ins, Runtime(torch.device("cpu")))


def test_the_stage_run_on_what_flows_into_it_gives_what_the_net_gives(toy: Toy) -> None:
    stage, _ = stage_of(toy)
    flow = stage.flow(toy.x)
    assert stage.layers == ["7"]
    logits, features = stage(flow.into.float())
    with torch.no_grad():
        torch.testing.assert_close(logits, toy.model(toy.x), rtol=0.02, atol=0.05)  # bfloat16 between
        torch.testing.assert_close(features, toy.model[:10](toy.x), rtol=0.02, atol=0.05)  # type: ignore[index]
    torch.testing.assert_close(stage.replayed(flow.into).logits, logits)


def test_copies_are_shifted_and_know_their_image(toy: Toy) -> None:
    stage, _ = stage_of(toy)
    flow = stage.flow(toy.x[:5], 3, 2, torch.Generator().manual_seed(0))
    assert flow.image.tolist() == [0, 1, 2, 3, 4] * 3
    assert torch.equal(flow.into[:5], stage.flow(toy.x[:5]).into)
    assert not torch.equal(flow.into[5:10], flow.into[:5])


def test_copies_may_be_flipped(toy: Toy) -> None:
    stage, _ = stage_of(toy)
    as_they_are, flipped = stage.flow(toy.x[:40]).into, stage.flow(toy.x[:40].flip(3)).into
    copies = stage.flow(toy.x[:40], 2, 0, torch.Generator().manual_seed(0), flip=True).into[40:]
    was, is_now = ([torch.equal(a, b) for a, b in zip(copies, x, strict=True)] for x in (as_they_are, flipped))
    assert all(a or b for a, b in zip(was, is_now, strict=True))
    assert 5 < sum(is_now) < 35


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_computes_in_the_faster_precision(toy: Toy, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    seen: set[torch.dtype] = set()
    monkeypatch.setattr(nhle_renew, "usual_precision", lambda *_: precision)
    toy.model[4].register_forward_hook(lambda _, args, out: seen.add(out.dtype))  # type: ignore[index,operator]
    result = run(toy)
    assert result.record.environment.precision == precision
    assert seen == ({torch.float32, torch.bfloat16} if precision == "bf16" else {torch.float32})
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}


def test_what_takes_too_long_is_refused_before_the_samples_are_passed(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Inverted, "seconds", lambda *_: 3_600.0)
    monkeypatch.setattr(LastStage, "flow", lambda *_: pytest.fail("the samples were passed"))
    with pytest.raises(OptionError, match="minutes=10 allows less"):
        run(toy)


def test_blends_are_answered_as_the_original_answers_them_and_differ_from_step_to_step(toy: Toy) -> None:
    stage, data = stage_of(toy)
    training = distillation(NhleRenew(), stage, data, stage.flow(toy.x[toy.y != 1]))
    blends, more = training._blends(), training._blends()
    assert len(blends) == 3 * nhle_renew.BLENDS
    assert not torch.equal(blends.into, more.into)
    with torch.no_grad():
        torch.testing.assert_close(stage(blends.into)[0], blends.logits)
        torch.testing.assert_close(stage(blends.into)[1], blends.features)
        stage.renew(stage.frozen().trained(), 0.2, torch.Generator().manual_seed(0))
        again = training.original.replayed(blends.into)
        assert torch.equal(again.logits, blends.logits)
        assert not torch.allclose(stage(blends.into)[0], blends.logits, rtol=0.1)


def test_a_third_of_the_blends_holds_samples_in_at_most_half_of_their_area(toy: Toy) -> None:
    stage, data = stage_of(toy, 1.0)
    training = distillation(NhleRenew(), stage, data, stage.flow(toy.x[toy.y != 1]))
    training.retained = Flow(torch.zeros_like(training.retained.into), *training.retained[1:])
    training.forget = Flow(torch.ones_like(training.forget.into), *training.forget[1:])
    between, patched, foreign = training._blends().into[:, 0].float().split(nhle_renew.BLENDS)
    assert not between.any()
    assert not patched.any()
    assert 0.15 < foreign.mean().item() < 0.35
    assert foreign.mean((1, 2)).max().item() <= 0.6  # sides are rounded
    assert set(foreign.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_renewed_weights_keep_their_share_and_their_spread(toy: Toy, kept: float) -> None:
    stage, _ = stage_of(toy)
    old = stage.frozen().trained()
    stage.renew(old, kept, torch.Generator().manual_seed(0))
    weight, bias = (p.detach() for p in stage.trained())
    assert torch.equal(bias, old[1])
    noise = (weight - kept * old[0]) / max(math.sqrt(1 - kept**2), 1e-9)
    assert (noise.std() / old[0].std()).item() == pytest.approx(0.0 if kept == 1 else 1.0, abs=0.05)
    assert torch.corrcoef(torch.stack([noise.flatten(), old[0].flatten()]))[0, 1].nan_to_num().abs() < 0.06


def test_only_the_last_stage_changes(toy: Toy) -> None:
    old, new = toy.model.state_dict(), run(toy, cut="none", depth=0.3).model.state_dict()
    assert {k for k in old if not torch.equal(old[k], new[k])} == {"7.weight", "7.bias"}


def test_the_loss_is_the_sum_of_its_five_parts(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, data = stage_of(toy)
    stand_ins = stage.flow(toy.x[toy.y != 1])
    method = NhleRenew(temperature=0.7, spread=2.0, whitened=4.0, replay=5.0, same=3.0)
    training = distillation(method, stage, data, stand_ins)
    blends = training._blends()
    training.generator = Runtime(torch.device("cpu")).generator("steps")
    monkeypatch.setattr(training, "_blends", lambda: blends)
    stage.renew(stage.frozen().trained(), 0.8, torch.Generator().manual_seed(0))
    chosen: list[Tensor] = []
    real = torch.randint

    def noted(*args: object, **kwargs: object) -> Tensor:
        chosen.append(real(*args, **kwargs))  # type: ignore[call-overload]
        return chosen[-1]

    monkeypatch.setattr(torch, "randint", noted)
    monkeypatch.setattr(nhle_renew, "energy_of_features", lambda h, near: h.mean() + near.mean())
    loss = training.loss()
    views, others = chosen
    generator = _same_draws(training, len(training.forget), len(training.retained))
    near = training.likely[1].multinomial(nhle_renew.NEAR, True, generator=generator)
    now = training.likely[1][others].multinomial(nhle_renew.NEAR, True, generator=generator)
    forget, retained = training.forget.part(views), Flow.of([training.retained.part(others), blends])
    with torch.no_grad():
        (z_f, h_f), (z_r, h_r) = stage(forget.into), stage(retained.into)

    def divergence(original: Tensor, now: Tensor) -> float:
        total = 0.0
        for before, after in zip(original, now, strict=True):
            p = torch.stack([before[k] for k in (0, 2, 3)]).softmax(0)
            q = after.log_softmax(0)
            total += sum(float(p[i] * (p[i].log() - q[k])) for i, k in enumerate((0, 2, 3)))
        return total / len(original)

    unit = training.retained.features.square().sum(1).mean()
    moved = sum(float((a - b).square().sum()) for a, b in zip(h_r, retained.features, strict=True)) / len(h_r)
    expected = divergence(forget.logits / 0.7, z_f) + 5 * divergence(retained.logits, z_r) + 3 * moved / float(unit)
    expected += 2 * float(h_f.mean() + training.retained.features[near].mean())
    expected += 4 * float(training.whitening(h_f).mean() + training.whitening(h_r[now]).mean())
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def _same_draws(training: _Distillation, forget: int, retained: int) -> torch.Generator:
    """Return the generator of the steps after the two draws of images of the first step."""
    generator = Runtime(torch.device("cpu")).generator("steps")
    torch.randint(forget, (nhle_renew.FORGET,), generator=generator)
    torch.randint(retained, (nhle_renew.RETAIN,), generator=generator)
    return generator


def test_features_are_approached_class_by_class_as_the_target_says(toy: Toy) -> None:
    stage, data = stage_of(toy)
    training = distillation(NhleRenew(), stage, data, stage.flow(toy.x[toy.y != 1]))
    logits = training.forget.logits / 0.5
    logits[:, 1] = -torch.inf
    shares = logits.softmax(1).mean(0)
    masked = training.retained.logits.clone()
    masked[:, 1] = -torch.inf
    for k in (0, 2, 3):
        assert training.likely[1][masked.argmax(1) == k].sum().item() == pytest.approx(shares[k].item(), rel=1e-4)


def test_no_copy_of_a_held_out_image_is_trained_on(toy: Toy) -> None:
    stage, data = stage_of(toy)
    flow = stage.flow(toy.x[toy.y != 1], 4, 1, torch.Generator().manual_seed(0))
    training = distillation(NhleRenew(), stage, data, flow)
    assert not set(training.held_out.image.tolist()) & set(training.retained.image.tolist())
    assert len(training.held_out) + len(training.retained) == len(flow)


def test_stand_ins_come_from_all_that_is_given_and_are_made_where_too_few_are(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nhle_renew, "FEW", 1)
    assert run(toy).record.notes["mode"] == "bare"
    assert run(toy, retain=toy.retain()).record.notes["mode"] == "retained"
    few = tuple(t[:5] for t in toy.retain())
    assert run(toy, retain=few).record.notes["mode"] == "retained and bare"
    guarded = run(toy, guard=toy.guard())
    assert guarded.record.notes["mode"] == "guarded"
    assert guarded.record.uses == ("forget", "guard")
    assert run(toy, guard=toy.guard(), retain=toy.retain()).record.notes["mode"] == "retained and guarded"


def test_departures_are_those_of_mean_and_spread_from_the_stored_ones(toy: Toy) -> None:
    norm = toy.model[1]  # type: ignore[index]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    model, total = Classifier.wrap(toy.model, toy.x[:2]), 0.0
    with torch.no_grad():
        with _departures(model) as found:
            model.logits(toy.x[:9])
        flow = toy.model[0](toy.x[:9])  # type: ignore[index]
        for i in range(6):
            var = float(norm.running_var[i]) + norm.eps
            total += (float(flow[:, i].mean()) - float(norm.running_mean[i])) ** 2 / var
            total += (float(flow[:, i].std(correction=0)) / var**0.5 - 1) ** 2
    assert len(found) == 1
    assert found[0].item() == pytest.approx(total / 6, rel=1e-4)


def test_unlabelled_images_stand_in_but_for_those_that_look_like_the_class(toy: Toy) -> None:
    result = run(toy, retain=unlabelled((toy.x, torch.zeros_like(toy.y))))
    with torch.no_grad():
        others = int((toy.model(toy.x).argmax(1) != 1).sum())
    retain = result.record.retain
    assert retain is not None
    assert (result.record.notes["mode"], retain.labelled, retain.count) == ("unlabelled", False, others)
    assert result.record.retained_accuracy is None
    assert run(toy, retain=toy.retain()).record.retain.labelled  # type: ignore[union-attr]
    with pytest.raises(OptionError, match="finetune takes no unlabelled images"):
        Finetune()(toy.model, toy.samples(), retain=unlabelled(toy.x))


def test_images_are_moved_until_they_are_classified_as_wanted(toy: Toy) -> None:
    model = Classifier.wrap(toy.model, toy.x[:2])
    inversion = Inversion(model, toy.x[:9], 64, 60, torch.Generator().manual_seed(0), Runtime())

    def wrong() -> float:
        with torch.no_grad():
            return nn.functional.cross_entropy(toy.model(inversion.x()), inversion.target).item()

    before = wrong()
    for _ in range(60):
        inversion.step()
    assert wrong() < 0.5 * before


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 1)])
def test_waves_are_in_units_that_fall_with_their_frequency(size: tuple[int, int]) -> None:
    units = _units(torch.Size(size), torch.device("cpu"))
    waves = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(_of_waves(waves, torch.ones_like(units)), waves, atol=1e-6)
    for k in range(1, size[1] // 2 + 1):
        wave = torch.cos(2 * torch.pi * k / size[1] * torch.arange(size[1])).expand(1, 1, *size)
        assert torch.allclose(_of_waves(wave, units), wave * (k / size[1]) ** -0.75, atol=1e-5)


def test_inverted_images_are_within_the_range_of_the_inputs(toy: Toy) -> None:
    inversion = Inversion(
        Classifier.wrap(toy.model, toy.x[:2]), toy.x, 32, 20, torch.Generator().manual_seed(0), Runtime()
    )
    inversion.waves.data *= 50
    inversion.step()
    low, high = toy.x.amin((0, 2, 3)), toy.x.amax((0, 2, 3))
    assert torch.equal(inversion.x().amin((0, 2, 3)), low)
    assert torch.equal(inversion.x().amax((0, 2, 3)), high)
    assert inversion.waves.grad is not None
    assert inversion.waves.grad.any()


def test_inverted_images_depend_on_the_model_alone(toy: Toy) -> None:
    model = Classifier.wrap(toy.model, toy.x[:2])
    first, second = (inverted(model, toy.x[:1], 8, 3, Runtime(torch.device("cpu"), seed=s)) for s in (0, 7))
    assert torch.equal(first, second)


def test_the_cache_is_used_again_and_gives_the_same_model(toy: Toy, tmp_path: Path) -> None:
    said: list[str] = []
    runtime = Runtime(torch.device("cpu"), cache=tmp_path / "cache", announce=said.append)
    first, second = run(toy, runtime), run(toy, runtime)
    assert first.record.weights_sha256 == second.record.weights_sha256 == run(toy).record.weights_sha256
    assert [text.split(": ")[1] for text in said] == [
        *("32 images to make and 8 steps.", "32 images of the cache and 8 steps."),
    ]
    assert run(toy, runtime, images=16).record.notes["stand_ins"] < first.record.notes["stand_ins"]  # type: ignore[operator]


def test_a_cache_serves_requests_with_other_images_given(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nhle_renew, "FEW", 1)
    said: list[str] = []
    runtime = Runtime(torch.device("cpu"), cache=tmp_path / "cache", announce=said.append)
    for count in (5, 9, 0):
        run(toy, runtime, **({"retain": tuple(t[:count] for t in toy.retain())} if count else {}))
    assert [text.split(": ")[1] for text in said] == [
        "5 given images, 27 images to make and 8 steps.",
        "9 given images, 23 images of the cache and 8 steps.",
        "32 images of the cache and 8 steps.",
    ]
    run(toy, runtime, retain=toy.retain())
    assert f"the cache {tmp_path / 'cache'} is not used" in said[-2]


def test_beside_few_images_of_each_class_more_are_made_if_the_time_suffices(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"retain": tuple(t[:70] for t in toy.retain())}

    def made(toy: Toy = toy, **given: object) -> tuple[object, object]:
        notes = run(toy, **given).record.notes  # type: ignore[arg-type]
        return notes["mode"], notes["work"]["images"]  # type: ignore[index,call-overload]

    assert made(**given) == ("retained and bare", 102)
    assert made(**given, guard=toy.guard()) == ("retained and guarded", 102)
    assert made(toy_problem(batch_norm=False), **given) == ("retained", 70)  # what is made of this net looks like noise
    monkeypatch.setattr(Inverted, "seconds", lambda *_: 10.0)
    assert made(**given, minutes=5) == ("retained", 70)
    monkeypatch.setattr(nhle_renew, "FEW", 17)
    assert made(**given) == ("retained", 70)


def test_a_cache_that_does_not_fit_is_refused(toy: Toy, tmp_path: Path) -> None:
    runtime = Runtime(torch.device("cpu"), cache=tmp_path / "cache")
    run(toy, runtime)
    with pytest.raises(InputError, match="32 images of 4 steps; 32 images of 5 steps are asked for"):
        run(toy, runtime, descent=5)
    with pytest.raises(InputError, match="from another model"):
        run(toy_problem(batch_norm=False), runtime)
    (tmp_path / "cache").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        run(toy, runtime)
    said: list[str] = []
    with pytest.raises(OutputError, match="no is not a folder"):
        run(toy, Runtime(torch.device("cpu"), cache=tmp_path / "no" / "cache", announce=said.append))
    assert not said


def test_a_method_that_makes_no_images_takes_no_cache(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"nhle-cwm makes no images that a cache could keep. Leave cache=... out"):
        NhleCwm()(toy.model, toy.samples(), runtime=Runtime(torch.device("cpu"), cache=tmp_path / "cache"))


def test_work_is_halved_until_it_fits() -> None:
    work = Work(images=100, steps=60, image_seconds=1.0, step_seconds=1.0)
    assert halvings(100) == [100, 50, 25, 12]
    assert work.within(160 / 60) == work
    assert work.within(159 / 60) == Work(50, 30, 1.0, 1.0)
    assert work.within(41 / 60) == Work(25, 15, 1.0, 1.0)
    with pytest.raises(OptionError, match="Allow more, use a GPU, or choose method='nhle-cwm'"):
        work.within(10 / 60)
    tried = replace(work, tries=3)
    assert (tried.seconds, tried.longest) == (160, 280)
    assert tried.within(279 / 60) == replace(tried, images=50, steps=30)


def test_a_run_says_how_long_it_takes_and_notes_it(toy: Toy) -> None:
    said: list[str] = []
    record = run(toy, Runtime(torch.device("cpu"), announce=said.append)).record
    assert len(said) == 1
    assert said[0].startswith("nhle-renew takes about ")
    assert said[0].endswith(" s if it has to begin again: 32 images to make and 8 steps.")
    assert record.notes["work"] == {"images": 32, "steps": 8}
    assert record.cost.planned_seconds is not None
    assert record.cost.planned_seconds > 0


def test_a_run_that_is_halved_says_so(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Runtime, "median_seconds", lambda *_: 1.0)
    monkeypatch.setattr(Inverted, "seconds", lambda *_: 1.0)  # of an image; at most 32 + 3 * 8 seconds
    record = run(toy, Runtime(torch.device("cpu"), announce=said.append), minutes=0.5).record
    assert said == [
        "nhle-renew takes about 20 s, at most 28 s if it has to begin again: 16 images to make and 4 steps, to fit 0.5 "
        "minutes instead of 8."
    ]
    assert record.notes["work"] == {"images": 16, "steps": 4}
    assert record.cost.steps == 4


def test_where_no_renewal_fits_the_budget_the_cut_alone_is_left(toy: Toy) -> None:
    result = run(toy, budget=0.005, lr=0.3)
    assert result.record.stop_reason == "the budget allows no renewal"
    old, new = toy.model.state_dict(), result.uncut.module.state_dict()
    assert all(torch.equal(old[k], new[k]) for k in old)
    assert result.record.notes["kept"] == 1.0


def test_too_few_held_out_stand_ins_are_no_reason_to_try(toy: Toy) -> None:
    said: list[str] = []
    record = run(toy, Runtime(torch.device("cpu"), announce=said.append), budget=0.01).record
    assert (record.notes["kept"], record.cost.steps) == (1.0, 0)
    assert "So few stand-ins are held out" in said[1]
    assert "could not be ruled out, and the budget is 0.01: nothing is renewed." in said[1]


def test_one_sample_is_enough_to_run(toy: Toy) -> None:
    one = draw((toy.x, toy.y), [1], 1)
    result = NhleRenew.of(FAST)(toy.model, one, runtime=Runtime(torch.device("cpu")))  # type: ignore[arg-type]
    assert result.record.notes["kept"] == 0.85


def test_more_of_the_old_weights_is_kept_until_the_budget_is_kept(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([nhle_renew.Damage(0.2, 0.6), nhle_renew.Damage(0.01, 0.02)])
    monkeypatch.setattr(_Distillation, "damage", lambda *_: next(found))
    said: list[str] = []
    record = run(toy, Runtime(torch.device("cpu"), announce=said.append), budget=0.5).record
    assert record.stop_reason == "0.925 of the old weights kept instead of 0.85, to stay within the budget"
    assert said[1:] == [
        "The other classes might lose 0.600, and the budget is 0.5: beginning again with 0.925 of the old weights."
    ]
    notes = record.notes
    assert (notes["kept"], notes["loss_on_other_classes"]) == (0.925, {"estimate": 0.01, "at_most": 0.02})


def test_sources_fill_up_what_is_missing(toy: Toy) -> None:
    _, data = stage_of(toy)
    (made,) = sources_of(data, 40, 3)
    assert (made.mode, made.images, made.fewer(7).images) == ("bare", 40, 7)


@pytest.mark.parametrize(("images", "expected"), [(10, (60, 1)), (16, (72, 1)), (40, (72, 3)), (100, (72, 6))])
def test_of_many_images_more_are_taken_with_fewer_copies(toy: Toy, images: int, expected: tuple[int, int]) -> None:
    stage, data = stage_of(toy)
    given = replace(data, uses=("forget", "retain"), others=as_images(toy.retain()))
    source, *made = sources_of(given, images, 3)
    assert isinstance(source, Retained)
    assert (source.images, source.copies) == expected
    assert [s.images for s in made] == ([28] if images == 100 else [])
    assert len(source.flow(stage, given, Runtime(torch.device("cpu")))) == expected[0] * expected[1]


def test_stand_ins_that_are_images_of_the_other_classes_are_believed_more(toy: Toy) -> None:
    stage, data = stage_of(toy)
    training = distillation(NhleRenew(), stage, data, stage.flow(toy.x[toy.y != 1]))
    stage.renew(stage.frozen().trained(), 0.3, torch.Generator().manual_seed(0))
    made, given = (training.damage(source, 1.0) for source in (Inverted(9, 1, 9), Retained(9)))
    assert 0 < given.estimate == pytest.approx(made.estimate / 1.3)
    assert training.damage(Inverted(9, 1, 9), 0.5).estimate > made.estimate
    least = 0.005 * max(1, nhle_renew.ENOUGH / len(training.held_out))
    assert given.at_most - least == pytest.approx(1.6 * given.estimate)
    assert UnlabelledImages(9).most > Inverted(9, 1, 9).most > Retained(9).most


def test_the_estimate_of_a_net_without_stored_statistics_is_a_guess(toy: Toy) -> None:
    runtime = Runtime(torch.device("cpu"))
    stage, plain = stage_of(toy)[0], stage_of(toy_problem(batch_norm=False))[0]
    known, unsure = (Inverted(9, 1, 9).ready(s, runtime) for s in (stage, plain))
    assert (known.calibrated, unsure.calibrated) == (True, False)
    record = run(toy_problem(batch_norm=False)).record
    assert record.notes["loss_on_other_classes"]["calibrated"] is False  # type: ignore[index,call-overload]
    assert "(a guess: it was not calibrated on nets like this one)" in estimated(record)
    assert "guess" not in estimated(run(toy).record)


def test_the_estimate_of_a_briefly_trained_net_is_a_guess(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nhle_renew, "sharpening", lambda samples, errors: 0.9)
    record = run(toy).record
    assert "(a guess" in estimated(record)
    monkeypatch.setattr(nhle_renew, "GUESSED", 1.0)
    wide, usual = (r.notes["loss_on_other_classes"] for r in (record, run(toy).record))
    assert isinstance(wide, dict)
    assert isinstance(usual, dict)
    assert wide["estimate"] == usual["estimate"] > 0
    assert wide["at_most"] - usual["at_most"] == pytest.approx(0.6 / 1.3 * usual["estimate"])
    plenty = tuple(torch.cat([t, t]) for t in toy.retain())
    assert "guess" not in estimated(run(toy, retain=plenty).record)


def test_unlabelled_images_that_are_left_out_are_counted(toy: Toy) -> None:
    said: list[str] = []
    record = run(toy, Runtime(torch.device("cpu"), announce=said.append), retain=unlabelled(toy.x)).record
    assert record.retain is not None
    assert said[0] == (
        f"Of {len(toy.x)} unlabelled images {record.retain.count} are used; the others are classified as a class to "
        "forget."
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_retained_images_of_another_size_are_refused(toy: Toy, labelled: bool) -> None:
    x = torch.zeros(6, toy.x.shape[1], 5, 5)
    given = (x, torch.zeros(6, dtype=torch.int64)) if labelled else unlabelled(x)
    with pytest.raises(DataError, match=r"The retained images make inputs of \(1, 5, 5\) .*, and the samples of"):
        run(toy, retain=given)
