"""Write the tables of README.md and docs/ from the committed records of benchmarks/records.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; what is between them is replaced.

    python docs/make_tables.py [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

from blocks import ROOT, audits, catalogue, costs, deep, failures, guard, trials
from blocks.records import promised, results

from unhot.bench import tables

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

TABLES: dict[str, Callable[[], str]] = {
    "promise": lambda: tables.promise(promised()),
    "promise-summary": lambda: tables.summary(promised()),
    "features": costs.features,
    "features-all": lambda: tables.features(promised()),
    "budget": lambda: tables.budget(results("budget")),
    "at-once": lambda: tables.at_once(results("classes")),
    "in-sequence": lambda: tables.in_sequence(results("sequence")),
    "cost-growth": costs.cost_growth,
    "leaderboard": lambda: tables.leaderboard(catalogue.catalogue_results()),
    "paired": lambda: tables.paired(results("catalogue-*"), "nhle-cwm"),
    "trials": lambda: tables.leaderboard(results("trials-*")),
    "compared": catalogue.compared,
    "departures": catalogue.departures,
    "head-to-head": catalogue.head_to_head,
    "guard-met": guard.guard_met,
    "guard-targets": lambda: guard.targets(guard.guard_grids()),
    "guard-seeds": lambda: guard.targets(results("guard-seeds")),
    "guard-stages": guard.guard_stages,
    "guard-rivals": lambda: tables.leaderboard(guard.guard_grids()),
    "guard-budget": lambda: tables.budget(results("guard-budget")),
    "guard-at-once": lambda: tables.at_once(results("guard-classes")),
    "guard-ablation": lambda: tables.budget(results("guard-ablation")),
    "encodings": lambda: trials.trials(
        lambda c: "encoding" in c["options"], lambda c: [c["options"]["encoding"], str(c["shots"])]
    ),
    "settings": trials.settings,
    "deep": deep.deep,
    "deep-full": deep.deep_full,
    "deep-met": deep.deep_met,
    "deep-verdicts": deep.deep_verdicts,
    "verdict-summary": deep.verdict_summary,
    "failures": failures.failures,
    "models-read": audits.models_read,
    "plain-nets": costs.plain,
    "speed": costs.speed,
    "imagenet": costs.imagenet,
    "full-audit": audits.full_audit,
    "audit-speed": costs.audit_speed,
    "measures": audits.measures,
    "verdicts": audits.verdicts,
    "partial-references": audits.partial_references,
    "tricks": audits.tricks,
}


def filled(text: str) -> str:
    """Return a page with its tables made anew."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]]()}\n<!-- end -->"

    return re.sub(r"(<!-- table: ([a-z-]+) -->)\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> int:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--check", action="store_true", help="write nothing; fail if a page would change")
    check = args.parse_args().check
    stale = [p for p in PAGES if filled(p.read_text()) != p.read_text()]
    for page in stale:
        print(("stale: " if check else "written: ") + str(page.relative_to(ROOT)))
        if not check:
            page.write_text(filled(page.read_text()))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
