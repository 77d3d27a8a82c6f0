"""Write the tables of README.md and docs/ from the committed records of benchmarks/records.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; what is between them is replaced.

    python docs/make_tables.py [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unhot import methods
from unhot.bench import tables
from unhot.evaluation.catalogue import BUILTIN
from unhot.evaluation.verdict import HOLDERS
from unhot.records.results import CellRow, Results, merged

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]
import kinds  # noqa: E402 a table of tests: the kinds of models that are read
import plain_nets  # noqa: E402 it says what its cells were used for
import verdict_noise  # noqa: E402 the verdicts of its record are given here

RECORDS = ROOT / "benchmarks" / "records"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text())
    return content


def spread(values: Sequence[float | None]) -> str:
    return tables.spread([v for v in values if v is not None])


def results(names: str) -> Results:
    """Read the results of the grids whose records match."""
    return merged(sorted(RECORDS.glob(f"bench-{names}.json")))


def features() -> str:
    """One row a data set, net and class: what is left in the features, beside masked original and retrained model."""
    found = _promised()
    rows = (r for r in found.rows if "retrained" in r.values["probe_accuracy"])
    return tables.features(found.model_copy(update={"rows": tuple(rows)}))


def cost_growth() -> str:
    """One row a point: what forgetting and auditing took, as the work grows."""
    rows = []
    for c in read("cost-growth")["cells"]:
        size = f"{c['parameters'] / 1e6:.1f} M" if c["axis"] == "parameters" else str(c["point"][c["axis"]])
        floor, memory = c["seconds"] / c["floor_seconds"], c["peak_memory_bytes"] / 2**20
        rows.append([f"{c['what']}, {c['axis']}", size, f"{c['seconds']:.2f}", f"{floor:.1f}", f"{memory:,.0f}"])
    return tables.grid(["what grows", "to", "seconds", "of the floor", "peak memory, MiB"], rows)


def _promised() -> Results:
    """Return the cells of NHLE-CWM on 16 images; of the grids for other questions the one of numbers of images."""
    found = merged([*sorted(RECORDS.glob("bench-promise-*.json")), RECORDS / "bench-budget.json"])
    return found.model_copy(update={"rows": tuple(r for r in found.rows if (r.method, r.shots) == ("nhle-cwm", 16))})


GUARD_GRIDS = ("guard-fashion-mnist", "guard-cifar10", "guard-svhn", "guard-cifar100")


def guard_grids() -> Results:
    """Read the grids that nhle-guard is held to its targets by."""
    return merged(RECORDS / f"bench-{g}.json" for g in GUARD_GRIDS)


def _targets(measured: Results) -> str:
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


GUARD = "nhle-guard"


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

NO_GAP = 0.02  # of accuracy between original and retrained, below which a share of it says nothing


def _closed(rows: Sequence[CellRow], name: str) -> str:
    """Return the share of the gap between original and retrained model that is closed, in the mean over draws."""
    was, now, goal = (statistics.mean(r.values[name][s] for r in rows) for s in ("original", "unlearned", "retrained"))
    return _share(was, now, goal)


def _share(was: float, now: float, goal: float) -> str:
    return f"{(was - now) / (was - goal):.0%}" if was - goal >= NO_GAP else "no gap"


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
                closed = [_share(values[0], v, values[1]) if measure != "relearn_steps" else "" for v in values[2:]]
                title = BUILTIN[measure].column if measure in BUILTIN else measure.replace("_", " ")
                rows.append([name, title, *(f"{v:.3g}" for v in values), *closed])
    columns = ["forgotten", "measure", "original", "retrained", "guarded", "bare"]
    return tables.grid([*columns, "gap closed, guarded", "gap closed, bare"], rows)


def settings() -> str:
    """One row a setting, the others at their defaults, 16 images."""

    def name(cell: dict[str, Any]) -> list[str]:
        (key, value), *_ = cell["options"].items()
        return [key, f"{value:.4g}"]

    return _trials(lambda c: "encoding" not in c["options"], name)


def _trials(wanted: Callable[[dict[str, Any]], bool], name: Callable[[dict[str, Any]], list[str]]) -> str:
    record = read("ablation")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for cell in record["cells"]:
        if wanted(cell):
            groups[tuple(name(cell))].append(cell)
    reached = record["defaults"]["stop_at"]
    rows = []
    for key, cells in groups.items():
        limits = [c["options"].get("stop_at", reached) for c in cells]
        ended = sum(c["probability_left"] <= limit for c, limit in zip(cells, limits, strict=True))
        row = [*key, f"{ended} of {len(cells)}"]
        for quantity, digits in (("steps", 1), ("drift", 3), ("sample_feature_cosine", 3)):
            row.append(f"{statistics.mean(c[quantity] for c in cells):.{digits}f}")
        reported = ("retain_drop_masked", "worst_class_drop", "forget_accuracy_before_cut", "feature_cosine")
        rows.append(row + [spread([c[quantity] for c in cells]) for quantity in reported])
    seen = ["stop event reached", "steps", "drift", "sample cosine"]
    tested = ["retain drop, masked", "worst class drop", "forget accuracy before the cut", "feature cosine"]
    return tables.grid(["setting", "value or images", *seen, *tested], rows)


def verdicts() -> str:
    """One row a set of nets and number of references: how often each kind of model was given which label."""
    shown = {"masked": "hidden", "nhle-cwm": "hidden", "retrained": "at the level"}
    rows = []
    for path in sorted(RECORDS.glob("verdict-noise-*.json")):
        content = json.loads(path.read_text())
        for references in (1, 2):
            labels: dict[tuple[str, str], list[str]] = defaultdict(list)
            for cell in content["cells"]:
                for name, holder, label in verdict_noise.judged(cell["models"], references):
                    labels[name.split()[0], holder].append(label)
            row = [f"{content['dataset']}, {content['arch']}", str(references)]
            for holder in HOLDERS:
                for kind, wanted in shown.items():
                    found = labels[kind, holder]
                    row.append(f"{sum(label.startswith(wanted) for label in found)} of {len(found)}")
            rows.append(row)
    heads = [f"{holder}: {kind} {label}" for holder in HOLDERS for kind, label in shown.items()]
    return tables.grid(["trained on", "references", *heads], rows)


def partial_references() -> str:
    """One row a set of nets: what is recovered from references of few images beside retrained models."""
    rows = []
    for path in sorted(RECORDS.glob("partial-references-*.json")):
        content = json.loads(path.read_text())
        row = [f"{content['dataset']}, {content['arch']}"]
        for measure in ("recovery_1_shot", "recovery_5_shot"):
            found: dict[str, list[float]] = defaultdict(list)
            for cell in content["cells"]:
                value = {name: m[measure][0] for name, m in cell["models"].items() if measure in m}
                retrained = [v for name, v in value.items() if name.startswith("retrained")]
                middle = statistics.fmean(retrained)
                found["seeds"].append(statistics.stdev(retrained))
                for name in ("masked", "partial", "fewer"):
                    found[name].append(value[name] - middle)
            for name in ("masked", "partial", "fewer"):
                size = statistics.fmean(v * v for v in found[name]) ** 0.5
                row.append(f"{statistics.fmean(found[name]):+.3f} ({size:.3f})")
            row.append(f"{statistics.fmean(v * v for v in found['seeds']) ** 0.5:.3f}")
        rows.append(row)
    heads = [f"{n}: {what}" for n in ("1 image", "5 images") for what in ("masked", "partial", "fewer", "seeds")]
    return tables.grid(["trained on", *heads], rows)


def tricks() -> str:
    """One row a trick, one column a set of nets and holder: how often whom was told which label."""
    labels: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    undone, kept = dict[str, str](), dict[str, list[float]]()
    for path in sorted(RECORDS.glob("tricks-*.json")):
        content = json.loads(path.read_text())
        for cell in content["cells"]:
            undone[cell["model"]] = cell.get("undone_by", "–")
            kept.setdefault(cell["model"], []).append(cell["same_answers"])
            for holder, label in cell["labels"].items():
                labels[cell["model"]][f"{content['dataset']}, {content['arch']}: {holder}"][tables.short(label)] += 1
    columns = list(dict.fromkeys(column for found in labels.values() for column in found))
    rows = [
        [model, undone[model], f"{min(kept[model]):.3f}"]
        + [", ".join(f"{label} {n}" for label, n in found[column].most_common()) or "–" for column in columns]
        for model, found in labels.items()
    ]
    return tables.grid(["model", "undone by", "same answers, least", *columns], rows)


def deep() -> str:
    """One row a cell of the records of benchmarks/deep.py: verdicts, cost, and what was recovered beside references."""
    rows = []
    for data, c in _deep_cells():
        found = c["measures"]
        row = [data, c["class"], str(c["draw"]), c["run"], *(tables.short(c["labels"][h]) for h in HOLDERS)]
        row += [f"{found[n]['unlearned']:.{d}f}" for n, d in (("retain_drop_masked", 4), ("worst_class_drop", 3))]
        recovered = [found[f"recovery_{k}_shot"] for k in (1, 5, 20)]
        rows.append(
            [*row, *(" / ".join(f"{r[s]:.3f}" for r in recovered) for s in ("unlearned", "retrained", "masked"))]
        )
    heads = ["trained on", "class", "draw", "run", *HOLDERS, "retain drop, masked", "worst class drop"]
    heads += ["recovered from 1 / 5 / 20 images", "retrained", "masked"]
    return tables.grid(heads, rows, text=7)


def deep_met() -> str:
    """One row a set of nets and a run of benchmarks/deep.py: verdicts that were reached, means and worst cells."""
    rows = []
    for (data, run), group in tables.grouped(_deep_cells(), lambda cell: (cell[0], cell[1]["run"])).items():
        cells = [c for _, c in group]
        over = [c["measures"]["recovery_5_shot"] for c in cells]
        gaps = [r["unlearned"] - r["retrained"] for r in over]
        drops = [c["measures"]["retain_drop_masked"]["unlearned"] for c in cells]
        row = [data, run, str(len(cells))]
        row += [_count(c["labels"]["features"].startswith(("at the level", "beyond")) for c in cells)]
        row += [_count(c["labels"]["weights"].startswith(("at the level", "beyond", "short")) for c in cells)]
        row += [f"{statistics.mean(gaps):+.3f} / {max(gaps):+.3f}"]
        row += [_deep_closed(cells, name) for name in ("knn_accuracy", "probe_accuracy")]
        row += [f"{statistics.mean(drops):.4f} / {max(drops):.4f}"]
        rows.append([*row, f"{max(c['measures']['worst_class_drop']['unlearned'] for c in cells):.3f}"])
    heads = ["trained on", "run", "cells", "features at the level or beyond", "weights no worse than short"]
    heads += ["recovered from 5 images, over retrained: mean / worst", "kNN gap closed", "probe gap closed"]
    heads += ["retain drop, masked: mean / worst", "worst class drop"]
    return tables.grid(heads, rows, text=2)


def _deep_cells() -> list[tuple[str, dict[str, Any]]]:
    """Return the cells of the records of benchmarks/deep.py with the data that their nets were trained on."""
    contents = [json.loads(path.read_text()) for path in sorted(RECORDS.glob("deep-*.json"))]
    cells = [(", ".join(filter(None, (r["dataset"], r.get("note")))), c) for r in contents for c in r["cells"]]
    return sorted(cells, key=lambda cell: (cell[0], cell[1]["run"], cell[1]["class"], cell[1]["draw"]))


def models_read() -> str:
    """One row a kind of model that the tests read or see refused, and with which words."""
    rows = []
    for kind in kinds.KINDS:
        does = f"refused: “… {kind.words} …”" if kind.words else "read"
        rows.append([kind.group, kind.what, f"{does}, with a note" if kind.said else does])
    return tables.grid(["what", "which", "what happens"], rows, text=3)


def deep_verdicts() -> str:
    """One row a set of nets and a run of benchmarks/deep.py: how often which verdict was given to each holder."""
    rows = []
    cells = [cell for cell in _deep_cells() if "," not in cell[0]]  # those of the methods as they are
    for (data, run), group in tables.grouped(cells, lambda cell: (cell[0], cell[1]["run"])).items():
        counts = [tables.label_counts(c["labels"][h] for _, c in group) for h in HOLDERS]
        rows.append([data, run, str(len(group)), *counts])
    return tables.grid(["data", "run", "cells", *HOLDERS], rows, text=2)


def _deep_closed(cells: Sequence[dict[str, Any]], name: str) -> str:
    """Return how much of the gap between masked and retrained is closed, in the mean of the cells that have one."""
    found = [[c["measures"][name][s] for s in ("unlearned", "masked", "retrained")] for c in cells]
    closed = [(masked - own) / (masked - retrained) for own, masked, retrained in found if masked - retrained > 0.02]
    return f"{statistics.mean(closed):.0%}" if closed else "–"


def _count(met: Iterable[bool]) -> str:
    found = list(met)
    return f"{sum(found)} of {len(found)}"


def plain() -> str:
    """One row a data set and use of it: what plain nets lost beside what was estimated."""
    groups = tables.grouped(read("plain-nets-nhle-cwm")["cells"], lambda c: (c["dataset"], plain_nets.role(c)))
    rows = []
    for (dataset, role), found in groups.items():
        drops, worst = [c["retain_drop_masked"] for c in found], [c["worst_class_drop"] for c in found]
        kept = sum(c["forget_accuracy"] == 0 and c["retain_drop_masked"] <= 0.035 for c in found)
        row = [dataset, role, str(len({c["net"] for c in found})), f"{kept} of {len(found)}"]
        row += [f"{statistics.mean(drops):.4f}", f"{max(drops):.3f}", f"{max(worst):.3f}"]
        row += [f"{statistics.mean(c['estimate'] for c in found):.4f}"]
        row += [str(sum(c["retain_drop_masked"] > c["at_most"] > 0 for c in found))]
        rows.append([*row, str(sum(c["at_most"] == 0 for c in found))])
    heads = ["data", "cells were", "nets", "promise kept", "retain drop, masked: mean", "worst cell"]
    heads += ["worst class drop", "estimate: mean", "upper end exceeded", "cut alone"]
    return tables.grid(heads, rows, text=2)


def speed() -> str:
    """One row a net: seconds of forgetting when all steps up to the cap are taken, and what they are a multiple of."""
    rows = []
    for c in read("speed")["cells"]:
        seconds = c["floor_seconds"] * c["multiple_at_step_cap"]
        share = c["share_of_training"] * seconds / c["forget_seconds"]
        row = [c["arch"], f"{c['parameters']:,}", f"{c['floor_seconds']:.3f}", f"{seconds:.2f}"]
        rows.append([*row, f"{c['multiple_at_step_cap']:.1f}", f"1 / {1 / share:,.0f}"])
    return tables.grid(["net", "parameters", "one pass, s", "forget, s", "passes", "of training"], rows)


def measures() -> str:
    """One row a measure of an audit."""
    rows = [[m.title, m.name, m.sentence, m.reading, m.source] for m in BUILTIN.values()]
    return tables.grid(["measure", "name", "what is compared", "how to read it", "source"], rows, text=5)


def audit_speed() -> str:
    """One row a kind of audit."""
    record = read("audit-speed")
    rows = [
        [
            f"{record['dataset']}, {record['models']} models, {'--quick' if c['quick'] else 'full'}",
            str(c["audit_seconds"]),
            str(c["forward_seconds"]),
            str(c["ratio"]),
        ]
        for c in record["cells"]
    ]
    return tables.grid(["audit", "seconds", "of these, forward passes", "ratio"], rows)


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
    found, rows = _catalogued(), []
    for name in methods.catalogue:
        of_method = [r for r in found.rows if r.method == name]
        for guarded in sorted({"guarded" in r.options for r in of_method} or {False}):  # the two are never mixed
            mine = [r for r in of_method if ("guarded" in r.options) == guarded]
            chosen = [r for data in CATALOGUE_DATA for r in _best(r for r in mine if r.dataset == data)]
            rows.append(Catalogued(name + " (guarded)" * guarded, name, chosen, found))
    return rows


def catalogue() -> str:
    """One row a method, after the references: where it is from, what it reads and takes, and what it does."""
    references = _catalogued().rows
    rows = [[subject, "", "", "", "", *_does(references, subject), ""] for subject in ("masked", "retrained")]
    for m in catalogued():
        known = methods.catalogue.known(m.name)
        row = [m.title, known.origin or "–", known.reads, m.steps, m.passes]
        rows.append([*row, *_does(m.cells, "unlearned"), _departs_from(m.name)])
    measures = " / ".join(tables.heads(*CATALOGUE_MEASURES))
    columns = [f"{title}: {measures}" for title in CATALOGUE_DATA.values()]
    return tables.grid(["method", "published", "reads", "steps", "passes", *columns, "departs from"], rows)


def compared() -> str:
    """One row a method and data set, with a column for each measure, to be filtered and sorted."""
    rows = []
    for data, title in CATALOGUE_DATA.items():
        there = [r for r in _catalogued().rows if r.dataset == data]
        rows += [[s, title, *"––––", *_measured(there, s)] for s in ("masked", "retrained")]
        for m in catalogued():
            known, mine = methods.catalogue.known(m.name), [r for r in m.cells if r.dataset == data]
            if mine:
                one = m._replace(cells=mine)
                row = [m.title, title, known.reads, known.origin or "–", one.steps, one.passes]
                rows.append([*row, *_measured(mine, "unlearned")])
    heads = ["method", "data", "reads", "published", "steps", "passes", *tables.heads(*CATALOGUE_MEASURES)]
    return tables.grid(heads, rows, text=4)


def _best(rows: Iterable[CellRow]) -> list[CellRow]:
    """Return the cells of a method in the one of its settings that is reported."""
    return [r for chosen in tables.selected(rows).values() for r in chosen]


def _catalogued() -> Results:
    return merged(sorted([*RECORDS.glob("bench-catalogue-*.json"), *RECORDS.glob("bench-retained-*.json")]))


def _departs_from(name: str) -> str:
    """Say in a word or two what a method departs from."""
    return ", ".join(what for what, text in methods.get(name).departures._asdict().items() if text) or "–"


def _does(rows: Sequence[CellRow], subject: str) -> list[str]:
    """Say for each data set what the measures are for a subject, in the mean over classes."""
    found = [_measured([r for r in rows if r.dataset == data], subject) for data in CATALOGUE_DATA]
    return ["–" if set(values) == {"–"} else " / ".join(values) for values in found]


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


TABLES: dict[str, Callable[[], str]] = {
    "promise": lambda: tables.promise(_promised()),
    "promise-summary": lambda: tables.summary(_promised()),
    "features": features,
    "features-all": lambda: tables.features(_promised()),
    "budget": lambda: tables.budget(results("budget")),
    "at-once": lambda: tables.at_once(results("classes")),
    "in-sequence": lambda: tables.in_sequence(results("sequence")),
    "cost-growth": cost_growth,
    "leaderboard": lambda: tables.leaderboard(_catalogued()),
    "paired": lambda: tables.paired(results("catalogue-*"), "nhle-cwm"),
    "trials": lambda: tables.leaderboard(results("trials-*")),
    "catalogue": catalogue,
    "compared": compared,
    "departures": departures,
    "head-to-head": head_to_head,
    "guard-met": guard_met,
    "guard-targets": lambda: _targets(guard_grids()),
    "guard-seeds": lambda: _targets(results("guard-seeds")),
    "guard-stages": guard_stages,
    "guard-rivals": lambda: tables.leaderboard(guard_grids()),
    "guard-budget": lambda: tables.budget(results("guard-budget")),
    "guard-at-once": lambda: tables.at_once(results("guard-classes")),
    "guard-ablation": lambda: tables.budget(results("guard-ablation")),
    "encodings": lambda: _trials(
        lambda c: "encoding" in c["options"], lambda c: [c["options"]["encoding"], str(c["shots"])]
    ),
    "settings": settings,
    "deep": deep,
    "deep-met": deep_met,
    "deep-verdicts": deep_verdicts,
    "models-read": models_read,
    "plain-nets": plain,
    "speed": speed,
    "audit-speed": audit_speed,
    "measures": measures,
    "verdicts": verdicts,
    "partial-references": partial_references,
    "tricks": tricks,
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
