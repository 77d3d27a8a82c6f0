"""Tables of results, in Markdown.

Values are means over classes of means over draws: draws of one class are not independent. Intervals are Student's, over
classes.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from statistics import fmean
from typing import NamedTuple, TypeVar, get_args

import numpy as np

from unhot.errors import counted
from unhot.escaping import markdown
from unhot.evaluation.catalogue import BUILTIN
from unhot.evaluation.stats import mean
from unhot.methods import REFERENCES as REFERENCE_METHODS
from unhot.records.choices import Holder
from unhot.records.codes import VerdictLabel
from unhot.records.results import CellRow, Results, TimingRow

K = TypeVar("K", bound=Hashable)

FORGOTTEN = 0.1  # of settings that leave no more than this of the samples' probability, the one with the least drift

LEADERBOARD = (
    "forget_accuracy",
    "retain_drop",
    "retain_drop_masked",
    "worst_class_drop",
    "probe_accuracy",
    "knn_accuracy",
    "prototype_attack_accuracy",
    "class_mia_gap",
    "output_js_to_retrained",
)
REFERENCES = ("original", "masked", "retrained")


def heads(*names: str) -> list[str]:
    """Return the heads of the columns of some measures."""
    return [BUILTIN[name].column for name in names]


class Setting(NamedTuple):
    """What a method was run as."""

    method: str
    options: str

    @property
    def title(self) -> str:
        """What to call it."""
        return self.method + (f" ({self.options})" if self.options else "")


def of_row(row: CellRow) -> Setting:
    """Return the setting of a row."""
    return Setting(row.method, ", ".join(f"{k} {json.dumps(v)}" for k, v in row.options.items()))


def grouped(rows: Iterable[CellRow], key: Callable[[CellRow], K]) -> dict[K, list[CellRow]]:
    """Return rows by a key, in their order."""
    found: dict[K, list[CellRow]] = defaultdict(list)
    for r in rows:
        found[key(r)].append(r)
    return found


def selected(rows: Iterable[CellRow]) -> dict[Setting, list[CellRow]]:
    """Choose one of the settings that were tried of each method in each track, by what its samples say.

    Of the settings that leave at most a tenth of the samples' probability of the class, the one whose outputs on
    distorted copies of the samples move least; if none does, the one that leaves least. A setting that failed on any
    cell is chosen only if all did.
    """
    by_method = grouped(rows, lambda r: (r.method, r.track)).values()

    def order(item: tuple[Setting, list[CellRow]]) -> tuple[float, float, float]:
        good = [r for r in item[1] if r.error is None]
        if not good:
            return 1, 1, 0
        left = fmean(r.signals["probability_left"] for r in good)
        drift = fmean(r.signals["drift_nats"] for r in good)
        return len(item[1]) - len(good), max(0.0, left - FORGOTTEN), drift

    return dict(min(grouped(tried, of_row).items(), key=order) for tried in by_method)


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1) -> str:
    """Return a Markdown table, whose first ``text`` columns are text. Nothing in a cell is Markdown itself."""
    lines = [[*map(markdown, line)] for line in (columns, *rows)]
    lines.insert(1, [*["---"] * text, *["---:"] * (len(columns) - text)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def of_classes(rows: Iterable[CellRow], value: Callable[[CellRow], float | None]) -> list[float]:
    """Return the mean over draws of a value, for each class (and net and data set) that has it."""
    found = [_values(mine, value) for mine in _requests(rows).values()]
    return [fmean(values) for values in found if values]


def spread(values: Sequence[float]) -> str:
    """Show the mean of the classes' values, and the least and the greatest."""
    if not values:
        return "–"
    text = f"{fmean(values):.3f}"
    return text if len(values) == 1 else f"{text} ({min(values):.3f} to {max(values):.3f})"


