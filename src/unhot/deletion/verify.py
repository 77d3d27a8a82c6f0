"""Checking a deletion record, offline, with nothing but its folder and the public key of who signed it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unhot.deletion.certify import PAGE, RESULT
from unhot.deletion.folder_signature import SIGNATURE, check_folder, not_installed
from unhot.deletion.ledger import changed_in, read_ledger
from unhot.deletion.statement import (
    ENVELOPE,
    PREDICATE_TYPE,
    RECORD,
    RESULT_TYPE,
    digest_of,
    opened,
    result_statement,
    statement,
)
from unhot.deletion.weights_file import INFO, BundleFiles
from unhot.errors import InputError, shortened
from unhot.evaluation.requirement import Requirement
from unhot.files import sha256 as file_sha256
from unhot.reading import read_text
from unhot.records.base import canonical
from unhot.records.deletion import DeletionRecord
from unhot.records.ledger import LEDGER

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

NAMES = frozenset({RECORD, PAGE, ENVELOPE})


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it holds, and what was found.

    Attributes:
        holds: None if it was not checked, and ``found`` says why.
    """

    name: str
    holds: bool | None
    found: str

    @property
    def failed(self) -> bool:
        """Whether it was checked and does not hold."""
        return self.holds is False

    @property
    def state(self) -> str:
        """Say in a word or two whether it holds."""
        return {True: "ok", False: "FAILED", None: "not checked"}[self.holds]


@dataclass(frozen=True)
class Verification:
    """All checks of a record, in order, and the record itself, if it is the one that was signed."""

    checks: tuple[Check, ...]
    record: DeletionRecord | None

    @property
    def holds(self) -> bool:
        """Whether no check failed."""
        return not any(check.failed for check in self.checks)


def verify(
    folder: Path,
    key: SSlibKey,
    model: Path | None = None,
    original: Path | None = None,
    before: Path | None = None,
    original_sha256: str | None = None,
) -> Verification:
    """Check a record.

    Args:
        folder: What ``unhot certify`` wrote.
        key: The public key of who signed.
        model: The unlearned model, to be compared by digest.
        original: The model before, likewise.
        before: The folder of the record of the request before, likewise.
        original_sha256: Digest of the weights of ``original``, if that is no bundle.

    Raises:
        InputError: There is no such folder, or it is a model. A damaged one is a check that fails.
    """
    _check_folder(folder)
    made: dict[str, Any] = {}

    def signature() -> str:
        made["statement"] = _signed(folder, key)
        return f"signed by the key {key.keyid[:12]}"

    def contents() -> str:
        made["record"] = record = _read(folder, made.get("statement"))
        return f"{RECORD} is what was signed, in version {record.schema_version} of its form"

    checks = [
        _check("files", lambda: _names(folder)),
        _check("signature", signature),
        _check("record", contents),
        _check("page", lambda: _page(folder, _known(made))),
    ]
    if (folder / RESULT).exists() or (made.get("record") and made["record"].bounds):
        checks.append(_check("bounds", lambda: _bounds(folder, key, _known(made))))
    with_signature = (folder / SIGNATURE).exists() or (made.get("record") and made["record"].folder_signature_sha256)
    if with_signature:
        checks.append(_check(SIGNATURE, lambda: _folder_signature(folder, _known(made))))
    if model is not None:
        checks += [
            _check("model", lambda: _model(model, _known(made))),
            _check("ledger", lambda: _ledger(model, _known(made))),
        ]
    if model is not None and with_signature:
        checks.append(_check("signed folder", lambda: _signed_folder(folder, model, key, _known(made))))
    if original is not None:
        checks.append(_check("original", lambda: _original(original, original_sha256, model, _known(made))))
    if before is not None:
        checks.append(_check("chain", lambda: _before(before, key, _known(made))))
    return Verification(tuple(checks), made.get("record"))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give the folder that unhot certify wrote.")
    if (folder / INFO).is_file() and not (folder / ENVELOPE).exists():
        raise InputError(f"{folder} is a model. Give the folder of its record, which unhot certify wrote.")


class _NotCheckedError(InputError):
    """What a check needs is not there, or is not to be trusted."""


