"""Key files: PEM, as OpenSSL and others write them; securesystemslib signs and checks with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from unhot.errors import InputError
from unhot.files import staged_folder
from unhot.packages import needed
from unhot.reading import read_text
from unhot.records.choices import KeyKind

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

EXTRA = "sign"
PRIVATE, PUBLIC = "unhot.key", "unhot.pub"
ONLY_OWNER = 0o600
KEY_BYTES = 2**16
KINDS = "an Ed25519, ECDSA or RSA key in PEM form"


def make_keys(out: Path, kind: KeyKind = "ed25519") -> str:
    """Write a new pair of keys to a folder that does not exist yet or is empty.

    ``unhot.key`` is the private one, not encrypted, that only its owner may read; ``unhot.pub`` is for everybody.

    Returns:
        The key id, by which signatures name the key.

    Raises:
        InputError: The extra ``sign`` is not installed.
        OutputError: The folder is taken or cannot be written.
    """
    signer_module, serialization = needed(
        EXTRA, "securesystemslib.signer", "cryptography.hazmat.primitives.serialization"
    )
    made = signer_module.CryptoSigner
    signer: CryptoSigner = made.generate_ecdsa() if kind == "ecdsa" else made.generate_ed25519()
    public = signer.public_key._crypto_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with staged_folder(out) as stage:
        handle = os.open(stage / PRIVATE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, ONLY_OWNER)
        with os.fdopen(handle, "wb") as file:
            file.write(signer.private_bytes)
        (stage / PUBLIC).write_bytes(public)
    return str(signer.public_key.keyid)


def read_private(path: Path) -> CryptoSigner:
    """Read a private key, to sign with.

    Raises:
        InputError: The file is not a private key that can be used, or the extra ``sign`` is not installed.
    """
    signer_module, serialization = needed(
        EXTRA, "securesystemslib.signer", "cryptography.hazmat.primitives.serialization"
    )
    text = read_text(path, KEY_BYTES)
    if "PUBLIC KEY" in text:
        raise InputError(f"{path} is a public key. Sign with the private one, which unhot keys writes as {PRIVATE}.")
    try:
        signer: CryptoSigner = signer_module.CryptoSigner(
            serialization.load_pem_private_key(text.encode(), password=None)
        )
    except TypeError as error:  # it is encrypted
        raise InputError(f"{path} is encrypted. Give a private key without a password.") from error
    except Exception as error:  # cryptography raises errors of several kinds
        raise InputError(f"{path} is not a private key that can be read. Give {KINDS}.") from error
    return signer


def read_public(path: Path) -> SSlibKey:
    """Read a public key, to check signatures with.

    Raises:
        InputError: The file is not a public key that can be used, or the extra ``sign`` is not installed.
    """
    signer_module, serialization = needed(
        EXTRA, "securesystemslib.signer", "cryptography.hazmat.primitives.serialization"
    )
    text = read_text(path, KEY_BYTES)
    if "PRIVATE KEY" in text:
        raise InputError(f"{path} is a private key. Check with the public one, which unhot keys writes as {PUBLIC}.")
    try:
        key: SSlibKey = signer_module.SSlibKey.from_crypto(serialization.load_pem_public_key(text.encode()))
    except Exception as error:  # cryptography raises errors of several kinds
        raise InputError(f"{path} is not a public key that can be read. Give {KINDS}.") from error
    return key
