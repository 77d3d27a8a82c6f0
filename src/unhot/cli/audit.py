"""``unhot audit``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
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
from unhot.evaluation import catalogue as metrics

if TYPE_CHECKING:
    from unhot.evaluation.audit import Audit

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
        if match[1] not in metrics:
            raise UnknownNameError("measurement", match[1], metrics)
        return cls(match[1], match[2], float(match[3]))

    def unmet(self, audit: Audit) -> str | None:
        """Say why the requirement is not met; None if it is."""
        found = audit[self.name]
        if found.value is None:
            return f"{self.name} is absent: {found.absent_because}"
        if COMPARE[self.sign](found.value, self.bound):
            return None
        return f"{self.name} is {found.value:.4f}, required {self.sign} {self.bound:g}"


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
    result = run(
        original=models[0],
        unlearned=models[1],
        retrained=models[2:],
        classes=classes,
        test=source.held_out,
        train=source.train,
        runtime=make_runtime(device, seed),
    )
    result.save(out)
    if json:
        say(result.record.to_json())
    else:
        title = f"Forgotten: {', '.join(c.name for c in result.record.classes)} (95 % intervals)"
        table(title, ["measure", *SUBJECTS], audit_rows(result.record))
        say(f"Wrote {out}.")
    failed = [why for r in requirements if (why := r.unmet(result))]
    for why in failed:
        note(f"Not met: {why}.")
    raise typer.Exit(3 if failed else 0)
