"""Tables of all methods side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from blocks.records import RECORDS, read
from unhot import methods
from unhot.bench import tables
from unhot.records.results import CellRow, Results, merged

CATALOGUE_DATA = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}


CATALOGUE_MEASURES = ("forget_accuracy", "retain_drop_masked", "probe_accuracy", "prototype_attack_accuracy")


class Catalogued(NamedTuple):
    """A method in one of its modes, and its cells in the catalogue's grids in the one setting that is reported."""

    title: str
    name: str
    cells: list[CellRow]
    timed: Results

    @property
    def steps(self) -> str:
        """Mean number of steps."""
        steps = [r.steps for r in self.cells if r.steps is not None]
        return f"{statistics.mean(steps):.0f}" if steps else "–"

    @property
    def passes(self) -> str:
        """Time as a multiple of one pass over the samples."""
        return tables.passes(self.cells, self.timed.timings) if self.cells else "–"


def catalogued() -> list[Catalogued]:
    """Return every method of the catalogue, with a guard and without one as two."""
    found, rows = catalogue_results(), []
    for name in methods.catalogue:
        of_method = [r for r in found.rows if r.method == name]
        for guarded in sorted({"guarded" in r.options for r in of_method} or {False}):  # the two are never mixed
            mine = [r for r in of_method if ("guarded" in r.options) == guarded]
            chosen = [r for data in CATALOGUE_DATA for r in _best(r for r in mine if r.dataset == data)]
            rows.append(Catalogued(name + " (guarded)" * guarded, name, chosen, found))
    return rows


def compared() -> str:
    """One row a method and data set, with a column for each measure, to be filtered and sorted."""
    rows = []
    for data, title in CATALOGUE_DATA.items():
        there = [r for r in catalogue_results().rows if r.dataset == data]
        rows += [[s, title, *"––––", *_measured(there, s), "–"] for s in ("masked", "retrained")]
        for m in catalogued():
            known, mine = methods.catalogue.known(m.name), [r for r in m.cells if r.dataset == data]
            if mine:
                one = m._replace(cells=mine)
                row = [m.title, title, known.reads, known.origin or "–", one.steps, one.passes]
                rows.append([*row, *_measured(mine, "unlearned"), _departs_from(m.name)])
    heads = ["method", "data", "reads", "published", "steps", "passes", *tables.heads(*CATALOGUE_MEASURES)]
    return tables.grid([*heads, "departs from"], rows, text=4)


def _best(rows: Iterable[CellRow]) -> list[CellRow]:
    """Return the cells of a method in the one of its settings that is reported."""
    return [r for chosen in tables.selected(rows).values() for r in chosen]


def catalogue_results() -> Results:
    return merged(sorted([*RECORDS.glob("bench-catalogue-*.json"), *RECORDS.glob("bench-retained-*.json")]))


def _departs_from(name: str) -> str:
    """Say in a word or two what a method departs from."""
    return ", ".join(what for what, text in methods.get(name).departures._asdict().items() if text) or "–"


def _measured(rows: Sequence[CellRow], subject: str) -> list[str]:
    """Return the measures of the catalogue for a subject, in the mean over classes."""
    found = [tables.of_classes(rows, lambda r, m=m: r.values.get(m, {}).get(subject)) for m in CATALOGUE_MEASURES]
    return [f"{statistics.mean(values):.3f}" if values else "–" for values in found]


def departures() -> str:
    """One line a method: what it does otherwise than its paper or released code."""
    said = {name: str(methods.get(name).departures) for name in methods.catalogue}
    return "\n".join(f"- **{name}**: {text or 'none stated.'}" for name, text in said.items())


def head_to_head() -> str:
    """One row a method whose public code was run beside ours, and below what differs."""
    found = read("head-to-head")["comparisons"]
    rows = []
    for c in found:
        figures = "; ".join(f"{k} {_number(v)}" for k, v in c["figures"].items())
        effects = "; ".join(
            f"{whose} {e['forget_accuracy']:.3f} / {e['retain_accuracy']:.3f}" for whose, e in c["effects"].items()
        )
        project = f"{c['project']} at {c['commit'][:7]} ({c['licence']})"
        seconds = f"{c['seconds']:.2f} / {c['seconds_theirs']:.2f}"
        row = [c["method"], project, c["compared"], figures, effects or "–", seconds, f"{c['seconds_ratio']:.2f}"]
        rows.append(row)
    columns = ["method", "public code", "compared", "figures", "forget / retained accuracy"]
    differ = "\n".join(f"- {c['method']}: {c['departs']}." for c in found)
    return tables.grid([*columns, "seconds: ours / theirs", "ratio"], rows) + "\n\nWhat differs:\n\n" + differ


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
