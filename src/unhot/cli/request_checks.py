"""What can be known of a file of requests before anything is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unhot.cli import options as opt
from unhot.cli.models import ModelOptions
from unhot.cli.request import check_reads_retained
from unhot.errors import DataError, InputError, OptionError, raise_all, shortened

if TYPE_CHECKING:
    from unhot.models.classifier import Classifier
    from unhot.records.model import ClassLabel
    from unhot.records.request import Asked, RequestFile


def checked(path: Path, file: RequestFile, models: ModelOptions, how: opt.How) -> tuple[ModelOptions, str]:
    """Check all that can be known before anything is done.

    Returns:
        The options of the models, with what the data says of a weights file, and the digest of the model's weights.

    Raises:
        InputError: With everything that is wrong.
    """
    from unhot.deletion.keys import read_private
    from unhot.deletion.request_file import place_in

    problems: list[str] = []
    first = None
    with _noted(problems, "'key'"):
        read_private(file.key)
    with _noted(problems, "'data'"):
        _check_source(file.data, how)
        if file.model.path.is_file():
            models = models.beside_source(opt.by_label_map(how.source(file.data), file.label_map))
    with _noted(problems, "'model'"):
        first = models.load(file.model.path)
    for asked in file.request:
        _check(asked, file, first, how, problems)
    if first is not None:
        _check_classes(file, first, problems)
    homes = [place_in(file.out, asked).home.name.casefold() for asked in file.request]
    problems += [f"two ids name one folder, {name}." for name in sorted({n for n in homes if homes.count(n) > 1})]
    raise_all(InputError, str(path), problems)
    return models, "" if first is None else first.sha256()


def _check(asked: Asked, file: RequestFile, first: Classifier | None, how: opt.How, problems: list[str]) -> None:
    """Note what is wrong with one request, but for its classes."""
    from unhot.evaluation.requirement import Requirement
    from unhot.methods import get
    from unhot.methods.forget import usual_method

    with _noted(problems, f"{asked.id}: 'method'"):
        guarded, retained = asked.guard is not None, asked.retain is not None
        chosen = get(asked.method or usual_method(first, guarded, retained)).of(asked.options)
        if retained:
            check_reads_retained(chosen)
        if missing := [use for use in ("retain", "guard") if use in chosen.uses and getattr(asked, use) is None]:
            raise OptionError(f"{chosen.name} needs {missing[0]!r}. Give it, or choose another method.")
    for key in ("samples", "retain"):
        with _noted(problems, f"{asked.id}: {key!r}"):
            if (source := getattr(asked, key)) is not None:
                _check_source(source, how)
    for path in (*asked.retrained, *filter(None, [asked.guard])):
        with _noted(problems, f"{asked.id}: {'guard' if path == asked.guard else 'retrained'!r}"):
            if not path.exists():
                raise InputError(f"There is nothing at {path}. Check the path.")
    for text in asked.require:
        with _noted(problems, f"{asked.id}: 'require'"):
            Requirement.parse(text, file.quick)


def _check_classes(file: RequestFile, first: Classifier, problems: list[str]) -> None:
    """Note which classes are not there, gone, asked for twice, or the last ones of the model."""
    from unhot.deletion.ledger import check_not_gone, read_ledger

    ledger = read_ledger(file.model.path)
    wanted: list[ClassLabel] = []
    for asked in file.request:
        with _noted(problems, f"{asked.id}: 'classes'"):
            labels = labels_of(asked, file, first)
            check_not_gone(ledger, [label for label in labels if label in first.forgotten])
            wanted += labels
    counts = Counter(label.name for label in wanted)
    problems += [f"the class {name} comes twice, in several requests." for name, n in counts.items() if n > 1]
    if not {*first.classes} - {*wanted, *first.forgotten}:
        problems.append(
            f"the requests take every class that is left, {shortened(counts)}. Leave at least one class to be retained."
        )


def labels_of(asked: Asked, file: RequestFile, first: Classifier) -> list[ClassLabel]:
    """Return the classes of the model that a request is for.

    Raises:
        InputError: One is not known, or a part of a class is asked for.
    """
    concept = opt.concept_of(first, asked.classes, file.label_map, asked.given)
    if concept is None:
        return [first.label(name) for name in asked.classes]
    if concept.parts:
        raise DataError(
            f"The request is for a part of {shortened(concept.parts)}. Only whole classes can be certified: name all "
            "of it, or forget the part without a record (unhot forget)."
        )
    return [first.label(name) for name in concept.touched]


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
