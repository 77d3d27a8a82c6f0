"""``unhot audit`` and ``unhot compare``."""

from __future__ import annotations

import itertools
import json as jsonlib
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli import options as opt
from unhot.cli.failure import UNMET
from unhot.cli.models import MODEL, ModelOptions
from unhot.errors import ModelError
from unhot.records.choices import Holder

PAGE = "report.html"  # of a comparison; the audits lie beside it

if TYPE_CHECKING:
    from torch import Tensor

    from unhot.data.images import LabelledImages
    from unhot.data.source import Source
    from unhot.evaluation.audit import Audit
    from unhot.models.classifier import Classifier
    from unhot.records.forget import ForgetRecord
    from unhot.records.model import InputSpec
    from unhot.runtime import Runtime

Original = Annotated[Path, typer.Option("--original", help=MODEL)]
Data = Annotated[str, typer.Option("--data", help="Named data set, or folder of class folders.")]
Retrained = Annotated[
    list[Path], typer.Option("--retrained", help="Model trained without the classes; may be repeated.")
]
HolderOption = Annotated[
    Holder,
    typer.Option(
        "--holder", help="Whose verdict is the headline: that of whoever holds the outputs, features or weights."
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="Skip the attacks that train or optimise.")]
Thumbnails = Annotated[bool, typer.Option(help="Show the samples that were used, if they are in the data.")]

# what the table of unhot compare shows; the page shows everything
COMPARED = ("forget_accuracy", "retain_drop_masked", "probe_accuracy", "recovery_1_shot", "recovery_5_shot")


def used_images(train: LabelledImages | None, record: ForgetRecord, spec: InputSpec | None) -> Tensor | None:
    """Find the images that a method was given, by their digests, in the train split: uint8 (N, C, H, W), or None."""
    import torch

    keys = list(record.samples.indices)
    if train is None or spec is None or not keys or not all(isinstance(k, int) and 0 <= k < len(train) for k in keys):
        return None
    found = train.select(torch.tensor(keys))
    return found.pixels(torch.arange(len(found)), spec) if found.digests() == record.samples.sha256 else None


def run_audits(
    original: Path,
    unlearned: Sequence[Path],
    retrained: Sequence[Path],
    classes: list[str],
    data: Source,
    label_map: Path | None,
    load: Callable[[Path], Classifier],
    quick: bool,
    holder: Holder,
    thumbnails: bool,
    runtime: Runtime,
) -> Iterator[Audit]:
    """Load models and audit one or several unlearned ones; what the others do is computed once."""
    from unhot.evaluation.auditor import Auditor
    from unhot.models.bundle import read_record
    from unhot.records.forget import ForgetRecord

    before, *references = (load(p) for p in (original, *retrained))
    data, classes = opt.requested(data, label_map, classes, before)
    after = [load(p) for p in unlearned]
    retrain_seconds = _retrain_seconds(retrained, references)
    auditor = Auditor(before, retrained=references, test=data.test_images, train=data.train, runtime=runtime)
    for path, model in zip(unlearned, after, strict=True):
        found = auditor.audit(
            model,
            classes,
            quick=quick,
            holder=holder,
            made_by=read_record(path, ForgetRecord),
            retrain_seconds=retrain_seconds,
        )
        if (made_by := found.record.made_by) is not None and thumbnails:
            found = found.with_samples(used_images(data.train, made_by, before.input))
        yield found


def _retrain_seconds(retrained: Sequence[Path], models: Sequence[Classifier]) -> float | None:
    """Return how long training the first retrained model of which that is known took; None if it is not.

    Raises:
        ModelError: One of them was made by forgetting.
    """
    from unhot.models.bundle import read_record
    from unhot.records.forget import ForgetRecord
    from unhot.records.train import TrainRecord

    known = []
    for path, model in zip(retrained, models, strict=True):
        if (made := read_record(path, ForgetRecord)) is not None and made.weights_sha256 == model.sha256():
            raise ModelError(
                f"{path} was made by unhot forget, so it is no retrained model. Give one that was trained without the "
                "class, or what unhot reference makes."
            )
        if (record := read_record(path, TrainRecord)) is not None and record.weights_sha256 == model.sha256():
            known.append(record.cost.seconds)
    return known[0] if known else None


