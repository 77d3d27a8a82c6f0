"""A deletion record: what it says, and that whatever is changed in it is found."""

from __future__ import annotations

import json
import random
import re
import shutil
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from requested import NOTES, Carried, call, certified, signed_again
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from unhot.deletion.keys import read_private, read_public
from unhot.deletion.statement import PREDICATE_TYPE, check_form, result_statement, signed, statement
from unhot.deletion.verify import verify
from unhot.deletion.weights_file import BundleFiles, WeightsFile
from unhot.errors import InputError
from unhot.files import sha256 as file_sha256
from unhot.models.arch import build
from unhot.models.bundle import load, save
from unhot.models.classifier import Classifier
from unhot.records.base import canonical
from unhot.records.deletion import DeletionRecord
from unhot.report.deletion import render, summary

pytestmark = pytest.mark.filterwarnings(NOTES)
CHANGES = 1_000


def test_a_record_holds_on_a_machine_with_nothing_but_itself_the_key_and_the_model(carried: Carried, capsys) -> None:
    given = ("--key", carried.public, "--model", carried.unlearned, "--original", carried.original)
    assert call("verify", carried.record, *given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == [
        f"{name}:" for name in ("files", "signature", "record", "page", "model", "ledger", "original")
    ]
    (carried.unlearned / "requests.jsonl").write_text("")
    assert call("verify", carried.record, *given) == 3
    assert "FAILED ledger" in capsys.readouterr().out
    (carried.unlearned / "requests.jsonl").unlink()
    assert call("verify", carried.record, *given) == 0
    said = capsys.readouterr().out
    assert "\nnot checked ledger: there is none beside the model\n" in said
    assert said.endswith(f"{carried.record} holds: all 6 checks. Not checked: ledger.\n")
    assert call("verify", carried.record, "--key", carried.public, "--model", "nosuch", "--json") == 3
    states = {c["name"]: c["holds"] for c in json.loads(capsys.readouterr().out)["checks"]}
    assert (states["model"], states["ledger"]) == (False, None)
    (carried.unlearned / "bundle.json").write_text("{")
    assert call("verify", carried.record, *given) == 3
    assert "FAILED model: " in capsys.readouterr().out


def test_it_is_checked_without_torch(carried: Carried) -> None:
    code = (
        "import sys; from unhot.cli import main; "
        f"code = main(['verify', {str(carried.record)!r}, '--key', {str(carried.public)!r}, "
        f"'--model', {str(carried.unlearned)!r}]); sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.fixture
def short(carried: Carried) -> Path:
    """A record with one measurement, which takes less time to check."""
    long = DeletionRecord.read(carried.record / "record.json")
    (evidence,) = long.evidence
    few = evidence.model_copy(update={"measurements": evidence.measurements[:1], "attacks": {}})
    signed_again(carried, long.model_copy(update={"evidence": (few,)}))
    return carried.record


def test_every_changed_byte_is_found(short: Path, carried: Carried) -> None:
    key, draw = read_public(carried.public), random.Random(0)
    assert verify(short, key).holds
    files = sorted(short.iterdir())
    assert len(files) == 3
    for i in range(CHANGES):
        path = files[i % 3]
        content = path.read_bytes()
        at, other = draw.randrange(len(content)), draw.randrange(1, 256)
        path.write_bytes(content[:at] + bytes([content[at] ^ other]) + content[at + 1 :])
        assert not verify(short, key).holds, f"{path.name}, byte {at}: {content[at]} ^ {other}"
        path.write_bytes(content)
    assert verify(short, key).holds


@pytest.mark.parametrize("name", ["record.json", "record.html", "record.dsse.json"])
@pytest.mark.parametrize("how", ["longer", "shorter", "marked", "gone", "folder", "link", "extra"])
def test_files_that_were_added_removed_or_replaced_are_found(carried: Carried, name: str, how: str) -> None:
    path = carried.record / name
    content = path.read_bytes()
    if how in ("gone", "folder", "link"):
        path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link":
        kept = carried.keys / name
        kept.write_bytes(content)
        path.symlink_to(kept)
    elif how == "extra":
        path.with_suffix(".old").write_bytes(content)
    elif how != "gone":
        changed = {"longer": content + b"\n", "shorter": content[:-1], "marked": b"\xef\xbb\xbf" + content}
        path.write_bytes(changed[how])
    found = verify(carried.record, read_public(carried.public))
    assert not found.holds
    assert any(name.removesuffix(".json") in c.found for c in found.checks if not c.holds)


def test_exit_code_3_says_which_check_fails(carried: Carried, tmp_path: Path, capsys) -> None:
    assert call("keys", "--out", tmp_path / "other") == 0
    assert call("verify", carried.record, "--key", tmp_path / "other" / "unhot.pub") == 3
    said = capsys.readouterr().out
    assert "FAILED signature: record.dsse.json was not signed with this key, or was changed since." in said
    assert "\nnot checked page: the record does not hold\n" in said
    assert said.endswith("Does not hold: signature. Not checked: record, page.\n")
    assert call("verify", carried.record, "--key", carried.public, "--model", carried.original) == 3
    assert "FAILED model" in capsys.readouterr().out
    for path in sorted(carried.unlearned.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        assert call("verify", carried.record, "--key", carried.public, "--model", carried.unlearned, "--json") == 3
        checks = json.loads(capsys.readouterr().out)["checks"]
        failed = "ledger" if path.name == "requests.jsonl" else "model"
        assert [c["name"] for c in checks if not c["holds"]] == [failed], path.name
        path.write_bytes(content)


def test_tools_of_others_check_it(carried: Carried) -> None:
    """With the library alone: what is signed is the record, and its subject the file of weights."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    envelope = Envelope.from_dict(json.loads((carried.record / "record.dsse.json").read_text()))
    key = SSlibKey.from_crypto(load_pem_public_key(carried.public.read_bytes()))
    assert list(envelope.verify([key], 1)) == [key.keyid]
    statement = json.loads(envelope.payload)
    check_form(statement, PREDICATE_TYPE)
    assert (statement["_type"], statement["predicateType"]) == ("https://in-toto.io/Statement/v1", PREDICATE_TYPE)
    assert canonical(statement["predicate"]) == (carried.record / "record.json").read_text()
    subjects = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}
    assert subjects == {
        p.name: sha256(p.read_bytes()).hexdigest() for p in carried.unlearned.iterdir() if p.name != "requests.jsonl"
    }


def test_bounds_are_a_signed_test_result_that_others_read(carried: Carried, tmp_path: Path, capsys) -> None:
    from google.protobuf.json_format import ParseDict
    from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    (carried.unlearned / "requests.jsonl").unlink()
    out = tmp_path / "bounded"
    bounds = ("--require", "forget_accuracy<=0.05", "--require", "verdict.weights>=retrained")
    assert certified(carried, "R-1", out, *bounds) == 3
    told = capsys.readouterr()
    assert "Not met: verdict.weights is '" in told.err
    assert " The bounds were not met (1 of 2). Wrote " in told.out
    envelope = Envelope.from_dict(json.loads((out / "test-result.dsse.json").read_text()))
    assert len(envelope.verify([read_public(carried.public)], 1)) == 1
    found = json.loads(envelope.payload)
    Statement.copy_from_pb(ParseDict(found, statement_pb2.Statement())).validate()
    assert found["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    result = ParseDict(found["predicate"], TestResult())
    assert result.result == "FAILED"
    assert list(result.passed_tests) == ["forget_accuracy<=0.05"]
    assert list(result.failed_tests) == ["verdict.weights>=retrained"]
    assert {c.name: c.digest["sha256"] for c in result.configuration} == {
        "record.json": file_sha256(out / "record.json"),
        "audit.json": file_sha256(carried.audit / "audit.json"),
    }
    assert call("verify", out, "--key", carried.public, "--model", carried.unlearned) == 0
    assert (
        "ok     bounds: test-result.dsse.json says truly how the measures compare with the bounds: 1 of 2 NOT met, "
        "verdict.weights>=retrained\n"
    ) in capsys.readouterr().out
    page = (out / "record.html").read_text()
    assert "The bounds were not met (1 of 2)." in page
    assert "<dt>forget_accuracy&lt;=0.05</dt><dd>met</dd>" in page


def test_a_test_result_that_was_changed_is_found(carried: Carried, tmp_path: Path, capsys) -> None:
    (carried.unlearned / "requests.jsonl").unlink()
    out, key, draw = tmp_path / "bounded", read_public(carried.public), random.Random(0)
    assert certified(carried, "R-1", out, "--require", "forget_accuracy<=0.05") == 0
    assert " The bounds were met (1 of 1). Wrote " in capsys.readouterr().out
    assert "with the bounds: 1 of 1 met" in next(c.found for c in verify(out, key).checks if c.name == "bounds")
    path = out / "test-result.dsse.json"
    content = path.read_bytes()
    for _ in range(50):
        at = draw.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ draw.randrange(1, 256)]) + content[at + 1 :])
        assert [c.name for c in verify(out, key).checks if not c.holds] == ["bounds"]
    path.unlink()
    assert not verify(out, key).holds
    shutil.copy(carried.record / "record.dsse.json", path)  # signed with the same key, and of another kind
    assert not verify(out, key).holds
    path.write_bytes(content)
    assert verify(out, key).holds
    shutil.copy(path, carried.record)
    assert [c.found for c in verify(carried.record, key).checks if not c.holds] == [
        "test-result.dsse.json was added: the record says of no bounds."
    ]
    record = DeletionRecord.read(out / "record.json")
    lax = record.model_copy(update={"bounds": (record.bounds[0].model_copy(update={"unmet": "it is not"}),)})
    signed_again(carried._replace(record=out), lax)
    written = result_statement(DeletionRecord.read(out / "record.json"))
    path.write_text(signed(written, read_private(carried.private)))
    assert any("is met is not what the measures" in c.found for c in verify(out, key).checks if not c.holds)


def test_what_a_record_says(carried: Carried) -> None:
    record = DeletionRecord.read(carried.record / "record.json")
    assert (record.request.id, [c.name for c in record.classes]) == ("R-1", ["3"])
    assert (record.run.read, len(record.run.not_read)) == (("the samples",), 3)
    assert (record.original_sha256, record.result_sha256) == tuple(
        load(folder).sha256() for folder in (carried.original, carried.unlearned)
    )
    assert record.place.number == 1
    assert record.place.previous is None
    (evidence,) = record.evidence
    assert evidence.audit_sha256 == file_sha256(carried.audit / "audit.json")
    assert {m.subject for m in evidence.measurements} == {"original", "masked", "unlearned", "retrained"}
    assert len(evidence.conclusions) == 3
    text = (carried.record / "record.json").read_text()
    assert "digits, train split" not in text
    assert str(carried.original.parent) not in text


def test_a_note_of_the_run_is_taken_over(carried: Carried, tmp_path: Path) -> None:
    run = carried.unlearned / "record.json"
    run.write_text(run.read_text().replace('"note": ""', '"note": "ticket 17"'))
    for name, more, note in (("a", (), "ticket 17"), ("b", ("--note", "ticket 18"), "ticket 18")):
        (carried.unlearned / "requests.jsonl").unlink()
        assert certified(carried, "R-1", tmp_path / name, *more) == 0
        assert DeletionRecord.read(tmp_path / name / "record.json").request.note == note


def test_the_page_says_it_in_one_file(carried: Carried) -> None:
    page, record = (carried.record / "record.html").read_text(), DeletionRecord.read(carried.record / "record.json")
    for text in ("R-1", "consent was withdrawn", "What this record does not prove", "What is left to dispose of"):
        assert text in page
    assert page.count('class="box"') == len(record.remaining) >= 8
    assert page == render(record)
    addresses = set(re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')>\s]+)""", page))
    assert addresses == {"data:,"}
    assert "<script" not in page


@pytest.mark.parametrize(("drop", "said"), [(0.0123, "fell by 0.012."), (-0.0123, "rose by 0.012."), (None, "")])
def test_what_the_other_classes_lost_is_said_in_words(carried: Carried, drop: float | None, said: str) -> None:
    record = DeletionRecord.read(carried.record / "record.json")
    found = " ".join(summary(record.model_copy(update={"place": record.place.model_copy(update={"drop": drop})})))
    assert ("The accuracy on the other classes" in found) is (drop is not None)
    assert found.endswith(said)


def test_text_of_a_request_is_escaped_on_the_page(carried: Carried, tmp_path: Path) -> None:
    (carried.unlearned / "requests.jsonl").unlink()
    assert certified(carried, "<script>alert(1)</script>", tmp_path / "r", "--note", "a\u202eb") == 0
    page = (tmp_path / "r" / "record.html").read_text()
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("again", "This model was certified on"),
        ("other audit", "audits another model"),
        ("no run", "how the model was made is not known"),
        ("not forgotten", "did not forget 3"),
        ("part", "forgot crossed sevens, a part of a class"),
        ("foreign", "An audit compares with the model"),
        ("verdict", "the verdict for whoever holds the weights is not the one that the measurements beside it give"),
        ("measurement", "the verdict for whoever holds the outputs and the features and the weights is not the one"),
        ("no id", "--id is empty"),
        ("public key", "is a public key. Sign with the private one"),
        ("no key", "is not a private key that can be read. Give an Ed25519, ECDSA or RSA key in PEM form."),
        ("taken", "is not empty. Choose another --out"),
    ],
)
def test_what_is_not_certified(carried: Carried, tmp_path: Path, capsys, change: str, said: str) -> None:
    ledger = carried.unlearned / "requests.jsonl"
    if change != "again":
        ledger.unlink()
    run, audit = carried.unlearned / "record.json", carried.audit / "audit.json"
    if change == "no run":
        run.unlink()
    if change in ("not forgotten", "part"):
        value = json.loads(run.read_text())
        if change == "part":
            value["notes"]["part"] = "crossed sevens"
        else:
            value["recognised"][0]["after"] = value["recognised"][0]["n"]
        run.write_text(json.dumps(value))
    if change in ("other audit", "foreign"):
        value = json.loads(audit.read_text())
        value["inputs"]["unlearned_sha256" if change == "other audit" else "original_sha256"] = "0" * 64
        audit.write_text(json.dumps(value))
    if change in ("verdict", "measurement"):
        value = json.loads(audit.read_text())
        if change == "verdict":
            value["verdict"]["holders"]["weights"]["label"] = "at the level of a retrained model"
        else:
            changed = [
                m for m in value["measurements"] if (m["name"], m["subject"]) == ("forget_accuracy", "unlearned")
            ]
            changed[0] |= {"value": 1.0, "high": 1.0}
        audit.write_text(json.dumps(value))
    if change == "no key":
        carried.private.write_text("secret")
    out = carried.record if change == "taken" else tmp_path / "new"
    key = carried.public if change == "public key" else carried.private
    before = ledger.exists() and ledger.read_bytes()
    name = "" if change == "no id" else "R-2"
    given = ("--key", key, "--id", name, "--reason", "r", "--out", out)
    assert call("certify", carried.unlearned, carried.audit, *given) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert (ledger.exists() and ledger.read_bytes()) == before


