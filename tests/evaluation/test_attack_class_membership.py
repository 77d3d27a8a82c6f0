"""Class-level membership: what it is by a plain pipeline, that copies have no gap, calibration and power."""

from __future__ import annotations

import pytest
import torch
from handmade import Board, Outputs, random_board
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unhot.evaluation.attacks.class_membership import ClassMembership
from unhot.evaluation.metric import Case, NotMeasurable


def estimates(case: Case, **settings: int) -> dict:
    return ClassMembership(**settings).run(case).estimates


def plain(board: Board, subject: str, neighbour: int, run: int = 0) -> list[bool]:
    """Which images of the second half a logistic regression on the first tells apart, class 1 from a neighbour."""
    view, case = board.views.of(subject, "test", run), board.case()
    retained = [0, 2, 3]
    x = view.logits[:, retained].log_softmax(1).double().numpy()
    parts = []
    for half in case.halves:
        of = {c: [i for i in half.tolist() if view.y[i] == c] for c in (1, neighbour)}
        least = min(map(len, of.values()))
        parts.append(of[1][:least] + of[neighbour][:least])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(x[parts[0]], (view.y[parts[0]] == 1).numpy())
    return (model.predict(x[parts[1]]) == (view.y[parts[1]] == 1).numpy()).tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_by_a_plain_pipeline(seed) -> None:
    board = random_board(seed, n=400, retrained=1)
    theirs = board.views.of("retrained", "test").logits[board.views.splits["test"].y == 1].clone()
    theirs[:, 1] = -torch.inf
    order = torch.bincount(theirs.argmax(1), minlength=4).argsort(descending=True, stable=True).tolist()
    neighbours = [c for c in order if c != 1][:2]
    mine = [h for c in neighbours for h in plain(board, "unlearned", c)]
    other = [h for c in neighbours for h in plain(board, "retrained", c)]
    found = estimates(board.case(), neighbours=2)
    assert found["class_mia_accuracy"].value == pytest.approx(sum(mine) / len(mine))
    assert found["class_mia_gap"].value == pytest.approx((sum(mine) - sum(other)) / len(mine))
    assert found["class_mia_gap"].n == len(mine)


def copies(times: int) -> Board:
    """A second copy of one retrained model as the unlearned one, and again as further references."""
    board = random_board(3, n=400, retrained=1)
    view, before = board.views.of("retrained", "test"), board.views.of("original", "test")
    same = {"test": Outputs(view.logits, view.features)}
    y = {"test": board.views.splits["test"].y}
    return Board(y, [1], {"test": Outputs(before.logits, before.features)}, same, [same] * times)


@pytest.mark.parametrize("times", [1, 3])
def test_the_gap_of_a_copy_is_zero(times) -> None:
    board = copies(times)
    e = estimates(board.case())["class_mia_gap"]
    assert e.value == 0
    assert e.low < 0 < e.high
    if times > 1:
        assert estimates(board.case("retrained", 1))["class_mia_gap"].value == 0


def test_the_gap_needs_a_retrained_model_and_the_accuracy_does_not() -> None:
    found = estimates(random_board(0, n=400, retrained=0).case())
    assert found["class_mia_gap"] == "no retrained model was given"
    assert 0 <= found["class_mia_accuracy"].low <= found["class_mia_accuracy"].value <= 1
    alone = estimates(random_board(0, n=400, retrained=1).case("retrained"))
    assert alone["class_mia_gap"].startswith("a second retrained model is needed")


def made(told: float, seed: int = 0) -> Board:
    """The unlearned model's outputs on class 1 differ from a neighbour's by ``told``, the retrained one's do not."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(400) % 4
    z = [3 * torch.eye(4)[torch.where(y == 1, 0, y)] + torch.randn(400, 4, generator=generator) for _ in range(2)]
    z[0][y == 1, 2] += told
    first, second = ({"test": Outputs(x, x)} for x in z)
    return Board({"test": y}, [1], first, first, [second])


def test_chance_and_power_on_made_outputs() -> None:
    found = [estimates(made(0.0, s).case(), neighbours=1) for s in range(30)]
    assert sum(f["class_mia_accuracy"].low <= 0.5 <= f["class_mia_accuracy"].high for f in found) >= 25
    assert sum(f["class_mia_gap"].low <= 0 <= f["class_mia_gap"].high for f in found) >= 25
    assert estimates(made(4.0).case(), neighbours=1)["class_mia_gap"].low > 0.2


def test_less_told_than_by_a_retrained_model_is_below_zero() -> None:
    y = {"test": made(2.0).views.splits["test"].y}
    tells, hides = (b.views.of("original", "test") for b in (made(2.0), made(0.0)))
    told, hidden = ({"test": Outputs(v.logits, v.features)} for v in (tells, hides))
    assert estimates(Board(y, [1], told, hidden, [told]).case(), neighbours=1)["class_mia_gap"].high < 0


def test_too_few_images() -> None:
    with pytest.raises(NotMeasurable, match=r"fewer than 20 test images"):
        estimates(random_board(0, n=60).case())


def test_two_retrained_models_of_the_digits_have_no_gap_and_the_accuracy_is_real(digits_views) -> None:
    for subject, run in (("unlearned", 0), ("retrained", 0), ("retrained", 1)):
        e = estimates(Case(digits_views, subject, "test", run))["class_mia_gap"]
        assert e.low <= 0 <= e.high
    assert estimates(Case(digits_views, "original"))["class_mia_accuracy"].low > 0.8


def test_the_original_of_the_digits_gives_the_class_away_more_than_retrained_models(digits_views) -> None:
    mine = estimates(Case(digits_views, "original"))
    theirs = [estimates(Case(digits_views, "retrained", "test", i))["class_mia_accuracy"].value for i in (0, 1)]
    assert mine["class_mia_accuracy"].value > max(theirs)
    assert mine["class_mia_gap"].value > 0


def test_an_image_counts_once_however_many_references_there_are() -> None:
    for retrained in (1, 3):
        found = estimates(random_board(0, n=400, retrained=retrained).case())
        assert found["class_mia_gap"].n == found["class_mia_accuracy"].n