def leaderboard(results: Results) -> str:
    """For each data set, net, number of images and track: its methods beside the references, the best first."""
    groups = grouped((r for r in results.rows if not r.in_sequence), lambda r: (r.dataset, r.arch, r.shots))
    parts = []
    for (dataset, arch, shots), rows in groups.items():
        classes = len({r.classes for r in rows})
        draws = len({r.seed for r in rows})
        parts.append(
            f"### {markdown(f'{dataset}, {arch}')}, {shots or 'all'} images of each class; "
            f"{counted(classes, 'request')}, {counted(draws, 'draw')}\n"
        )
        for track in dict.fromkeys(r.track for r in rows if r.track != "reference"):
            parts.append(f"Track: {track}\n")
            mine = [r for r in rows if r.track == track]
            parts.append(_board(mine, [r for r in rows if r.track == "reference"], results.timings) + "\n")
    return "\n".join(parts)


def _board(rows: list[CellRow], references: list[CellRow], timings: Sequence[TimingRow]) -> str:
    lines = [
        [subject, "", *(spread(of_classes(rows, _of(name, subject))) for name in LEADERBOARD), "", ""]
        for subject in REFERENCES
    ]
    ranked = sorted(selected(rows).items(), key=lambda item: _rank(item[1]))
    for setting, mine in [
        *ranked,
        *selected(r for r in references if REFERENCE_METHODS.get(r.method) != "masked").items(),
    ]:
        kept = f"{sum(r.promised for r in mine)} of {len(mine)}"
        failures = [r for r in mine if r.error is not None]
        note = f"; {len(failures)} failed" if failures else ""
        values = (spread(of_classes(mine, _of(name, "unlearned"))) for name in LEADERBOARD)
        lines.append([setting.title, kept + note, *values, passes(mine, timings), of_training(mine, timings)])
    return grid(["method", "promise kept", *heads(*LEADERBOARD), "passes", "of training"], lines)


def _of(name: str, subject: str) -> Callable[[CellRow], float | None]:
    return lambda r: r.values.get(name, {}).get(subject)


def _rank(rows: list[CellRow]) -> tuple[float, float]:
    """Order: more promises kept first, then the less the prototype attack finds."""
    attack = of_classes(rows, _of("prototype_attack_accuracy", "unlearned"))
    return -sum(r.promised for r in rows) / len(rows), fmean(attack) if attack else 1.0


def passes(rows: list[CellRow], timings: Sequence[TimingRow]) -> str:
    """Return how many passes over its samples a method takes; a dash if it was not timed."""
    t = _timing(rows[0], timings)
    return "–" if t is None else f"{t.forget_seconds / t.floor_seconds:.1f}"


def of_training(rows: list[CellRow], timings: Sequence[TimingRow]) -> str:
    """Return what share of the time of training the original a method takes; a dash if that is not known."""
    t = _timing(rows[0], timings)
    return "–" if t is None or not t.train_seconds else f"1 / {t.train_seconds / t.forget_seconds:,.0f}"


def _timing(row: CellRow, timings: Sequence[TimingRow]) -> TimingRow | None:
    for t in timings:
        if all(getattr(t, name) == getattr(row, name) for name in ("dataset", "arch", "method", "shots", "options")):
            return t
    return None


def promise(results: Results) -> str:
    """One row a data set, net and request: what is lost and kept, over the draws."""
    names = ("forget_accuracy", "retain_drop", "retain_drop_masked", "worst_class_drop")
    lines = []
    for (dataset, arch, _, _), rows in _requests(results.rows).items():
        cells = [_values(rows, _of(n, "unlearned")) for n in names]
        lines.append([f"{dataset}, {arch}", ", ".join(rows[0].names), str(len(rows)), *map(spread, cells)])
    return grid(["data and net", "forgotten", "draws", *heads(*names)], lines)


