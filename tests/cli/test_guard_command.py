"""unhot guard and unhot forget --guard, end to end on bundled digits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unhot.data.samples import draw
from unhot.data.source import Source
from unhot.methods.forget import forget
from unhot.models.bundle import load
from unhot.statistics import ClassStatistics

Run = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("default::unhot.errors.SampleWarning")
SHORT = ("-o", "steps=40", "-o", "images=27", "-o", "descent=5")


@pytest.fixture
def file(unhot: Run, bundle: Path, tmp_path: Path) -> Path:
    out = tmp_path / "g.safetensors"
    said = unhot("guard", "collect", bundle, "--data", "digits", "--out", out)
    assert said.code == 0, said.err
    assert said.out.startswith("Wrote statistics of 10 classes, ")
    return out


def test_collecting_again_gives_the_same(unhot: Run, bundle: Path, file: Path, tmp_path: Path) -> None:
    said = unhot("guard", "collect", bundle, "--data", "digits", "--json", "--out", tmp_path / "again")
    assert said.json["model_sha256"] == load(bundle).sha256()
    assert sum(said.json["counts"]) == 1438
    assert ClassStatistics.load(tmp_path / "again").sha256() == ClassStatistics.load(file).sha256()
    few = unhot("guard", "collect", bundle, "--data", "digits", "--max-images", 50, "--out", tmp_path / "few")
    assert few.code == 0
    assert ClassStatistics.load(tmp_path / "few").sha256() != ClassStatistics.load(file).sha256()


def test_dropping_classes(unhot: Run, file: Path, bundle: Path, tmp_path: Path) -> None:
    said = unhot("guard", "drop", file, "--class", 3, "--class", "7", "--json", "--out", tmp_path / "less")
    assert [c["name"] for c in said.json["classes"]] == list("01245689")
    at_once = unhot(
        "guard", "collect", bundle, "--data", "digits", "--drop", 3, "--drop", 7, "--out", tmp_path / "at-once"
    )
    assert at_once.code == 0
    assert ClassStatistics.load(tmp_path / "at-once").sha256() == ClassStatistics.load(tmp_path / "less").sha256()


@pytest.mark.filterwarnings("default::FutureWarning")
def test_the_old_form_is_read(unhot: Run, bundle: Path, file: Path, tmp_path: Path) -> None:
    old = unhot("guard", bundle, "--data", "digits", "--drop", 3, "--out", tmp_path / "old")
    assert "unhot guard collect" in old.err
    dropped = unhot("guard", file, "--drop", 3, "--out", tmp_path / "dropped")
    assert "unhot guard drop" in dropped.err
    assert ClassStatistics.load(tmp_path / "old").sha256() == ClassStatistics.load(tmp_path / "dropped").sha256()


def test_forget_in_both_modes(unhot: Run, bundle: Path, file: Path, tmp_path: Path) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "--method", "nhle-guard", *SHORT, "--json"]
    bare, guarded = (
        unhot(*call, *extra, "--out", tmp_path / name).json
        for name, extra in (("bare", ()), ("guarded", ("--guard", file)))
    )
    assert (bare["notes"]["mode"], bare["uses"], bare["guard_sha256"]) == ("bare", ["forget"], None)
    assert (guarded["notes"]["mode"], guarded["uses"]) == ("guarded", ["forget", "guard"])
    assert guarded["guard_sha256"] == ClassStatistics.load(file).sha256()
    assert guarded["digest"] != bare["digest"]
    page = ["--original", bundle, "--unlearned", tmp_path / "guarded", "--class", 3, "--data", "digits", "--quick"]
    said = unhot("audit", *page, "--out", tmp_path / "audit", "--json", "--require", "forget_accuracy<=0.01")
    assert said.code == 0, said.err
    assert guarded["guard_sha256"] in (tmp_path / "audit" / "report.html").read_text()


@pytest.mark.filterwarnings("ignore::unhot.errors.SampleWarning")
def test_where_a_guard_is_given_and_no_method_it_is_used(
    unhot: Run, bundle: Path, file: Path, digits: Source, tmp_path: Path
) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "--json"]
    found = unhot(*call, "-o", "steps=3", "--guard", file, "--out", tmp_path / "u").json
    assert (found["method"], found["notes"]["mode"]) == ("nhle-guard", "guarded")
    assert unhot(*call, "-o", "steps=3", "--out", tmp_path / "v").json["method"] == "nhle-cwm"
    train = digits.train
    assert train is not None
    result = forget(load(bundle), draw(train, [3], 16), guard=ClassStatistics.load(file))
    assert result.record.method == "nhle-guard"


def test_a_class_that_was_dropped_before_is_forgotten_alike(
    unhot: Run, bundle: Path, file: Path, tmp_path: Path
) -> None:
    assert unhot("guard", "drop", file, "--class", 3, "--out", tmp_path / "less").code == 0
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "--method", "nhle-guard", *SHORT, "--json"]
    found = [
        unhot(*call, "--guard", g, "--out", tmp_path / f"u{i}").json for i, g in enumerate((file, tmp_path / "less"))
    ]
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]


@pytest.mark.filterwarnings("default::unhot.errors.DataWarning")
def test_images_that_the_model_does_not_know_are_noted(
    unhot: Run, bundle: Path, file: Path, digits: Source, tmp_path: Path
) -> None:
    for i in range(10):
        place = tmp_path / "noise" / "train" / str(i)
        place.mkdir(parents=True)
        for j, index in enumerate((digits.train_images.y == (i + 1) % 10).nonzero().flatten()[:20].tolist()):
            digits.train_images.x.load(index).save(place / f"{j}.png")
    said = unhot("guard", "collect", bundle, "--data", tmp_path / "noise", "--out", tmp_path / "other")
    assert said.code == 0, said.err
    assert re.search(
        r"Note: The model classifies 0\.\d+ of 200 images correctly; guessing would give 0\.100\.", said.err
    )
    own = unhot("guard", "collect", bundle, "--data", "digits", "--out", tmp_path / "own")
    assert (own.code, "guessing" in own.err) == (0, False)


def test_a_guard_of_a_model_of_groups(unhot: Run, tmp_path: Path) -> None:
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps({"low": ["0", "1", "2"], "mid": ["3", "4", "5"], "high": ["6", "7", "8", "9"]}))
    by_map = ["--label-map", groups]
    call = ["train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 3, *by_map]
    assert unhot(*call, "--out", tmp_path / "m").code == 0
    collect = ["guard", "collect", tmp_path / "m", "--data", "digits"]
    said = unhot(*collect, "--out", tmp_path / "none")
    assert (said.code, "If these are groups of the former, give the map with --label-map." in said.err) == (2, True)
    said = unhot(*collect, *by_map, "--json", "--out", tmp_path / "g")
    assert said.code == 0, said.err
    assert [c["name"] for c in said.json["classes"]] == ["low", "mid", "high"]
    call = ["forget", tmp_path / "m", "--class", "low", "--samples", "digits", *by_map, *SHORT]
    assert unhot(*call, "--guard", tmp_path / "g", "--out", tmp_path / "u").code == 0


def test_bad_input(unhot: Run, bundle: Path, file: Path, digits: Source, tmp_path: Path) -> None:
    out = tmp_path / "x"
    forget = ["forget", bundle, "--class", 3, "--samples", "digits", "--out", out]
    (tmp_path / "short").write_bytes(file.read_bytes()[:-1])
    with torch.no_grad():
        other = load(bundle)
        other.head_layer.bias.add_(1)
    ClassStatistics.collect(other, digits.train_images, max_images=20).save(tmp_path / "other")
    for call, sentence in (
        (["guard", "drop", file, "--out", out], "Missing option '--class'"),
        (["guard", "drop", file, "--class", "cat", "--out", out], "Unknown class 'cat'"),
        (["guard", "drop", tmp_path / "none", "--class", 3, "--out", out], "There is no guard at"),
        (["guard", "drop", file, "--class", 3, "--out", file], "exists. Choose another --out"),
        ([*forget, "--method", "nhle-cwm", "--guard", file], "nhle-cwm does not read stored statistics"),
        ([*forget, "--method", "nhle-guard", "--guard", tmp_path / "short"], "not a readable safetensors file"),
        ([*forget, "--method", "nhle-guard", "--guard", tmp_path / "other"], "collected from another model"),
    ):
        said = unhot(*call)
        assert said.code == 2, sentence
        assert sentence in said.err
        assert not out.exists()


def test_show_says_what_it_may_read(unhot: Run) -> None:
    assert "Reads: forget; if given: guard" in unhot("show", "nhle-guard").out
    assert json.loads(unhot("show", "nhle-guard", "--json").out)["may_use"] == ["guard"]
