"""``unhot demo``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from unhot.cli.options import Json, Seed, make_runtime

FORGOTTEN, SHOTS = 3, 16


def demo(
    out: Annotated[Path | None, typer.Option("--out", help="Output folder. [unhot-demo, or the next free one]")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Run a full example on bundled handwritten digits: train, forget a digit, retrain without it, audit."""
    from unhot.cli.output import note, say, table
    from unhot.data.samples import draw
    from unhot.data.source import load_source
    from unhot.evaluation.auditor import audit
    from unhot.files import staged_folder
    from unhot.methods.forget import forget
    from unhot.models.bundle import write_bundle
    from unhot.records.audit import Subject
    from unhot.report.tables import value_text
    from unhot.training import train

    out = out or _free(Path("unhot-demo"))
    runtime, digits = make_runtime(None, seed), load_source("digits")
    with staged_folder(out) as stage:
        note("Training a LeNet-5 on handwritten digits ...")
        original, trained = train(digits, "lenet5", seed=seed, runtime=runtime)
        note(f"Forgetting the digit {FORGOTTEN} from {SHOTS} of its images ...")
        result = forget(original, draw(digits.train_images, [FORGOTTEN], SHOTS, seed), seed=seed, runtime=runtime)
        note(f"Training again without the digit {FORGOTTEN}, to compare ...")
        retrained, again = train(digits, "lenet5", exclude=[FORGOTTEN], seed=seed + 1, runtime=runtime)
        found = audit(
            original=original,
            unlearned=result.classifier,
            retrained=retrained,
            classes=[FORGOTTEN],
            test=digits.test_images,
            train=digits.train,
            made_by=result.record,
            retrain_seconds=again.cost.seconds,
            runtime=runtime,
        )
        for name, model, record in (
            ("original", original, trained),
            ("unlearned", result.classifier, result.record),
            ("retrained", retrained, again),
        ):
            (stage / name).mkdir()
            write_bundle(model, stage / name, record)
        (stage / "audit").mkdir()
        found.write(stage / "audit")
    if json:
        say(found.record.to_json())
        return
    costs: dict[Subject, tuple[float, str]] = {
        "original": (trained.cost.seconds, f"{trained.train_images:,}"),
        "masked": (0.0, "0"),
        "unlearned": (result.record.cost.seconds, f"{SHOTS}"),
        "retrained": (again.cost.seconds, f"{again.train_images:,}"),
    }
    rows = [
        [
            s,
            value_text(found.get("forget_accuracy", s)),
            value_text(found.get("retain_accuracy", s)),
            f"{seconds:.2f}",
            used,
        ]
        for s, (seconds, used) in costs.items()
    ]
    columns = ["model", "forget accuracy", "retain accuracy", "seconds", "images used"]
    table(f"The digit {FORGOTTEN}, forgotten (test images, 95 % intervals)", columns, rows)
    say(f"Models, records and the audit are in {out}.")


def _free(base: Path) -> Path:
    """Return the first of base, base-2, base-3, ... that does not exist."""
    paths = itertools.chain([base], (base.with_name(f"{base.name}-{i}") for i in itertools.count(2)))
    return next(p for p in paths if not p.exists())
