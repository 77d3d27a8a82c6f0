"""``unhot request``: the requests of a TOML file, from the model to the signed record of each."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
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
from unhot.cli.request_checks import checked
from unhot.errors import InputError

if TYPE_CHECKING:
    from unhot.deletion.request_file import Place
    from unhot.records.request import Asked, GivenModel, Shared


@dataclass(frozen=True)
class Work:
    """What all requests of one command share.

    Attributes:
        shared: What the file says for all.
        key: The private key.
        models: What is said of models.
        how: What the command line says.
        forgetting: Makes a model forget the classes of a request: takes the model, and where to write the new one.
        stop_if_unmet: Whether a request that does not meet its bounds is not certified, and ends the command at once,
            rather than being certified as one that does not, and ending the command with that exit code.
    """

    shared: Shared
    key: Path
    models: ModelOptions
    how: opt.How
    forgetting: Callable[[Asked, Path, Path], None]
    stop_if_unmet: bool


def request(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML file: one [request], or several [[request]].")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file, say what is to be done, and do nothing.")
    ] = False,
    *,
    how: opt.How,
) -> None:
    """Forget, audit and certify the requests of a file, one by one.

    Each starts from the model that the one before it left. Nothing is overwritten. A command that was stopped goes on
    where it was when it is given again. Where an audit does not meet the bounds of its request (require), that is not
    certified, and the exit code is 3.
    """
    from unhot.cli.output import say
    from unhot.deletion.request_file import place_in, read_requests

    asked = read_requests(file)
    models, digest = checked(file, asked, _options(asked.model), how)
    places = [place_in(asked.out, one) for one in asked.request]
    if dry_run:
        done = [place.record.exists() for place in places]
        if how.json:
            say(jsonlib.dumps([{"id": r.id, "done": d} for r, d in zip(asked.request, done, strict=True)]))
            return
        for one, place, is_done in zip(asked.request, places, done, strict=True):
            say(f"{one.id} ({'done' if is_done else 'to be done'}): forget {', '.join(one.classes)}, to {place.home}.")
        return
    work = Work(
        asked,
        asked.key,
        models,
        how,
        lambda one, before, out: _forget(one, before, out, work),
        stop_if_unmet=True,
    )
    carry_out(asked.request, places, (asked.model.path, digest), work)


def _options(model: GivenModel) -> ModelOptions:
    """Return what a file says of a model, as options say it."""

    def listed(value: float | tuple[float, ...] | None) -> str | None:
        return None if value is None else ",".join(map(repr, value if isinstance(value, tuple) else (value,)))

    return ModelOptions(
        arch=model.arch,
        arch_option=[f"{key}={jsonlib.dumps(value)}" for key, value in model.arch_option.items()],
        preprocessing=opt.PreprocessingOptions(
            image_size=model.image_size,
            resize=None if model.resize is None else str(model.resize),
            interpolation=model.interpolation,
            mean=listed(model.mean),
            std=listed(model.std),
        ),
        head=model.head,
        output=model.output,
        class_names=model.classes,
        weights_key=model.key,
        prefix=model.prefix,
        trust_pickle=model.trust_pickle,
    )


def carry_out(requests: Sequence[Asked], places: Sequence[Place], first: tuple[Path, str], work: Work) -> None:
    """Do what is left to do of some requests, each from the model of the one before.

    Args:
        requests: The requests.
        places: The folder of each.
        first: The model that the first begins with, and the digest of its weights.
        work: What they share.
    """
    from unhot.cli.output import say
    from unhot.files import held

    before, done = first, []
    with held(places[0].home.parent), redirect_stdout(sys.stderr) if work.how.json else nullcontext():
        for one, place in zip(requests, places, strict=True):
            done.append(_carry_out(one, place, before, work))
            before = place.model, _weights(place.model)
    unmet = [one["id"] for one in done if one["unmet"]]
    if work.how.json:
        say(jsonlib.dumps({"requests": done, "model": str(before[0])}))
    else:
        said = f" The bounds of {', '.join(unmet)} were not met." if unmet else ""
        say(f"Certified: {', '.join(one.id for one in requests)}.{said} The model is now {before[0]}.")
    raise typer.Exit(UNMET if unmet else 0)


def _carry_out(asked: Asked, place: Place, before: tuple[Path, str], work: Work) -> dict[str, Any]:
    """Do what is left to do of one request, and return what is printed of it as JSON."""
    from unhot.cli.output import complain, note, say
    from unhot.deletion.keys import read_private
    from unhot.deletion.request_file import begin, finished, withdraw

    begin(place, asked, work.shared, before[1], opt.words(work.models))
    found = {"id": asked.id, "model": str(place.model), "record": str(place.record)}
    if finished(place, asked, read_private(work.key)):
        say(f"{asked.id} was certified before.")
        return found | {"done_before": True, "unmet": _unmet(place)}
    if not place.model.exists():
        note(f"{asked.id}: forgetting {', '.join(asked.classes)} ...")
        try:
            work.forgetting(asked, before[0], place.model)
        except InputError:
            withdraw(place)  # nothing was done by these values, which can be put right
            raise
    if not place.audit.exists():
        note(f"{asked.id}: auditing ...")
        _audit(asked, place, before[0], work)
    if work.stop_if_unmet:
        _check_bounds(asked, place)
    day = asked.received and datetime.combine(asked.received, time())
    said = {name: getattr(asked, name) for name in ("reason", "legal_basis", "approved_by", "note")}
    given = {"key": work.key, "request": asked.id, "received": day, "require": list(asked.require)} | said
    try:
        _run(certify, UNMET, unlearned=place.model, audits=[place.audit], out=place.record, **given)
    except InputError:
        if work.stop_if_unmet:
            complain(_not_certified(asked, place))
        raise
    return found | {"done_before": False, "unmet": _unmet(place)}


def _unmet(place: Place) -> list[str]:
    """Return the bounds that the record of a request says are not met."""
    from unhot.deletion.statement import RECORD
    from unhot.records.deletion import DeletionRecord

    return [bound.requirement for bound in DeletionRecord.read(place.record / RECORD).unmet]


def _forget(asked: Asked, before: Path, out: Path, work: Work) -> None:
    options = [f"{key}={jsonlib.dumps(value)}" for key, value in asked.options.items()]
    named = {name: getattr(asked, name) for name in ("samples", "shots", "method", "retain", "guard", "force", "seed")}
    labels = {"classes": list(asked.classes), "given": list(asked.given), "label_map": work.shared.label_map}
    _run(forget, model=before, out=out, option=options, asked=work.models, how=_text(work.how), **named, **labels)


def _audit(asked: Asked, place: Place, before: Path, work: Work) -> None:
    said = {name: getattr(work.shared, name) for name in ("data", "quick", "holder", "label_map")} | {
        "seed": asked.seed
    }
    models = {"original": before, "unlearned": place.model, "retrained": list(asked.retrained)}
    given = {"classes": list(asked.classes), "asked": work.models, "how": _text(work.how)}
    _run(audit, out=place.audit, **models, **said, **given)


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
    from unhot.cli.output import complain
    from unhot.evaluation.requirement import Requirement
    from unhot.records.audit import AuditRecord
    from unhot.report.audited import RECORD

    found = AuditRecord.read(place.audit / RECORD)
    unmet = [why for text in asked.require if (why := Requirement.parse(text).unmet(found))]
    if not unmet:
        return
    for why in unmet:
        complain(f"Not met: {why}.")
    complain(_not_certified(asked, place))
    raise typer.Exit(UNMET)


def _not_certified(asked: Asked, place: Place) -> str:
    return f"{asked.id} is not certified. Remove {place.home}, change the request, and give the command again."


def _weights(model: Path) -> str:
    from unhot.deletion.weights_file import BundleFiles

    return BundleFiles.read(model).weights_sha256
