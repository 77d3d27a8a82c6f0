"""Tables: the right cells, the right means, failures shown, and the choice of a setting by samples only."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import ttest_1samp

from unhot.bench import tables
from unhot.bench.results import write_all
from unhot.records.codes import RENAMED
from unhot.records.results import CellRow, Results, TimingRow, merged
from unhot.runtime import Runtime

RECORDS = Path(__file__).parents[2] / "benchmarks" / "records"


def row(method: str = "nhle-cwm", label: int = 0, seed: int = 0, **other: Any) -> CellRow:
    value = other.pop("value", 0.0)
    values = {
        "forget_accuracy": {"unlearned": value, "original": 0.9, "masked": 0.0},
        "retain_drop": {"unlearned": value},
        "retain_drop_masked": {"unlearned": value},
        "worst_class_drop": {"unlearned": value},
        "retain_accuracy": {"original": 0.95},
        "knn_accuracy": {"unlearned": value, "masked": 0.8, "retrained": 0.5},
        "prototype_attack_accuracy": {"unlearned": value},
    }
    given = {
        "dataset": "digits",
        "arch": "lenet5",
        "arch_options": {},
        "model_seed": 0,
        "classes": (label,),
        "names": (f"class {label}",),
        "in_sequence": False,
        "shots": 16,
        "seed": seed,
        "method": method,
        "options": {},
        "track": "reference" if method == "mask" else "few samples",
        "values": values,
        "before_cut": {"forget_accuracy": 0.3, "feature_cosine": 0.8},
        "signals": {"probability_left": 0.0, "feature_cosine": 0.8, "drift_nats": 0.1},
        "verdict": "hidden at the output only",
        "steps": 4,
        "seconds": 0.1,
    }
    return CellRow(**(given | other))


def results(*rows: CellRow) -> Results:
    return Results(name="made up", rows=rows, environments=())


def signal(left: float, drift: float) -> dict[str, float]:
    return {"probability_left": left, "drift_nats": drift, "feature_cosine": 0.5}


def test_of_settings_that_forget_the_one_with_least_drift_is_chosen() -> None:
    rows = [
        row("delete", options={"lr": lr}, signals=signal(left, drift))
        for lr, left, drift in ((1e-4, 0.9, 0.01), (1e-3, 0.09, 0.3), (1e-2, 0.0, 0.2), (1e-1, 0.0, 5.0))
    ]
    (chosen,) = tables.selected(rows)
    assert chosen.options == "lr 0.01"


def test_where_none_forgets_the_one_that_leaves_least_is_chosen() -> None:
    rows = [
        row("delete", options={"lr": lr}, signals=signal(left, drift))
        for lr, left, drift in ((1, 0.9, 0.01), (2, 0.2, 0.3), (3, 0.5, 0.2))
    ]
    (chosen,) = tables.selected(rows)
    assert chosen.options == "lr 2"


def test_a_setting_that_failed_anywhere_is_chosen_last() -> None:
    rows = [
        row("delete", options={"lr": 1}, signals=signal(0.5, 9.0)),
        row("delete", options={"lr": 2}, signals=signal(0.0, 0.0)),
        row("delete", label=1, options={"lr": 2}, error="diverged", values={}, signals={}),
        row("delete", label=1, options={"lr": 1}, signals=signal(0.5, 9.0)),
    ]
    (chosen,) = tables.selected(rows)
    assert chosen.options == "lr 1"


def test_the_choice_does_not_look_at_test_images() -> None:
    good = row("delete", options={"lr": 1}, value=0.0, signals=signal(0.0, 0.5))
    bad = row("delete", options={"lr": 2}, value=0.9, signals=signal(0.0, 0.4))
    (chosen,) = tables.selected([good, bad])
    assert chosen.options == "lr 2"


def test_a_mean_over_classes_weighs_each_class_alike() -> None:
    rows = [row(label=0, seed=s, value=0.0) for s in range(9)] + [row(label=1, value=0.5)]
    found = tables.of_classes(rows, lambda r: r.values["knn_accuracy"]["unlearned"])
    assert found == [0.0, 0.5]
    assert tables.spread(found) == "0.250 (0.000 to 0.500)"


def test_failures_are_counted_and_listed(tmp_path: Path) -> None:
    rows = [row("mask"), row(value=0.0), row(label=1, error="Training diverged.", values={}, signals={})]
    assert "| nhle-cwm | 1 of 2; 1 failed |" in tables.leaderboard(results(*rows))
    write_all(results(*rows), tmp_path)
    assert "Training diverged." in (tmp_path / "tables.md").read_text()


def test_more_promises_kept_come_first() -> None:
    rows = [row("mask"), row("delete", value=0.2), row("nhle-cwm", value=0.005)]
    board = tables.leaderboard(results(*rows))
    assert board.index("| nhle-cwm |") < board.index("| delete |")
    assert "| delete | 0 of 1 |" in board


def test_tracks_are_kept_apart() -> None:
    rows = [row("mask"), row("nhle-cwm"), row("scrub", track="retained data")]
    first, second = tables.leaderboard(results(*rows)).split("Track: ")[1:]
    assert first.startswith("few samples")
    assert "scrub" not in first
    assert "nhle-cwm" not in second


def test_paired_differences_are_those_of_the_t_test_over_classes() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.random((4, 3)), generator.random((4, 3))
    rows = [row("nhle-cwm", c, s, value=ours[c, s]) for c in range(4) for s in range(3)]
    rows += [row("delete", c, s, value=theirs[c, s]) for c in range(4) for s in range(3)]
    interval = ttest_1samp((theirs - ours).mean(1), 0).confidence_interval()
    expected = f"{(theirs - ours).mean():+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
    assert tables.paired(results(*rows), "nhle-cwm").splitlines()[2].count(expected) == 4


def test_pairs_are_of_the_same_request_and_draw() -> None:
    rows = [row("nhle-cwm", 0, 0, value=0.1), row("nhle-cwm", 1, 0, value=0.9), row("delete", 0, 0, value=0.3)]
    line = tables.paired(results(*rows), "nhle-cwm").splitlines()[2]
    assert "| 1 | +0.200" in line


def test_the_csv_has_a_line_a_cell_and_the_values_of_the_file(tmp_path: Path) -> None:
    rows = [row(label=c, value=c / 10) for c in range(3)]
    write_all(results(*rows), tmp_path)
    read = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert [float(r["knn_accuracy/unlearned"]) for r in read] == [0.0, 0.1, 0.2]
    assert [r["classes"] for r in read] == ["0", "1", "2"]


def test_results_survive_their_file_and_files_are_put_together(tmp_path: Path) -> None:
    first, second = results(row(label=0)), results(row(label=1), row(label=2, error="no", values={}, signals={}))
    for name, content in (("a", first), ("b", second)):
        write_all(content, tmp_path / name) if (tmp_path / name).mkdir() is None else None
    assert Results.read(tmp_path / "a" / "results.json") == first
    assert merged([tmp_path / "a" / "results.json", tmp_path / "b" / "results.json"]).rows == first.rows + second.rows


def test_a_picture_is_drawn_where_several_numbers_of_images_were_tried(tmp_path: Path) -> None:
    rows = [row(shots=n, value=1 / n) for n in (1, 5, 16)]
    files = write_all(results(*rows), tmp_path)
    again = write_all(results(*rows), tmp_path)
    assert files == again
    picture = tmp_path / "budget-digits-lenet5.svg"
    assert picture in files
    assert b"<svg" in picture.read_bytes()
    assert "## Number of images" in (tmp_path / "tables.md").read_text()


@pytest.mark.parametrize(("forget", "drop", "kept"), [(0.01, 0.035, True), (0.011, 0.0, False), (0.0, 0.036, False)])
def test_the_promise(forget: float, drop: float, kept: bool) -> None:
    r = row(values={"forget_accuracy": {"unlearned": forget}, "retain_drop": {"unlearned": drop}})
    assert r.promised is kept


def test_time_is_a_multiple_of_one_pass_and_a_share_of_training() -> None:
    def timing(**other: Any) -> TimingRow:
        given = {
            "dataset": "digits",
            "arch": "lenet5",
            "method": "nhle-cwm",
            "options": {},
            "shots": 16,
            "floor_seconds": 0.02,
            "forget_seconds": 0.25,
            "steps": 9,
            "train_seconds": 300.0,
            "load": 0.0,
            "environment": Runtime().environment(),
        }
        return TimingRow(**(given | other))

    timings = [timing(shots=1, forget_seconds=9.0), timing(options={"steps": 3}, forget_seconds=9.0), timing()]
    assert tables.passes([row()], timings) == "12.5"
    assert tables.of_training([row()], timings) == "1 / 1,200"
    summed = tables.summary(results(row()).model_copy(update={"timings": tuple(timings)}))
    assert summed.endswith("| 12.5 | 1 / 1,200 |")
    assert tables.of_training([row()], [timing(train_seconds=None)]) == "–"
    assert tables.passes([row("delete")], timings) == tables.of_training([row("delete")], timings) == "–"


def test_names_do_nothing_in_markdown_csv_and_pictures(tmp_path: Path) -> None:
    name = "=1+1 | <script>x</script>\n# $x^{$ [a](http://b)\x1b[31m"
    given = {"dataset": name, "arch": "../../x:y", "names": (name,), "options": {name: name}}
    rows = [row(shots=n, **given) for n in (1, 5)]
    failed = row(method="-m", **(given | {"values": {}, "signals": {}, "error": name}))
    files = write_all(results(*rows, failed).model_copy(update={"name": name}), tmp_path)
    assert {p.parent for p in files} == {tmp_path}
    text = (tmp_path / "tables.md").read_text("utf-8")
    assert not any(bad in text for bad in ("<script", "[a](http", "\x1b", "\n# $"))
    for table in text.split("\n\n"):
        lines = [line.replace("\\|", "").count("|") for line in table.splitlines() if line.startswith("|")]
        assert len(set(lines)) <= 1
    cells = list(csv.reader(io.StringIO((tmp_path / "results.csv").read_text("utf-8"))))
    assert not any(cell.startswith(("=", "+", "@")) for line in cells for cell in line)
    assert cells[3][6] == "'-m"
    assert all(b"\x1b" not in p.read_bytes() for p in files)


@pytest.mark.parametrize(
    "other",
    [{"values": {}}, {"signals": {}}, {"in_sequence": True}, {"sequence": ({"forget_accuracy": 0.0},)}],
)
def test_a_cell_that_lacks_what_tables_read_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"cell.*error.*values"):
        row(**other)


def test_a_verdict_of_older_results_is_read_under_its_new_name() -> None:
    for older in ("not decided without a retrained model", "undecided (no retrained model)"):
        assert row(verdict=older).verdict == "undecided"
    with pytest.raises(ValidationError, match="verdict"):
        row(verdict="forgotten")


def test_verdicts_are_counted_for_each_holder(tmp_path: Path) -> None:
    hidden, apart = "hidden at the output only", "short of a retrained model"
    level = "at the level of a retrained model"
    rows = [
        row(label=0, verdicts={"outputs": level, "features": hidden, "weights": hidden}),
        row(label=1, verdicts={"outputs": hidden, "features": apart, "weights": "undecided"}),
        row(label=2, verdicts={"outputs": level, "features": hidden, "weights": hidden}),
        row(label=3),  # of a version that knew no holders
        row(label=4, error="no", values={}, signals={}),
        row("mask", verdicts=dict.fromkeys(("outputs", "features", "weights"), hidden)),
    ]
    head, _, *lines = tables.verdicts(results(*rows)).splitlines()
    assert head == "| data and net | method | images | cells judged | outputs | features | weights |"
    counts = "3 of 5 | hidden 1, at the level 2 | hidden 2, short 1 | hidden 2, undecided 1"
    assert lines[0] == f"| digits, lenet5 | nhle-cwm | 16 | {counts} |"
    assert lines[1] == "| digits, lenet5 | mask | 16 | 1 of 1 | hidden 1 | hidden 1 | hidden 1 |"
    write_all(results(*rows), tmp_path)
    assert tables.verdicts(results(*rows)) in (tmp_path / "tables.md").read_text()
    first, *_, old, failed, _ = csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text()))
    assert [first[f"verdict.{h}"] for h in ("outputs", "features", "weights")] == [level, hidden, hidden]
    assert (old["verdict"], old["verdict.features"], failed["verdict.features"]) == (hidden, "", "")
    write_all(results(rows[3]), tmp_path)
    assert "## Verdicts" not in (tmp_path / "tables.md").read_text()


def test_committed_results_are_read_and_written_as_they_were() -> None:
    for path in sorted(RECORDS.glob("bench-*.json")):
        read, text = Results.read(path), path.read_text()
        for older, newer in RENAMED.items():
            text = text.replace(f'"{older}"', f'"{newer}"')
        assert read.to_json() == text
