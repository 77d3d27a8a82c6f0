"""``unhot advise``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli import options as opt
from unhot.cli.models import MODEL, ModelOptions
from unhot.cli.request import MOST, SHOTS, labelled_in, retained_images
from unhot.errors import OptionError
from unhot.records.choices import Holder

if TYPE_CHECKING:
    from unhot.records.advice import Advice


def advise(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL)],
    samples: Annotated[
        str, typer.Option("--samples", help="Images of the class: a folder or file of them, or a named data set.")
    ],
    classes: Annotated[
        list[str], typer.Option("--class", help="Class to forget, by index or name; may be repeated.")
    ] = [],  # noqa: B006
    holder: Annotated[
        Holder,
        typer.Option("--holder", help="Who is not to find the class: whoever holds the outputs, features or weights."),
    ] = "features",
    data: Annotated[str | None, typer.Option("--data", help="Test images, if there are any.")] = None,
    retain: Annotated[str | None, typer.Option("--retain", help="Images of other classes, if there are any.")] = None,
    guard: Annotated[Path | None, typer.Option("--guard", help="Guard, if there is one.")] = None,
    retrained: Annotated[
        list[Path], typer.Option("--retrained", help="Model trained without the class, if there is one.")
    ] = [],  # noqa: B006
    label_map: opt.LabelMapFile = None,
    *,
    asked: ModelOptions,
    how: opt.DataOptions,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Say which method suits what you have, and why.

    It also says what the method needs, and what can be claimed afterwards. Nothing is run.
    """
    from unhot.cli.output import say
    from unhot.data import catalogue as datasets
    from unhot.data.unlabelled import Unlabelled
    from unhot.deletion.ledger import check_not_gone, read_ledger
    from unhot.evaluation.advice import Given
    from unhot.evaluation.advice import advise as of
    from unhot.models.layers import normalisations

    for path in (*retrained, *filter(None, [guard])):
        if not path.exists():
            raise OptionError(f"There is nothing at {path}. Check the path.")
    tested = None if data is None else how.source(data)
    known = how.source(samples) if model.is_file() and samples in datasets else tested
    classifier = (asked if known is None else asked.beside_source(known)).load(model)
    concept = opt.concept_of(classifier, classes, label_map) if classes else None
    labels = [classifier.label(name) for name in (classes if concept is None else concept.touched)]
    check_not_gone(read_ledger(model), [c for c in labels if c in classifier.forgotten])
    rest = None if retain is None else retained_images(retain, True, how)
    others = rest.images if isinstance(rest, Unlabelled) else labelled_in(rest)
    found = of(
        Given(
            holder=holder,
            samples=_count(samples, max(1, len(labels)), how),
            retained=0 if others is None else len(others),
            labelled=not isinstance(rest, Unlabelled),
            guard=guard is not None,
            evaluated=tested is not None,
            with_train=tested is not None and tested.train is not None,
            retrained=len(retrained),
            batch_norm=any(normalisations(classifier.module)),
        )
    )
    if json:
        say(found.to_json())
        return
    for line in _lines(found):
        say(line)
    given = {"--samples": samples, "--retain": retain, "--guard": guard, "--data": data, "--label-map": label_map}
    named = classes if concept else [c.name for c in labels]
    more = [*opt.words(asked), *opt.words(how)]
    say(f"Then: {_command(model, named or ['CLASS'], found.method, given, more)}")


def _count(samples: str, classes: int, how: opt.DataOptions) -> int:
    """Return how many images a request would take, at most."""
    from unhot.data import catalogue as datasets
    from unhot.data.containers.listed import read_contents
    from unhot.data.source import found_at

    if samples in datasets:
        return SHOTS * classes
    return min(len(read_contents(found_at(samples, how.data_dir, "samples")).sampled), MOST * classes)


def _lines(found: Advice) -> Iterator[str]:
    yield f"Method: {found.method}"
    parts = {
        "Why": found.why,
        "What it needs": found.needs,
        "An audit can then say": found.claims,
        "It cannot say": found.no_claims,
    }
    for title, texts in parts.items():
        yield f"{title}:"
        yield from (f"  {text}" for text in texts)
    yield f"Other methods that read no more than you have: {', '.join(found.others)}. See: unhot list methods."


def _command(model: Path, classes: list[str], method: str, given: dict[str, str | Path | None], more: list[str]) -> str:
    """Return the command that the advice comes to, without what the method does not read."""
    from unhot.methods import get

    read = get(method).uses + get(method).may_use
    words = ["unhot", "forget", str(model), "--method", method]
    words += [word for name in classes for word in ("--class", name)]
    for option, value in given.items():
        if value is not None and (option in ("--samples", "--data", "--label-map") or option[2:] in read):
            words += [option, str(value)]
    return shlex.join([*words, *more, "--out", "unlearned"])
