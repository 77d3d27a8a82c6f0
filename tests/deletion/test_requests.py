"""The requests of a file, each from the model to its signed record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from requested import NOTES, Carried, call

from unhot.deletion.keys import read_public
from unhot.deletion.request_file import place_in
from unhot.deletion.verify import verify
from unhot.files import held
from unhot.records.deletion import DeletionRecord
from unhot.records.ledger import Ledger
from unhot.records.request import Asked

pytestmark = pytest.mark.filterwarnings(NOTES)

FILE = """
schema = 1
model = "{original}"
data = "digits"
key = "{private}"
out = "{out}"
quick = true

[[request]]
id = "R-1"
reason = "consent withdrawn"
classes = ["3"]
samples = "digits"
force = true
require = ["forget_accuracy<=0.05"]

[[request]]
id = "A/2 of today"
reason = "licence ended"
approved_by = "data protection officer"
received = 2026-11-02
classes = [5]
samples = "digits"
method = "mask"
options = {{cut = "mask"}}
force = true
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "requests"


@pytest.fixture
def file(carried_out: Carried, out: Path, tmp_path: Path) -> Path:
    path = tmp_path / "requests.toml"
    path.write_text(FILE.format(original=carried_out.original, private=carried_out.private, out=out))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_requests_are_carried_out_in_turn_and_go_on_where_they_were_stopped(
    file: Path, out: Path, carried_out: Carried, capsys, monkeypatch
) -> None:
    line, stopped = Ledger.with_line, []

    def killed_once(self: Ledger, added: object) -> Ledger:
        """End the second request after its record was written, and before its line in the ledger."""
        if self.lines and not stopped:
            stopped.append(1)
            raise MemoryError
        return line(self, added)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "with_line", killed_once)
    assert call("request", file, "--dry-run") == 0
    assert f"R-1 (to be done): forget 3, to {out / 'R-1'}." in capsys.readouterr().out
    assert call("request", file, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {"id": "R-1", "done": False},
        {"id": "A/2 of today", "done": False},
    ]
    assert not out.exists()
    assert call("request", file) == 1
    first, second = out / "R-1", out / "A-2-of-today"
    assert {p.name for p in second.iterdir()} == {"request.json", "model", "audit", "record"}
    assert len((second / "model" / "requests.jsonl").read_text().splitlines()) == 1
    before = contents(first), contents(second)
    capsys.readouterr()
    assert call("request", file, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [(r["id"], r["done_before"]) for r in said["requests"]] == [("R-1", True), ("A/2 of today", True)]
    assert said["model"] == str(second / "model")
    after = contents(first), contents(second)
    assert after[0] == before[0]
    changed = {name for name in after[1] if after[1][name] != before[1].get(name)}
    assert changed == {"model/requests.jsonl"}
    key = read_public(carried_out.public)
    for home, original, previous in ((first, carried_out.original, None), (second, first / "model", first / "record")):
        assert verify(home / "record", key, home / "model", original, previous).holds
    record = DeletionRecord.read(second / "record" / "record.json")
    assert (record.request.id, record.request.approved_by) == ("A/2 of today", "data protection officer")
    assert (str(record.request.received), record.run.method, record.place.number) == ("2026-11-02", "mask", 2)
    assert (first / "record" / "test-result.dsse.json").exists()

    file.write_text(file.read_text().replace("licence ended", "licence ended in May"))
    assert call("request", file) == 2
    assert "A/2 of today was begun with other values than it has now" in capsys.readouterr().err
    page = first / "record" / "record.html"
    page.write_text(page.read_text() + " ")
    assert call("request", file) == 2
    assert "R-1 is certified, and does not hold: page:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "folder"), [("../R 3", "R-3"), ("--out", "out"), ("/", "request"), (".-.", "request"), ("R-3-.", "R-3-")]
)
def test_a_folder_is_neither_hidden_nor_an_option(name: str, folder: str) -> None:
    asked = Asked(id=name, reason="r", classes=("3",), samples="digits")
    assert place_in(Path("out"), asked).home == Path("out") / folder


