"""Raw scores of single images, kept beside the record so that others can attack with them, too."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unhot.escaping import csv_cell
from unhot.records.audit import ScoresInfo, Split, Subject

FILE = "scores.csv"


class Score(NamedTuple):
    """What one model's output says about one image of a forgotten class; the columns of ``scores.csv``.

    Attributes:
        subject: The model.
        run: Which of several retrained models, from 0.
        split: Train images are the members, test images the others.
        image: What the image is called in its data set: its position or its file.
        class_index: Index of its class in the original model.
        loss: Cross-entropy, nats.
        confidence: The highest probability.
        modified_entropy: The modified entropy, nats.
    """

    subject: Subject
    run: int
    split: Split
    image: int | str
    class_index: int
    loss: float
    confidence: float
    modified_entropy: float


def to_csv(scores: Iterable[Score]) -> bytes:
    """Return the table as UTF-8, a line for each score after one of names; numbers read back as they were.

    The name of a file that a spreadsheet would compute gets a quote before it.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Score._fields)
    writer.writerows(map(csv_cell, score) for score in scores)
    return text.getvalue().encode()


def info(scores: Sequence[Score]) -> ScoresInfo | None:
    """Describe the table for the record; None if there is none."""
    if not scores:
        return None
    first = (scores[0].subject, scores[0].run)
    images = Counter(s.split for s in scores if (s.subject, s.run) == first)
    return ScoresInfo(images=dict(images), sha256=hashlib.sha256(to_csv(scores)).hexdigest())
