"""What ``unhot forget`` says and writes when a run did not forget, or cost the other classes something."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unhot.methods import register
from unhot.methods.base import Data, Method, Outcome
from unhot.models.bundle import load
from unhot.models.classifier import Classifier
from unhot.records.forget import ForgetRecord
from unhot.runtime import Runtime

Run = Callable[..., Any]
pytestmark = [
    pytest.mark.filterwarnings("default::unhot.errors.SampleWarning"),
    pytest.mark.filterwarnings("default::unhot.errors.ModelWarning"),
    pytest.mark.filterwarnings("default::unhot.errors.DataWarning"),
]
NAME = "only-the-first"


@pytest.fixture(autouse=True)
def _only_the_first(own_methods: None) -> None:
    @register(NAME)
    class OnlyTheFirst(Method):
        """Lowers the logit of the first class to forget, and of class 8."""

        name = NAME
        uses = ()

        def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            with torch.no_grad():
                model.head_layer.bias[[data.columns[0], 8]] -= 1e3
            return Outcome(model, "done")


def test_a_run_that_did_not_forget_says_so_and_may_be_repeated(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    call = ["--class", 3, "--samples", "digits", "--method", "mask"]
    said = unhot("forget", bundle, *call, "-o", "cut=none", "--out", tmp_path / "kept")
    assert said.code == 0, said.err
    (first,) = said.out.splitlines()
    (note,) = (line for line in said.err.splitlines() if "Did not forget" in line)
    assert first.startswith("Forgot nothing with mask from 16 images in ")
    assert first.endswith(f"Wrote {tmp_path / 'kept'}.")
    left = r"Did not forget 3: 1\d of 16 samples are still classified as it\."
    advice = r"Try -o cut=mask, other settings of mask, or another method\."
    assert re.fullmatch(f"Note: {left} {advice}", note)
    (found,) = json.loads((tmp_path / "kept" / "record.json").read_text())["recognised"]
    assert found["label"] == {"index": 3, "name": "3"}
    assert (found["n"], found["before"]) == (16, found["after"])
    assert load(tmp_path / "kept").forgotten == ()
    again = unhot("forget", tmp_path / "kept", *call, "--out", tmp_path / "gone")
    assert again.code == 0, again.err
    assert again.out.startswith("Forgot 3 with mask from 16 images in ")
    assert again.out.count("\n") == 1
    assert [c.name for c in load(tmp_path / "gone").forgotten] == ["3"]


def test_of_several_classes_those_that_are_left_are_named(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    classes = ["--class", 5, "--class", 3, "--class", 1]
    said = unhot("forget", bundle, *classes, "--samples", "digits", "--method", NAME, "--out", tmp_path / "u")
    assert said.code == 0, said.err
    (first,) = said.out.splitlines()
    assert first.startswith(f"Forgot 5 with {NAME} from 48 images in ")
    (note,) = (line for line in said.err.splitlines() if "Did not forget" in line)
    assert re.findall(r"Did not forget \d", note) == ["Did not forget 3", "Did not forget 1"]
    assert note.endswith(f" Try other settings of {NAME}, or another method.")
    assert [c.name for c in load(tmp_path / "u").forgotten] == ["5"]


def test_a_loss_on_the_retained_classes_is_printed(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "--method", NAME]
    said = unhot(*call, "--data", "digits", "--out", tmp_path / "u")
    assert said.code == 0, said.err
    figures = (
        r"(\d\d\.\d)% before and (\d\d\.\d)% after, on 307 images; class 8 lost most "
        r"\((\d+) of 47 correct before, 0 after\)"
    )
    fell = r"Accuracy on the retained classes fell by 0\.1\d+, more than 0\.035"
    told = re.search(rf"^Note: {fell}: {figures}\. Try other settings of {NAME}, or another method\.$", said.err, re.M)
    assert told, said.err
    assert "Accuracy" not in said.out
    assert float(told[1]) - float(told[2]) == pytest.approx(100 * int(told[3]) / 307, abs=2)  # others gain a few
    record = json.loads((tmp_path / "u" / "record.json").read_text())["retained_accuracy"]
    assert record["before"] == pytest.approx(float(told[1]) / 100, abs=6e-4)
    assert (record["origin"], record["read_by_method"]) == ("digits, test split", False)
    quiet = unhot(*call[:-1], "mask", "--data", "digits", "--out", tmp_path / "v")
    assert "Accuracy on the retained classes: " in quiet.out
    assert "Note: Accuracy" not in quiet.err
    silent = unhot(*call[:-1], "mask", "--out", tmp_path / "w")
    assert "Accuracy" not in silent.out + silent.err


def test_images_that_the_method_does_not_read_are_refused(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "--out", tmp_path / "u"]
    for method in ("mask", "nhle-cwm"):
        said = unhot(*call, "--method", method, "--retain", "digits")
        assert said.code == 2
        assert f"{method} does not read images of the retained classes" in said.err
        assert "give them as --data." in said.err
        assert not (tmp_path / "u").exists()
    assert unhot(*call, "--method", "neggrad+", "--retain", "digits").code == 0


def test_a_dry_run_writes_nothing_and_says_the_same(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    asked = ["forget", bundle, "--class", 3, "--samples", "digits", "--data", "digits"]
    refused = unhot(*asked)
    assert (refused.code, "--out is missing." in refused.err) == (2, True)
    dry, call = unhot(*asked, "--dry-run"), [*asked, "--out", tmp_path / "u"]
    assert dry.code == 0
    assert "Wrote nothing: a dry run." in dry.out
    assert not (tmp_path / "u").exists()
    alike = re.compile(r"^.*? images|Estimated loss.*?\. |^Accuracy.*$", re.MULTILINE)
    assert alike.findall(dry.out) == alike.findall(unhot(*call).out)
    assert len(alike.findall(dry.out)) == 3


def test_quiet_leaves_results_and_errors(unhot: Run, bundle: Path, folders: Path, tmp_path: Path) -> None:
    asked = ["forget", bundle, "--class", 5, "--samples", folders / "flat", "--force", "--out", tmp_path / "u"]
    loud, quiet = unhot(*asked, "--dry-run"), unhot(*asked, "--quiet")
    assert "samples of '5' are classified as" in loud.err
    assert (quiet.code, quiet.err) == (0, "")
    assert quiet.out.startswith("Cut 5 from the output with")
    again = unhot(*asked, "--quiet")
    assert (again.code, again.out) == (2, "")
    assert again.err == f"Error: {tmp_path / 'u'} exists and is not empty. Choose another --out, or remove it first.\n"


def test_quiet_keeps_back_notes_and_not_why_the_exit_code_is_not_0(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    models = ["--original", bundle, "--unlearned", bundle, "--class", 3, "--data", "digits", "--quick"]
    audit = unhot("audit", *models, "--require", "forget_accuracy<=0.01", "--out", tmp_path / "a", "--quiet")
    assert audit.code == 3
    assert audit.err.startswith("Not met: forget_accuracy is ")
    assert len(audit.err.splitlines()) == 1
    asked = ["doctor", bundle / "model.safetensors", "--arch", "lenet5", "--samples", "digits", "--quiet"]
    assert unhot(*asked, "--class", 3).err == ""
    refused = unhot(*asked)
    assert (refused.code, refused.err) == (2, "Error: Name the class of digits that is to be forgotten: --class.\n")


def test_a_note_stands_in_the_record(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    asked = ["forget", bundle, "--class", 3, "--samples", "digits", "--method", "mask", "--out", tmp_path / "u"]
    refused = unhot(*asked, "--note", "x" * 2_001)
    assert (refused.code, "--note takes text in UTF-8 of at most 2,000 characters." in refused.err) == (2, True)
    assert unhot(*asked, "--note", "ticket 17").code == 0
    assert ForgetRecord.read(tmp_path / "u" / "record.json").note == "ticket 17"


@pytest.mark.parametrize(
    ("method", "began"), [("mask", "Cut 3 from the output with"), ("nhle-cwm", "Forgot 3 with nhle-cwm")]
)
def test_samples_of_which_none_was_recognised_prove_nothing(
    unhot: Run, bundle: Path, folders: Path, tmp_path: Path, method: str, began: str
) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", tmp_path / "fives", "--method", method]
    shutil.copytree(folders / "nested" / "5", tmp_path / "fives")
    refused = unhot(*call, "--out", tmp_path / "u")
    assert (refused.code, "on all the same: --force." in refused.err) == (2, True)
    said = unhot(*call, "--force", "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert said.out.startswith(began)
    none = "None of the 12 samples of '3' was classified as '3' before, so they do not show that it was forgotten."
    assert none in said.err
    assert ("It was only cut from the output." in said.err) == (method == "mask")


def test_any_pictures_stand_in_for_the_other_classes_and_a_cache_is_used_again(
    unhot: Run, bundle: Path, folders: Path, tmp_path: Path
) -> None:
    fast = [part for o in ("images=24", "descent=3", "steps=5", "budget=1") for part in ("-o", o)]
    call = ["forget", bundle, "--class", 3, "--samples", "digits", *fast, "--json"]
    said = unhot(*call, "--retain", folders / "flat", "--cache", tmp_path / "cache", "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert "has no class folders. Its images (12) are taken as unlabelled." in said.err
    assert re.search(r"nhle-renew takes about \d+ s, .*: 1 unlabelled image, 23 images to make and 5 steps\.", said.err)
    assert said.json["method"] == "nhle-renew"  # the default where there are images of other classes
    assert said.json["retain"]["labelled"] is False
    assert said.json["notes"]["mode"] == "unlabelled and bare"
    assert said.json["cost"]["planned_seconds"] > 0
    assert (tmp_path / "cache").is_file()
    again = unhot(*call, "--retain", folders / "flat", "--cache", tmp_path / "cache", "--out", tmp_path / "v")
    assert re.search(
        r"nhle-renew takes about \d+ s, .*: 1 unlabelled image, 23 images of the cache and 5 steps", again.err
    )
    assert again.json["weights_sha256"] == said.json["weights_sha256"]
    refused = unhot(*call[:6], "--cache", tmp_path / "cache", "--out", tmp_path / "w")
    assert refused.code == 2
    assert "nhle-cwm makes no images that a cache could keep. Leave --cache out, or choose nhle-renew." in refused.err
    inside = unhot(*call, "--cache", tmp_path / "w", "--out", tmp_path / "w")
    assert inside.err == f"Error: --cache {tmp_path / 'w'} is --out, or lies in it. Choose another place for it.\n"
    lost = unhot(*call, "--retain", folders / "flat", "--cache", tmp_path / "none" / "c", "--out", tmp_path / "w")
    assert f"{tmp_path / 'none'} is not a folder. Make it first, or choose another place." in lost.err
    folder = unhot(*call, "--retain", folders / "flat", "--cache", folders, "--out", tmp_path / "w")
    assert f"The cache {folders} is a folder. Name a file." in folder.err
    assert not (tmp_path / "w").exists()


def test_the_estimated_loss_is_printed_and_recorded(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", "digits"]
    said = unhot(*call, "--out", tmp_path / "forgot")
    (first,) = said.out.splitlines()
    assert first.startswith("Forgot 3 with nhle-cwm from 16 images in ")
    found = json.loads((tmp_path / "forgot" / "record.json").read_text())["notes"]["loss_on_other_classes"]
    assert 0 <= found["estimate"] < found["at_most"] <= 0.035
    figures = f"{found['estimate']:.3f}, at most {found['at_most']:.3f}"
    assert f"). Estimated loss on other classes: {figures}. Wrote " in first


def test_a_run_that_no_step_was_left_of_says_that_it_only_cut(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "-o", "budget=0.001"]
    (first,) = unhot(*call, "--out", tmp_path / "cut").out.splitlines()
    assert first.startswith("Cut 3 from the output with nhle-cwm from 16 images in ")
    assert "(2 steps; the budget allows no step). " in first
    assert (
        "Any change might have cost the other classes more than the budget: the features are unchanged. Wrote " in first
    )
    assert [c.name for c in load(tmp_path / "cut").forgotten] == ["3"]
    before, after = (load(path).module.state_dict() for path in (bundle, tmp_path / "cut"))
    assert {k for k, v in after.items() if not torch.equal(v, before[k])} == {"head.weight", "head.bias"}
    kept = unhot(*call, "-o", "cut=none", "--out", tmp_path / "kept").out.splitlines()[0]
    assert kept.startswith("Forgot nothing with nhle-cwm from 16 images in ")
