"""A metric and an attack of somebody else stand everywhere where unhot's own do, as they declare themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from pydantic import Field

import unhot
from unhot.bench.backends import Inline
from unhot.bench.grid import read_grid
from unhot.bench.results import collect, write_all
from unhot.bench.runner import Runner
from unhot.bench.store import Store
from unhot.bench.worker import WorkerConfig
from unhot.errors import InputError
from unhot.evaluation import attacks, metrics
from unhot.evaluation.catalogue import measures
from unhot.evaluation.metric import Attack, Case, Finding
from unhot.evaluation.requirement import Requirement
from unhot.evaluation.stats import Estimate, proportion
from unhot.records.audit import AuditRecord, Subject
from unhot.records.measure import Measure
from unhot.testing import check_attack, check_metric

DECLARED = """
from unhot.evaluation.attacks import AttackEntry
from unhot.evaluation.metrics import MetricEntry
from unhot.records.measure import Measure

GLARE = MetricEntry(
    "their_measures:glare",
    measure=Measure(
        name="glare",
        title="Glare & <b>sheen</b>",
        group="Features",
        sentence="How much glare there is.",
        low=0,
        high=10,
        unit="lumens",
        higher_is_better=True,
        note="bring sunglasses",
        source="Them, 2026",
    ),
)
GUESS = AttackEntry(
    "their_measures:Guess",
    "guesses the class",
    measures=(
        Measure(name="guess_rate", title="Guess rate", group="Attacks", sentence="How often guesses are right."),
    ),
)
"""
MEASURED = """
from unhot.evaluation.metric import Attack, Finding
from unhot.evaluation.stats import Estimate, proportion

def glare(case):
    return Estimate(5.0, 4.0, 6.0, len(case.view.y))

class Guess(Attack):
    tries: int = 3

    def run(self, case):
        return Finding({"guess_rate": proportion(case.view.correct)})
