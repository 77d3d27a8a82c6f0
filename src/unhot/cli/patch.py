"""``unhot diff``, ``unhot apply`` and ``unhot revert``: a request as a patch, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unhot.cli import options as opt

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Bundle; any other than the patch's is refused.")]
Patch = Annotated[Path, typer.Argument(metavar="PATCH", help="Folder that unhot diff wrote.")]


def diff(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="Bundle before.")],
    unlearned: Annotated[Path, typer.Argument(metavar="UNLEARNED", help="Bundle after.")],
    out: opt.Out,
    json: opt.Json = False,
) -> None:
    """Keep what a request changed in a model: a patch that unhot apply and unhot revert use."""
    from unhot.cli.output import say
    from unhot.deletion.patch import described
    from unhot.deletion.patch import diff as make
    from unhot.files import check_free

    check_free(out)
    record = make(original, unlearned, out)
    say(record.to_json() if json else f"Kept {described(record)}. Wrote {out}.")


def apply(model: Model, patch: Patch, out: opt.Out, json: opt.Json = False) -> None:
    """Make the model after a request of the model before, bit for bit."""
    from unhot.cli.output import say
    from unhot.deletion.patch import apply as make
    from unhot.files import check_free

    check_free(out)
    record = make(model, patch, out)
    said = f"Applied {patch}: the weights are {record.after_sha256[:12]}, as they were. Wrote {out}."
    say(record.to_json() if json else said)


def revert(model: Model, patch: Patch, out: opt.Out, json: opt.Json = False) -> None:
    """Make the model before a request of the model after, bit for bit; the request is undone by that."""
    from unhot.cli.output import say
    from unhot.deletion.patch import revert as make
    from unhot.files import check_free

    check_free(out)
    record = make(model, patch, out)
    said = f"Reverted {patch}: the weights are {record.before_sha256[:12]}, as they were. Wrote {out}."
    say(record.to_json() if json else said)
