"""``unhot advise``: what it says of what is there, with nothing run."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_advice_ends_in_a_command_that_runs(unhot, bundle: Path, folders: Path, tmp_path: Path) -> None:
    asked = ["advise", bundle, "--samples", folders / "flat", "--class", "3"]
    said = unhot(*asked, "--holder", "outputs")
    assert said.code == 0
    assert said.out.startswith("Method: nhle-cwm\n")
    assert "Images of the class: 12 are given." in said.out
    command = said.out.splitlines()[-1].removeprefix("Then: unhot ").split()
    command[command.index("unlearned")] = tmp_path / "u"
    assert unhot(*command, "--force").code == 0
    found = unhot(*asked, "--data", folders / "tree", "--retain", folders / "nested", "--json").json
    assert (found["method"], found["samples"]) == ("nhle-renew", 12)
    assert "Stand-ins for the other classes: the 36 images of --retain." in found["needs"]
    assert "scrub" in found["others"]


def test_what_is_not_there_is_said(unhot, bundle: Path, tmp_path: Path) -> None:
    for more, said in (
        (["--samples", tmp_path / "no"], "There is no file or folder"),
        (["--samples", "digits", "--class", "x"], "Unknown class 'x'."),
        (["--samples", "digits", "--guard", "no"], "There is nothing at no."),
        (["--samples", "digits", "--retrained", "no"], "There is nothing at no."),
    ):
        found = unhot("advise", bundle, *more)
        assert (found.code, said in found.err) == (2, True), found.err
    found = unhot("advise", bundle / "model.safetensors", "--samples", "digits")
    assert (found.code, "set --arch to their architecture" in found.err) == (2, True)


@pytest.mark.filterwarnings("default::unhot.errors.UnhotWarning")
def test_advice_on_a_weights_file_ends_in_a_command_that_runs(
    unhot, bundle: Path, folders: Path, tmp_path: Path
) -> None:
    model = (bundle / "model.safetensors", "--arch", "lenet5", "--image-size", "16", "--data-dir", folders)
    said = unhot("advise", *model, "--samples", "digits", "--class", "3", "--holder", "outputs")
    assert said.code == 0, said.err
    command = said.out.splitlines()[-1].removeprefix("Then: unhot ").split()
    assert command[-8:-2] == ["--arch", "lenet5", "--image-size", "16", "--data-dir", str(folders)]
    command[command.index("unlearned")] = tmp_path / "u"
    assert unhot(*command, "--force").code == 0
