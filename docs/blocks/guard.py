"""Tables of nhle-guard beside its targets."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from blocks.records import NO_GAP, RECORDS, share, spread
from unhot.bench import tables
from unhot.evaluation.catalogue import BUILTIN
from unhot.records.results import CellRow, Results, merged

GUARD = "nhle-guard"


GUARD_GRIDS = ("guard-fashion-mnist", "guard-cifar10", "guard-svhn", "guard-cifar100")


def guard_grids() -> Results:
    """Read the grids that nhle-guard is held to its targets by."""
    return merged(RECORDS / f"bench-{g}.json" for g in GUARD_GRIDS)


def targets(measured: Results) -> str:
    names = ("retain_drop_masked", "worst_class_drop")
    compared = (r for r in measured.rows if r.method in ("nhle-cwm", GUARD) and r.error is None)
    mode = {("nhle-cwm", False): "nhle-cwm", (GUARD, False): "bare", (GUARD, True): "guarded"}
    groups = tables.grouped(
        compared,
        lambda r: (f"{r.dataset}, {r.arch}", ", ".join(r.names), mode[r.method, "guarded" in r.options]),
    )
    rows = []
    for key, found in sorted(groups.items()):
        row = [*key, str(len(found)), spread([r.before_cut.get("forget_accuracy") for r in found])]
        row += [spread([r.values[n]["unlearned"] for r in found]) for n in names]
        over = [v["unlearned"] - v["retrained"] for v in (r.values["prototype_attack_accuracy"] for r in found)]
        row += [spread(over), *(_closed(found, n) for n in ("knn_accuracy", "probe_accuracy"))]
        for n in ("class_mia_gap", "output_js_to_retrained"):
            was, now = (statistics.mean(r.values[n][s] for r in found) for s in ("masked", "unlearned"))
            row.append(f"{was:.3f} / {now:.3f}")
        rows.append(row)
    columns = ["data and net", "forgotten", "mode", "draws", "forget accuracy before the cut"]
    columns += [*tables.heads(*names), "prototype attack, over retrained", "kNN gap closed"]
    return tables.grid([*columns, "probe gap closed", "class MIA gap: masked / now", "JS: masked / now"], rows)


class Goal(NamedTuple):
    """A target of nhle-guard: the measure, over cells or classes, and its bound in guarded and in bare mode."""

    title: str
    bounds: tuple[float, float]
    at_most: bool
    found: Callable[[list[CellRow]], float | None]


def guard_met() -> str:
    """One row a target, one column a data set and mode: what was found, and whether that meets the target."""
    found = guard_grids().rows
    groups = {
        (data, mode): [
            r for r in found if (r.dataset, r.method, r.options.get("guarded", False)) == (data, GUARD, mode)
        ]
        for mode in (True, False)
        for data in dict.fromkeys(r.dataset for r in found)
    }
    rows = []
    for goal in GOALS:
        sign = "<=" if goal.at_most else ">="
        row = [goal.title, *(f"{sign} {bound:g}" for bound in goal.bounds)]
        for (_, guarded), mine in groups.items():
            value, bound = goal.found(mine), goal.bounds[not guarded]
            met = value is not None and (value <= bound if goal.at_most else value >= bound)
            row.append("–" if value is None else f"{value:.3f}: {'met' if met else 'missed'}")
        rows.append(row)
    titles = [f"{data}, {'guarded' if guarded else 'bare'}" for data, guarded in groups]
    return tables.grid(["measure", "target, guarded", "target, bare", *titles], rows)


def _unlearned(name: str) -> Callable[[CellRow], float | None]:
    return lambda r: r.values.get(name, {}).get("unlearned")


def _over_retrained(rows: list[CellRow]) -> float:
    """Return by how much the prototype attack exceeds that on the retrained model, in the class where it is most."""
    name = "prototype_attack_accuracy"
    return max(tables.of_classes(rows, lambda r: r.values[name]["unlearned"] - r.values[name]["retrained"]))


def _least_closed(name: str) -> Callable[[list[CellRow]], float | None]:
    """Find the least share of a gap that is closed, over the classes where there is one."""

    def found(rows: list[CellRow]) -> float | None:
        means = [
            [statistics.mean(r.values[name][s] for r in mine) for s in ("original", "unlearned", "retrained")]
            for mine in tables.grouped(rows, lambda r: r.classes).values()
        ]
        return min(((was - now) / (was - goal) for was, now, goal in means if was - goal >= NO_GAP), default=None)

    return found


def _mean_of(name: str) -> Callable[[list[CellRow]], float]:
    return lambda rows: statistics.mean(tables.of_classes(rows, _unlearned(name)))


def _most_of(name: str) -> Callable[[list[CellRow]], float]:
    return lambda rows: max(r.values[name]["unlearned"] for r in rows)


GOALS = (
    Goal(
        "forget accuracy before the cut, most",
        (0.01, 0.01),
        True,
        lambda rows: max(r.before_cut["forget_accuracy"] for r in rows),
    ),
    Goal("forget accuracy, most", (0.0, 0.0), True, _most_of("forget_accuracy")),
    Goal("retain drop, masked, mean", (0.002, 0.003), True, _mean_of("retain_drop_masked")),
    Goal("worst class drop, mean", (0.02, 0.025), True, _mean_of("worst_class_drop")),
    Goal("worst class drop, most", (0.035, 0.04), True, _most_of("worst_class_drop")),
    Goal("prototype attack over retrained, most of a class", (0.03, 0.08), True, _over_retrained),
    Goal("kNN gap closed, least of a class", (0.9, 0.7), False, _least_closed("knn_accuracy")),
    Goal("probe gap closed, least of a class", (0.5, 0.3), False, _least_closed("probe_accuracy")),
)


def _closed(rows: Sequence[CellRow], name: str) -> str:
    """Return the share of the gap between original and retrained model that is closed, in the mean over draws."""
    was, now, goal = (statistics.mean(r.values[name][s] for r in rows) for s in ("original", "unlearned", "retrained"))
    return share(was, now, goal)


def guard_stages() -> str:
    """One row a class and measure: what nhle-guard leaves in earlier stages, and how fast the class comes back."""
    rows = []
    for path in sorted(RECORDS.glob("guard-stages-*.json")):
        record = json.loads(path.read_text())
        found = {(c["class"], c["subject"]): c for c in record["cells"]}
        for name in dict.fromkeys(c["class"] for c in record["cells"]):
            cells = [found[name, s] for s in ("original", "retrained", "guarded", "bare")]
            for measure in (m for m in cells[0] if m.startswith("probe") or m in ("relearn_steps", "knn_accuracy")):
                values = [c[measure] for c in cells]
                closed = [share(values[0], v, values[1]) if measure != "relearn_steps" else "" for v in values[2:]]
                title = BUILTIN[measure].column if measure in BUILTIN else measure.replace("_", " ")
                rows.append([name, title, *(f"{v:.3g}" for v in values), *closed])
    columns = ["forgotten", "measure", "original", "retrained", "guarded", "bare"]
    return tables.grid([*columns, "gap closed, guarded", "gap closed, bare"], rows)
