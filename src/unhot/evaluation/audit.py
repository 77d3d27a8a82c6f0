"""Audit: what was measured, and the folder that it is kept in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unhot.errors import UnknownNameError
from unhot.evaluation.attacks import Caption
from unhot.evaluation.attacks import catalogue as attacks
from unhot.evaluation.scores import FILE, Score, to_csv
from unhot.files import staged_folder, write_atomic
from unhot.records.audit import PIXELS, AuditRecord, Measurement, PictureFile, Pictures, Split, Subject


@dataclass(frozen=True)
class Audit:
    """What was measured.

    Attributes:
        record: Everything that ``audit.json`` holds.
        images: What the record names of pictures, uint8 (N, C, H, W), by file.
        scores: Membership scores of single images: ``scores.csv``.
    """

    record: AuditRecord
    images: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    scores: tuple[Score, ...] = field(default=(), repr=False)

    def __getitem__(self, name: str) -> Measurement:
        """Return a measurement of the unlearned model, on test images where there are both.

        Raises:
            UnknownNameError: There is none of that name.
        """
        return self.get(name)

    def get(self, name: str, subject: Subject = "unlearned", split: Split = "test") -> Measurement:
        """Return one measurement.

        Raises:
            UnknownNameError: There is none of that name.
        """
        if (found := self.record.find(name, subject, split)) is None:
            raise UnknownNameError("measurement", name, dict.fromkeys(m.name for m in self.record.measurements))
        return found

    def with_samples(self, pixels: Tensor | None) -> Audit:
        """Return the audit with the images that the method was given, uint8 (N, C, H, W), where they are known."""
        if pixels is None or (file := described("samples.png", pixels)) is None:
            return self
        record = self.record.model_copy(update={"samples": file})
        return replace(self, record=record, images={**self.images, file.file: pixels.cpu().numpy()})

    def save(self, out: str | Path) -> None:
        """Write ``audit.json``, ``report.html`` and what goes with them to a folder that is empty or not there yet.

        Raises:
            OutputError: The folder is taken, or the disk is full.
        """
        with staged_folder(Path(out)) as stage:
            self.write(stage)

    def write(self, folder: Path) -> None:
        """Write the files of :meth:`save` into a folder that exists."""
        from unhot.report.page import write_audit  # the one import of a higher room: saving an audit draws its page

        if self.scores:
            write_atomic(folder / FILE, to_csv(self.scores))
        write_audit(folder, self.record, self.images)


def name_files(
    drawn: Mapping[tuple[str, str], Mapping[Subject, Tensor]],
) -> tuple[tuple[Pictures, ...], dict[str, NDArray[np.uint8]]]:
    """Give each picture that attacks drew a file.

    Args:
        drawn: Images, uint8 (N, C, H, W), by model, of each attack and name of a picture.

    Returns:
        What the record says of them, and the images by file.
    """
    pictures, images, stems = list[Pictures](), dict[str, NDArray[np.uint8]](), set[str]()
    for (attack, name), models in drawn.items():
        stem = re.sub(r"[^a-z0-9_]+", "-", name.lower()) or "-"
        while stem in stems:
            stem += "_"
        stems.add(stem)
        caption = attacks.entry(attack).pictures.get(name, Caption())
        files = {s: f for s, pixels in models.items() if (f := described(f"{stem}-{s}.png", pixels)) is not None}
        if files:
            pictures.append(Pictures(name=name, title=caption.title, caption=caption.text, files=files))
            images |= {f.file: models[s].cpu().numpy() for s, f in files.items()}
    return tuple(pictures), images


def described(file: str, pixels: Tensor) -> PictureFile | None:
    """Describe images, uint8 (N, C, H, W), as a file; None if they are none, or more than a page would read."""
    count, _, height, width = pixels.shape
    if not 0 < count * height * width <= PIXELS:
        return None
    return PictureFile(file=file, images=count, height=height, width=width)
