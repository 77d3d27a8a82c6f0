"""What somebody does on the first day, and what they are told then."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unhot import methods
from unhot.evaluation.catalogue import measures

Run = Callable[..., Any]
pytestmark = [
    pytest.mark.filterwarnings("default::unhot.errors.SampleWarning"),
    pytest.mark.filterwarnings("default::unhot.errors.ModelWarning"),
    pytest.mark.filterwarnings("default::unhot.errors.DataWarning"),
]
MASK = ["--method", "mask"]


def test_a_class_that_is_named_twice_is_forgotten_once(unhot: Run, bundle: Path, folders: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"low": ["0", "1"]}')
    for i, (twice, source, more) in enumerate(
        [
            ([3, 3], "digits", []),
            ([3, "3"], folders / "nested", []),
            (["low", "low"], "digits", ["--label-map", tmp_path / "map.json"]),
        ]
    ):
        call = ["forget", bundle, *(a for c in twice for a in ("--class", c)), "--samples", source, *more, *MASK]
        said = unhot(*call, "--out", tmp_path / str(i))
        assert said.code == 0, said.err
        assert said.out.startswith(f"Forgot {twice[0]} ")


def test_samples_of_a_folder_of_splits_are_its_train_images(
    unhot: Run, bundle: Path, folders: Path, tmp_path: Path
) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", folders / "tree", *MASK]
    said = unhot(*call, "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert "tree has splits. Samples are taken from tree, train split." in said.err
    assert said.out.startswith("Forgot 3 with mask from 12 images in ")


def test_samples_that_are_no_folder(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    for source, sentence in (
        (tmp_path / "image.png", "image.png is a single picture. Give the folder that it is in."),
        (tmp_path / "none", f"There is no file or folder {tmp_path / 'none'}. Known: cifar10, "),
        ("digit", "There is no file or folder digit. Did you mean 'digits'?"),
    ):
        said = unhot("forget", bundle, "--class", 3, "--samples", source, "--out", tmp_path / "u")
        assert (said.code, sentence in said.err) == (2, True), said.err
    for source, sentence in (
        (tmp_path / "image.png", "image.png is a single picture. Give the folder that it is in."),
        (tmp_path / "none", f"There is no file or folder {tmp_path / 'none'}. Known: cifar10, "),
    ):
        said = unhot("train", "--dataset", source, "--arch", "lenet5", "--out", tmp_path / "u")
        assert (said.code, sentence in said.err) == (2, True), said.err


def test_a_method_says_what_it_needs_in_the_terms_of_the_command_line(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "--out", tmp_path / "u", "--method"]
    said = unhot(*call, "ssd")
    assert (said.code, said.out) == (2, "")
    assert "ssd needs images of the retained classes. Give --retain, or choose another method." in said.err
    assert unhot(*call, "mask").code == 0
    again = unhot("forget", tmp_path / "u", *call[2:-1], "--out", tmp_path / "v")
    assert (again.code, "forgotten 3 already. Nothing is left to forget." in again.err) == (2, True)


def test_classes_that_are_matched_otherwise_are_noted_once(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    assert unhot("train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 1, "--out", tmp_path / "m").code == 0
    info = tmp_path / "m" / "bundle.json"
    content = json.loads(info.read_text())
    content["classes"] = [{"index": i, "name": f"digit {i}"} for i in range(10)]
    info.write_text(json.dumps(content))
    call = ["forget", tmp_path / "m", "--class", 3, "--samples", "digits", "--data", "digits", "--force", *MASK]
    said = unhot(*call, "--out", tmp_path / "u")
    assert said.code == 0, said.err
    notes = [line for line in said.err.splitlines() if "matched by" in line]
    assert len(notes) == len(set(notes)) > 0


def test_what_is_no_folder_of_an_audit(unhot: Run, tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "both" / name).mkdir(parents=True)
        (tmp_path / "both" / name / "audit.json").touch()
    both = tmp_path / "both"
    for folder, offer in (
        (both, f"Give {both / 'a'} or {both / 'b'}."),
        (both / "a" / "audit.json", f"audit.json is the file of an audit. Give its folder, {both / 'a'}."),
        (tmp_path, "Give the folder that unhot audit wrote."),
    ):
        said = unhot("report", folder, "--out", tmp_path / "x.html")
        assert (said.code, offer in said.err) == (2, True), said.err


def test_a_list_that_there_is_not(unhot: Run) -> None:
    said = unhot("list", "metrik")
    assert (said.code, said.err) == (2, "Error: Unknown list 'metrik'. Did you mean 'metrics'?\n")
    assert list(unhot("list", "measures", "--json").json) == list(measures())
    shown = unhot("list", "measures").out
    assert all(name in shown for name in measures())


@pytest.mark.parametrize("name", list(methods.catalogue.builtin))
def test_a_method_is_shown_in_plain_text(unhot: Run, name: str) -> None:
    said = unhot("show", name)
    assert (said.code, said.err) == (0, "")
    assert not re.search(r"\\|:[a-z]+:`|``|\.\. [a-z]", said.out)
    assert " value " not in said.out


def test_formulas_and_types_of_a_method(unhot: Run) -> None:
    said = unhot("show", "nhle-guard").out
    assert "    P_l = (I + ρ S_l / tr S_l)⁻¹\n" in said
    assert "    x_f ∈ { s, s + N(0, Σ_k) }, k ~ p̃^(1/T)(s)\n" in said
    assert re.search(r"preconditioning +│ number or null │ +null │ +>= 0 │", said)
    assert "    θ_i ← θ_i min(λ I_i(D) / I_i(D_f), 1)\n" in unhot("show", "ssd").out


def test_commands_are_listed_in_the_order_of_use(unhot: Run) -> None:
    said = unhot("--help").out
    order = ["demo", "train", "forget", "guard", "audit", "compare", "bench", "report", "keys", "certify", "verify"]
    order += ["diff", "apply", "revert", "log", "list", "show", "env"]
    assert re.findall(rf"^  ({'|'.join(order)}) ", said, re.M) == order
