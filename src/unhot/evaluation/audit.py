"""Audit: what was measured, and the folder that it is kept in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from unhot.errors import UnknownNameError
from unhot.evaluation.scores import FILE, Score, to_csv
from unhot.files import staged_folder, write_atomic
from unhot.records.audit import AuditRecord, Measurement, Split, Subject
from unhot.report.page import write_report
from unhot.report.thumbnails import PIXELS


@dataclass(frozen=True)
class Audit:
    """What was measured.

    Attributes:
        record: Everything that ``audit.json`` holds.
        drawings: What each model draws for the forgotten classes, uint8 (N, C, H, W).
        samples: The images that the method was given, uint8 (N, C, H, W), where they are known and may be shown.
        scores: Membership scores of single images: ``scores.csv``.
    """

    record: AuditRecord
    drawings: Mapping[Subject, Tensor] = field(default_factory=dict, repr=False)
    samples: Tensor | None = field(default=None, repr=False)
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
        for m in self.record.measurements:
            if (m.name, m.subject, m.split) == (name, subject, split):
                return m
        raise UnknownNameError("measurement", name, dict.fromkeys(m.name for m in self.record.measurements))

    def save(self, out: str | Path) -> None:
        """Write ``audit.json``, ``report.html`` and what goes with them to a folder that is empty or not there yet.

        Raises:
            OutputError: The folder is taken, or the disk is full.
        """
        with staged_folder(Path(out)) as stage:
            self.write(stage)

    def write(self, folder: Path) -> None:
        """Write the files of :meth:`save` into a folder that exists."""
        self.record.write(folder / "audit.json")
        if self.scores:
            write_atomic(folder / FILE, to_csv(self.scores))
        for subject, pixels in self.drawings.items():
            _write_strip(pixels, folder / f"inversion-{subject}.png")
        if self.samples is not None:
            _write_strip(self.samples, folder / "samples.png")
        write_report(folder)


def strip(pixels: Tensor) -> Image.Image:
    """Return a row of images side by side, of pixels uint8 (N, C, H, W)."""
    row = torch.cat(list(pixels.cpu()), dim=2).permute(1, 2, 0).numpy()
    return Image.fromarray(row.squeeze(2) if row.shape[2] == 1 else row)


def _write_strip(pixels: Tensor, path: Path) -> None:
    """Write a row of images, unless there are more than a page would read."""
    if pixels[:, 0].numel() <= PIXELS:
        strip(pixels).save(path)
