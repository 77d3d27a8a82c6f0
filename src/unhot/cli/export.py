"""``unhot export``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli import options as opt
from unhot.errors import InputError
from unhot.models.formats.exports import catalogue

if TYPE_CHECKING:
    from unhot.records.export import ExportRecord


def export(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE", help="Bundle, such as unhot forget writes, or folder of transformers or timm."
        ),
    ],
    to: Annotated[str, typer.Option("--to", help=f"Format: {', '.join(catalogue.builtin)}.")],
    out: Annotated[Path, typer.Option("--out", help="Output file, or folder; it must not exist yet.")],
    keep_keys: Annotated[
        bool, typer.Option("--keep-keys", help="Keep exactly the names of weights that came in: add no bias.")
    ] = False,
    arch: Annotated[
        str | None,
        typer.Option("--arch", help="Code that builds the net, for a bundle that needs it: package.module:factory."),
    ] = None,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Write a model in a form that other programs load.

    What was written is loaded again, and compared with the model on random images, before it is put in its place.
    """
    from unhot.cli.output import note, say
    from unhot.models.bundle import load
    from unhot.models.formats.exports.export import export as write

    catalogue.known(to)
    if bundle.is_file():
        raise InputError(f"{bundle} is a file. Give a bundle, such as unhot forget makes of a file of weights.")
    record = write(load(bundle, trust_arch=arch), to, out, keep_keys=keep_keys)
    if json:
        say(record.to_json())
        return
    for line in _summary(record):
        say(line)
    if record.stripped:
        note(f"The names that came in began with {record.stripped!r}. Export with --keep-keys to have them so again.")
    if record.added:
        note(
            f"{', '.join(record.added)} was not among the weights of the original: it keeps the class from being "
            "answered. Build the net with it, or export with --keep-keys."
        )


def _summary(record: ExportRecord) -> Iterator[str]:
    """Say what was written and how it compares."""
    found = record.comparison
    yield f"Wrote {record.out} ({record.to}, {len(record.classes)} classes)."
    difference = f"{found.largest_difference:.0e}" if found.largest_difference else "none"
    yield (
        f"Largest difference from the bundle's logits on {found.images} random images: {difference} "
        f"(accepted: {found.tolerance:.0e})."
    )
    if record.masked:
        yield f"It never answers {', '.join(c.name for c in record.masked)}."
