"""unhot reference, end to end on bundled digits: made, audited beside, refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unhot.models.bundle import load, read_record
from unhot.records.train import TrainRecord

Run = Callable[..., Any]


@pytest.mark.filterwarnings("default::unhot.errors.SampleWarning")
def test_a_stand_in_is_made_and_audited_beside(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "stand-in"
    said = unhot("reference", bundle, "--class", 3, "--data", "digits", "--share", 0.3, "--out", out)
    assert said.code == 0, said.err
    record = read_record(out, TrainRecord)
    assert record is not None
    assert record.weights_sha256 == load(out).sha256()
    assert f"Trained a fresh last stage ({record.fresh[0]} to head) on {record.train_images} images" in said.out
    assert 0.2 * 1438 < record.train_images < 0.3 * 1438  # those of the class are left out
    assert [c.index for c in record.excluded] == [3]
    unlearned, page = tmp_path / "unlearned", tmp_path / "audit"
    assert (
        unhot("forget", bundle, "--class", 3, "--samples", "digits", "--method", "mask", "--out", unlearned).code == 0
    )
    beside = ("--original", bundle, "--unlearned", unlearned, "--retrained", out, "--class", 3, "--data", "digits")
    audited = unhot("audit", *beside, "--quick", "--json", "--out", page)
    verdict = audited.json["verdict"]
    assert verdict["label"] == "hidden at the output only"
    assert "reference_partial" in [f["code"] for f in verdict["flags"]]


def test_it_is_refused_with_what_to_do(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    said = unhot("reference", bundle, "--class", "eleven", "--data", "digits", "--out", tmp_path / "x")
    assert said.code == 2
    assert "eleven" in said.err
    assert unhot("reference", bundle, "--class", 3, "--data", "digits", "--share", 2, "--out", tmp_path / "x").code == 2
    assert not (tmp_path / "x").exists()
