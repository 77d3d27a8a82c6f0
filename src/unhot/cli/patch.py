"""``unhot diff``, ``unhot apply`` and ``unhot revert``: a request as a patch, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli import options as opt

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Bundle; any other than the patch's is refused.")]
Patch = Annotated[Path, typer.Argument(metavar="PATCH", help="Folder that unhot diff wrote.")]


PublicKey = Annotated[
    Path | None, typer.Option("--key", help="Public key of the signer of the patch; another signature is refused.")
]


def diff(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="Bundle before the request.")],
    unlearned: Annotated[Path, typer.Argument(metavar="UNLEARNED", help="Bundle after the request.")],
    out: opt.Out,
    key: Annotated[Path | None, typer.Option("--key", help="Private key to sign the patch with.")] = None,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Write what a request changed in a model as a patch.

    unhot apply and unhot revert use it.
    """
    from unhot.cli.output import note, say
    from unhot.deletion.keys import read_private
    from unhot.deletion.patch import described
    from unhot.deletion.patch import diff as make
    from unhot.files import check_free

    check_free(out)
    record = make(original, unlearned, out, None if key is None else read_private(key))
    say(record.to_json() if json else f"Kept {described(record)}. Wrote {out}.")
    if not record.requests:
        note(
            f"Note: {unlearned} has no certified request that {original} does not have, so the model that the patch "
            "leads to has none. Certify it, then make the patch again."
        )


def apply(
    model: Model, patch: Patch, out: opt.Out, key: PublicKey = None, quiet: opt.Quiet = False, json: opt.Json = False
) -> None:
    """Apply a patch to the model before a request.

    The result is the model after the request, bit for bit.
    """
    from unhot.cli.output import note, say
    from unhot.deletion.patch import apply as make
    from unhot.files import check_free

    check_free(out)
    record = make(model, patch, out, _public(patch, key))
    said = f"Applied {patch}: the weights are {record.after_sha256[:12]}, as they were. Wrote {out}."
    say(record.to_json() if json else said)
    if not record.requests:
        note(
            f"Note: the patch holds no certified request, so the ledger of {out} has no line of it. Certify {out}, or "
            "make the patch again of the model that was certified."
        )


def revert(
    model: Model, patch: Patch, out: opt.Out, key: PublicKey = None, quiet: opt.Quiet = False, json: opt.Json = False
) -> None:
    """Undo a request by its patch.

    The result is the model before the request, bit for bit.
    """
    from unhot.cli.output import say
    from unhot.deletion.patch import revert as make
    from unhot.files import check_free

    check_free(out)
    record = make(model, patch, out, _public(patch, key))
    said = f"Reverted {patch}: the weights are {record.before_sha256[:12]}, as they were. Wrote {out}."
    say(record.to_json() if json else said)


def _public(patch: Path, key: Path | None) -> SSlibKey | None:
    """Read the key that a patch is checked with; a signature that is not checked is said."""
    from unhot.cli.output import note
    from unhot.deletion.keys import read_public
    from unhot.deletion.patch import SIGNED

    if key is not None:
        return read_public(key)
    if (patch / SIGNED).exists():
        note(f"Note: the signature of {patch} was not checked. --key PUBLIC checks it.")
    return None