def _check(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except _NotCheckedError as error:
        return Check(name, None, str(error))
    except InputError as error:
        return Check(name, False, str(error))
    except OSError as error:
        return Check(name, False, f"{error.filename} cannot be read: {error.strerror}.")


def _known(made: dict[str, Any]) -> DeletionRecord:
    if "record" not in made:
        raise _NotCheckedError("the record does not hold")
    record: DeletionRecord = made["record"]
    return record


def _names(folder: Path) -> str:
    found = {p.name for p in folder.iterdir()}
    if extra := sorted(found - NAMES - {RESULT, SIGNATURE}):
        raise InputError(f"{extra[0]} was added. A record holds {', '.join(sorted(NAMES))} only.")
    if missing := sorted(NAMES - found):
        raise InputError(f"{missing[0]} is missing.")
    if strange := sorted(p.name for p in folder.iterdir() if p.is_symlink() or not p.is_file()):
        raise InputError(f"{strange[0]} is not a file.")
    return f"{', '.join(sorted(found))}, and no other"


def _signed(folder: Path, key: SSlibKey, name: str = ENVELOPE, kind: str = PREDICATE_TYPE) -> dict[str, Any]:
    text = read_text(folder / name)
    if (folder / name).read_bytes() != text.encode():
        raise InputError(f"{name} begins with a mark of its encoding, which it is not written with.")
    return opened(text, key, name, kind)


def _read(folder: Path, signed: dict[str, Any] | None) -> DeletionRecord:
    if signed is None:
        raise _NotCheckedError("the signature does not hold")
    text = canonical(signed["predicate"])
    if (folder / RECORD).read_bytes() != text.encode():
        raise InputError(f"{RECORD} is not what was signed: it was changed since.")
    record = DeletionRecord.parse(text, RECORD)
    if json.loads(canonical(statement(record))) != signed:
        raise InputError("The subjects of the statement are not the files that the record names.")
    return record


def _page(folder: Path, record: DeletionRecord) -> str:
    if file_sha256(folder / PAGE) != record.page_sha256:
        raise InputError(f"{PAGE} is not the page that was signed: it was changed since.")
    return f"{PAGE} is the one that was signed"


def _bounds(folder: Path, key: SSlibKey, record: DeletionRecord) -> str:
    if not record.bounds:
        raise InputError(f"{RESULT} was added: the record says of no bounds.")
    if not (folder / RESULT).is_file():
        raise InputError(f"{RESULT} is missing.")
    if _signed(folder, key, RESULT, RESULT_TYPE) != json.loads(canonical(result_statement(record))):
        raise InputError(f"{RESULT} does not state what the record says of its bounds.")
    for bound in record.bounds:
        if Requirement.parse(bound.requirement).unmet(record.evidence[0]) != bound.unmet:
            raise InputError(f"Whether {bound.requirement} is met is not what the measures in the record say.")
    truly = f"{RESULT} says truly how the measures compare with the bounds"
    if record.unmet:
        unmet = shortened(bound.requirement for bound in record.unmet)
        return f"{truly}: {len(record.unmet)} of {len(record.bounds)} NOT met, {unmet}"
    return f"{truly}: {len(record.bounds)} of {len(record.bounds)} met"


def _folder_signature(folder: Path, record: DeletionRecord) -> str:
    if record.folder_signature_sha256 is None:
        raise InputError(f"{SIGNATURE} was added: the record says of none.")
    if not (folder / SIGNATURE).is_file():
        raise InputError(f"{SIGNATURE} is missing.")
    if file_sha256(folder / SIGNATURE) != record.folder_signature_sha256:
        raise InputError(f"{SIGNATURE} is not the file that the record names: it was changed since.")
    return f"{SIGNATURE} is the file that the record names"


def _signed_folder(folder: Path, model: Path, key: SSlibKey, record: DeletionRecord) -> str:
    _folder_signature(folder, record)
    if (missing := not_installed()) is not None:
        raise _NotCheckedError(missing)
    check_folder(model, folder / SIGNATURE, key)
    return f"{model} is the folder that {SIGNATURE} signs, says model-signing"


def _model(model: Path, record: DeletionRecord) -> str:
    found = BundleFiles.read(model)
    if found.weights_sha256 != record.result_sha256:
        raise InputError(f"{model} has other weights than the model that the record is about.")
    if other := [name for name, digest in sorted(record.files.items()) if found.files.get(name) != digest]:
        raise InputError(f"{model / other[0]} is missing, or not the file that the record names.")
    return f"{model} is the model that the record is about"


def _ledger(model: Path, record: DeletionRecord) -> str:
    if not (model / LEDGER).exists():
        raise _NotCheckedError("there is none beside the model")
    ledger = read_ledger(model)
    digest = digest_of(record)
    at = next((i for i, line in enumerate(ledger.lines) if line.record_sha256 == digest), None)
    if at is None:
        raise InputError(f"{model / LEDGER} does not name this record.")
    if (ledger.lines[at - 1].sha256 if at else None) != record.place.ledger_sha256:
        raise InputError(f"{model / LEDGER} has another line before this record's than the record says.")
    for number, line in enumerate(ledger.lines, 1):
        if line.record_sha256 == digest and (changed := changed_in(line, record)):
            raise InputError(
                f"{model / LEDGER}, line {number}: {shortened(map(repr, changed))} is not what the record says. "
                "The line was changed: restore the file from a copy of the model."
            )
    return f"line {at + 1} of {len(ledger.lines)} names this record, and says what it says"


def _original(original: Path, sha256: str | None, model: Path | None, record: DeletionRecord) -> str:
    if sha256 is not None:
        if sha256 != record.original_sha256:
            raise InputError(f"{original} has other weights than the model before.")
        return f"{original} has the weights of the model before; it is no bundle, and no more of it was compared"
    before = BundleFiles.read(original)
    if before.weights_sha256 != record.original_sha256:
        raise InputError(f"{original} has other weights than the model before.")
    if unknown := [c.name for c in record.classes if c not in before.info.classes]:
        raise InputError(f"{original} has no class {shortened(unknown)}, which the record says that it forgot.")
    if model is None:
        return f"{original} has the weights of the model before; --model lets its classes be compared, too"
    after = BundleFiles.read(model).info
    left = [c for c in before.info.classes if c in after.classes or c not in record.classes]
    if left != list(after.classes):
        raise InputError(f"{original} has other classes than {model}, or has them in another order.")
    shared = (
        "classes and the preprocessing" if before.info.input == after.input else "classes, but not the preprocessing,"
    )
    return f"{original} has the weights of the model before, and the {shared} of {model}"


def _before(before: Path, key: SSlibKey, record: DeletionRecord) -> str:
    found = verify(before, key)
    if found.record is None or not found.holds:
        raise InputError(f"{before} does not hold itself: {next(c.found for c in found.checks if c.failed)}")
    if digest_of(found.record) != record.place.previous:
        raise InputError(f"{before} is not the record of the request before.")
    return f"{found.record.request.id} is the request before"
