"""Making a deletion record: of an unlearned model, the record of its run, and its audits."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from unhot.deletion.folder_signature import SIGNATURE, FolderSigner
from unhot.deletion.ledger import line_of
from unhot.deletion.statement import ENVELOPE, RECORD, digest_of, result_statement, signed, statement
from unhot.deletion.weights_file import RUN, BundleFiles
from unhot.errors import InputError, shortened
from unhot.escaping import is_unicode
from unhot.evaluation.requirement import Requirement
from unhot.evaluation.verdict import contradicted
from unhot.files import check_free, output_errors, staged_folder, update_atomic
from unhot.files import sha256 as file_sha256
from unhot.reading import parse_json, read_text
from unhot.records.audit import AuditRecord, Measurement
from unhot.records.deletion import Bound, DeletionRecord, Evidence, Named, Place, Remainder, Request, Run
from unhot.records.forget import ForgetRecord
from unhot.records.ledger import LEDGER, Ledger, added
from unhot.report.audited import RECORD as AUDIT
from unhot.report.deletion import render
from unhot.report.sentences import conclusions, sentence
from unhot.report.tables import declared
from unhot.report.texts import LIMITS, USES
from unhot.version import __version__

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

PAGE, RESULT = "record.html", "test-result.dsse.json"
DROP = "retain_drop"


@dataclass(frozen=True)
class Made:
    """What a record is made of: a bundle, the record of its run, and its audits with their digests."""

    bundle: BundleFiles
    run: ForgetRecord
    audits: tuple[tuple[AuditRecord, str], ...]

    @classmethod
    def read(cls, unlearned: Path, audits: Sequence[Path]) -> Made:
        """Read the folders.

        Raises:
            InputError: One is not what it should be, or an audit is of another model.
        """
        bundle = BundleFiles.read(unlearned)
        if not (unlearned / RUN).is_file():
            raise InputError(f"{unlearned} holds no {RUN}: how the model was made is not known. Make it with unhot.")
        run = _run_of(unlearned)
        if run.weights_sha256 != bundle.weights_sha256:
            raise InputError(f"{unlearned / RUN} is of another model than the weights beside it. Restore the bundle.")
        if lost := [c.label.name for c in run.recognised if c.label in run.classes and not c.forgotten]:
            raise InputError(
                f"{unlearned} did not forget {shortened(lost)}: its samples are still classified as it. There is no "
                "deletion to certify; forget again with another method."
            )
        if part := run.notes.get("part"):
            raise InputError(f"{unlearned} forgot {part}, a part of a class. Only whole classes can be certified.")
        found = tuple((AuditRecord.read(folder / AUDIT), file_sha256(folder / AUDIT)) for folder in audits)
        for folder, (audit, _) in zip(audits, found, strict=True):
            _check_audit(folder, audit, run)
        return cls(bundle, run, found)


def certify(
    made: Made,
    request: Request,
    signer: CryptoSigner,
    out: Path,
    bounds: Sequence[Requirement] = (),
    sign_folder: FolderSigner | None = None,
) -> DeletionRecord:
    """Write a signed deletion record to a new folder, and its line to the ledger of the model.

    Args:
        made: The model and its audits.
        request: What was asked.
        signer: The private key.
        out: The folder; it does not exist yet or is empty.
        bounds: What the first audit is to meet. Whether it does is said in the record, and in a signed test result.
        sign_folder: Signs the folder of the model; the signature lies beside the record then.

    Raises:
        InputError: The request or the model has a record already, or an audit compares with a foreign model.
        OutputError: The folder is taken or cannot be written.
    """
    check_free(out)
    if not all(is_unicode(value) for value in request.model_dump(mode="json").values() if value is not None):
        raise InputError("What describes the request is not text in UTF-8. Write it in UTF-8.")
    certified = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    signature = None if sign_folder is None else sign_folder(made.bundle.folder)
    records: list[DeletionRecord] = []

    def change(content: bytes) -> bytes:
        ledger = Ledger.parse(content.decode(), str(made.bundle.folder / LEDGER))
        record = record_of(made, request, ledger, certified, bounds)
        if signature is not None:
            record = record.model_copy(update={"folder_signature_sha256": sha256(signature).hexdigest()})
        record = with_page(record)
        _write(record, signer, out, signature)
        records.append(record)
        return ledger.with_line(line_of(record)).to_text().encode()

    # the record is written first: a ledger never names a record that is not there
    update_atomic(made.bundle.folder / LEDGER, change)
    return records[0]


def complete(record: Path, unlearned: Path) -> None:
    """Add the line of a record to the ledger of its model, if it is not there: who wrote the record was killed.

    Args:
        record: The folder of the record.
        unlearned: The model that it is about.

    Raises:
        InputError: The record does not follow from the ledger.
    """
    made = DeletionRecord.read(record / RECORD)

    def change(content: bytes) -> bytes:
        ledger = Ledger.parse(content.decode(), str(unlearned / LEDGER))
        if any(line.record_sha256 == digest_of(made) for line in ledger.lines):
            return content
        if (ledger.last and ledger.last.sha256) != made.place.ledger_sha256:
            raise InputError(f"{record} is not the next record of {unlearned}: its ledger has gone on without it.")
        return ledger.with_line(line_of(made)).to_text().encode()

    update_atomic(unlearned / LEDGER, change)


def record_of(
    made: Made, request: Request, ledger: Ledger, certified: datetime.datetime, bounds: Sequence[Requirement] = ()
) -> DeletionRecord:
    """Return the record of a request, without the digest of its page.

    Args:
        made: The model and its audits.
        request: What was asked.
        ledger: The requests before.
        certified: Now.
        bounds: What the first audit is to meet.

    Raises:
        InputError: The request or the model has a record already, or an audit compares with a foreign model.
    """
    run, weights = made.run, made.bundle.weights_sha256
    for line in ledger.in_force:
        if line.id == request.id or line.after_sha256 == weights:
            what = f"The request {line.id}" if line.id == request.id else "This model"
            raise InputError(
                f"{what} was certified on {line.at:%Y-%m-%d}, as {line.id}. Give the next request's model and id."
            )
    first = ledger.lines[0].before_sha256 if ledger.lines else run.model_sha256
    known = {run.model_sha256, first}
    if strange := next((a for a, _ in made.audits if a.inputs.original_sha256 not in known), None):
        raise InputError(
            f"An audit compares with the model {strange.inputs.original_sha256[:12]}, which is neither the one that "
            "was made to forget nor the first of its chain. Audit with --original set to one of these."
        )
    return DeletionRecord(
        request=request,
        certified=certified,
        classes=run.classes,
        original_sha256=run.model_sha256,
        result_sha256=weights,
        files=made.bundle.files,
        place=_place(made, ledger, first),
        run=_run(run),
        evidence=tuple(_evidence(*audit) for audit in made.audits),
        bounds=tuple(Bound(requirement=r.text, unmet=r.unmet(made.audits[0][0])) for r in bounds),
        not_shown=tuple(_not_shown(made, ledger)),
        remaining=tuple(_remaining(run)),
        unhot_version=__version__,
    )


def with_page(record: DeletionRecord) -> DeletionRecord:
    """Return a record, as it is read from its file, with the digest of its page."""
    read = DeletionRecord.parse(record.to_json(), RECORD)
    return read.model_copy(update={"page_sha256": sha256(render(read).encode()).hexdigest()})


def _write(record: DeletionRecord, signer: CryptoSigner, out: Path, signature: bytes | None) -> None:
    texts = {RECORD: record.to_json(), PAGE: render(record), ENVELOPE: signed(statement(record), signer)}
    if record.bounds:
        texts[RESULT] = signed(result_statement(record), signer)
    with staged_folder(out) as stage, output_errors(out):
        for name, text in texts.items():
            (stage / name).write_bytes(text.encode())
        if signature is not None:
            (stage / SIGNATURE).write_bytes(signature)


def _run_of(unlearned: Path) -> ForgetRecord:
    text, where = read_text(unlearned / RUN), str(unlearned / RUN)
    raw = parse_json(text, where)
    if isinstance(raw, dict) and raw.get("kind") == "train":
        raise InputError(
            f"{unlearned} was trained, not made by unhot forget: there is no deletion to certify. Give the model that "
            "unhot forget wrote."
        )
    return ForgetRecord.parse(text, where)


def _check_audit(folder: Path, audit: AuditRecord, run: ForgetRecord) -> None:
    if audit.inputs.unlearned_sha256 != run.weights_sha256:
        raise InputError(f"{folder} audits another model. Give an audit with --unlearned set to this one.")
    if missing := set(run.classes) - set(audit.classes):
        raise InputError(
            f"{folder} does not audit {shortened(sorted(c.name for c in missing))}. Audit every class of the request."
        )
    if audit.environment.unhot == __version__ and (wrong := contradicted(audit)):  # another version has other rules
        raise InputError(
            f"{folder}: the verdict for whoever holds the {' and the '.join(wrong)} is not the one that the "
            "measurements beside it give. Audit again."
        )


def _place(made: Made, ledger: Ledger, first: str) -> Place:
    before, now = (_drop(made, original) for original in (made.run.model_sha256, first))
    records = [line for line in ledger.lines if line.action == "forget"]
    return Place(
        number=len(records) + 1,
        previous=records[-1].record_sha256 if records else None,
        ledger_sha256=ledger.last and ledger.last.sha256,
        first_model_sha256=first,
        drop=before,
        drop_so_far=added([*(line.drop for line in ledger.in_force), before]),
        drop_from_first=now,
    )


def _drop(made: Made, original: str) -> float | None:
    """Return the fall in accuracy on the retained classes against one model; None if no audit compares with it."""
    found: list[Measurement | None] = [
        audit.find(DROP, "unlearned") for audit, _ in made.audits if audit.inputs.original_sha256 == original
    ]
    return next((m.value for m in found if m is not None and m.value is not None), None)


def _run(run: ForgetRecord) -> Run:
    read = tuple(USES[use] for use in run.uses if use in USES)
    never = "any other training data"
    return Run(
        digest=run.digest,
        method=run.method,
        hyperparameters=run.hyperparameters,
        seed=run.seed,
        samples=run.samples.sha256,
        read=read,
        not_read=(*(words for words in USES.values() if words not in read), never),
        retain_sha256=run.retain and run.retain.sha256,
        retain_images=run.retain.count if run.retain else 0,
        guard_sha256=run.guard_sha256,
        recognised=run.recognised,
        stop_reason=run.stop_reason,
        steps=run.cost.steps,
        seconds=run.cost.seconds,
        environment=run.environment,
    )


def _evidence(audit: AuditRecord, digest: str) -> Evidence:
    measured = {m.name for m in audit.measurements}
    return Evidence(
        audit_sha256=digest,
        classes=audit.classes,
        original_sha256=audit.inputs.original_sha256,
        retrained_sha256=audit.inputs.retrained_sha256,
        data_sha256=audit.inputs.data_sha256,
        images=audit.inputs.images,
        seed=audit.seed,
        measures=tuple(Named(name=k, title=m.title) for k, m in declared(audit).items() if k in measured),
        measurements=audit.measurements,
        verdict=audit.verdict,
        conclusions=tuple(conclusions(audit)),
        flags=tuple(sentence(flag, audit) for flag in audit.verdict.flags),
        attacks=audit.attacks,
        unhot_version=audit.environment.unhot,
    )


def _not_shown(made: Made, ledger: Ledger) -> Iterator[str]:
    yield (
        "The signature shows who made this record, and that nothing in it was changed. That what it says is true can "
        "be checked only by measuring again, with the models and the data whose digests it names."
    )
    if not any(audit.inputs.retrained_sha256 for audit, _ in made.audits):
        yield (
            "There was no retrained model to compare with, so nothing here says what a model that never saw the class "
            "holds."
        )
    last = ledger.last
    if last is not None and last.after_sha256 != made.run.model_sha256:
        yield (
            "The model that this request began with is not the one that the ledger's last line left: between the two "
            "it was changed without a record."
        )
    before = {c.name for audit, _ in made.audits for c in audit.inputs.forgotten_before}
    if unknown := sorted(before - {c.name for line in ledger.in_force for c in line.classes}):
        yield f"The model had forgotten {shortened(unknown)} before, of which no record was kept with it."
    yield from LIMITS


def _remaining(run: ForgetRecord) -> Iterator[Remainder]:
    yield Remainder(what="The model before, in every place where it was deployed or stored", sha256=run.model_sha256)
    yield Remainder(what="The images of the class that the request was carried out with, and those in training data")
    if run.guard_sha256 is not None:
        yield Remainder(what="The guard: drop the class from it with unhot guard drop", sha256=run.guard_sha256)
    else:
        yield Remainder(what="Guards of the model, if any were collected: drop the class with unhot guard drop")
    yield Remainder(what="Caches of images made from the model before (unhot forget --cache)")
    yield Remainder(what="Patches that lead back to the model before (unhot diff)")
    yield Remainder(what="Models derived from the model before: fine-tuned, distilled, quantised or exported")
    yield Remainder(what="Features and outputs of the model before that were stored, such as indices for search")
    yield Remainder(what="Backups, checkpoints, logs and pages of audits that hold any of these, or show images")
