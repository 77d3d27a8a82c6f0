"""Every registered metric and attack keeps its contract, and check_metric and check_attack find what breaks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ConfigDict, Field, ValidationError

from unhot.evaluation import attacks, metrics
from unhot.evaluation.attacks import AttackEntry
from unhot.evaluation.metric import Attack, Case, Finding, NotMeasurable
from unhot.evaluation.metrics import MetricEntry
from unhot.evaluation.metrics.accuracy import forget_accuracy, retain_accuracy, retain_drop
from unhot.evaluation.stats import Estimate, proportion
from unhot.records.audit import PlotData
from unhot.records.measure import Measure
from unhot.testing import check_attack, check_metric, toy_views

# settings that matter on the small problem, and few enough steps
SETTINGS: dict[str, dict[str, Any]] = {
    "membership": {"scores_kept": 20},
    "relearning": {"steps": 16},
    "inversion": {"steps": 10},
}


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize("name", list(metrics.catalogue))
def test_registered_metric_keeps_the_contract(name: str) -> None:
    assert check_metric(name) is None


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize("name", list(attacks.catalogue))
def test_registered_attack_keeps_the_contract(name: str) -> None:
    assert check_attack(name, attacks.catalogue.get(name)(**SETTINGS.get(name, {}))) is None


@pytest.mark.parametrize("name", list(attacks.catalogue))
def test_registered_attack_is_described(name: str) -> None:
    attack = attacks.catalogue.get(name)
    assert "Source:" in (attack.__doc__ or "")
    assert all(f"{field}:" in (attack.__doc__ or "") for field in attack.model_fields)


def test_the_models_of_the_small_audit_are_always_the_same() -> None:
    first, second = toy_views(), toy_views()
    assert first.models["original"][0].sha256() == second.models["original"][0].sha256()
    assert first.models["original"][0].module is not second.models["original"][0].module
    case = Case(first, "original")
    assert 0.6 < forget_accuracy(case).value < 0.95
    assert forget_accuracy(Case(first, "retrained")).value == 0


def declared(**changes: Any) -> Measure:
    plain = {"name": "theirs", "title": "Theirs", "group": "Output", "sentence": "What it is.", "low": 0, "high": 1}
    return Measure(**(plain | changes))


def outside_of_its_range(case: Case) -> Estimate:
    return Estimate(1.2, 1.1, 1.3, 5)


def outside_of_its_interval(case: Case) -> Estimate:
    return Estimate(0.2, 0.3, 0.4, 5)


def not_a_number(case: Case) -> Estimate:
    return Estimate(float("nan"), 0.0, 1.0, 5)


def of_nothing(case: Case) -> Estimate:
    return Estimate(0.5, 0.4, 0.6, 0)


def a_tensor(case: Case) -> Estimate:
    return Estimate(torch.tensor(0.5), 0.4, 0.6, 5)  # type: ignore[arg-type]


def a_float(case: Case) -> Estimate:
    return 0.5  # type: ignore[return-value]


def half(case: Case) -> Estimate:
    return Estimate(0.5, 0.4, 0.6, 5)


def drawn_globally(case: Case) -> Estimate:
    return half(case)._replace(value=0.4 + 0.2 * float(np.random.rand()))


def drawn_anew(case: Case) -> Estimate:
    return half(case)._replace(value=0.4 + 0.2 * float(np.random.default_rng().random()))


def moves_the_model(case: Case) -> Estimate:
    with torch.no_grad():
        next(case.model.module.parameters()).mul_(1.001)
    return half(case)


def leaves_a_hook(case: Case) -> Estimate:
    case.model.module.register_forward_hook(lambda *_: None)
    return half(case)


def needs_train_images(case: Case) -> Estimate:
    assert case.views.splits["train"]
    return half(case)


def needs_a_second_model(case: Case) -> Estimate:
    assert len(case.views.models["retrained"]) > 1
    return half(case)


def never(case: Case) -> Estimate:
    raise NotMeasurable("never")


def without_a_reason(case: Case) -> Estimate:
    if case.subject == "masked":
        raise NotMeasurable
    return half(case)


METRIC_FAULTS = [
    (outside_of_its_range, {}, r"is 1.2 \(1.1 to 1.3\), outside of its range: 0 to 1"),
    (outside_of_its_interval, {}, "is 0.2, outside of its interval from 0.3 to 0.4"),
    (not_a_number, {}, "not an Estimate of finite numbers"),
    (a_tensor, {}, "not an Estimate of finite numbers"),
    (a_float, {}, "not an Estimate of finite numbers: 0.5"),
    (of_nothing, {}, "comes from 0 images"),
    (drawn_globally, {}, "used the global generator of numpy"),
    (drawn_anew, {}, "another one .* when it is taken again"),
    (moves_the_model, {}, "changed the caller's model: weights or buffers"),
    (leaves_a_hook, {}, "changed the caller's model: hooks"),
    (needs_train_images, {}, "fails without train images: KeyError.*Raise NotMeasurable"),
    (needs_a_second_model, {}, "fails without a retrained model: AssertionError"),
    (never, {}, "absent even with everything at hand"),
    (without_a_reason, {}, "no reason for its absence on the masked model"),
    (retain_accuracy, {"at_original": 0}, r"on the original, where it is to be 0"),
    (retain_accuracy, {"at_retrained": 0}, "on models that never saw the class, where it is to be 0 but for chance"),
    (half, {"at_retrained": 0.5, "found_in_original": True}, "does not find the class where it is"),
    (half, {"higher_is_better": False, "found_in_original": True}, "does not find the class where it is"),
    (forget_accuracy, {"higher_is_better": True, "found_in_original": True}, "does not find the class where it is"),
    (forget_accuracy, {"features_only": True}, "to read features only, but is another one on the masked original"),
    (retain_drop, {"low": -1, "at_original": 0, "higher_is_better": True}, "better on a damaged model"),
    ("math:pi", {}, "names a float. Name a function"),
]


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize(
    ("compute", "changes", "sentence"), METRIC_FAULTS, ids=[str(i) for i in range(len(METRIC_FAULTS))]
)
def test_check_metric_finds_a_planted_fault(compute: object, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_metric(MetricEntry(compute, measure=declared(**changes)))


def test_a_metric_that_keeps_the_contract_passes() -> None:
    assert check_metric(MetricEntry(half, measure=declared())) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"low": 1, "high": 0},
        {"at_original": 2},
        {"at_retrained": -1},
        {"found_in_original": True},
        {"name": "Not A Name"},
        {"splits": ()},
        {"group": "Elsewhere"},
    ],
)
def test_a_declaration_that_does_not_hold_together_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        declared(**changes)


class Plain(Attack):
    """Counts images that are classified as their class; may be read with another bonus."""

    bonus: float = Field(default=0.0, ge=0, le=0.5)

    def run(self, case: Case) -> Finding:
        hits = proportion(case.view.correct)
        return Finding({"theirs": hits._replace(high=1.0, value=min(1.0, hits.value + self.bonus))})


class Idle(Plain):
    strength: int = Field(default=3, ge=1)


class KeptWithoutItsSettings(Plain):
    def run(self, case: Case) -> Finding:
        return case.once("kept", lambda: Plain.run(self, case))


class NoDefault(Plain):
    rate: float


class Changeable(Plain):
    model_config = ConfigDict(frozen=False)


class OtherName(Plain):
    def run(self, case: Case) -> Finding:
        return Finding({"other": half(case)})


class NoReason(Plain):
    def run(self, case: Case) -> Finding:
        return Finding({"theirs": ""})


class FloatingPictures(Plain):
    def run(self, case: Case) -> Finding:
        return Finding(dict(super().run(case).estimates), pictures={"x": torch.rand(1, 1, 8, 8)})


class OthersCurve(Plain):
    def run(self, case: Case) -> Finding:
        curve = PlotData(name="relearning", subject="original", x=(0.0,), y=(0.0,))
        return Finding(dict(super().run(case).estimates), (curve,))


class NeedsPixels(Plain):
    def run(self, case: Case) -> Finding:
        assert case.model.input.shape
        return super().run(case)


class NeverSees(Plain):
    def run(self, case: Case) -> Finding:
        return Finding({"theirs": half(case)})


ATTACK_FAULTS = [
    (Idle, {}, "setting 'strength' does nothing"),
    (KeptWithoutItsSettings, {}, "setting 'bonus' does nothing"),
    (NoDefault, {}, "cannot be made without arguments.*rate"),
    (Changeable, {}, "must keep frozen=True"),
    (OtherName, {}, r"gives \['other'\], and declares \['theirs'\]"),
    (NoReason, {}, "absent without a reason"),
    (FloatingPictures, {}, "pictures must be uint8"),
    (OthersCurve, {}, "that it is of another model"),
    (NeedsPixels, {}, "fails with models that take tensors only: AttributeError"),
    (NeverSees, {"at_retrained": 0.5, "found_in_original": True}, "does not find the class where it is"),
    (dict, {}, "names no class of attacks"),
]


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize(
    ("attack", "changes", "sentence"), ATTACK_FAULTS, ids=[a.__name__ for a, _, _ in ATTACK_FAULTS]
)
def test_check_attack_finds_a_planted_fault(attack: type, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_attack(AttackEntry(attack, "theirs", measures=(declared(**changes),)))


def test_check_attack_takes_settings_and_asks_for_values_that_it_cannot_guess() -> None:
    class Named(Plain):
        layer: str = "head"

    entry = AttackEntry(Named, "theirs", measures=(declared(),))
    with pytest.raises(AssertionError, match=r"Pass alternatives=\{'layer'"):
        check_attack(entry)
    with pytest.raises(AssertionError, match="'layer' does nothing"):
        check_attack(entry, alternatives={"layer": ["body"]})
    assert check_attack(AttackEntry(Plain, "theirs", measures=(declared(),)), Plain(bonus=0.01)) is None


def test_an_attack_declares_each_measure_once() -> None:
    for measures in ((), (declared(), declared())):
        with pytest.raises(AssertionError, match=r"measure.*once"):
            check_attack(AttackEntry(Plain, "theirs", measures=measures))
