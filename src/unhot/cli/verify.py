"""``unhot verify``."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli import options as opt
from unhot.cli.failure import UNMET
from unhot.cli.models import ModelOptions, SignedModelOptions
from unhot.errors import InputError, OptionError

if TYPE_CHECKING:
    from unhot.data.source import Source
    from unhot.deletion.verify import Check
    from unhot.records.deletion import DeletionRecord
    from unhot.records.model import BundleInfo


def verify(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="Folder that unhot certify wrote.")],
    key: Annotated[Path, typer.Option("--key", help="Public key of the signer.")],
    model: Annotated[Path | None, typer.Option("--model", help="The unlearned model.")] = None,
    original: Annotated[
        Path | None,
        typer.Option("--original", help="The model before; its weights and classes are compared."),
    ] = None,
    before: Annotated[
        Path | None, typer.Option("--before", help="Folder of the record of the previous request.")
    ] = None,
    remeasure: Annotated[
        bool,
        typer.Option(
            "--remeasure", help="Audit again, and compare with the record. Needs --model, --original and --data."
        ),
    ] = False,
    data: Annotated[
        str | None, typer.Option("--data", help="Named data set, or folder of class folders, to audit again with.")
    ] = None,
    retrained: Annotated[
        list[Path],
        typer.Option("--retrained", help="Retrained model of the record, to audit again with; may be repeated."),
    ] = [],  # noqa: B006
    quick: Annotated[
        bool, typer.Option("--quick", help="Audit again without the attacks that train or optimise.")
    ] = False,
    label_map: opt.LabelMapFile = None,
    *,
    models: SignedModelOptions,
    how: opt.How,
) -> None:
    """Check a deletion record, offline. One line a check; exit code 3 if any fails."""
    from unhot.cli.output import say
    from unhot.deletion.keys import read_public
    from unhot.deletion.verify import verify as check_all

    _check_options(remeasure, model, original, data, retrained, quick)
    source = None if data is None else opt.by_label_map(how.source(data), label_map)
    after = _info(model)
    weights = None if original is None else _foreign_weights(original, models, after)
    found = check_all(record, read_public(key), model, original, before, weights)
    checks = list(found.checks)
    if source is not None and found.record is not None and found.holds and model is not None and original is not None:
        loading = models.beside(after.input if after else None, _names(after, found.record)).beside_source(source)
        checks += _measured_again(found.record, model, original, retrained, source, quick, loading, how)
    holds = not any(check.failed for check in checks)
    if how.json:
        listed = [{"name": c.name, "holds": c.holds, "found": c.found} for c in checks]
        say(jsonlib.dumps({"holds": holds, "checks": listed}))
        raise typer.Exit(0 if holds else UNMET)
    for check in checks:
        say(f"{check.state:6} {check.name}: {check.found}")
    if source is not None and not found.holds:
        say("Nothing was measured again, since the record does not hold.")
    say(_concluded(record, checks))
    raise typer.Exit(0 if holds else UNMET)


def _info(model: Path | None) -> BundleInfo | None:
    """Return what the unlearned bundle says of itself, if it is there."""
    from unhot.deletion.weights_file import INFO
    from unhot.records.model import BundleInfo

    with suppress(InputError):  # a damaged one fails the check of the model
        return BundleInfo.read(model / INFO) if model is not None and (model / INFO).is_file() else None
    return None


def _foreign_weights(original: Path, models: ModelOptions, after: BundleInfo | None) -> str | None:
    """Return the digest of the weights of a model that is no bundle, which needs torch; None of a bundle."""
    from unhot.cli.output import note
    from unhot.deletion.weights_file import INFO

    if not original.exists() or (original / INFO).exists():
        return None
    found = models.beside(after.input if after else None, None).load(original)
    if after is not None and found.input != after.input:
        note(
            f"Note: {original} takes pictures that are prepared otherwise than for the model after. If unhot forget "
            "was told so (--mean and the like), tell unhot verify, too."
        )
    return found.sha256()


def _names(after: BundleInfo | None, record: DeletionRecord) -> tuple[str, ...] | None:
    """Return the names of the outputs of the model before, unless earlier requests took some away."""
    known = {c.index: c.name for c in (*(after.classes if after else ()), *record.classes)}
    return tuple(known[i] for i in range(len(known))) if known.keys() == set(range(len(known))) else None


def _concluded(record: Path, checks: Sequence[Check]) -> str:
    """Say whether a record holds, and what was not checked."""
    failed = [check.name for check in checks if check.failed]
    unchecked = [check.name for check in checks if check.holds is None]
    held = len(checks) - len(unchecked)
    said = f"Does not hold: {', '.join(failed)}." if failed else f"{record} holds: all {held} checks."
    return said + (f" Not checked: {', '.join(unchecked)}." if unchecked else "")


def _check_options(
    remeasure: bool, model: Path | None, original: Path | None, data: str | None, retrained: list[Path], quick: bool
) -> None:
    if remeasure and None in (model, original, data):
        raise OptionError("--remeasure audits again. It needs --model, --original and --data.")
    if not remeasure and (data is not None or retrained or quick):
        raise OptionError("--data, --retrained and --quick are for an audit. They need --remeasure.")


def _measured_again(
    record: DeletionRecord,
    model: Path,
    original: Path,
    retrained: list[Path],
    source: Source,
    quick: bool,
    models: ModelOptions,
    how: opt.How,
) -> list[Check]:
    """Audit again, and compare."""
    from unhot.deletion.remeasure import check_retrained, compared, evidence_against, left_out_slow
    from unhot.evaluation.auditor import Auditor

    before, *references = (models.load(path) for path in (original, *retrained))
    evidence = evidence_against(record, before.sha256())
    check_retrained(evidence, [reference.sha256() for reference in references])
    runtime = how.runtime(evidence.seed)
    auditor = Auditor(before, retrained=references, test=source.test_images, train=source.train, runtime=runtime)
    quick = quick or left_out_slow(evidence)
    holder = evidence.verdict.holder or "features"
    return compared(evidence, auditor.audit(models.load(model), evidence.classes, quick=quick, holder=holder).record)
