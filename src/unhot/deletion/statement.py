"""The signed statement: an in-toto Statement v1 in a DSSE envelope, which tools other than unhot check, too.

Source: in-toto attestation framework, v1 (https://github.com/in-toto/attestation); DSSE, v1
(https://github.com/secure-systems-lab/dsse). The signing itself is that of securesystemslib.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from unhot.deletion.keys import EXTRA
from unhot.errors import InputError, first_line
from unhot.packages import needed
from unhot.reading import parse_json
from unhot.records.base import canonical
from unhot.records.deletion import DeletionRecord
from unhot.records.patch import PatchRecord
from unhot.report.audited import RECORD as AUDIT

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:unhot:deletion-record:v1"
PATCH_TYPE = "urn:unhot:patch:v1"
RESULT_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
RECORD, ENVELOPE = "record.json", "record.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def statement(record: DeletionRecord) -> dict[str, Any]:
    """Return the statement that a record makes of the files of the model: they are its subjects."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(record.files),
        "predicateType": PREDICATE_TYPE,
        "predicate": json.loads(record.to_json()),
    }


def result_statement(record: DeletionRecord) -> dict[str, Any]:
    """Return the statement whether the model meets the bounds that were set, which names the record by its digest.

    Source: in-toto attestation framework, predicate test-result v0.1.
    """
    made = {RECORD: digest_of(record), AUDIT: record.evidence[0].audit_sha256}
    return statement(record) | {
        "predicateType": RESULT_TYPE,
        "predicate": {
            "result": "FAILED" if record.unmet else "PASSED",
            "configuration": [{"name": name, "digest": {"sha256": digest}} for name, digest in made.items()],
            "passedTests": [b.requirement for b in record.bounds if b.unmet is None],
            "failedTests": [b.requirement for b in record.unmet],
        },
    }


def patch_statement(record: PatchRecord, files: dict[str, str]) -> dict[str, Any]:
    """Return the statement which models the files of a patch lead between, and on which records.

    Args:
        record: The patch.
        files: SHA-256 of each of its files.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(files),
        "predicateType": PATCH_TYPE,
        "predicate": {
            "before_sha256": record.before_sha256,
            "after_sha256": record.after_sha256,
            "records": [line.record_sha256 for line in record.requests],
        },
    }


def _subjects(files: dict[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())]


def digest_of(record: DeletionRecord) -> str:
    """Return the SHA-256 of the file of a record."""
    return sha256(record.to_json().encode()).hexdigest()


def signed(made: dict[str, Any], signer: CryptoSigner) -> str:
    """Return the text of an envelope with a statement, signed."""
    (dsse,) = needed(EXTRA, "securesystemslib.dsse")
    check_form(made, made["predicateType"])
    envelope = dsse.Envelope(canonical(made).encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return canonical(envelope.to_dict())


def opened(text: str, key: SSlibKey, where: str, kind: str = PREDICATE_TYPE) -> dict[str, Any]:
    """Check the signature of an envelope, and return the statement in it.

    Args:
        text: The envelope, byte for byte as it was written: a change that the signature does not cover is found, too.
        key: The public key of who signed.
        where: Names the envelope in errors.
        kind: The type of what is stated.

    Raises:
        InputError: It is no such envelope, or was not signed with this key.
    """
    dsse, exceptions = needed(EXTRA, "securesystemslib.dsse", "securesystemslib.exceptions")
    value = parse_json(text, where)
    try:
        envelope = dsse.Envelope.from_dict(value)
        written = canonical(envelope.to_dict())
    except Exception as error:  # securesystemslib raises whatever a wrong value leads to
        raise InputError(f"{where} is not a DSSE envelope: {first_line(error) or type(error).__name__}.") from error
    if written != text or len(envelope.signatures) != 1 or envelope.payload_type != PAYLOAD_TYPE:
        raise InputError(f"{where} is not in the form in which it is written: one signature, {PAYLOAD_TYPE}.")
    try:
        envelope.verify([key], 1)
    except exceptions.VerificationError as error:
        raise InputError(f"{where} was not signed with this key, or was changed since.") from error
    payload = envelope.payload.decode(errors="replace")
    found = parse_json(payload, f"the payload of {where}")
    check_form(found, kind)
    if canonical(found) != payload:
        raise InputError(f"The payload of {where} is not canonical JSON.")
    return dict(found)


def check_form(value: object, kind: str) -> None:
    """Refuse what is no in-toto Statement v1 of a type.

    Raises:
        InputError: With what is wrong with it.
    """
    json_format, statements, generated = needed(
        EXTRA,
        "google.protobuf.json_format",
        "in_toto_attestation.v1.statement",
        "in_toto_attestation.v1.statement_pb2",
    )
    try:
        parsed = json_format.ParseDict(value, generated.Statement())
        statements.Statement.copy_from_pb(parsed).validate()
    except Exception as error:  # protobuf raises whatever a wrong value leads to
        raise InputError(f"It is not an in-toto statement: {first_line(error)}.") from error
    if parsed.predicate_type != kind:
        raise InputError(f"It states {parsed.predicate_type[:80]!r}, and not {kind}.")
