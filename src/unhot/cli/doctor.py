"""``unhot doctor``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli import options as opt
from unhot.cli.failure import UNUSABLE
from unhot.cli.models import MODEL, ModelOptions
from unhot.cli.request import check_reads_retained, labelled_in, retained_images, samples_of
from unhot.errors import DataError, shortened
from unhot.methods import DEEP, QUICK, get

if TYPE_CHECKING:
    from unhot.data.samples import Samples
    from unhot.models.classifier import Classifier
    from unhot.records.diagnosis import Answers, Diagnosis, KnownModel, Plan
    from unhot.records.model import ClassLabel
    from unhot.runtime import Runtime


def doctor(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL)],
    samples: Annotated[
        str, typer.Option("--samples", help="Images of the class: a folder or file of them, or a named data set.")
    ],
    classes: Annotated[
        list[str],
        typer.Option("--class", help="Class to forget, by index or name; by default that of most samples."),
    ] = [],  # noqa: B006
    data: Annotated[str | None, typer.Option("--data", help="Test images, on which accuracy is evaluated.")] = None,
    shots: Annotated[int | None, typer.Option("--shots", help="Images of each class.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help=f"See: unhot list methods. [{DEEP} with --retain and for nets with batch normalisation; {QUICK} for "
            "others]",
        ),
    ] = None,
    option: opt.Set = [],  # noqa: B006
    retain: Annotated[
        str | None, typer.Option("--retain", help="Images of other classes, for methods that read them.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Continue if fewer than half of the samples are classified as the class.")
    ] = False,
    seed: opt.Seed = 0,
    *,
    asked: ModelOptions,
    how: opt.How,
) -> None:
    """Say what unhot understands of a model and of samples.

    It says what unhot forget would do, and changes nothing. The exit code is 0 if unhot forget would go on, and 2 if it
    would refuse; then its message is printed.
    """
    from unhot.cli.output import complain, say
    from unhot.data import catalogue as datasets
    from unhot.data.source import Source
    from unhot.deletion.ledger import check_not_gone, read_ledger
    from unhot.evaluation.diagnosis import diagnose
    from unhot.methods.forget import usual_method

    settings = opt.settings(option)
    named_method = None if method is None else get(method).of(settings)
    named = how.source(samples) if samples in datasets else None
    held_out = None if data is None else how.source(data).test_images
    rest = None if retain is None else retained_images(retain, True, how)
    others = labelled_in(rest) if isinstance(rest, Source) else rest
    train = None if named is None else named.train
    names = next((i.class_names for i in (train, held_out) if i is not None and i.class_names), None)
    classifier = asked.beside(None if named is None else named.input, names).load(model)
    chosen = named_method or get(usual_method(classifier, retained=retain is not None)).of(settings)
    runtime = how.runtime(seed)

    def take(positions: list[int], labels: Sequence[ClassLabel]) -> Samples:
        return samples_of(samples, train, positions, [(c.index, c.name) for c in labels], shots, seed, how)

    def taken() -> Samples:
        if retain is not None:
            check_reads_retained(chosen)
        if not classes and train is not None:
            raise DataError(f"Name the class of {samples} that is to be forgotten: --class.")
        labels = [classifier.label(c) for c in dict.fromkeys(classes)] or [_likely(classifier, take, runtime)]
        check_not_gone(read_ledger(model), [c for c in labels if c in classifier.forgotten])
        positions = [] if train is None else classifier.positions(train, labels)
        return take(positions, labels)

    found = diagnose(
        classifier,
        taken,
        chosen,
        check=held_out,
        retain=others,
        runtime=runtime,
        force=force,
        asked=bool(method or retain or settings),
    )
    if how.json:
        say(found.to_json())
    else:
        for line in _report(found):
            say(line)
    if found.refusal is not None:
        complain(f"Error: {found.refusal}")
        raise typer.Exit(UNUSABLE)


def _likely(
    model: Classifier, take: Callable[[list[int], Sequence[ClassLabel]], Samples], runtime: Runtime
) -> ClassLabel:
    """Return the class that most of some images are classified as, with a note."""
    from unhot.cli.output import note
    from unhot.evaluation.diagnosis import answers_of

    (answers,) = answers_of(model, take([], model.classes[:1]).images, runtime)
    label, count = answers.answers[0]
    note(f"No --class was given. {count} of {answers.n} samples are classified as {label.name!r}: that is taken.")
    return label


def _report(found: Diagnosis) -> Iterator[str]:
    """Say in sentences what was found; the refusal comes after it."""
    yield from _of_model(found.model)
    for answers in found.samples:
        yield f"Samples: {_counted(answers)}."
    if found.data is not None:
        share, worst = found.data.correct / found.data.n, found.data.worst
        yield f"Test images: {share:.1%} of {found.data.n:,} are classified correctly. Worst class: {_counted(worst)}."
    yield _of_plan(found.plan)
    for warning in found.warnings:
        yield f"It would warn: {warning}"
    if found.refusal is None:
        yield "unhot forget would go on."


def _of_model(known: KnownModel) -> Iterator[str]:
    from unhot.report.inputs import input_text

    kind = ", kept as a graph of its operators" if known.graph else ""
    yield f"Model: {known.arch or 'a net of no name'}{kind}; {known.weights:,} weights in {known.number_type}."
    other = "" if known.plain_head else ", which is no plain nn.Linear: its output would be masked"
    yield f"Head: {known.head!r}, from {known.features:,} features to {len(known.classes):,} outputs{other}."
    if known.named:
        yield f"Classes: {shortened(c.name for c in known.classes)}."
    else:
        yield f"Classes: 0 to {len(known.classes) - 1}, by number. --classes FILE gives them names."
    if known.forgotten:
        yield f"Forgotten before: {shortened(c.name for c in known.forgotten)}."
    if known.input is None:
        yield "How pictures become inputs is not known. Say it with --image-size, --mean and --std."
    else:
        yield f"Pictures are {input_text(known.input)}."


def _counted(answers: Answers) -> str:
    others = [f"{n} as {label.name!r}" for label, n in answers.answers if label != answers.label]
    own = f"{answers.right} of {answers.n} of {answers.label.name!r} are classified as it"
    return f"{own}, {shortened(others, 3)}" if others else own


def _of_plan(plan: Plan) -> str:
    steps = "" if plan.most_steps is None or plan.announced else f" with steps={plan.most_steps}"
    cut = plan.hyperparameters.get("cut")
    how = "" if cut is None else f", cut={cut}"
    return f"unhot forget runs {plan.method}{steps}{how}.{_timed(plan)}"


def _timed(plan: Plan) -> str:
    if plan.announced:
        return f" {' '.join(plan.announced)}"
    if plan.seconds is not None:
        least, most = plan.seconds
        if most < 1:
            return " It takes about a second, or less."
        return f" It takes about {least:.{0 if least > 10 else 1}f} to {most:.{0 if most > 10 else 1}f} s."
    if plan.pass_seconds is None:
        return ""
    return f" A forward and backward pass over the samples takes {plan.pass_seconds:.2g} s."
