"""An audit as pages are made of it: from memory, or from the folder that one wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import get_args

from unhot.files import sha256 as file_sha256
from unhot.records.audit import AuditRecord, PictureFile, Pictures, Subject
from unhot.report.images import Images, read_png

RECORD, SAMPLES = "audit.json", "samples.png"


@dataclass(frozen=True)
class Audited:
    """A record with its pictures.

    Attributes:
        name: A name that is unique among the audits of a page.
        images: The pictures by the names of their files.
        digest: The SHA-256 of ``audit.json``.
    """

    name: str
    record: AuditRecord
    images: Mapping[str, Images]
    digest: str

    @classmethod
    def of(cls, record: AuditRecord, images: Mapping[str, Images], name: str = "audit") -> Audited:
        """Take what an audit has in memory."""
        return cls(name, record, images, sha256(record.to_json().encode()).hexdigest())

    @classmethod
    def read(cls, folder: Path, name: str | None = None) -> Audited:
        """Read a folder; a picture that is not there any more is left out.

        Raises:
            InputError: It has no ``audit.json``, or one that cannot be used, or other pictures than it names.
        """
        path = folder / RECORD
        record = AuditRecord.read(path)
        if record.schema_version == 1:
            record = _with_pictures(record, folder)
        found = {f.file: read_png(folder / f.file, f) for f in record.picture_files}
        images = {file: pixels for file, pixels in found.items() if pixels is not None}
        return cls(name or folder.absolute().name, record, images, file_sha256(path))


def _with_pictures(record: AuditRecord, folder: Path) -> AuditRecord:
    """Name the pictures that lie beside a record of version 1, which does not: ATTACK-SUBJECT.png, samples.png."""
    drawn: dict[str, dict[Subject, PictureFile]] = {}
    subjects: tuple[Subject, ...] = get_args(Subject)
    for attack in record.attacks:
        for subject in subjects:
            for file in _described(folder, f"{attack}-{subject}.png"):
                drawn.setdefault(attack, {})[subject] = file
    pictures = tuple(Pictures(name=name, files=files) for name, files in drawn.items())
    samples = next(_described(folder, SAMPLES), None)
    return record.model_copy(update={"pictures": pictures, "samples": samples})


def _described(folder: Path, file: str) -> Iterator[PictureFile]:
    if Path(file).name == file and (images := read_png(folder / file)) is not None:
        count, _, height, width = images.shape
        yield PictureFile(file=file, images=count, height=height, width=width)
