"""The signature of a model's folder, which model-signing checks without unhot."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from requested import NOTES, Carried, call, certified

from unhot.files import sha256

verifying = pytest.importorskip("model_signing.verifying")

pytestmark = pytest.mark.filterwarnings(NOTES)


@pytest.fixture
def signed(carried: Carried, tmp_path: Path) -> Carried:
    """The request, certified with a key that model-signing takes."""
    made = carried._replace(keys=tmp_path / "ecdsa", record=tmp_path / "signed-record")
    (made.unlearned / "requests.jsonl").unlink()
    assert call("keys", "--kind", "ecdsa", "--out", made.keys) == 0
    assert certified(made, "R-1", made.record) == 0
    return made


def checked_by_others(made: Carried, model: Path) -> None:
    config = verifying.Config().use_elliptic_key_verifier(public_key=made.public)
    config.verify(model, made.record / "model.sig")


def checks(made: Carried, capsys: pytest.CaptureFixture[str], *more: object) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    call("verify", made.record, "--key", made.public, "--json", *more)
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


def test_model_signing_checks_what_unhot_signed(signed: Carried, tmp_path: Path, capsys) -> None:
    """The ledger, which was written after the signature, and the name of the folder are not signed."""
    copy = tmp_path / "copy"
    shutil.copytree(signed.unlearned, copy)
    checked_by_others(signed, copy)
    assert call("verify", signed.record, "--key", signed.public, "--model", copy) == 0
    said = capsys.readouterr().out
    assert f"ok     signed folder: {copy} is the folder that model.sig signs, says model-signing" in said
    assert said.endswith("holds: all 8 checks.\n")
    record = json.loads((signed.record / "record.json").read_text())
    assert record["folder_signature_sha256"] == sha256(signed.record / "model.sig")

    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"Hash mismatch for .*model\.safetensors"):
        checked_by_others(signed, copy)
    found = checks(signed, capsys, "--model", copy)
    assert not found["signed folder"]["holds"]
    assert "(model-signing: Signature mismatch: " in str(found["signed folder"]["found"])
    assert not found["model"]["holds"]


def test_a_signature_that_was_changed_removed_or_added_is_found_without_the_model(
    signed: Carried, carried: Carried, capsys
) -> None:
    signature = signed.record / "model.sig"
    content = signature.read_bytes()
    signature.write_bytes(content + b" ")
    found = checks(signed, capsys)["model.sig"]
    assert (found["holds"], "it was changed since" in str(found["found"])) == (False, True)
    signature.unlink()
    assert checks(signed, capsys)["model.sig"]["found"] == "model.sig is missing."
    (carried.record / "model.sig").write_bytes(content)
    assert checks(carried, capsys)["model.sig"]["found"] == "model.sig was added: the record says of none."


def test_where_model_signing_is_not_installed_it_is_not_checked(
    signed: Carried, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing.signing", None)
    found = checks(signed, capsys, "--model", signed.unlearned)
    assert found["model.sig"]["holds"]
    assert found["signed folder"]["holds"] is None
    assert "pip install 'unhot[model-signing]'" in str(found["signed folder"]["found"])
    (signed.unlearned / "requests.jsonl").unlink()
    assert certified(signed, "R-1", tmp_path / "unsigned") == 0
    assert not (tmp_path / "unsigned" / "model.sig").exists()


def test_a_key_of_another_kind_signs_no_folder(carried: Carried) -> None:
    assert not (carried.record / "model.sig").exists()
    assert "folder_signature_sha256" not in (carried.record / "record.json").read_text()


def test_what_model_signing_does_not_sign_is_refused(signed: Carried, tmp_path: Path, capsys) -> None:
    (signed.unlearned / "requests.jsonl").unlink()
    (signed.unlearned / "link").symlink_to(signed.public)
    assert certified(signed, "R-1", tmp_path / "no") == 2
    assert "model-signing cannot sign" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
