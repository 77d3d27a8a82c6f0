"""Fixtures of the audit's tests."""

from __future__ import annotations

import pytest
import sklearn.preprocessing  # noqa: F401  (imports rich, which draws from Python's generator: not within a test)
from handmade import runtime
from zoo import Zoo

from unhot.data.source import Source
from unhot.evaluation.audit import Audit
from unhot.evaluation.auditor import audit
from unhot.evaluation.view import Views


@pytest.fixture(scope="session")
def zoo(digits: Source) -> Zoo:
    return Zoo(digits)


@pytest.fixture(scope="session")
def digits_views(zoo: Zoo) -> Views:
    """The original against two models that never saw class 3; the unlearned one is the second of these."""
    return zoo.board(unlearned=zoo.retrained(3, 11))


@pytest.fixture(scope="session")
def full(zoo: Zoo) -> Audit:
    """An audit with everything: two retrained models, the unlearned one is a third copy of neither."""
    return audit(
        original=zoo.original(0),
        unlearned=zoo.cut(0, 3),
        classes=[3],
        test=zoo.source.test_images,
        train=zoo.source.train_images,
        retrained=[zoo.retrained(3, 10), zoo.retrained(3, 11)],
        runtime=runtime(),
    )