def test_what_does_not_meet_its_bounds_is_not_certified(file: Path, out: Path, capsys) -> None:
    text = file.read_text()
    file.write_text(text[: text.rindex("[[request]]")].replace("forget_accuracy<=0.05", "verdict>=beyond"))
    for _ in range(2):
        assert call("request", file) == 3
        said = capsys.readouterr().err
        assert "Not met: verdict is " in said
        assert f"R-1 is not certified. Remove {out / 'R-1'}, change the request" in said
        assert {p.name for p in (out / "R-1").iterdir()} == {"request.json", "model", "audit"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("quick = true", "qick = true", "'qick': unknown (Did you mean 'quick'?)"),
        ("quick = true", "retrained = []", "'retrained': unknown here (It belongs in a [[request]])."),
        ("quick = true", 'metod = "mask"', "'metod': unknown (Did you mean 'method'? It belongs in a [[request]])."),
        ("quick = true", "schma = 1", "'schma': unknown (Did you mean 'schema'?)."),
        ('method = "mask"', 'metod = "mask"', "request 2, 'metod': unknown (Did you mean 'method'?)."),
        ('method = "mask"', "zzz = 1", "request 2, 'zzz': unknown (Known: id, reason, legal_basis, approved_by, "),
        (
            'method = "mask"',
            "quick = true",
            "request 2, 'quick': unknown here (It belongs above the first table).",
        ),
        ('reason = "licence ended"', "", "request 2, 'reason': Field required."),
        ("classes = [5]", 'classes = ["3"]', "the class 3 comes twice"),
        ("classes = [5]", "classes = [true]", "request 2, 'classes.0': It must be a valid string"),
        ("classes = [5]", 'classes = ["x"]', "A/2 of today: 'classes': Unknown class 'x'."),
        ("classes = [5]", 'classes = [5, "3 "]', "A/2 of today: 'classes': Unknown class '3 '."),
        (
            "classes = [5]",
            "classes = [0, 1, 2, 4, 5, 6, 7, 8, 9]",
            "the requests take every class that is left, 3, 0, ",
        ),
        ("A/2 of today", "r-1", "the id r-1 comes twice"),
        ("A/2 of today", "R/1", "two ids name one folder, r-1."),
        ("2026-11-02", "2999-11-02", "A/2 of today: 'received' is after today."),
        ("unhot.key", "unhot.pub", "'key': "),
        ('model = "', 'model = "no', "'model': There is no model at"),
        ('data = "digits"', 'data = "dgits"', "'data': Unknown data set 'dgits'."),
        ('method = "mask"', 'method = "msk"', "A/2 of today: 'method': Unknown method 'msk'. Did you mean 'mask'?"),
        ('{cut = "mask"}', '{ct = "mask"}', "Unknown hyperparameter of mask: 'ct'. Did you mean 'cut'?"),
        ('method = "mask"\noptions = {cut = "mask"}', 'method = "scrub"', "scrub needs 'retain'."),
        ('method = "mask"\noptions = {cut = "mask"}', 'retain = "digits"\noptions = {x = 1}', "of nhle-renew: 'x'."),
        ('method = "mask"', 'method = "mask"\nretain = "digits"', "mask does not read images of the retained classes"),
        ('method = "mask"', 'method = "mask"\nretrained = ["no"]', "'retrained': There is nothing at no."),
        ("forget_accuracy<=", "forgt_accuracy<=", "R-1: 'require': Unknown measurement 'forgt_accuracy'."),
        ("forget_accuracy<=0.05", "relearn_steps>=5", "--quick leaves relearn_steps out"),
        ("schema = 1", "schema = 2", "'schema': It must be 1"),
        ("[[request]]", "[[request", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(
    file: Path, out: Path, capsys, old: str, new: str, said: str
) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    assert call("request", file) == 2
    found = capsys.readouterr().err
    assert found.startswith(f"Error: {file}")
    assert said in found
    assert not out.exists()


def test_a_request_that_is_refused_leaves_nothing_that_stands_in_the_way(
    file: Path, out: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    right = file.read_text()[: file.read_text().rindex("[[request]]")]
    file.write_text(right.replace('samples = "digits"', f'samples = "{tmp_path / "pictures"}"'))
    assert call("request", file) == 2
    assert "a.png" in capsys.readouterr().err
    assert not (out / "R-1").exists()
    file.write_text(right)
    assert call("request", file) == 0


def test_what_was_not_forgotten_is_not_certified(file: Path, out: Path, capsys) -> None:
    """No step, and no cut: the samples are still recognised."""
    text = file.read_text().replace('require = ["forget_accuracy<=0.05"]', "")
    plan = 'method = "neggrad"\noptions = {steps = 0}\nforce = true'
    file.write_text(text[: text.rindex("[[request]]")].replace("force = true", plan))
    assert call("request", file) == 2
    said = capsys.readouterr().err
    assert "did not forget 3: its samples are still classified as it." in said
    assert f"R-1 is not certified. Remove {out / 'R-1'}, change the request" in said


def test_one_request_is_a_table_or_a_list_of_one(file: Path, out: Path, capsys) -> None:
    text = file.read_text()
    one = text[: text.rindex("[[request]]")]
    for written in (one, one.replace("[[request]]", "[request]")):
        file.write_text(written)
        assert call("request", file, "--dry-run", "--json") == 0
        assert json.loads(capsys.readouterr().out) == [{"id": "R-1", "done": False}]
    file.write_text(one[: one.index("[[request]]")] + "request = []\n")
    assert call("request", file) == 2
    assert capsys.readouterr().err == f"Error: {file}: 'request': there is none. Write a [[request]].\n"
    file.write_text(one.replace('classes = ["3"]', "classes = []"))
    assert call("request", file) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1  # and nothing of the list that holds it
    assert not out.exists()


def test_of_two_commands_in_one_folder_the_second_is_refused_at_once(file: Path, out: Path, capsys) -> None:
    said = f"Another unhot command is working in {out}. Wait until it has ended, and give this one again."
    with held(out):
        assert call("request", file) == 2
        assert said in capsys.readouterr().err
        assert call("request", file, "--dry-run") == 0
        assert not (out / "R-1").exists()
    assert list(out.iterdir()) == []
    with held(out):  # which is free again
        pass


def test_nothing_is_overwritten(file: Path, out: Path, capsys) -> None:
    (out / "R-1").mkdir(parents=True)
    (out / "R-1" / "mine").touch()
    assert call("request", file) == 2
    assert "is not empty, and holds no request. Choose another 'out'." in capsys.readouterr().err
    assert [p.name for p in out.rglob("*")] == ["R-1", "mine"]
