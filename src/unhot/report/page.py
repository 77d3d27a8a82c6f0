"""The page of one audit, or of several side by side, and the folder that an audit leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from unhot.escaping import terminal
from unhot.evaluation.verdict import MEANINGS
from unhot.files import write_atomic
from unhot.records.audit import AuditRecord
from unhot.report.audited import RECORD, Audited
from unhot.report.comparison import compared
from unhot.report.content import content
from unhot.report.images import Images, to_png
from unhot.report.markdown import model_card, summary
from unhot.report.tables import SUBJECTS, class_names, interval, number
from unhot.report.texts import SUBJECTS as SUBJECT_TEXTS
from unhot.version import __version__


def write_audit(folder: Path, record: AuditRecord, images: Mapping[str, Images]) -> None:
    """Write ``audit.json`` with its pictures, ``report.html``, ``summary.md`` and ``model-card.md``.

    Args:
        folder: It exists.
        record: The audit.
        images: Those that the record names, by file.

    Raises:
        OutputError: The disk is full.
    """
    audit = Audited.of(record, images)
    record.write(folder / RECORD)
    for file, pixels in images.items():
        write_atomic(folder / file, to_png(pixels))
    pages = {"report.html": render([audit]), "summary.md": summary(record), "model-card.md": model_card(record)}
    for name, text in pages.items():
        write_atomic(folder / name, text.encode())


def load(folders: Sequence[Path]) -> list[Audited]:
    """Read the folders of several audits; those of the same name are numbered.

    Raises:
        InputError: One has no ``audit.json``, or one that cannot be used.
    """
    names = [f.absolute().name for f in folders]
    numbered = [f"{n} ({names[: i + 1].count(n)})" if names.count(n) > 1 else n for i, n in enumerate(names)]
    return [Audited.read(f, n) for f, n in zip(folders, numbered, strict=True)]


def render(audits: Sequence[Audited]) -> str:
    """Return the page of one or several audits as HTML.

    Args:
        audits: At least one.
    """
    page = template("page.html.j2").render(
        contents=[content(a, f"a{i}") for i, a in enumerate(audits, 1)],
        comparison=compared(audits) if len(audits) > 1 else None,
        subjects=SUBJECTS,
        version=__version__,
    )
    return page if page.endswith("\n") else page + "\n"


def template(name: str) -> Template:
    """Return a template of this room: what it shows is escaped, and a name that is not there is an error."""
    environment = Environment(
        loader=PackageLoader("unhot.report", ""),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "number": number,
        "interval": interval,
        "subject_texts": SUBJECT_TEXTS,
        "meanings": MEANINGS,
    }
    environment.filters["class_names"] = class_names
    return environment.get_template(name)


def _printable(value: object) -> object:
    """Show what would turn text around, or not be seen, as it is written; markup is escaped by ``autoescape``."""
    return terminal(value) if type(value) is str else value
