"""``unhot replay``: requests carried out again, after one before them was undone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli import options as opt
from unhot.cli.models import SignedModelOptions
from unhot.cli.requests import Work, carry_out
from unhot.errors import OptionError

if TYPE_CHECKING:
    from unhot.data.concept import Concept
    from unhot.data.samples import Samples
    from unhot.models.classifier import Classifier
    from unhot.records.deletion import DeletionRecord
    from unhot.records.request import Asked


def replay(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Bundle from which the requests were undone.")],
    records: Annotated[
        list[Path], typer.Argument(metavar="RECORD ...", help="Folders that unhot certify wrote of these requests.")
    ],
    samples: Annotated[
        str, typer.Option("--samples", help="Where the images of the requests are; they are found by their digests.")
    ],
    data: Annotated[str, typer.Option("--data", help="Named data set, or folder of class folders, for the audits.")],
    key: Annotated[Path, typer.Option("--key", help="Private key that the records were signed with.")],
    out: Annotated[Path, typer.Option("--out", help="Output folder; it gets a folder for each request.")],
    retrained: Annotated[
        list[Path], typer.Option("--retrained", help="Model trained without the classes; for one RECORD only.")
    ] = [],  # noqa: B006
    retain: Annotated[
        str | None, typer.Option("--retain", help="Images of other classes, if the requests were given such.")
    ] = None,
    guard: Annotated[Path | None, typer.Option("--guard", help="Guard, if the requests were given one.")] = None,
    label_map: opt.LabelMapFile = None,
    *,
    models: SignedModelOptions,
    how: opt.How,
) -> None:
    """Carry out requests again, as their records say.

    Each is carried out with the same method, settings, seed and images, audited and certified. This is for requests
    that were undone so that one before them could be undone. A command that was stopped goes on where it was when it is
    given again. A request that does not meet the bounds of its record is certified as one that does not, and the exit
    code is 3.
    """
    from unhot.deletion.keys import read_private
    from unhot.deletion.replaying import asked_again, read_records, shared_again
    from unhot.deletion.request_file import place_in
    from unhot.deletion.weights_file import BundleFiles

    if retrained and len(records) > 1:
        raise OptionError("--retrained is of one request's classes. Give one RECORD with it.")
    found = read_records(model, records, read_private(key).public_key)
    asked = [asked_again(record, samples, retain, guard, retrained) for record in found]
    of = {one.id: record for one, record in zip(asked, found, strict=True)}
    work = Work(
        shared_again(found[0], data, label_map),
        key,
        models,
        how,
        lambda one, before, out: _forget_again(one, of[one.id], before, out, work),
        stop_if_unmet=False,
    )
    first = model, BundleFiles.read(model).weights_sha256
    carry_out(asked, [place_in(out, one) for one in asked], first, work)


def _forget_again(asked: Asked, record: DeletionRecord, before: Path, out: Path, work: Work) -> None:
    """Make a model forget what a record says, as it says."""
    from unhot.cli.output import note, say
    from unhot.cli.request import labelled_in, retained_images
    from unhot.data.source import Source
    from unhot.data.unlabelled import Unlabelled
    from unhot.deletion.ledger import read_ledger
    from unhot.deletion.replaying import check_same
    from unhot.methods import get
    from unhot.models.bundle import save
    from unhot.statistics import ClassStatistics

    classifier, label_map = work.models.load(before), work.shared.label_map
    rest = None if asked.retain is None else retained_images(asked.retain, label_map is None, work.how)
    rest = opt.by_label_map(rest, label_map) if isinstance(rest, Source) else rest
    result = get(record.run.method).of(asked.options)(
        classifier,
        _samples(asked, record, classifier, work),
        retain=rest if isinstance(rest, Unlabelled) else labelled_in(rest),
        guard=None if asked.guard is None else ClassStatistics.load(asked.guard),
        seed=asked.seed,
        runtime=replace(work.how.runtime(asked.seed), announce=note),
        force=asked.force,
    )
    if (said := check_same(record, result.record)) is not None:
        note(f"Note: {said}")
    save(result.classifier, out, result.record, requests=read_ledger(before))
    say(f"Forgot {', '.join(asked.classes)} again with {record.run.method}. Wrote {out}.")


def _samples(asked: Asked, record: DeletionRecord, classifier: Classifier, work: Work) -> Samples:
    """Find the images of a request by their digests."""
    from unhot.data import catalogue as datasets
    from unhot.data.containers.listed import read_contents
    from unhot.data.samples import class_position, every, of_contents, with_digests
    from unhot.data.source import found_at

    def concept_with(names: tuple[str, ...] | None) -> Concept | None:
        """Resolve the classes by the label map, if there is one, to those labels of which there are images."""
        whole = opt.concept_of(classifier, asked.classes, work.shared.label_map)
        there = () if whole is None else [n for n in whole.labels if names is None or n in names]
        return opt.concept_of(classifier, asked.classes, work.shared.label_map, there)

    if asked.samples in datasets:
        train = work.how.source(asked.samples).train_images
        concept = concept_with(train.class_names)
        found = every(
            train,
            classifier.positions(train, record.classes)
            if concept is None
            else [class_position(train, label) for label in concept.given],
        )
    else:
        contents = read_contents(found_at(asked.samples, work.how.data_dir, "samples"), list(asked.classes))
        names = contents.sampled.class_names if contents.labelled else None
        concept = concept_with(names)
        by_name = asked.classes if names else [c.index for c in record.classes]
        found = of_contents(contents, by_name if concept is None else concept.given)
    return with_digests(found if concept is None else concept.take(found), record.run.samples)
