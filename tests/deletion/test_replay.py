"""Requests carried out again, after one before them was undone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from requested import NOTES, Carried, call, certified

from unhot.data.samples import Samples, every, with_digests
from unhot.data.source import Source
from unhot.deletion.keys import read_public
from unhot.deletion.verify import verify
from unhot.errors import DataError
from unhot.files import sha256
from unhot.records.deletion import DeletionRecord

pytestmark = pytest.mark.filterwarnings(NOTES)


def undone(carried: Carried, second: Carried, tmp_path: Path) -> Path:
    """Undo both requests; returns the original, with their ledger."""
    steps = [("patch-2", carried.unlearned, second.unlearned), ("patch-1", carried.original, carried.unlearned)]
    model = second.unlearned
    for name, before, after in steps:
        assert call("diff", before, after, "--out", tmp_path / name) == 0
        assert call("revert", model, tmp_path / name, "--out", tmp_path / f"without-{name}") == 0
        model = tmp_path / f"without-{name}"
    return model


@pytest.fixture
def start(carried: Carried, second: Carried, tmp_path: Path) -> Path:
    return undone(carried, second, tmp_path)


def again(start: Path, made: Carried, out: Path, *records: Path, samples: object = "digits") -> int:
    given = ("--samples", samples, "--data", "digits", "--key", made.private, "--out", out)
    return call("replay", start, *records, *given)


def test_from_the_same_model_the_same_models_come(
    start: Path, carried: Carried, second: Carried, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "again"
    capsys.readouterr()
    assert again(start, carried, out, second.record, carried.record) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"Certified: R-1, R-2. The model is now {out / 'R-2' / 'model'}.\n")
    for name, made in (("R-1", carried), ("R-2", second)):
        weights = "model.safetensors"
        assert (out / name / "model" / weights).read_bytes() == (made.unlearned / weights).read_bytes()
        assert verify(out / name / "record", read_public(carried.public), out / name / "model").holds
        record = DeletionRecord.read(out / name / "record" / "record.json")
        assert record.request.id == name
        old = sha256(made.record / "record.json")
        assert record.request.note == f"Carried out again; the record before is {old}."
    lines = (out / "R-2" / "model" / "requests.jsonl").read_text().splitlines()
    assert [(line["action"], line["id"]) for line in map(json.loads, lines)] == [
        ("forget", "R-1"),
        ("forget", "R-2"),
        ("revert", "R-2"),
        ("revert", "R-1"),
        ("forget", "R-1"),
        ("forget", "R-2"),
    ]
    assert again(start, carried, out, carried.record, second.record) == 0
    assert "R-1 was certified before." in capsys.readouterr().out


def test_bounds_that_were_not_met_are_recorded_again_and_the_next_request_is_carried_out(
    carried: Carried, second: Carried, tmp_path: Path, capsys
) -> None:
    first, later, out = tmp_path / "r1", tmp_path / "r2", tmp_path / "again"
    ledger = carried.unlearned / "requests.jsonl"
    ledger.unlink()
    assert certified(carried, "R-1", first, "--require", "verdict.weights>=retrained") == 3
    shutil.copy(ledger, second.unlearned)
    assert certified(second, "R-2", later) == 0
    start = undone(carried, second, tmp_path)
    for _ in range(2):
        capsys.readouterr()
        assert again(start, carried, out, first, later) == 3
        said = capsys.readouterr()
        end = f"Certified: R-1, R-2. The bounds of R-1 were not met. The model is now {out / 'R-2' / 'model'}.\n"
        assert said.out.endswith(end)
        assert "change the request" not in said.err
    record = DeletionRecord.read(out / "R-1" / "record" / "record.json")
    assert [bound.requirement for bound in record.unmet] == ["verdict.weights>=retrained"]
    assert again(start, carried, out, first, later, "--json") == 3
    assert [one["unmet"] for one in json.loads(capsys.readouterr().out)["requests"]] == [
        ["verdict.weights>=retrained"],
        [],
    ]


def test_what_is_not_carried_out_again(start: Path, carried: Carried, second: Carried, tmp_path: Path, capsys) -> None:
    out = tmp_path / "again"

    def refused(said: str, *given: object, model: Path = start, samples: object = "digits") -> None:
        assert again(model, carried, out, *given, samples=samples) == 2  # type: ignore[arg-type]
        assert said in capsys.readouterr().err
        assert not (out / "R-2" / "model").exists()

    refused("R-1 is in force on", carried.record, model=carried.unlearned)
    refused("does not name R-1: it was never carried out", carried.record, model=carried.original)
    refused("R-2 was carried out without what --retain names. Leave it out.", second.record, "--retain", "digits")
    refused("--retrained is of one request's classes", second.record, carried.record, "--retrained", start)
    assert not out.exists()
    page = second.record / "record.html"
    page.write_text(page.read_text() + " ")
    refused("does not hold: record.html is not the page that was signed", second.record)
    shutil.rmtree(carried.keys)
    assert call("keys", "--out", carried.keys) == 0
    refused("was not signed with this key", carried.record)


def test_samples_are_found_by_their_digests(samples: Samples, digits: Source) -> None:
    everything = every(digits.train_images, [3])
    wanted = samples.images.digests()[::-1]
    found = with_digests(everything, wanted)
    assert len(found) < len(everything)
    assert found.images.digests() == wanted
    assert found.classes == samples.classes
    with pytest.raises(DataError, match="1 of 3 images are not among those of the class there, the first with the dig"):
        with_digests(everything, (*wanted[:2], "0" * 64))
