"""How much of the original regression tells: 1 of what is only encoded otherwise, 0 of what says nothing of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from handmade import Board, Outputs, random_board
from scipy.stats import norm
from sklearn.feature_selection import f_classif
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeCV
from torch import Tensor

from unhot.evaluation.metric import NotMeasurable
from unhot.evaluation.metrics.similarity import original_features_r2, original_outputs_r2

SPLITS = ("train", "test")


def of_original(n: int = 600) -> dict[str, tuple[Tensor, Tensor]]:
    """Features and classes of both splits: three classes in six dimensions."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    centres = 3 * torch.randn(3, 6, generator=generator)
    return {s: (centres[y] + torch.randn(n, 6, generator=generator), y) for s in SPLITS}


def told(change: Callable[[Tensor, Tensor], Tensor], forgotten: tuple[int, ...] = (1,)) -> float:
    """How much of the original's features is told by what becomes of them, given which are of the class."""
    known = of_original()
    before = {s: Outputs(3 * torch.eye(3)[y], h) for s, (h, y) in known.items()}
    gone = torch.tensor(forgotten)
    after = {s: Outputs(3 * torch.eye(3)[y], change(h, torch.isin(y, gone))) for s, (h, y) in known.items()}
    case = Board({s: y for s, (_, y) in known.items()}, forgotten, before, after).case()
    found = original_features_r2(case)
    assert found.low <= found.value <= found.high
    assert found.n == sum(int((known["test"][1] == c).sum()) for c in forgotten)
    return found.value


def fixed(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4))


def gate(h: Tensor, mine: Tensor) -> Tensor:
    """Move images of the class to one place, but for a hundredth of where they were."""
    return torch.where(mine[:, None], 1 + 0.01 * h, h)


LOSSLESS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "as they are": lambda h, mine: h,
    "a linear map": lambda h, mine: h @ fixed(6, 6) + 3,
    "axes of unlike scale": lambda h, mine: h * torch.logspace(-3, 3, 6),
    "a gate of the class": gate,
    "the scale of each image": lambda h, mine: torch.cat([h, torch.ones(len(h), 1)], 1) * fixed(len(h), 1).exp(),
    "dead dimensions": lambda h, mine: torch.cat([h, torch.zeros(len(h), 9)], 1),
}


@pytest.mark.parametrize("forgotten", [(1,), (0, 2)])
@pytest.mark.parametrize("name", LOSSLESS)
def test_what_only_encodes_the_original_otherwise_tells_all_of_it(name: str, forgotten: tuple[int, ...]) -> None:
    assert told(LOSSLESS[name], forgotten) > 0.97


@pytest.mark.parametrize("forgotten", [(1,), (0, 2)])
def test_what_is_of_other_images_tells_nothing(forgotten: tuple[int, ...]) -> None:
    def permuted(h: Tensor, mine: Tensor) -> Tensor:
        return h[torch.randperm(len(h), generator=torch.Generator().manual_seed(len(h)))]

    assert told(permuted, forgotten) < 0.05
    assert told(lambda h, mine: fixed(len(h), 6), forgotten) < 0.05


def test_the_mean_of_the_class_tells_nothing() -> None:
    assert told(lambda h, mine: torch.where(mine[:, None], h[mine].mean(0), h)) < 0.05


@pytest.mark.parametrize("forgotten", [(1,), (0, 2)])
def test_features_that_are_the_same_for_all_images_tell_nothing(forgotten: tuple[int, ...]) -> None:
    assert told(lambda h, mine: torch.ones(len(h), 4), forgotten) == pytest.approx(0, abs=1e-9)


