"""Raw membership scores: what scores.csv holds, its bound, and that it is written with the rest or not at all."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import Board, Outputs, random_board
from sklearn.metrics import roc_auc_score

from unhot.cli import main
from unhot.errors import OutputError
from unhot.evaluation import auditor as module
from unhot.evaluation.attacks.membership import Membership
from unhot.evaluation.scores import Score, info, to_csv
from unhot.records.audit import AuditRecord
from unhot.report.page import load, render

MODELS = [("original", 0), ("masked", 0), ("unlearned", 0), ("retrained", 0), ("retrained", 1)]


def read(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def of(rows: Iterable[dict[str, str]], subject: str, run: int = 0, split: str | None = None) -> list[dict[str, str]]:
    wanted = (subject, str(run))
    return [r for r in rows if (r["subject"], r["run"]) == wanted and split in (None, r["split"])]


def areas(rows: list[dict[str, str]]) -> dict[str, float]:
    members = [r["split"] == "train" for r in rows]
    signs = {"modified_entropy": -1, "loss": -1, "confidence": 1}
    return {name: roc_auc_score(members, [sign * float(r[name]) for r in rows]) for name, sign in signs.items()}


def test_every_model_has_the_scores_of_every_image(full, zoo) -> None:
    rows = read(to_csv(full.scores))
    count = {
        s: int((i.y == 3).sum()) for s, i in (("train", zoo.source.train_images), ("test", zoo.source.test_images))
    }
    assert list(dict.fromkeys((r["subject"], int(r["run"])) for r in rows)) == MODELS
    for subject, run in MODELS:
        for split, images in (("train", zoo.source.train_images), ("test", zoo.source.test_images)):
            mine = of(rows, subject, run, split)
            assert [int(r["image"]) for r in mine] == [i for i, c in enumerate(images.y.tolist()) if c == 3]
            assert {r["class_index"] for r in mine} == {"3"}
            assert len(mine) == count[split]
    assert full.record.scores.images == count


def test_a_file_name_is_no_formula() -> None:
    names = ["=1+1.png", "-2.png", "@x", "a\x1b\n.png", "b.png"]
    rows = read(to_csv(Score("original", 0, "test", name, 3, -0.5, 0.25, 0.5) for name in names))
    assert [r["image"] for r in rows] == ["'=1+1.png", "'-2.png", "'@x", "a\\u001b\\n.png", "b.png"]
    assert {float(r["loss"]) for r in rows} == {-0.5}


def test_the_areas_of_the_record_come_back_from_the_file(full) -> None:
    rows = read(to_csv(full.scores))
    names = {"modified_entropy": "mia_auc", "loss": "mia_auc_loss", "confidence": "mia_auc_confidence"}
    for subject in ("original", "masked", "unlearned"):
        for score, value in areas(of(rows, subject)).items():
            assert value == full.get(names[score], subject).value
    found = [areas(of(rows, "retrained", i))["modified_entropy"] for i in (0, 1)]
    assert tuple(found) == full.get("mia_auc", "retrained").runs


def test_scores_are_those_of_the_outputs_by_hand() -> None:
    y = {s: torch.ones(20, dtype=torch.int64) for s in ("train", "test")}
    logits = torch.tensor([[0.0, math.log(2), 0.0]]).expand(20, 3)  # probabilities 1/4, 1/2, 1/4
    board = Board(y, [1], {s: Outputs(logits, logits) for s in y})
    first = Membership().run(board.case()).scores[0]
    assert first[:5] == ("unlearned", 0, "train", 0, 1)
    wanted = (math.log(2), 0.5, 0.5 * math.log(2) - 0.5 * math.log(0.75))
    assert first[5:] == pytest.approx(wanted, abs=1e-6)
    cut = Membership().run(board.case("masked")).scores[0]  # the class itself has no probability: 1e-12 stands for it
    assert cut.loss == pytest.approx(12 * math.log(10))
    assert cut.confidence == pytest.approx(0.5)


def test_no_more_than_so_many_are_kept_the_same_for_every_model() -> None:
    board = random_board(0, n=400)
    attack = Membership(scores_kept=7)
    kept = {s: attack.run(board.case(s)).scores for s in ("original", "unlearned", "retrained")}
    every = {s[2:5]: s for s in Membership().run(board.case("unlearned")).scores}
    for scores in kept.values():
        assert [s[2:5] for s in scores] == [s[2:5] for s in kept["original"]]
        assert [sum(s.split == split for s in scores) for split in ("train", "test")] == [7, 7]
    assert all(every[s[2:5]] == s for s in kept["unlearned"])
    of_a_split = [[s[2:5] for s in every.values() if s.split == split] for split in ("train", "test")]
    first = {key for keys in of_a_split for key in keys[:7]}
    assert len(first & {s[2:5] for s in kept["unlearned"]}) < 7  # drawn at random: sets may be sorted
    assert Membership(scores_kept=0).run(board.case()).scores == ()
    assert info(kept["original"]).images == {"train": 7, "test": 7}


def test_what_is_kept_of_a_big_set_stays_small() -> None:
    y = {s: torch.arange(40_000) % 2 for s in ("train", "test")}
    made = {s: torch.randn(40_000, 2, generator=torch.Generator().manual_seed(i)) for i, s in enumerate(y)}
    board = Board(y, [1], {s: Outputs(z, z) for s, z in made.items()})
    scores = Membership().run(board.case()).scores
    assert len(scores) == 2 * 2_000
    assert len(to_csv(scores)) < 500_000


def test_names_of_files_come_back_in_one_line_each() -> None:
    keys = ['a "b", c/1.png', "x\ny.png", "猫.png"]
    scores = [Score("original", 0, "test", k, 3, 0.1 + 0.2, np.float64(1 / 3).item(), 0.0) for k in keys]
    rows = read(to_csv(scores))
    assert [r["image"] for r in rows] == ['a "b", c/1.png', r"x\ny.png", "猫.png"]
    assert float(rows[0]["loss"]) == 0.1 + 0.2
    assert float(rows[0]["confidence"]) == 1 / 3


def test_without_train_images_there_is_no_file(zoo, tmp_path) -> None:
    found = module.audit(
        original=zoo.original(0), unlearned=zoo.cut(0, 3), classes=[3], test=zoo.source.test_images, quick=True
    )  # fmt: skip
    assert (found.scores, found.record.scores) == ((), None)
    found.save(tmp_path / "audit")
    assert not (tmp_path / "audit" / "scores.csv").exists()


def test_it_is_saved_with_the_rest_and_the_page_says_so(full, tmp_path, capsys) -> None:
    folder = tmp_path / "audit"
    full.save(folder)
    data = (folder / "scores.csv").read_bytes()
    record = AuditRecord.read(folder / "audit.json")
    assert data == to_csv(full.scores)
    assert record.scores.sha256 == hashlib.sha256(data).hexdigest()
    page = (folder / "report.html").read_text()
    counts = record.scores.images
    assert f"The scores of {counts['train']} train and {counts['test']} test images are in scores.csv" in page
    assert main(["report", str(folder), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == page
    (folder / "scores.csv").unlink()
    assert render(load([folder])) == page
    capsys.readouterr()


def test_when_they_cannot_be_written_nothing_is(full, tmp_path: Path, monkeypatch) -> None:
    def full_disk(_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unhot.evaluation.audit.to_csv", full_disk)
    with pytest.raises(OutputError, match="The disk is full"):
        full.save(tmp_path / "audit")
    assert list(tmp_path.iterdir()) == []


def test_the_lines_of_the_documentation_give_the_area(full, tmp_path, monkeypatch, capsys) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text()
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "scores.csv" in c]
    full.save(tmp_path / "audit")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert float(capsys.readouterr().out) == full["mia_auc"].value
