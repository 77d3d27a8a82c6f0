"""What is advised: a method that reads no more than there is, and no claim that an audit could not make."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from unhot.evaluation.advice import Given, advise
from unhot.methods import get

LEVEL = "whether more is left than in a model that never saw the class"
SITUATIONS = [
    Given(holder, 16, retained, labelled, guard, evaluated, evaluated, retrained, norm)
    for holder, retained, labelled, guard, evaluated, retrained, norm in itertools.product(
        ("outputs", "features", "weights"),
        (0, 500),
        (True, False),
        (True, False),
        (True, False),
        (0, 1, 2),
        (True, False),
    )
]


@pytest.mark.parametrize("given", SITUATIONS)
def test_a_method_is_advised_that_can_run_with_what_there_is(given: Given) -> None:
    found = advise(given)
    assert found.method not in found.others
    for name in (found.method, *found.others):
        uses = get(name).uses
        assert "guard" not in uses
        assert "retain" not in uses or (given.retained and given.labelled), name
    assert get("retrain").name not in found.others


def test_what_is_deployed_and_what_there_is_decide() -> None:
    bare = Given("features", 16)
    assert advise(replace(bare, holder="outputs")).method == "nhle-cwm"
    assert advise(bare).method == advise(replace(bare, holder="weights")).method == "nhle-renew"
    assert advise(replace(bare, guard=True)).method == "nhle-guard"
    assert advise(replace(bare, guard=True, retained=1_000)).method == "nhle-renew"  # as unhot forget does
    assert any("none are given" in text for text in advise(bare).needs)
    assert any("the 500 images without classes" in t for t in advise(replace(bare, retained=500, labelled=False)).needs)
    assert any("look like noise" in t for t in advise(replace(bare, batch_norm=False)).needs)
    assert not any("noise" in t for t in advise(replace(bare, batch_norm=False, retained=500)).needs)


def test_without_a_retrained_model_no_level_is_claimed() -> None:
    audited = Given("features", 16, evaluated=True, with_train=True)
    for retrained in (0, 1, 2):
        found = advise(replace(audited, retrained=retrained))
        assert any(LEVEL in text for text in found.claims) is (retrained > 0)
        assert any(LEVEL in text for text in found.no_claims) is (retrained == 0)
        assert any("differ among themselves" in text for text in found.no_claims) is (retrained < 2)
    assert "--data" in advise(Given("features", 16)).no_claims[0]
    assert any("membership" in text for text in advise(replace(audited, with_train=False)).no_claims)
