"""The ledger of the requests on a model: a chain that only grows, whoever writes to it and however they end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from requested import NOTES, Carried, call, certified, forget, forgot

from unhot.deletion.certify import Made
from unhot.deletion.certify import certify as make
from unhot.deletion.keys import read_private, read_public
from unhot.deletion.ledger import repeated, undone
from unhot.deletion.verify import verify
from unhot.errors import InputError
from unhot.files import sha256
from unhot.records.base import canonical
from unhot.records.deletion import DeletionRecord, Request
from unhot.records.ledger import Ledger

pytestmark = pytest.mark.filterwarnings(NOTES)
LEDGER = "requests.jsonl"


def test_two_requests_make_a_chain(carried: Carried, second: Carried, tmp_path: Path, capsys) -> None:
    capsys.readouterr()
    first, later = (DeletionRecord.read(r / "record.json") for r in (carried.record, second.record))
    place = later.place
    assert place.number == 2
    assert place.previous == sha256(carried.record / "record.json")
    assert place.first_model_sha256 == first.original_sha256
    assert place.drop_so_far == pytest.approx(first.place.drop + place.drop)
    assert place.drop_from_first is None
    given = ("--key", carried.public, "--model", second.unlearned, "--original", carried.unlearned)
    assert call("verify", second.record, *given, "--before", carried.record) == 0
    assert "ok     chain: R-1 is the request before" in capsys.readouterr().out
    assert call("verify", second.record, *given, "--before", second.record) == 3
    assert call("verify", carried.record, "--key", carried.public, "--model", second.unlearned) == 3
    capsys.readouterr()
    assert call("log", second.unlearned, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["in_force"], said["without_record"]) == (["R-1", "R-2"], [])
    assert said["drop"] == pytest.approx(place.drop_so_far)
    assert call("log", second.unlearned) == 0
    assert re.search(r"R-2 .* 5 .* nhle-cwm .* consent was withdrawn", capsys.readouterr().out)


def test_a_model_without_requests(carried: Carried, capsys) -> None:
    assert call("log", carried.original) == 0
    assert capsys.readouterr().out.endswith("has no certified requests.\n")
    assert call("log", carried.original, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "lines": [],
        "in_force": [],
        "drop": 0,
        "without_record": [],
        "not_as_recorded": [],
    }


def test_what_all_requests_cost_is_measured_where_an_audit_compares_with_the_first_model(
    carried: Carried, second: Carried, tmp_path: Path
) -> None:
    shutil.copy(carried.unlearned / LEDGER, second.unlearned / LEDGER)
    whole, compared = tmp_path / "whole", ("--class", 3, "--class", 5, "--data", "digits", "--quick")
    models = ("--original", carried.original, "--unlearned", second.unlearned)
    assert call("audit", *models, *compared, "--out", whole) == 0
    said = ("--key", carried.private, "--id", "R-2", "--reason", "r", "--out", tmp_path / "r")
    assert call("certify", second.unlearned, second.audit, whole, *said) == 0
    record = DeletionRecord.read(tmp_path / "r" / "record.json")
    assert len(record.evidence) == 2
    assert record.place.drop_from_first is not None
    assert "against the first model" in (tmp_path / "r" / "record.html").read_text()


def test_a_request_for_a_class_that_is_gone_is_answered(carried: Carried, tmp_path: Path, capsys) -> None:
    for command, more in (("forget", ("--out", tmp_path / "new")), ("advise", ())):
        assert call(command, carried.unlearned, "--class", 3, "--samples", "digits", *more) == 2
        said = capsys.readouterr().err
        assert re.search(r"has forgotten 3 already: on request R-1 of \d{4}-\d\d-\d\d, by nhle-cwm\.", said)
    assert not (tmp_path / "new").exists()


def test_a_gap_in_the_chain_is_said(carried: Carried, tmp_path: Path, capsys) -> None:
    between, unlearned = tmp_path / "between", tmp_path / "second"
    forget(carried.unlearned, 7, between)
    made = carried._replace(unlearned=unlearned, audit=forgot(between, 5, unlearned))
    assert certified(made, "R-3", tmp_path / "r") == 0
    record = DeletionRecord.read(tmp_path / "r" / "record.json")
    assert any("changed without a record" in text for text in record.not_shown)
    assert any("had forgotten 7 before" in text for text in record.not_shown)
    capsys.readouterr()
    assert call("log", unlearned) == 0
    assert "changed between R-1 and R-3 without a record" in capsys.readouterr().err


def test_a_ledger_that_was_changed_is_refused(carried: Carried) -> None:
    ledger = Ledger.parse((carried.unlearned / LEDGER).read_text(), "it")
    for action in ("revert", "forget"):
        line = ledger.lines[0].model_copy(update={"previous": ledger.lines[-1].sha256, "action": action})
        ledger = ledger.with_line(line)
    lines = ledger.to_text().splitlines()
    assert Ledger.parse("\n".join(lines) + "\n", "it") == ledger
    assert [line.previous for line in ledger.in_force] == [ledger.lines[1].sha256]
    for changed in (
        [lines[0].replace("withdrawn", "refused"), *lines[1:]],
        [lines[1], lines[0], lines[2]],
        lines[1:],
        [lines[0], lines[2]],
        [*lines[:2], lines[2][:-1]],
        [lines[0].replace(":", ": ", 1), *lines[1:]],
    ):
        with pytest.raises(InputError, match=r"it, line|it: line"):
            Ledger.parse("\n".join(changed) + "\n", "it")
    with pytest.raises(InputError, match="does not end with a line feed"):
        Ledger.parse("\n".join(lines), "it")


FORGED = {
    "id": "R-9",
    "at": "2024-01-02T03:04:05Z",
    "classes": [{"index": 1, "name": "1"}],
    "by": "mask",
    "reason": "none",
    "drop": 0.5,
    "after_sha256": "0" * 64,
}


@pytest.mark.parametrize("field", FORGED)
def test_a_last_line_that_was_changed_is_found_by_its_record(
    carried: Carried, second: Carried, capsys, field: str
) -> None:
    """No later line names its digest, so that only what was signed shows it."""
    for made, number in ((carried, 1), (second, 2)):
        path = made.unlearned / LEDGER
        *before, last = path.read_text().splitlines()
        path.write_text(
            "".join(f"{line}\n" for line in (*before, canonical(json.loads(last) | {field: FORGED[field]})))
        )
        Ledger.parse(path.read_text(), "it")
        assert call("verify", made.record, "--key", made.public, "--model", made.unlearned) == 3
        said = capsys.readouterr().out
        assert f"{path}, line {number}: {field!r} is not what the record says." in said
        assert said.endswith("Does not hold: ledger.\n")


def test_the_log_compares_lines_with_the_records_beside_the_model(carried: Carried, second: Carried, capsys) -> None:
    """Whoever changes a line changes its digest, too, where the record does not lie there."""
    path = second.unlearned / LEDGER
    before, last = path.read_text().splitlines()
    capsys.readouterr()
    assert call("log", second.unlearned) == 0
    assert re.search(r"R-1 .* agrees .*\n.*R-2 .* agrees ", capsys.readouterr().out)
    for forged in ({"drop": 0.5}, {"record_sha256": "0" * 64}):
        path.write_text(f"{before}\n{canonical(json.loads(last) | forged)}\n")
        assert call("log", second.unlearned) == 3
        said = capsys.readouterr()
        assert re.search(r"R-1 .* agrees .*\n.*R-2 .* does not agree ", said.out)
        assert f"Line 2 (R-2) does not agree with its record: {next(iter(forged))!r} is not what" in said.err
        assert call("log", second.unlearned, "--json") == 3
        (found,) = json.loads(capsys.readouterr().out)["not_as_recorded"]
        assert found == {"line": 2, "record": str(second.record), "fields": list(forged)}
    (second.record / "record.json").write_text("{}")
    assert call("log", second.unlearned) == 0
    assert re.search(r"R-2 .* not here ", capsys.readouterr().out)


def test_a_line_that_undoes_a_request_is_compared_with_its_record(carried: Carried, second: Carried) -> None:
    record, path = DeletionRecord.read(second.record / "record.json"), second.unlearned / LEDGER
    ledger = Ledger.parse(path.read_text(), "it")
    back = undone(ledger, record.original_sha256, record.result_sha256)
    again = repeated(back, ledger.lines[1:])
    forged = again.lines[-1].model_copy(update={"reason": "none"})
    for lines, holds in ((again.lines, True), ((*again.lines[:-1], forged), False)):
        path.write_text(Ledger(lines=lines).to_text())
        assert verify(second.record, read_public(carried.public), second.unlearned).holds is holds
    forged = back.lines[-1].model_copy(update={"classes": ()})
    path.write_text(Ledger(lines=(*back.lines[:-1], forged)).to_text())
    (check,) = [c for c in verify(second.record, read_public(carried.public), second.unlearned).checks if not c.holds]
    assert "line 3: 'classes' is not what the record says." in check.found


def test_of_two_writers_one_certifies(carried: Carried, tmp_path: Path) -> None:
    (carried.unlearned / LEDGER).unlink()
    made, signer = Made.read(carried.unlearned, [carried.audit]), read_private(carried.private)

    def attempt(i: int) -> str:
        try:
            make(made, Request(id=f"R-{i}", reason="r"), signer, tmp_path / f"record-{i}")
        except InputError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        first, *others = sorted(pool.map(attempt, range(4)))
    assert first == ""
    assert all(said.startswith("This model was certified on") for said in others)
    (record,) = tmp_path.glob("record-*")
    assert verify(record, read_public(carried.public), carried.unlearned).holds
    assert len((carried.unlearned / LEDGER).read_text().splitlines()) == 1


def test_a_killed_writer_leaves_the_chain_valid(carried: Carried, tmp_path: Path) -> None:
    """Killed between the record and its line, it leaves a record that the ledger does not name, and no more."""
    (carried.unlearned / LEDGER).unlink()
    given = ["certify", carried.unlearned, carried.audit, "--key", carried.private, "--id", "R-1", "--reason", "r"]
    argv = [*map(str, given), "--out", str(tmp_path / "r")]
    code = (
        "import os; from unhot.records.ledger import Ledger; from unhot.cli import main; "
        f"Ledger.with_line = lambda *_: os._exit(9); main({argv!r})"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert (tmp_path / "r" / "record.json").exists()
    assert not (carried.unlearned / LEDGER).exists()
    shutil.rmtree(tmp_path / "r")
    assert call(*argv) == 0
    assert verify(tmp_path / "r", read_public(carried.public), carried.unlearned).holds
    assert [p.name for p in carried.unlearned.iterdir() if p.name.startswith(".")] == []
