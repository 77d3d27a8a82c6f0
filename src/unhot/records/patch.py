"""``patch.json``: what differs between two bundles, so that one can be made of the other."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from unhot.records.base import Record, Sha256, Stored, check_once
from unhot.records.ledger import Line


class Form(Stored):
    """Number type, as safetensors files name it, and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]


class TensorChange(Stored):
    """A tensor that differs; None where one side does not have it.

    Where both sides have one form, ``tensors.safetensors`` holds the exclusive or of their bits as ``xor/NAME``,
    otherwise the bytes of each side as ``before/NAME`` and ``after/NAME``.
    """

    name: str
    before: Form | None
    after: Form | None


class Side(Stored):
    """A file of one of the two bundles.

    Attributes:
        sha256: Its SHA-256.
        text: Its text, where it differs from that of the other side; of weights the header, as JSON.
    """

    sha256: Sha256
    text: str | None = None


class FileChange(Stored):
    """A file of the bundles; None where one of them does not have it."""

    name: Literal["model.safetensors", "bundle.json", "graph.json", "record.json"]
    before: Side | None
    after: Side | None


class PatchRecord(Record):
    """``patch.json``.

    Attributes:
        before_sha256: Digest of the weights of the one bundle.
        after_sha256: Digest of the weights of the other.
        files: All files of the bundles.
        tensors: The tensors that differ.
        requests: Lines of the ledger that are beside the other bundle only.
    """

    kind: Literal["patch"] = "patch"
    before_sha256: Sha256
    after_sha256: Sha256
    files: tuple[FileChange, ...] = Field(min_length=1)
    tensors: tuple[TensorChange, ...]
    requests: tuple[Line, ...] = ()
    tensors_sha256: Sha256

    @model_validator(mode="after")
    def _every_name_once(self) -> Self:
        check_once("file", (f.name for f in self.files))
        check_once("tensor", (t.name for t in self.tensors))
        return self