def features(results: Results) -> str:
    """One row a data set, net and request: what is left in the features."""
    names = ("probe_accuracy", "knn_accuracy", "prototype_attack_accuracy")
    lines = []
    for (dataset, arch, _, _), rows in _requests(results.rows).items():
        cells = [
            " / ".join(_mean(rows, _of(name, subject)) for subject in ("masked", "unlearned", "retrained"))
            for name in names
        ]
        before = _mean(rows, lambda r: r.before_cut.get("forget_accuracy"))
        cosine = _mean(rows, lambda r: r.before_cut.get("feature_cosine"))
        lines.append([f"{dataset}, {arch}", ", ".join(rows[0].names), before, cosine, *cells])
    columns = ["data and net", "forgotten", "forget accuracy before the cut", "feature cosine"]
    return grid([*columns, *(f"{c}: masked / unlearned / retrained" for c in heads(*names))], lines)


def summary(results: Results) -> str:
    """One row a data set and net: the promise over all of its requests and draws."""
    lines = []
    for (dataset, arch), rows in grouped(results.rows, lambda r: (r.dataset, r.arch)).items():
        lost = [[r.values[n]["unlearned"] for r in rows if r.error is None] for n in ("forget_accuracy", "retain_drop")]
        masked = of_classes(rows, _of("retain_drop_masked", "unlearned"))
        e = mean(np.array(masked))
        interval = f"{e.value:.4f} ({e.low:.4f} to {e.high:.4f})" if len(masked) > 1 else f"{e.value:.4f}"
        accuracy = _mean(rows, _of("retain_accuracy", "original"))
        kept = f"{sum(r.promised for r in rows)} of {len(rows)}"
        line = [dataset, arch, accuracy, kept, f"{max(lost[0]):.3f}", f"{max(lost[1]):.3f}", interval]
        lines.append([*line, passes(rows, results.timings), of_training(rows, results.timings)])
    columns = ["data", "net", "original's retained accuracy", "promise kept", "forget accuracy, worst cell"]
    columns += ["retain drop, worst cell", "retain drop, masked: mean (95 %)", "passes", "of training"]
    return grid(columns, lines)


def budget(results: Results) -> str:
    """One row a method and number of images, over all requests of a data set and net."""
    groups = grouped(results.rows, lambda r: (r.dataset, r.arch, of_row(r), r.shots or 10**9))
    lines = []
    names = ("forget_accuracy", "retain_drop_masked", "worst_class_drop", "prototype_attack_accuracy")
    for (dataset, arch, setting, shots), rows in sorted(groups.items(), key=lambda item: item[0]):
        before = spread(of_classes(rows, lambda r: r.before_cut.get("forget_accuracy")))
        values = [spread(of_classes(rows, _of(n, "unlearned"))) for n in names]
        count = "all" if shots == 10**9 else str(shots)
        lines.append([f"{dataset}, {arch}", setting.title, count, before, *values])
    columns = ["data and net", "method", "images", "forget accuracy before the cut"]
    return grid([*columns, *heads(*names)], lines)


def at_once(results: Results) -> str:
    """One row a number of classes that are forgotten at once."""
    rows = (r for r in results.rows if not r.in_sequence)
    groups = grouped(rows, lambda r: (r.dataset, r.arch, of_row(r), len(r.classes)))
    names = ("forget_accuracy", "retain_drop", "retain_drop_masked", "worst_class_drop", "prototype_attack_accuracy")
    lines = [
        [
            f"{dataset}, {arch}",
            setting.title,
            str(count),
            *(spread(of_classes(rows, _of(n, "unlearned"))) for n in names),
        ]
        for (dataset, arch, setting, count), rows in sorted(groups.items(), key=lambda item: item[0])
    ]
    return grid(["data and net", "method", "classes at once", *heads(*names)], lines)


def verdicts(results: Results) -> str:
    """One row a method and number of images: how often it was given which verdict, for whoever holds what."""
    groups = grouped(results.rows, lambda r: (r.dataset, r.arch, r.in_sequence, r.shots, of_row(r)))
    lines = []
    for (dataset, arch, in_sequence, shots, setting), rows in groups.items():
        request = f"{dataset}, {arch}{', one class after another' if in_sequence else ''}"
        judged = sum(bool(r.verdicts) for r in rows)
        counts = (label_counts(r.verdicts[h] for r in rows if h in r.verdicts) for h in get_args(Holder))
        lines.append([request, setting.title, str(shots or "all"), f"{judged} of {len(rows)}", *counts])
    return grid(["data and net", "method", "images", "cells judged", *get_args(Holder)], lines, text=2)