def audit(
    original: Original,
    unlearned: Annotated[Path, typer.Option("--unlearned", help="Unlearned model.")],
    classes: opt.Classes,
    data: Data,
    out: opt.Out,
    retrained: Retrained = [],  # noqa: B006
    require: Annotated[
        list[str],
        typer.Option(
            "--require",
            help="Bound on the unlearned model: name<=number, or verdict.features>=retrained. Exit code 3 if not met.",
        ),
    ] = [],  # noqa: B006
    quick: Quick = False,
    holder: HolderOption = "features",
    label_map: opt.LabelMapFile = None,
    thumbnails: Thumbnails = True,
    seed: opt.Seed = 0,
    *,
    asked: ModelOptions,
    how: opt.How,
) -> None:
    """Measure what a model has forgotten, and what is only hidden.

    The model is compared with the original, with the original whose output is masked, and with retrained models.
    """
    from unhot.cli.output import complain, say, table
    from unhot.evaluation.requirement import Requirement
    from unhot.files import check_free
    from unhot.report.sentences import conclusions, headline, sentence
    from unhot.report.tables import SUBJECTS, audit_rows

    requirements = [Requirement.parse(text, quick) for text in require]
    check_free(out)
    source = how.source(data)
    load = asked.beside_source(opt.by_label_map(source, label_map)).load
    runtime = how.runtime(seed)
    (result,) = run_audits(
        original, [unlearned], retrained, classes, source, label_map, load, quick, holder, thumbnails, runtime
    )
    if runtime.processes.rank:
        return
    result.save(out)
    if how.json:
        say(result.record.to_json())
    else:
        title = f"Forgotten: {', '.join(c.name for c in result.record.classes)} (with intervals)"
        table(title, ["measure", *SUBJECTS], audit_rows(result.record))
        verdict = result.record.verdict
        say(f"{headline(verdict)}: {verdict.label}.")
        for line in (*conclusions(result.record), *(sentence(f, result.record) for f in verdict.flags)):
            say(f"  {line}")
        say(f"Wrote {out}.")
    failed = [why for r in requirements if (why := r.unmet(result.record))]
    for why in failed:
        complain(f"Not met: {why}.")
    raise typer.Exit(UNMET if failed else 0)


def compare(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL ...", help="Unlearned models.")],
    original: Original,
    classes: opt.Classes,
    data: Data,
    out: opt.Out,
    retrained: Retrained = [],  # noqa: B006
    quick: Quick = False,
    holder: HolderOption = "features",
    label_map: opt.LabelMapFile = None,
    thumbnails: Thumbnails = True,
    seed: opt.Seed = 0,
    *,
    asked: ModelOptions,
    how: opt.How,
) -> None:
    """Audit several models that forgot the same classes.

    They are put in one table and on one page.
    """
    from unhot.cli.output import say, table
    from unhot.files import check_free, staged_folder
    from unhot.report.audited import Audited
    from unhot.report.page import render
    from unhot.report.tables import value_text

    check_free(out)
    source = how.source(data)
    load = asked.beside_source(opt.by_label_map(source, label_map)).load
    names = unique_names(models)
    runtime = how.runtime(seed)
    found = list(
        run_audits(original, models, retrained, classes, source, label_map, load, quick, holder, thumbnails, runtime)
    )
    if runtime.processes.rank:
        return
    with staged_folder(out) as stage:
        for name, result in zip(names, found, strict=True):
            (stage / name).mkdir()
            result.write(stage / name)
        page = render([Audited.of(f.record, f.images, n) for n, f in zip(names, found, strict=True)])
        (stage / PAGE).write_text(page, encoding="utf-8")
    if how.json:
        say(jsonlib.dumps({n: f.record.model_dump(mode="json") for n, f in zip(names, found, strict=True)}))
        return
    columns = ["model", *COMPARED, f"verdict for whoever holds the {holder}"]
    rows = [
        [n, *(value_text(f[m]) for m in COMPARED), f.record.verdict.label] for n, f in zip(names, found, strict=True)
    ]
    table(f"Forgotten: {', '.join(c.name for c in found[0].record.classes)}", columns, rows)
    say(f"Wrote {out}.")


def unique_names(models: Sequence[Path]) -> list[str]:
    """Name models after their folders or files, so that each can be a folder beside the page.

    Those of the same name are numbered. Names that differ in case or in how their accents are encoded count as the
    same, since some file systems do not tell them apart.
    """
    names = [Path(os.path.normpath(p.absolute())).name or "model" for p in models]  # a path may end in ..
    keys = [unicodedata.normalize("NFC", n).casefold() for n in names]
    taken = {PAGE, *(k for k in keys if keys.count(k) == 1)}
    found = []
    for name, key in zip(names, keys, strict=True):
        if keys.count(key) > 1 or key == PAGE:
            i = next(i for i in itertools.count(1) if f"{key}-{i}" not in taken)
            taken.add(f"{key}-{i}")
            name = f"{name}-{i}"
        found.append(name)
    return found
