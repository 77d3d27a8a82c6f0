"""``unhot demo``."""

from __future__ import annotations

import itertools
import json as jsonlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli.options import Json, Quiet, Seed, make_runtime

if TYPE_CHECKING:
    from unhot.evaluation.audit import Audit
    from unhot.models.classifier import Classifier
    from unhot.records.base import Record

FORGOTTEN, SHOTS = 3, 16
ARCH, WIDTH = "resnet9", 8  # it has batch normalisation, so that the default method is nhle-renew
METHODS = {"unlearned": "nhle-cwm", "renewed": "nhle-renew"}  # folder -> method
SHOWN = ("forget_accuracy", "retain_accuracy", "recovery_5_shot")


def demo(
    out: Annotated[Path | None, typer.Option("--out", help="Output folder. [unhot-demo, or the next free one]")] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train, forget and audit on bundled handwritten digits.

    A net is made to forget a digit, and compared with one that is trained without it. The digit is forgotten twice:
    once so that it is hidden, in a second or two, and once so that it is forgotten in the features, which takes longer.
    Audits show the difference.
    """
    from unhot.cli.output import note, say
    from unhot.data.samples import draw
    from unhot.data.source import load_source
    from unhot.evaluation.auditor import Auditor
    from unhot.files import staged_folder
    from unhot.methods.forget import forget
    from unhot.training import train

    out = out or _free(Path("unhot-demo"))
    runtime, digits = make_runtime(None, seed), load_source("digits")
    made: dict[str, tuple[Classifier, Record]] = {}
    with staged_folder(out) as stage:
        note("Training a small ResNet-9 on handwritten digits ...")
        trained_net = partial(train, digits, ARCH, options={"width": WIDTH}, runtime=runtime)
        made["original"] = original, trained = trained_net(seed=seed)
        samples = draw(digits.train_images, [FORGOTTEN], SHOTS, seed)
        results = {}
        for folder, method in METHODS.items():
            note(f"Forgetting the digit {FORGOTTEN} from {SHOTS} of its images with {method} ...")
            results[folder] = forget(original, samples, method=method, seed=seed, runtime=runtime)
            made[folder] = results[folder].classifier, results[folder].record
        note(f"Training again without the digit {FORGOTTEN}, to compare ...")
        retrained, again = trained_net(exclude=[FORGOTTEN], seed=seed + 1)
        made["retrained"] = retrained, again
        auditor = Auditor(original, retrained=retrained, test=digits.test_images, train=digits.train, runtime=runtime)
        audits: dict[str, Audit] = {}
        for folder, result in results.items():
            note(f"Auditing what {METHODS[folder]} left ...")
            audits[folder] = auditor.audit(
                result.classifier, [FORGOTTEN], made_by=result.record, retrain_seconds=again.cost.seconds
            )
        _write(stage, made, audits)
    if json:
        say(jsonlib.dumps({METHODS[name]: a.record.model_dump(mode="json") for name, a in audits.items()}))
        return
    _summarise(audits, trained.cost.seconds, again.cost.seconds)
    say(f"Models, records and audits are in {out}; {out / 'report.html'} compares the two.")


def _write(stage: Path, made: dict[str, tuple[Classifier, Record]], audits: dict[str, Audit]) -> None:
    """Write the models, their audits, and the page of both audits."""
    from unhot.models.bundle import write_bundle
    from unhot.report.audited import Audited
    from unhot.report.page import render

    for name, (model, record) in made.items():
        (stage / name).mkdir()
        write_bundle(model, stage / name, record)
    for name, audit in audits.items():
        (stage / f"audit-{name}").mkdir()
        audit.write(stage / f"audit-{name}")
    page = render([Audited.of(a.record, a.images, METHODS[name]) for name, a in audits.items()])
    (stage / "report.html").write_text(page, encoding="utf-8")


def _summarise(audits: dict[str, Audit], train_seconds: float, retrain_seconds: float) -> None:
    """Print the models in a table, and the verdict on each method."""
    from unhot.cli.output import table
    from unhot.evaluation.verdict import HOLDERS
    from unhot.records.audit import Subject
    from unhot.report.tables import value_text

    first = next(iter(audits.values()))

    def row(name: str, audit: Audit, subject: Subject, seconds: float | None) -> list[str]:
        return [name, *(value_text(audit.get(m, subject)) for m in SHOWN), f"{seconds:.1f}"]

    table(
        f"The digit {FORGOTTEN}, forgotten (test images, 95 % intervals)",
        ["model", "forget accuracy", "retain accuracy", "recovered from 5 images", "seconds"],
        [
            row("original", first, "original", train_seconds),
            row("masked", first, "masked", 0.0),
            *(row(METHODS[n], a, "unlearned", a.record.cost.forget_seconds) for n, a in audits.items()),
            row("retrained", first, "retrained", retrain_seconds),
        ],
    )
    judged = {METHODS[name]: a.record.verdict.holders for name, a in audits.items()}
    table(
        "What the holder of each can still recover of it",
        ["verdict on", *HOLDERS],
        [[method, *(found[holder].label for holder in HOLDERS)] for method, found in judged.items()],
        text=1 + len(HOLDERS),
    )


def _free(base: Path) -> Path:
    """Return the first of base, base-2, base-3, ... that does not exist."""
    paths = itertools.chain([base], (base.with_name(f"{base.name}-{i}") for i in itertools.count(2)))
    return next(p for p in paths if not p.exists())