def label_counts(labels: Iterable[VerdictLabel]) -> str:
    """Show how often each label of a verdict was given, in the order in which they are declared."""
    found = Counter(labels)
    return ", ".join(f"{short(label)} {found[label]}" for label in get_args(VerdictLabel) if label in found) or "–"


def short(label: str) -> str:
    """Return a label of a verdict in few words."""
    return re.sub(" (at the output only|(of )?a retrained model)$", "", label)


def in_sequence(results: Results) -> str:
    """One row a request of a sequence: what is lost so far, mean over draws."""
    names = ("forget_accuracy", "retain_accuracy", "retain_drop_masked", "worst_class_drop")
    lines = []
    for (dataset, arch, _, _), rows in _requests(r for r in results.rows if r.in_sequence).items():
        for i in range(len(rows[0].sequence)):
            values = (spread([r.sequence[i][n] for r in rows if r.error is None]) for n in names)
            lines.append([f"{dataset}, {arch}, {of_row(rows[0]).title}", str(i + 1), *values])
    columns = ["data, net, method", "requests so far", "forget accuracy", "retain accuracy"]
    return grid([*columns, *heads("retain_drop_masked", "worst_class_drop")], lines)


def paired(results: Results, baseline: str) -> str:
    """Compare each method with another one on the same requests and draws: mean difference and its interval."""
    lines = []
    compared = (r for r in results.rows if not r.in_sequence and r.track != "reference")
    groups = grouped(compared, lambda r: (r.dataset, r.arch, r.shots))
    names = ("retain_drop_masked", "worst_class_drop", "knn_accuracy", "prototype_attack_accuracy")
    for (dataset, arch, shots), rows in groups.items():
        chosen = selected(rows)
        mine = {_draw(r): r for s, own in chosen.items() if s.method == baseline for r in own if r.error is None}
        for setting, others in chosen.items() if mine else ():
            if setting.method != baseline:
                pairs = [(r, mine[_draw(r)]) for r in others if r.error is None and _draw(r) in mine]
                title = f"{dataset}, {arch}, {shots or 'all'} images"
                lines.append([title, setting.title, str(len(pairs)), *(_difference(pairs, n) for n in names)])
    return grid(["data, net, images", f"method, minus {baseline}", "pairs", *heads(*names)], lines)


def _draw(r: CellRow) -> tuple[object, ...]:
    return r.model_seed, r.classes, r.seed


def _difference(pairs: list[tuple[CellRow, CellRow]], name: str) -> str:
    found: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for theirs, ours in pairs:
        a, b = (_of(name, "unlearned")(r) for r in (theirs, ours))
        if a is not None and b is not None:
            found[ours.classes].append(a - b)
    if not found:
        return "–"
    values = [fmean(v) for v in found.values()]
    if len(values) == 1:
        return f"{values[0]:+.3f}"
    e = mean(np.array(values))
    return f"{e.value:+.3f} ({e.low:+.3f} to {e.high:+.3f})"


def _requests(rows: Iterable[CellRow]) -> dict[tuple[str, str, int, tuple[int, ...]], list[CellRow]]:
    return grouped((r for r in rows if r.error is None), lambda r: (r.dataset, r.arch, r.model_seed, r.classes))


def _values(rows: Iterable[CellRow], value: Callable[[CellRow], float | None]) -> list[float]:
    return [v for r in rows if (v := value(r)) is not None]


def _mean(rows: Iterable[CellRow], value: Callable[[CellRow], float | None]) -> str:
    known = _values(rows, value)
    return f"{fmean(known):.3f}" if known else "–"
