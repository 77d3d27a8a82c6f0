"""``unhot request``: the requests of a TOML file, from the model to the signed record of each."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from datetime import datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unhot.cli import options as opt
from unhot.cli.audit import audit
from unhot.cli.deletion import certify
from unhot.cli.failure import UNMET
from unhot.cli.forget import forget
from unhot.cli.models import ModelOptions
from unhot.cli.request import check_reads_retained
from unhot.errors import InputError, OptionError, raise_all

if TYPE_CHECKING:
    from unhot.deletion.request_file import Place
    from unhot.models.classifier import Classifier
    from unhot.records.request import Asked, RequestFile, Shared


def request(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML file: one [request], or several [[request]].")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file, say what is to be done, and do nothing.")
    ] = False,
    *,
    how: opt.How,
) -> None:
    """Carry out deletion requests: forget, audit and certify each in turn, starting from the model before it.

    Nothing is overwritten. A command that was stopped goes on where it was when it is given again. Where an audit does
    not meet the bounds of its request (require), that is not certified, and the exit code is 3.
    """
    from unhot.cli.output import say
    from unhot.deletion.request_file import place_in, read_requests

    asked = read_requests(file)
    digest = _checked(file, asked, how)
    places = [place_in(asked.out, one) for one in asked.request]
    if dry_run:
        done = [place.record.exists() for place in places]
        if how.json:
            say(jsonlib.dumps([{"id": r.id, "done": d} for r, d in zip(asked.request, done, strict=True)]))
            return
        for one, place, is_done in zip(asked.request, places, done, strict=True):
            say(f"{one.id} ({'done' if is_done else 'to be done'}): forget {', '.join(one.classes)}, to {place.home}.")
        return
    first = asked.model, digest
    carry_out(
        asked.request,
        asked,
        places,
        first,
        asked.key,
        how,
        lambda one, before, place: _forget(one, before, place, how),
        stop_if_unmet=True,
    )


def carry_out(
    requests: Sequence[Asked],
    file: Shared,
    places: Sequence[Place],
    first: tuple[Path, str],
    key: Path,
    how: opt.How,
    forgetting: Callable[[Asked, Path, Path], None],
    stop_if_unmet: bool,
) -> None:
    """Do what is left to do of some requests, each from the model of the one before.

    Args:
        requests: The requests.
        file: What they share.
        places: The folder of each.
        first: The model that the first begins with, and the digest of its weights.
        key: The private key.
        how: What the command line says for all.
        forgetting: Makes a model forget the classes of a request: takes the model, and where to write the new one.
        stop_if_unmet: Whether a request that does not meet its bounds is not certified, and ends the command at once,
            rather than being certified as one that does not, and ending the command with that exit code.
    """
    from unhot.cli.output import say
    from unhot.files import held

    before, done = first, []
    with held(places[0].home.parent), redirect_stdout(sys.stderr) if how.json else nullcontext():
        for one, place in zip(requests, places, strict=True):
            done.append(_carry_out(one, file, place, before, key, how, forgetting, stop_if_unmet))
            before = place.model, _weights(place.model)
    unmet = [one["id"] for one in done if one["unmet"]]
    if how.json:
        say(jsonlib.dumps({"requests": done, "model": str(before[0])}))
    else:
        said = f" The bounds of {', '.join(unmet)} were not met." if unmet else ""
        say(f"Certified: {', '.join(one.id for one in requests)}.{said} The model is now {before[0]}.")
    raise typer.Exit(UNMET if unmet else 0)


def _carry_out(
    asked: Asked,
    file: Shared,
    place: Place,
    before: tuple[Path, str],
    key: Path,
    how: opt.How,
    forgetting: Callable[[Asked, Path, Path], None],
    stop_if_unmet: bool,
) -> dict[str, Any]:
    """Do what is left to do of one request, and return what is printed of it as JSON."""
    from unhot.cli.output import note, say
    from unhot.deletion.keys import read_private
    from unhot.deletion.request_file import begin, finished

    begin(place, asked, file, before[1])
    found = {"id": asked.id, "model": str(place.model), "record": str(place.record)}
    if finished(place, asked, read_private(key)):
        say(f"{asked.id} was certified before.")
        return found | {"done_before": True, "unmet": _unmet(place)}
    if not place.model.exists():
        note(f"{asked.id}: forgetting {', '.join(asked.classes)} ...")
        forgetting(asked, before[0], place.model)
    if not place.audit.exists():
        note(f"{asked.id}: auditing ...")
        _audit(asked, file, place, before[0], how)
    if stop_if_unmet:
        _check_bounds(asked, place)
    day = asked.received and datetime.combine(asked.received, time())
    said = {name: getattr(asked, name) for name in ("reason", "legal_basis", "approved_by", "note")}
    given = {"key": key, "request": asked.id, "received": day, "require": list(asked.require)} | said
    try:
        _run(certify, UNMET, unlearned=place.model, audits=[place.audit], out=place.record, **given)
    except InputError:
        if stop_if_unmet:
            note(_not_certified(asked, place))
        raise
    return found | {"done_before": False, "unmet": _unmet(place)}


def _unmet(place: Place) -> list[str]:
    """Return the bounds that the record of a request says are not met."""
    from unhot.deletion.statement import RECORD
    from unhot.records.deletion import DeletionRecord

    return [bound.requirement for bound in DeletionRecord.read(place.record / RECORD).unmet]


def _forget(asked: Asked, before: Path, out: Path, how: opt.How) -> None:
    options = [f"{key}={jsonlib.dumps(value)}" for key, value in asked.options.items()]
    named = {name: getattr(asked, name) for name in ("samples", "shots", "method", "retain", "guard", "force", "seed")}
    _run(
        forget,
        model=before,
        classes=list(asked.classes),
        out=out,
        option=options,
        asked=ModelOptions(),
        how=_text(how),
        **named,
    )


def _audit(asked: Asked, file: Shared, place: Place, before: Path, how: opt.How) -> None:
    given = {"data": file.data, "quick": file.quick, "holder": file.holder, "seed": asked.seed}
    models = {"original": before, "unlearned": place.model, "retrained": list(asked.retrained)}
    _run(audit, classes=list(asked.classes), out=place.audit, asked=ModelOptions(), how=_text(how), **models, **given)


def _text(how: opt.How) -> opt.How:
    """Return how another command does its part: it prints text, of which this one prints JSON at the end."""
    return replace(how, json=False)


def _run(command: Callable[..., None], *passed_over: int, **given: object) -> None:
    """Run another command, all of whose errors end this one, too, but for some exit codes."""
    try:
        command(**given)
    except typer.Exit as ended:
        if ended.exit_code not in (0, *passed_over):
            raise


def _check_bounds(asked: Asked, place: Place) -> None:
    """End the command where the audit of a request does not meet its bounds."""
    from unhot.cli.output import note
    from unhot.evaluation.requirement import Requirement
    from unhot.records.audit import AuditRecord
    from unhot.report.audited import RECORD

    found = AuditRecord.read(place.audit / RECORD)
    unmet = [why for text in asked.require if (why := Requirement.parse(text).unmet(found))]
    if not unmet:
        return
    for why in unmet:
        note(f"Not met: {why}.")
    note(_not_certified(asked, place))
    raise typer.Exit(UNMET)


def _not_certified(asked: Asked, place: Place) -> str:
    return f"{asked.id} is not certified. Remove {place.home}, change the request, and give the command again."


def _weights(model: Path) -> str:
    from unhot.deletion.weights_file import BundleFiles

    return BundleFiles.read(model).weights_sha256


def _checked(path: Path, file: RequestFile, how: opt.How) -> str:
    """Check all that can be known before anything is done, and return the digest of the model's weights.

    Raises:
        InputError: With everything that is wrong.
    """
    from unhot.deletion.keys import read_private
    from unhot.deletion.request_file import place_in
    from unhot.models.bundle import load

    problems: list[str] = []
    first = None
    with _noted(problems, "'key'"):
        read_private(file.key)
    with _noted(problems, "'model'"):
        first = load(file.model)
    with _noted(problems, "'data'"):
        _check_source(file.data, how)
    for asked in file.request:
        _check(asked, file, first, how, problems)
    homes = [place_in(file.out, asked).home.name.casefold() for asked in file.request]
    problems += [f"two ids name one folder, {name}." for name in sorted({n for n in homes if homes.count(n) > 1})]
    raise_all(InputError, str(path), problems)
    return "" if first is None else first.sha256()


def _check(asked: Asked, file: RequestFile, first: Classifier | None, how: opt.How, problems: list[str]) -> None:
    """Note what is wrong with one request."""
    from unhot.deletion.ledger import check_not_gone, read_ledger
    from unhot.evaluation.requirement import Requirement
    from unhot.methods import default, get

    def noted(key: str) -> Any:
        return _noted(problems, f"{asked.id}: {key!r}")

    with noted("method"):
        chosen = get(asked.method or default(asked.guard is not None)).of(asked.options)
        if asked.retain is not None:
            check_reads_retained(chosen)
        if missing := [use for use in ("retain", "guard") if use in chosen.uses and getattr(asked, use) is None]:
            raise OptionError(f"{chosen.name} needs {missing[0]!r}. Give it, or choose another method.")
    for key in ("samples", "retain"):
        with noted(key):
            if (source := getattr(asked, key)) is not None:
                _check_source(source, how)
    for path in (*asked.retrained, *filter(None, [asked.guard])):
        with noted("guard" if path == asked.guard else "retrained"):
            if not path.exists():
                raise InputError(f"There is nothing at {path}. Check the path.")
    for text in asked.require:
        with noted("require"):
            Requirement.parse(text, file.quick)
    if first is not None:
        with noted("classes"):
            labels = [first.label(name) for name in asked.classes]
            check_not_gone(read_ledger(file.model), [label for label in labels if label in first.forgotten])


@contextmanager
def _noted(problems: list[str], where: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        problems.append(f"{where}: {error}")


def _check_source(src: str, how: opt.How) -> None:
    from unhot.data import catalogue as datasets
    from unhot.data.source import found_at

    if src not in datasets:
        found_at(src, how.data_dir)
