"""The signature of a model's folder that model-signing checks, beside the record.

Source: OpenSSF Model Signing (https://github.com/sigstore/model-transparency), whose package signs and checks. It takes
keys of ECDSA, and no others of those that sign records.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from unhot.errors import InputError, first_line
from unhot.packages import needed
from unhot.records.ledger import LEDGER

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

EXTRA = "model-signing"
SIGNATURE = "model.sig"

MOST_SAID = 100  # characters of an error of model-signing, which ends in digests as Python shows bytes

FolderSigner = Callable[[Path], bytes]


def folder_signer(path: Path, signer: CryptoSigner) -> FolderSigner | None:
    """Return what signs folders with a private key; None if model-signing is not installed, or takes no such key.

    Args:
        path: The file of the key.
        signer: The key.
    """
    if not _is_taken(signer.public_key):
        return None
    if not_installed() is not None:
        return None
    hashing, signing = needed(EXTRA, "model_signing.hashing", "model_signing.signing")

    def sign(folder: Path) -> bytes:
        # the ledger goes on after the signature, and what is hidden is of who writes it now
        passing = [LEDGER, *(p.name for p in folder.iterdir() if p.name.startswith("."))]
        with TemporaryDirectory() as place:
            out = Path(place) / SIGNATURE
            how = signing.Config().set_hashing_config(hashing.Config().set_ignored_paths(paths=passing))
            try:
                how.use_elliptic_key_signer(private_key=path).sign(folder, out)
            except ValueError as error:  # a link, or what is neither a file nor a folder
                raise InputError(f"model-signing cannot sign {folder}: {first_line(error)}.") from error
            return out.read_bytes()

    return sign


def not_installed() -> str | None:
    """Say that model-signing, or what it needs, is not installed; None if it is."""
    try:
        needed(EXTRA, "model_signing.signing")
    except InputError as error:
        return str(error)
    return None


def check_folder(folder: Path, signature: Path, key: SSlibKey) -> None:
    """Check the signature of a folder.

    Raises:
        InputError: The folder is not as it was signed, or was signed with another key, or model-signing is not there.
    """
    (verifying,) = needed(EXTRA, "model_signing.verifying")
    with TemporaryDirectory() as place:
        public = Path(place) / "key.pub"
        public.write_text(key.keyval["public"], encoding="ascii")
        try:
            verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, signature)
        except Exception as error:  # model-signing raises errors of many kinds
            said = first_line(error, MOST_SAID)
            raise InputError(f"{folder} is not the folder that {SIGNATURE} signs (model-signing: {said}).") from error


def _is_taken(key: SSlibKey) -> bool:
    return str(key.scheme).startswith("ecdsa-sha2-nistp")