def test_more_noise_tells_less() -> None:
    found = [told(lambda h, mine, by=by: h + by * fixed(len(h), 6)) for by in (0.0, 0.3, 1.0, 3.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] > 0.5


def ranked(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Normal quantiles of the middle ranks of numbers among known ones, dimension by dimension."""
    known, asked = known.astype(np.float32), asked.astype(np.float32)
    below, within = (compare(known[None], asked[:, None]).sum(1) for compare in (np.less, np.less_equal))
    return norm.ppf((below + within + 1) / (2 * len(known) + 2))


def by_hand(known: dict[str, tuple[np.ndarray, np.ndarray]], read: dict[str, np.ndarray], column: int) -> float:
    """By medians and scikit-learn, for one class and few enough images that all are learnt from."""
    (aims, y), (wanted, asked) = known["train"], known["test"]
    mine, of = y == column, read["test"][asked == column]
    wanted = wanted[asked == column]

    def left(guess: np.ndarray) -> float:
        return float(np.median(((wanted - guess) ** 2).sum(1)))

    errors = []
    for unit in (False, True):
        x, q = (h / np.linalg.norm(h, axis=1, keepdims=True) if unit else h for h in (read["train"], of))
        for rows in (np.ones(len(y), dtype=bool), mine):
            middle = np.sort(x[rows], 0)[(rows.sum() - 1) // 2]  # the lower one of two, as torch takes it
            spread = 1.4826 * np.sort(abs(x[rows] - middle), 0)[(rows.sum() - 1) // 2]
            z, t = (x - middle) / spread, (q - middle) / spread
            near = rows & (np.sort(abs(z), 1)[:, (z.shape[1] - 1) // 2] <= 3)
            order = np.argsort(f_classif(z[~mine], y[~mine])[1], kind="stable")  # of fewer than eight, all are kept
            z, t = z[near][:, order], t[:, order]
            for own, other in ((np.clip(z, -5, 5), np.clip(t, -5, 5)), (ranked(z, z), ranked(z, t))):
                kernel = Nystroem(gamma=0.1 / z.shape[1], n_components=min(150, len(z)), random_state=0).fit(own)
                curved = [np.c_[h, 10 * kernel.transform(h)] for h in (own, other)]
                for a, b in ((own, other), curved):
                    errors.append(left(RidgeCV(np.logspace(-10, 4, 15)).fit(a, aims[near]).predict(b)))
    return 1 - min(errors) / left(aims[mine].mean(0))


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_share_by_hand(noise: float) -> None:
    known = of_original(315)  # 105 queries: their median is one of them
    read = {s: (h + noise * fixed(len(h), 6)).tanh() for s, (h, _) in known.items()}
    y = {s: c for s, (_, c) in known.items()}
    before = {s: Outputs(3 * torch.eye(3)[y[s]], h) for s, (h, _) in known.items()}
    after = {s: Outputs(3 * torch.eye(3)[y[s]], read[s]) for s in known}
    # the kernel draws its images by their positions, so they are given in the order of the attack
    case = Board(y, [1], before, after).case()
    gone = (y["train"] == 1).nonzero().flatten()
    shuffled = torch.randperm(315, generator=case.runtime.generator("regression"))
    some = torch.cat([shuffled[(y["train"] != 1)[shuffled]], gone])
    hand = {
        "train": (known["train"][0][some].double().numpy(), y["train"][some].numpy()),
        "test": (known["test"][0].double().numpy(), y["test"].numpy()),
    }
    wanted = by_hand(hand, {"train": read["train"][some].double().numpy(), "test": read["test"].double().numpy()}, 1)
    assert 0.1 < wanted < 0.95
    assert original_features_r2(case).value == pytest.approx(wanted, abs=1e-6)


# outputs


def outputs_board(change: Callable[[Tensor], Tensor]) -> Board:
    """Logits of four classes, the second one forgotten, and what becomes of them."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(600) % 4
    made = {s: 3 * torch.eye(4)[y] + torch.randn(600, 4, generator=generator) for s in SPLITS}
    before, after = ({s: Outputs(of(v), torch.zeros(600, 2)) for s, v in made.items()} for of in (torch.clone, change))
    return Board(dict.fromkeys(SPLITS, y), [1], before, after)


def test_the_masked_original_tells_its_own_outputs_whole() -> None:
    board = outputs_board(lambda v: v)
    assert original_outputs_r2(board.case("masked")).value > 0.99
    assert original_outputs_r2(board.case("original")).value > 0.9


def test_outputs_at_another_temperature_or_shifted_tell_the_same() -> None:
    assert original_outputs_r2(outputs_board(lambda v: 0.1 * v + 7).case()).value > 0.95


def test_an_output_at_minus_infinity_counts_as_a_small_one() -> None:
    def cut(v: Tensor) -> Tensor:
        return torch.where(torch.arange(4) == 1, -torch.inf, v)

    assert original_outputs_r2(outputs_board(cut).case()).value > 0.99


def test_outputs_of_other_images_tell_nothing() -> None:
    def permuted(v: Tensor) -> Tensor:
        return v[torch.randperm(len(v), generator=torch.Generator().manual_seed(2))]

    assert original_outputs_r2(outputs_board(permuted).case()).value < 0.05


# where it cannot be said


@pytest.mark.parametrize(("images", "enough"), [(4, False), (5, True)])
def test_it_needs_five_images_of_each_class(images: int, enough: bool) -> None:
    y = {"train": torch.tensor([1] * images + [0, 2] * 30), "test": torch.arange(90) % 3}
    made = {s: Outputs(torch.eye(3)[v], fixed(len(v), 6)) for s, v in y.items()}
    case = Board(y, [1], made).case()
    if enough:
        assert original_features_r2(case).n == 30
    else:
        with pytest.raises(NotMeasurable, match="only 4 images of a forgotten class to learn from, at least 5"):
            original_features_r2(case)


def test_it_needs_images_of_the_retained_classes() -> None:
    y = {"train": torch.ones(30, dtype=torch.long), "test": torch.arange(90) % 3}
    made = {s: Outputs(torch.eye(3)[v], fixed(len(v), 6)) for s, v in y.items()}
    with pytest.raises(NotMeasurable, match="too few images of the retained classes"):
        original_features_r2(Board(y, [1], made).case())


def test_an_original_that_says_the_same_of_all_images_has_nothing_to_tell() -> None:
    y = dict.fromkeys(SPLITS, torch.arange(90) % 3)
    flat = {s: Outputs(torch.eye(3)[v], torch.ones(90, 3)) for s, v in y.items()}
    with pytest.raises(NotMeasurable, match="the original gives the same for all forgotten images"):
        original_features_r2(Board(y, [1], flat).case())


def test_it_learns_from_half_of_the_test_images_where_there_are_no_others() -> None:
    board = random_board(0, n=400, train=False)
    found = original_features_r2(board.case("original"))
    assert found.n == int((board.case().queries().y == 1).sum())
    assert found.value > 0.97
    assert original_features_r2(board.case()).value < 0.2