def test_keys_are_files_that_only_the_owner_reads(carried: Carried, tmp_path: Path, capsys) -> None:
    assert stat.S_IMODE(carried.private.stat().st_mode) == 0o600
    assert call("keys", "--out", carried.keys) == 2
    assert "is not empty" in capsys.readouterr().err
    assert call("verify", carried.record, "--key", carried.private) == 2
    assert "is a private key. Check with the public one" in capsys.readouterr().err
    assert call("verify", tmp_path / "nothing", "--key", carried.public) == 2


def test_a_model_in_place_of_a_record_and_an_original_in_place_of_an_unlearned_one(
    carried: Carried, tmp_path: Path, capsys
) -> None:
    assert call("verify", carried.unlearned, "--key", carried.public) == 2
    said = f"{carried.unlearned} is a model. Give the folder of its record, which unhot certify wrote."
    assert said in capsys.readouterr().err
    run = json.loads((carried.unlearned / "record.json").read_text()) | {"kind": "train"}
    (carried.unlearned / "record.json").write_text(json.dumps(run))
    assert certified(carried, "R-1", tmp_path / "r") == 2
    assert f"{carried.unlearned} was trained, not made by unhot forget: there is no deletion" in capsys.readouterr().err


def test_keys_of_openssl_sign_too(carried: Carried, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    (tmp_path / "ec.key").write_bytes(private.private_bytes(serialization.Encoding.PEM, *form))
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "ec.pub").write_bytes(public)
    record = DeletionRecord.read(carried.record / "record.json")
    (carried.record / "record.dsse.json").write_text(signed(statement(record), read_private(tmp_path / "ec.key")))
    assert verify(carried.record, read_public(tmp_path / "ec.pub")).holds
    assert not verify(carried.record, read_public(carried.public)).holds


@pytest.mark.usefixtures("keep_generators")
def test_a_digest_of_weights_is_that_of_the_loaded_model(carried: Carried, tmp_path: Path, original) -> None:
    """Normalisation counts its batches in a number without dimensions."""
    net = build("resnet9", 10, original.input, {"width": 8})
    save(Classifier.wrap(net, input=original.input), tmp_path / "net")
    found = BundleFiles.read(tmp_path / "net")
    assert found.weights_sha256 == load(tmp_path / "net").sha256()
    weights = tmp_path / "net" / "model.safetensors"
    assert WeightsFile.read(weights).to_bytes() == weights.read_bytes()
    shutil.copy(carried.original / "model.safetensors", weights)
    with pytest.raises(InputError, match=r"is not the file that bundle\.json describes"):
        BundleFiles.read(tmp_path / "net")
