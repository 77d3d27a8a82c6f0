"""Which method runs where none is named, and what happens where that would take too long."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import unhot
from unhot.errors import MethodFailedError, ModelWarning, TooLongError
from unhot.methods import nhle_renew
from unhot.methods.base import Method
from unhot.methods.forget import run, usual_method
from unhot.methods.nhle_renew import NhleRenew
from unhot.methods.parts.damage import Damage
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime
from unhot.testing import Toy, toy_problem

INSTEAD = "nhle-renew is not used: {}. nhle-cwm is used, which is quicker and mostly only hides the class."


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pass take an hour."""
    monkeypatch.setattr(Runtime, "median_seconds", lambda *_: 3_600.0)


def said_by(toy: Toy, **given: object) -> tuple[str, list[str]]:
    """Return the method that ran, and what was announced and warned of."""
    said: list[str] = []
    runtime = Runtime(torch.device("cpu"), announce=said.append)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record = unhot.forget(toy.model, toy.samples(), runtime=runtime, **given).record  # type: ignore[arg-type]
    return record.method, [*said, *(str(w.message) for w in caught)]


def test_what_is_given_and_the_net_decide() -> None:
    stored, plain = toy_problem().model, toy_problem(batch_norm=False).model
    asked = [(False, False), (True, False), (False, True), (True, True)]
    assert [usual_method(stored, *a) for a in asked] == ["nhle-renew", "nhle-guard", "nhle-renew", "nhle-renew"]
    assert [usual_method(plain, *a) for a in asked] == ["nhle-cwm", "nhle-guard", "nhle-renew", "nhle-renew"]
    untracked = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False))
    assert [usual_method(net) for net in (untracked, None)] == ["nhle-cwm"] * 2
    assert usual_method(Classifier.wrap(stored, toy_problem().x[:2])) == "nhle-renew"


def test_the_usual_method_runs() -> None:
    method, said = said_by(toy_problem(), images=16, descent=2, steps=2)
    assert method == "nhle-renew"
    assert said[0].startswith("nhle-renew takes about")
    assert said_by(toy_problem(batch_norm=False))[0] == "nhle-cwm"


@pytest.mark.usefixtures("long")
def test_the_quick_method_runs_where_the_usual_one_would_take_too_long() -> None:
    method, said = said_by(toy_problem())
    assert method == "nhle-cwm"
    assert said == [INSTEAD.format("it would take too long here")]


@pytest.mark.parametrize(
    ("cannot", "reason", "runs"),
    [
        ("sharpening", "it can only guess what the other classes would lose", 1),
        ("within", "it can renew nothing within its budget", 2),
    ],
)
def test_the_quick_method_runs_where_the_usual_one_cannot_answer_for_the_loss(
    monkeypatch: pytest.MonkeyPatch, cannot: str, reason: str, runs: int
) -> None:
    """Where that is known before its work begins, it is not begun."""
    if cannot == "within":
        monkeypatch.setattr(Damage, "within", lambda *_: False)
    else:
        monkeypatch.setattr(nhle_renew, "sharpening", lambda *_, **__: 0.9)
        monkeypatch.setattr(Damage, "within", lambda *_: True)
    toy, said = toy_problem(), list[str]()
    runtime = Runtime(torch.device("cpu"), announce=said.append)
    method = NhleRenew(images=16, descent=1, steps=2, budget=1)
    with pytest.warns(ModelWarning, match=INSTEAD.format(reason)):
        unasked = run(method, toy.model, toy.samples(), asked=False, runtime=runtime).record
    assert (unasked.method, unasked.notes["not_used"]) == ("nhle-cwm", {"nhle-renew": reason})
    asked = run(method, toy.model, toy.samples(), asked=True, runtime=runtime).record
    assert (asked.method, "not_used" in asked.notes) == ("nhle-renew", False)
    assert sum(s.startswith("nhle-renew takes about") for s in said) == runs


def test_samples_that_are_refused_are_refused_once() -> None:
    toy = toy_problem()
    wrong = unhot.draw((toy.x, (toy.y + 1) % 3), [1], 4, 0)
    with pytest.warns(unhot.errors.SampleWarning) as caught:
        unhot.forget(toy.model, wrong, force=True)
    assert len({str(w.message) for w in caught}) == len(caught)


@pytest.mark.parametrize(("batch_norm", "methods"), [(True, ["nhle-renew", "nhle-cwm"]), (False, ["nhle-cwm"])])
def test_what_fails_is_tried_once_with_each_method(
    monkeypatch: pytest.MonkeyPatch, batch_norm: bool, methods: list[str]
) -> None:
    tried: list[str] = []

    def fails(self: Method, *_: object, **__: object) -> None:
        tried.append(self.name)
        raise MethodFailedError("The weights are not finite.")

    monkeypatch.setattr(Method, "__call__", fails)
    toy = toy_problem(batch_norm)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(MethodFailedError, match="not finite"):
            unhot.forget(toy.model, toy.samples(), runtime=Runtime(torch.device("cpu")))
    assert tried == methods
    assert [str(w.message) for w in caught] == [INSTEAD.format("it makes this net unusable")] * batch_norm


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("given", [{"method": "nhle-renew"}, {"method": NhleRenew()}, {"steps": 700}, {"retain": True}])
def test_nothing_else_runs_where_more_was_said(given: dict[str, object]) -> None:
    toy = toy_problem()
    if "retain" in given:
        others = toy.y != 1
        given = {"retain": (toy.x[others][:40], toy.y[others][:40])}
    with pytest.raises(TooLongError, match="minutes=10 allows less"):
        said_by(toy, **given)


@pytest.mark.usefixtures("long")
def test_the_quick_method_makes_no_images_to_keep(tmp_path: Path) -> None:
    toy = toy_problem()
    runtime = Runtime(torch.device("cpu"), cache=tmp_path / "images")
    with pytest.warns(ModelWarning, match="nhle-renew is not used"):
        assert unhot.forget(toy.model, toy.samples(), runtime=runtime).record.method == "nhle-cwm"
    assert not (tmp_path / "images").exists()
