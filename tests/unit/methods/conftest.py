"""Methods in these tests take a few steps, after which a class need not be forgotten nor the others spared."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in ("SampleWarning", "ModelWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::unhot.errors.{warning}"))
