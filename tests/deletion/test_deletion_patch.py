"""Patches: bit for bit there and back, and refused on any other model."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from requested import NOTES, Carried, call, certified
from safetensors.numpy import load_file, save_file
from securesystemslib.dsse import Envelope

from unhot.deletion.keys import read_public
from unhot.files import sha256
from unhot.models.bundle import load

pytestmark = pytest.mark.filterwarnings(NOTES)
LEDGER = "requests.jsonl"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != LEDGER}


@pytest.fixture
def patch(carried: Carried, tmp_path: Path) -> Path:
    assert call("diff", carried.original, carried.unlearned, "--out", tmp_path / "patch") == 0
    return tmp_path / "patch"


def test_there_and_back_again(carried: Carried, patch: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    assert call("apply", carried.original, patch, "--out", there) == 0
    assert contents(there) == contents(carried.unlearned)
    assert (there / LEDGER).read_bytes() == (carried.unlearned / LEDGER).read_bytes()
    assert call("revert", there, patch, "--out", back) == 0
    assert contents(back) == contents(carried.original)
    actions = [json.loads(line)["action"] for line in (back / LEDGER).read_text().splitlines()]
    assert actions == ["forget", "revert"]
    assert call("apply", back, patch, "--out", tmp_path / "again") == 0
    assert load(tmp_path / "again").sha256() == load(carried.unlearned).sha256()
    assert len((tmp_path / "again" / LEDGER).read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", ["excise", "bottleneck"])
def test_a_head_of_another_form(carried: Carried, tmp_path: Path, cut: str) -> None:
    given = ("--class", 5, "--samples", "digits", "--force", "--method", "mask", "-o", f"cut={cut}")
    assert call("forget", carried.unlearned, *given, "--out", tmp_path / "cut") == 0
    assert call("diff", carried.unlearned, tmp_path / "cut", "--out", tmp_path / "patch") == 0
    changes = json.loads((tmp_path / "patch" / "patch.json").read_text())["tensors"]
    assert any(c["before"] != c["after"] for c in changes)
    assert call("apply", carried.unlearned, tmp_path / "patch", "--out", tmp_path / "there") == 0
    assert contents(tmp_path / "there") == contents(tmp_path / "cut")
    assert call("revert", tmp_path / "there", tmp_path / "patch", "--out", tmp_path / "back") == 0
    assert contents(tmp_path / "back") == contents(carried.unlearned)


def test_only_what_changed_is_kept(carried: Carried, patch: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (carried.original, carried.unlearned))
    changed = {f"xor/{name}" for name in before if not np.array_equal(before[name], after[name])}
    assert set(load_file(patch / "tensors.safetensors")) == changed
    assert 0 < len(changed) < len(before)


def test_any_other_model_is_refused(carried: Carried, patch: Path, tmp_path: Path, capsys) -> None:
    for command, model in (("apply", carried.unlearned), ("revert", carried.original)):
        assert call(command, model, patch, "--out", tmp_path / "new") == 2
        assert "its model.safetensors is another" in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(carried.original, other)
    (other / "bundle.json").write_text((other / "bundle.json").read_text() + "\n")
    assert call("apply", other, patch, "--out", tmp_path / "new") == 2
    assert "its bundle.json is another" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert call("diff", carried.original, carried.original, "--out", tmp_path / "new") == 2
    assert "hold the same files" in capsys.readouterr().err


def test_a_patch_that_was_changed_is_refused(carried: Carried, patch: Path, tmp_path: Path) -> None:
    draw, out = random.Random(0), tmp_path / "new"
    wanted = contents(carried.unlearned)
    for i in range(60):
        path = sorted(patch.iterdir())[i % 2]
        content = path.read_bytes()
        at = draw.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ draw.randrange(1, 128)]) + content[at + 1 :])
        if call("apply", carried.original, patch, "--out", out) == 0:  # what it says of the tensors in words
            assert contents(out) == wanted
            shutil.rmtree(out)
        assert not out.exists()
        path.write_bytes(content)


def test_arrays_that_do_not_fit_are_refused(carried: Carried, patch: Path, tmp_path: Path, capsys) -> None:
    arrays = load_file(patch / "tensors.safetensors")
    name = min(arrays)
    save_file({**arrays, name: arrays[name][:-1].copy()}, patch / "tensors.safetensors")
    assert call("apply", carried.original, patch, "--out", tmp_path / "new") == 2
    assert "it was changed" in capsys.readouterr().err


def test_a_request_in_the_middle_is_undone_after_the_later_ones(
    carried: Carried, second: Carried, patch: Path, tmp_path: Path, capsys
) -> None:
    capsys.readouterr()
    assert call("revert", second.unlearned, patch, "--out", tmp_path / "new") == 2
    assert "That one is earlier in its chain: undo R-2 first" in capsys.readouterr().err
    assert call("diff", carried.unlearned, second.unlearned, "--out", tmp_path / "patch-2") == 0
    assert call("revert", second.unlearned, tmp_path / "patch-2", "--out", tmp_path / "one") == 0
    assert contents(tmp_path / "one") == contents(carried.unlearned)
    assert call("revert", tmp_path / "one", patch, "--out", tmp_path / "zero") == 0
    assert contents(tmp_path / "zero") == contents(carried.original)
    lines = [json.loads(line) for line in (tmp_path / "zero" / LEDGER).read_text().splitlines()]
    assert [(line["action"], line["id"]) for line in lines] == [
        ("forget", "R-1"),
        ("forget", "R-2"),
        ("revert", "R-2"),
        ("revert", "R-1"),
    ]
    capsys.readouterr()
    assert call("log", tmp_path / "zero") == 0
    said = capsys.readouterr().out
    assert "when (UTC)" in said
    undone = json.loads((tmp_path / "zero" / LEDGER).read_text().splitlines()[-1])["at"]
    assert re.search(rf"R-1 .*{undone[:10]} {undone[11:16]} .*undone: 3 ", said)


def test_models_in_the_wrong_order_are_refused(carried: Carried, tmp_path: Path, capsys) -> None:
    assert call("diff", carried.unlearned, carried.original, "--out", tmp_path / "new") == 2
    assert "has forgotten 3, and" in capsys.readouterr().err
    info = carried.original / "bundle.json"
    value = json.loads(info.read_text())
    value["head_edits"] = [{"kind": "forgotten", "layer": "head", "classes": [7]}]
    info.write_text(json.dumps(value))
    assert call("diff", carried.original, carried.unlearned, "--out", tmp_path / "new") == 2
    assert "lists forgotten classes that are none" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_patch_without_its_request_is_said(carried: Carried, tmp_path: Path, capsys) -> None:
    """Made before the request was certified, it leads to the model without a line in its ledger, which is valid."""
    ledger = (carried.unlearned / LEDGER).read_bytes()
    (carried.unlearned / LEDGER).unlink()
    patch, there = tmp_path / "patch", tmp_path / "there"
    assert call("diff", carried.original, carried.unlearned, "--out", patch) == 0
    assert "has no certified request that" in capsys.readouterr().err
    assert call("apply", carried.original, patch, "--out", there) == 0
    assert f"the ledger of {there} has no line of it. Certify {there}" in capsys.readouterr().err
    made = carried._replace(unlearned=there)
    assert certified(made, "R-1", tmp_path / "record") == 0
    assert call("verify", tmp_path / "record", "--key", carried.public, "--model", there) == 0
    (carried.unlearned / LEDGER).write_bytes(ledger)
    assert call("revert", carried.unlearned, patch, "--out", tmp_path / "back") == 0
    assert [json.loads(line)["action"] for line in (tmp_path / "back" / LEDGER).read_text().splitlines()] == [
        "forget",
        "revert",
    ]


def test_a_signed_patch(carried: Carried, tmp_path: Path, capsys) -> None:
    patch, out = tmp_path / "patch", tmp_path / "new"
    assert call("diff", carried.original, carried.unlearned, "--key", carried.private, "--out", patch) == 0
    envelope = Envelope.from_dict(json.loads((patch / "patch.dsse.json").read_text()))
    assert len(envelope.verify([read_public(carried.public)], 1)) == 1
    assert json.loads(envelope.payload)["predicate"]["records"] == [sha256(carried.record / "record.json")]
    capsys.readouterr()
    assert call("apply", carried.original, patch, "--out", tmp_path / "unchecked") == 0
    assert "was not checked. --key PUBLIC checks it." in capsys.readouterr().err
    assert call("apply", carried.original, patch, "--key", carried.public, "--out", out) == 0
    assert contents(out) == contents(carried.unlearned)
    shutil.rmtree(out)
    value = json.loads((patch / "patch.json").read_text())
    value["requests"] = []
    (patch / "patch.json").write_text(json.dumps(value))
    for command, model in (("apply", carried.original), ("revert", carried.unlearned)):
        assert call(command, model, patch, "--key", carried.public, "--out", out) == 2
        assert "does not hold what was signed" in capsys.readouterr().err
    assert call("keys", "--out", tmp_path / "other") == 0
    assert call("apply", carried.original, patch, "--key", tmp_path / "other" / "unhot.pub", "--out", out) == 2
    assert "was not signed with this key" in capsys.readouterr().err
    (patch / "patch.dsse.json").unlink()
    assert call("apply", carried.original, patch, "--key", carried.public, "--out", out) == 2
    assert "patch.dsse.json cannot be read" in capsys.readouterr().err
    assert not out.exists()