"""
ENTRY_POINTS = """
[unhot.metrics]
glare = their_package:GLARE
[unhot.attacks]
guess = their_package:GUESS
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed package that brings a metric and an attack."""
    folder = tmp_path_factory.mktemp("installed")
    info = folder / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "their_package.py").write_text(DECLARED)
    (folder / "their_measures.py").write_text(MEASURED)
    return folder


def started(*argv: object, package: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, in which the package is installed or not."""
    path = os.pathsep.join(filter(None, (str(package or ""), str(Path(unhot.__file__).parents[1]))))
    return subprocess.run(
        [sys.executable, "-m", "unhot", *map(str, argv)],
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def audited(package: Path, zoo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an audit with the package installed, and what the command said of a bound that is not met."""
    root = tmp_path_factory.mktemp("audited")
    unhot.save(zoo.original(0), root / "original")
    unhot.save(zoo.cut(0, 3), root / "unlearned")
    models = "--original", root / "original", "--unlearned", root / "unlearned"
    options = "--class", 3, "--data", "digits", "--quick", "--require", "glare>=9", "--require", "guess_rate<=2"
    done = started("audit", *models, *options, "--out", root / "audit", package=package)
    assert done.returncode == 3, done.stderr
    return root / "audit", done.stderr


def test_an_installed_package_is_listed(package: Path) -> None:
    listed = json.loads(started("list", "metrics", "--json", package=package).stdout)
    assert listed["glare"] == "How much glare there is."
    assert "glare" not in json.loads(started("list", "metrics", "--json").stdout)
    said = started("list", "attacks", package=package).stdout
    assert "guesses the class" in said
    assert "guess_rate" in said


def test_a_package_that_is_broken_does_not_keep_others_from_being_listed(package: Path, tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unhot.metrics]\nlost = nowhere_at_all:X\nplain = math:pi\n")
    listed = json.loads(started("list", "metrics", "--json", package=tmp_path).stdout)
    assert "forget_accuracy" in listed
    assert "cannot be loaded from nowhere_at_all (from broken)" in listed["lost"]
    assert "must name a MetricEntry" in listed["plain"]


def test_a_bound_on_their_measure_is_held(audited: tuple[Path, str]) -> None:
    assert "Not met: glare is 5.0000, required >= 9." in audited[1]
    assert "guess_rate" not in audited[1]


def test_the_record_holds_the_values_and_what_they_are(audited: tuple[Path, str]) -> None:
    record = AuditRecord.read(audited[0] / "audit.json")
    values = {(m.name, m.subject): m for m in record.measurements}
    assert values["glare", "unlearned"].value == 5
    assert (values["glare", "masked"].unit, values["glare", "masked"].higher_is_better) == ("lumens", True)
    assert values["guess_rate", "original"].value > 0.5
    assert values["glare", "retrained"].absent_because == "no retrained model was given"
    assert {m.name: m.title for m in record.measures}["glare"] == "Glare & <b>sheen</b>"
    assert record.attacks["guess"] == {"tries": 3}


def test_page_and_summary_show_it_as_their_own(audited: tuple[Path, str]) -> None:
    page = (audited[0] / "report.html").read_text()
    assert "<b>sheen" not in page
    text = unescape(page)
    how = "0 to 10, in lumens; bring sunglasses; higher is better. Source: Them, 2026."
    for part in ("Glare & <b>sheen</b>", "How much glare there is.", how, "Guess rate", "How often guesses are right."):
        assert part in text
    table = text[text.index("What can still be read from the layer") :]
    assert table.index("Linear probe") < table.index("Glare") < table.index("Prototype attack") < table.index("Guess")
    assert "Glare &amp; &lt;b&gt;sheen" in (audited[0] / "summary.md").read_text()


def test_the_page_is_the_same_where_the_package_is_not_installed(audited: tuple[Path, str], tmp_path: Path) -> None:
    done = started("report", audited[0], "--out", tmp_path / "again.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.html").read_text() == (audited[0] / "report.html").read_text()


@pytest.fixture
def registered() -> Iterator[None]:
    """A metric and an attack that running code registers."""
    declared = {"group": "Output", "low": 0, "high": 1, "higher_is_better": False}

    @metrics.register(Measure(name="haze", title="Haze", sentence="Haze.", **declared))
    def haze(case: Case) -> Estimate:
        return proportion(case.view.correct)

    @attacks.register("squint", "looks closely", Measure(name="squinted", title="Squinted", sentence="S.", **declared))
    class Squint(Attack):
        """Looks closely."""

        level: float = Field(default=0.5, ge=0, le=1)

        def run(self, case: Case) -> Finding:
            return Finding({"squinted": proportion(case.view.logits.softmax(1).amax(1) > self.level)})

    yield
    for catalogue, name in ((metrics.catalogue, "haze"), (attacks.catalogue, "squint")):
        del catalogue._entries[name]
        catalogue._loaded.pop(name, None)


@pytest.mark.usefixtures("registered", "keep_generators")
def test_registered_in_running_code_they_pass_the_checks_and_can_be_required() -> None:
    assert check_metric("haze") is None
    assert check_attack("squint") is None
    assert list(measures())[-1] == "squinted"
    assert Requirement.parse("haze<=0.5").name == "haze"
    with pytest.raises(InputError, match="registered already"):
        metrics.register(measures()["haze"])(lambda case: proportion(case.view.correct))


@pytest.mark.usefixtures("registered")
def test_their_values_are_in_the_results_of_a_grid(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(
        'schema = 1\nname = "theirs"\n[fixed]\ndataset = "digits"\narch = "lenet5"\nshots = 4\nclass = 1\nseed = 0\n'
        'train = { epochs = 1 }\n[[method]]\nname = "mask"\n'
    )
    grid, store = read_grid(tmp_path / "grid.toml"), Store(tmp_path / "out")
    board = SimpleNamespace(begin=lambda task: None, end=lambda task, problem: None)
    Runner(grid, store, Inline(), WorkerConfig(threads=1), board).run()
    write_all(collect(grid, store), tmp_path / "out")
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert set(row["values"]["haze"]) == set(row["values"]["squinted"]) == set(get_args(Subject))
    assert "haze/unlearned" in (tmp_path / "out" / "results.csv").read_text()


@pytest.fixture
def colliding() -> Iterator[Callable[[], dict[str, Measure]]]:
    measure = measures()["mia_auc"]
    metrics.register(measure)(lambda case: proportion(case.view.correct))
    yield measures
    del metrics.catalogue._entries["mia_auc"]


def test_two_things_that_measure_the_same_are_refused(colliding: Callable[[], dict[str, Measure]]) -> None:
    with pytest.raises(InputError, match=r"'membership'.*'mia_auc'.*something"):
        colliding()
