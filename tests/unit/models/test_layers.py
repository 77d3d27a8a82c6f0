"""stages: the modules before the head that give features of their own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from unhot.models.classifier import Classifier
from unhot.models.layers import WIDEST, stages


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def stages_of(net: nn.Module, *shape: int, head: str = "head") -> list[str]:
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return stages(Classifier.wrap(net.eval(), head=head), x)


def test_what_gives_the_same_counts_once_and_what_flows_into_the_head_not_at_all() -> None:
    net = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(2, 3, 3),
            same=nn.Identity(),
            relu=nn.ReLU(inplace=True),
            pool=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            narrow=nn.Linear(27, 5),
            bend=nn.ReLU(),
            drop=nn.Dropout(),
            head=nn.Linear(5, 4),
        )
    )
    assert stages_of(net, 2, 8, 8) == ["conv", "relu", "pool", "flat", "narrow"]


def test_a_container_gives_what_its_last_module_gives_and_is_left_out() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(18, 6), nn.Tanh(), nn.Linear(6, 5))
    net = nn.Sequential(OrderedDict(body=body, bend=nn.ReLU(), end=nn.Sequential(nn.Identity(), nn.Linear(5, 4))))
    assert stages_of(net, 2, 3, 3, head="end.1") == ["body.0", "body.1", "body.2", "body.3"]


def test_they_come_in_the_order_in_which_they_are_called() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.third, self.second, self.first = (nn.Linear(4, 4) for _ in range(4))
            self.never = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.third(self.second(self.first(x.flatten(1)))).tanh())

    assert stages_of(Backwards(), 1, 2, 2) == ["first", "second", "third"]


def test_what_is_no_row_of_numbers_for_each_image_is_left_out() -> None:
    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.round().long()

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, 2 * x

    class Summed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(0, keepdim=True)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole, self.pair, self.summed = Whole(), Pair(), Summed()
            self.tokens, self.head = nn.Linear(3, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.whole(x)
            x, _ = self.pair(x)
            self.summed(x)
            return self.head(self.tokens(x.flatten(1, 2)).amax(1))

    assert stages_of(Odd(), 2, 3, 3) == ["tokens"]


@pytest.mark.parametrize(("width", "found"), [(WIDEST, ["flat"]), (WIDEST + 1, [])])
def test_what_is_too_wide_is_left_out(width: int, found: list[str]) -> None:
    net = nn.Sequential(OrderedDict(flat=nn.Flatten(), body=nn.Linear(width, 3), head=nn.Linear(3, 2)))
    assert stages_of(net, 1, 1, width) == found
