"""``unhot forget``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli import options as opt
from unhot.cli.models import MODEL, ModelOptions
from unhot.cli.request import MOST, SHOTS, check_reads_retained, labelled_in, retained_images, samples_of
from unhot.errors import DataError, OptionError, counted, shortened
from unhot.escaping import is_unicode
from unhot.methods import DEEP, GUARDED, QUICK, catalogue, get

if TYPE_CHECKING:
    from pydantic import JsonValue

    from unhot.data.concept import Concept
    from unhot.methods.base import Method
    from unhot.records.forget import ForgetRecord


def forget(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL)],
    classes: opt.Classes,
    samples: Annotated[
        str, typer.Option("--samples", help="Images of the class: a folder or file of them, or a named data set.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Output folder; it must not exist yet, or be empty. --dry-run needs none."),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            "--shots", help=f"Images of each class. [all of a folder, at most {MOST}; {SHOTS} of a named data set]"
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help=f"See: unhot list methods. [{DEEP} with --retain; {GUARDED} with --guard; with neither, {DEEP} for "
            f"nets with batch normalisation, if that suits the net, and {QUICK} for others]",
        ),
    ] = None,
    option: opt.Set = [],  # noqa: B006
    retain: Annotated[
        str | None,
        typer.Option(
            "--retain",
            help="Images of other classes, for methods that read them; some also take a folder of any pictures.",
        ),
    ] = None,
    guard: Annotated[
        Path | None, typer.Option("--guard", help="Output of unhot guard collect, for methods that read it.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="For methods that make images from the model: a file that keeps them for later requests on it. They "
            "show all classes: delete it after the last request.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Test images on which accuracy before and after is compared. [--retain]"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Continue if fewer than half of the samples are classified as the class.")
    ] = False,
    label_map: opt.LabelMapFile = None,
    given: Annotated[
        list[str],
        typer.Option(
            "--given", help="Label that the samples show, if they show only some of those to forget; may be repeated."
        ),
    ] = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run the method, and print its result and cost, but write nothing.")
    ] = False,
    remark: Annotated[
        str, typer.Option("--note", help="Anything that the record is to say; unhot certify takes it over.")
    ] = "",
    seed: opt.Seed = 0,
    *,
    asked: ModelOptions,
    how: opt.How,
) -> None:
    """Make a model forget classes, from a few of their images.

    -o sets hyperparameters of the method (see unhot show METHOD). With --label-map, --class names a group or a label of
    the map, which may be several classes of the model or a part of one; --samples and --retain are labelled by the map.
    """
    from unhot.cli.output import note, say
    from unhot.data import catalogue as datasets
    from unhot.data.concept import LabelMap
    from unhot.data.samples import class_position
    from unhot.data.unlabelled import Unlabelled
    from unhot.deletion.ledger import check_not_gone, read_ledger
    from unhot.files import check_free
    from unhot.methods.forget import run, usual_method
    from unhot.models.bundle import save
    from unhot.records.forget import MOST_TEXT
    from unhot.statistics import ClassStatistics

    if out is None and not dry_run:
        raise OptionError("--out is missing. Give a folder for the unlearned model, or --dry-run to write nothing.")
    if out is not None:
        check_free(out)
    if len(remark) > MOST_TEXT or not is_unicode(remark):
        raise OptionError(f"--note takes text in UTF-8 of at most {MOST_TEXT:,} characters. Shorten it.")
    if cache is not None and out is not None and cache.absolute().is_relative_to(out.absolute()):
        raise OptionError(f"--cache {cache} is --out, or lies in it. Choose another place for it.")
    settings = opt.settings(option)
    named_method = None if method is None else get(method).of(settings)
    if named_method is not None and retain is not None:
        check_reads_retained(named_method)
    groups = None if label_map is None else LabelMap.read(label_map)
    if given and groups is None:
        raise OptionError("--given names labels of a label map. It needs --label-map.")
    named = how.source(samples) if samples in datasets else None
    spec = named.input if named else None
    train = named.train if named else None
    rest = None if retain is None else retained_images(retain, label_map is None, how)
    others = labelled_in(rest)
    held_out = None if data is None else how.source(data).test_images
    names = next((i.class_names for i in (train, held_out, others) if i is not None and i.class_names), None)
    classifier = asked.beside(spec, names).load(model)
    chosen = named_method or get(usual_method(classifier, guard is not None, retain is not None)).of(settings)
    earlier = read_ledger(model)
    if groups is None:
        labels = list(dict.fromkeys(classifier.label(c) for c in classes))  # one may be named twice
        check_not_gone(earlier, [c for c in labels if c in classifier.forgotten])
        concept, what = None, ", ".join(c.name for c in labels)
        positions = [] if train is None else classifier.positions(train, labels)
        images = samples_of(samples, train, positions, [(c.index, c.name) for c in labels], shots, seed, how)
    else:
        concept = groups.concept(classes, [c.name for c in classifier.classes], given or None)
        chosen, what = _searching(chosen, concept), ", ".join(dict.fromkeys(classes))
        positions = [] if train is None else [class_position(train, label) for label in concept.given]
        images = concept.take(samples_of(samples, train, positions, [(c, c) for c in concept.given], shots, seed, how))
        others, held_out = (
            None if found is None else concept.remaining(found, with_hidden=True) for found in (others, held_out)
        )
    stored = None if guard is None else ClassStatistics.load(guard)
    runtime = replace(how.runtime(seed), announce=note, cache=cache)
    result = run(
        chosen,
        classifier,
        images,
        asked=bool(method or retain or guard or settings),
        retain=rest if isinstance(rest, Unlabelled) else others,
        guard=stored,
        check=held_out,
        seed=seed,
        runtime=runtime,
        force=force,
    )
    if runtime.processes.rank:
        return
    record = result.record.model_copy(update={"note": remark})
    if concept is not None:
        record = record.model_copy(update={"notes": record.notes | {"concept": _described(concept)}})
        found = [c.label.name for c in record.recognised if c.label not in record.classes]
        if set(found) != set(concept.hidden):
            note(
                f"{chosen.name} found {shortened(found) or 'nothing'} as the rest of the concept; by the label map it "
                f"is {shortened(concept.hidden) or 'nothing'}. Give images of all of it to skip this search."
            )
    if not dry_run and out is not None:
        save(result.classifier, out, record, requests=earlier)
    if how.json:
        say(record.to_json())
        return
    for line in _summary(record, what, "Wrote nothing: a dry run" if dry_run else f"Wrote {out}"):
        say(line)


def _summary(record: ForgetRecord, what: str, written: str) -> Iterator[str]:
    """Describe in sentences what was done; notes say what is left. ``what`` names the request."""
    from unhot.methods.checks import estimated, left_unchanged, loss, not_forgotten, only_cut, retained

    cut, cost = only_cut(record), record.cost
    if left_unchanged(record) and record.hyperparameters.get("cut") != "none":
        cut = [c for c in record.recognised if c.forgotten]
    if cut or not_forgotten(record):
        what = ", ".join(c.label.name for c in record.recognised if c.forgotten and c not in cut)
    done = [f"Forgot {what or 'nothing'}"] if what or not cut else []
    done += [f"{'and c' if done else 'C'}ut {', '.join(c.label.name for c in cut)} from the output"] if cut else []
    said, images = estimated(record), counted(sum(record.samples.count), "image")
    yield (
        f"{' '.join(done)} with {record.method} from {images} in {cost.seconds:.2f} s "
        f"({cost.steps} steps; {record.stop_reason}). {said and said + ' '}{written}."
    )
    if record.retained_accuracy is not None and not loss(record):
        yield f"Accuracy on the retained classes: {retained(record.retained_accuracy)}."


def _searching(method: Method, concept: Concept) -> Method:
    """Set how many classes of the concept a method is to find by itself, if any.

    Raises:
        DataError: It finds none.
    """
    if not concept.hidden or method.finds in method.model_fields_set:
        return method
    if method.finds is None:
        able = shortened(name for name in catalogue if get(name).finds)
        raise DataError(
            f"{method.name} needs images of every class of the concept, and none are given of "
            f"{shortened(concept.hidden)}. Give some, or choose a method that looks for such classes: {able}."
        )
    return method.model_copy(update={method.finds: len(concept.hidden)})


def _described(concept: Concept) -> dict[str, JsonValue]:
    """Return what a record says of a concept."""
    return {"setting": concept.setting, "labels": list(concept.labels), "given": list(concept.given)}
