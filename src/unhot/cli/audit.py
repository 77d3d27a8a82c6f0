"""``unhot audit``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from unhot.cli.options import (
    Arch,
    ArchOption,
    Classes,
    DataDir,
    Device,
    Download,
    Head,
    Json,
    Out,
    Seed,
    Size,
    TrustPickle,
    load_model,
    make_runtime,
    settings,
)
from unhot.errors import OptionError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

    from unhot.data.images import LabelledImages
    from unhot.evaluation.audit import Audit
    from unhot.record import ForgetRecord, InputSpec

COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class Requirement(NamedTuple):
    """A bound on a measurement of the unlearned model."""

    name: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read ``name<=bound``.

        Raises:
            OptionError: It has another form.
            UnknownNameError: There is no such measurement.
        """
        match = re.fullmatch(r"\s*([a-z][a-z0-9_]*)\s*(<=|>=|<|>)\s*([-+]?[0-9.]+(?:[eE][-+]?\d+)?)\s*", text)
        if match is None:
            raise OptionError(f"Expected --require 'name<=number' (or >=, <, >), got {text!r}.")
        from unhot.evaluation.audit import measures

        if match[1] not in measures():
            raise UnknownNameError("measurement", match[1], measures())
        return cls(match[1], match[2], float(match[3]))

    def unmet(self, audit: Audit) -> str | None:
        """Say why the requirement is not met; None if it is."""
        found = audit[self.name]
        if found.value is None:
            return f"{self.name} is absent: {found.absent_because}"
        if COMPARE[self.sign](found.value, self.bound):
            return None
        return f"{self.name} is {found.value:.4f}, required {self.sign} {self.bound:g}"


def used_images(train: LabelledImages | None, record: ForgetRecord, spec: InputSpec | None) -> Tensor | None:
    """Find the images that a method was given, by their digests, in the train split: uint8 (N, C, H, W), or None."""
    import torch

    keys = list(record.samples.indices)
    if train is None or spec is None or not all(isinstance(k, int) and k < len(train) for k in keys):
        return None
    found = train.select(torch.tensor(keys))
    return found.pixels(torch.arange(len(found)), spec) if found.digests() == record.samples.sha256 else None


def audit(
    original: Annotated[Path, typer.Option("--original", help="The model before: a bundle, or weights with --arch.")],
    unlearned: Annotated[Path, typer.Option("--unlearned", help="The model after.")],
    classes: Classes,
    data: Annotated[str, typer.Option("--data", help="A named data set, or a folder of class folders.")],
    out: Out,
    retrained: Annotated[
        list[Path], typer.Option("--retrained", help="A model trained without the classes; repeat for several.")
    ] = [],  # noqa: B006
    require: Annotated[
        list[str], typer.Option("--require", help="name<=number on the unlearned model; exit code 3 if not met.")
    ] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the attacks that train or optimise.")] = False,
    thumbnails: Annotated[
        bool, typer.Option(help="Show the images that the method was given, where they are in the data.")
    ] = True,
    seed: Seed = 0,
    arch: Arch = None,
    arch_option: ArchOption = [],  # noqa: B006
    image_size: Size = None,
    head: Head = None,
    trust_pickle: TrustPickle = False,
    data_dir: DataDir = None,
    download: Download = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Measure an unlearned model beside the original, the masked original and retrained models."""
    from unhot.cli.output import note, say, table
    from unhot.data.source import load_source, photo_input
    from unhot.evaluation.audit import audit as run
    from unhot.files import check_free
    from unhot.models.bundle import read_record
    from unhot.record import ForgetRecord, TrainRecord
    from unhot.report.tables import SUBJECTS, audit_rows

    requirements = [Requirement.parse(text) for text in require]
    check_free(out)
    source = load_source(data, data_dir, download)
    spec = photo_input(image_size) if image_size else source.input
    names = source.held_out.class_names
    models = [
        load_model(p, arch, settings(arch_option), spec, names, head, trust_pickle)
        for p in (original, unlearned, *retrained)
    ]
    made_by = read_record(unlearned, ForgetRecord)
    training = [r for p in retrained if (r := read_record(p, TrainRecord)) is not None]
    result = run(
        original=models[0],
        unlearned=models[1],
        retrained=models[2:],
        classes=classes,
        test=source.held_out,
        train=source.train,
        quick=quick,
        made_by=made_by,
        retrain_seconds=training[0].cost.seconds if training else None,
        runtime=make_runtime(device, seed),
    )
    if made_by is not None and thumbnails:
        result = replace(result, samples=used_images(source.train, made_by, models[0].input))
    result.save(out)
    if json:
        say(result.record.to_json())
    else:
        title = f"Forgotten: {', '.join(c.name for c in result.record.classes)} (95 % intervals)"
        table(title, ["measure", *SUBJECTS], audit_rows(result.record))
        say(f"Verdict: {result.record.verdict.label}.")
        for line in (*result.record.verdict.because, *result.record.verdict.flags):
            say(f"  {line}")
        say(f"Wrote {out}.")
    failed = [why for r in requirements if (why := r.unmet(result))]
    for why in failed:
        note(f"Not met: {why}.")
    raise typer.Exit(3 if failed else 0)
