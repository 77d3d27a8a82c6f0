"""Every command on bundled digits: what it writes, what it says, and where."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unhot.cli import demo
from unhot.data.source import Source
from unhot.methods.nhle_renew import NhleRenew
from unhot.models.bundle import load
from unhot.records.audit import AuditRecord

Run = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("default::unhot.errors.SampleWarning")


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("as_json", [False, True])
def test_train(unhot: Run, digits: Source, tmp_path: Path, as_json: bool) -> None:
    call = ["train", "--dataset", "digits", "--arch", "resnet9", "--width", 4, "--epochs", 1, "--exclude-class", 3]
    said = unhot(*call, "--seed", 5, "--batch-size", 128, "--out", tmp_path / "m", *["--json"][: int(as_json)])
    assert said.code == 0, said.err
    assert names(tmp_path) == ["m"]
    assert names(tmp_path / "m") == ["bundle.json", "model.safetensors", "record.json"]
    record = json.loads((tmp_path / "m" / "record.json").read_text())
    assert record["excluded"] == [{"index": 3, "name": "3"}]
    assert (record["seed"], record["arch_options"], record["settings"]["batch_size"]) == (5, {"width": 4}, 128)
    assert load(tmp_path / "m").sha256() == record["weights_sha256"]
    assert record["train_images"] == int((digits.train_images.y != 3).sum())
    shown = f"Trained resnet9 on {record['train_images']:,} images in "
    assert said.json == record if as_json else said.out.startswith(shown)
    trained_on = f": test accuracy {record['test_accuracy']:.4f} on the 9 classes trained on. Wrote {tmp_path / 'm'}."
    assert as_json or said.out.endswith(f"{trained_on}\n")


def test_training_on_a_folder(unhot: Run, folders: Path, tmp_path: Path) -> None:
    call = ["train", "--dataset", folders / "tree", "--arch", "lenet5", "--epochs", 2, "--flip", "--json"]
    said = unhot(*call, "--out", tmp_path / "m")
    assert said.code == 0, said.err
    assert [c.name for c in load(tmp_path / "m").classes] == ["2", "3", "5"]
    assert said.json["train_images"] == 36


def test_the_same_seed_trains_and_forgets_to_the_same_weights(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    train = ["train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 1, "--json"]
    a, b, c = (unhot(*train, "--seed", s, "--out", tmp_path / f"t{i}").json for i, s in enumerate((0, 0, 1)))
    assert a["weights_sha256"] == b["weights_sha256"] != c["weights_sha256"]
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "--json"]
    a, b, c = (unhot(*call, "--seed", s, "--out", tmp_path / f"f{i}").json for i, s in enumerate((0, 0, 1)))
    assert a["digest"] == b["digest"] != c["digest"]
    assert a["weights_sha256"] == b["weights_sha256"] != c["weights_sha256"]


def test_forget_says_what_it_did(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    said = unhot("forget", bundle, "--class", 3, "--class", 5, "--samples", "digits", "--out", tmp_path / "u")
    assert said.code == 0
    assert said.out.startswith("Forgot 3, 5 with nhle-cwm from 32 images in ")
    assert said.out.count("\n") == 1
    unlearned = load(tmp_path / "u")
    assert [c.name for c in unlearned.forgotten] == ["3", "5"]
    assert len(unlearned.classes) == 10
    again = unhot("forget", tmp_path / "u", "--class", 3, "--samples", "digits", "--out", tmp_path / "v")
    assert (again.code, "forgotten 3 already" in again.err) == (2, True)


def test_options_of_a_method(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "--shots", 4, "--seed", 2, "--json"]
    said = unhot(*call, "-o", "encoding=margin", "-o", "steps=3", "-o", "cut=excise", "--out", tmp_path / "u")
    assert said.code == 0
    assert {"encoding": "margin", "steps": 3, "cut": "excise"}.items() <= said.json["hyperparameters"].items()
    assert said.json["samples"]["count"] == [4]
    unlearned = load(tmp_path / "u")
    assert [c.index for c in unlearned.classes] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert unlearned.head_layer.out_features == 9


@pytest.mark.parametrize(("source", "count"), [("flat", 12), ("nested", 12)])
def test_samples_of_a_folder(unhot: Run, bundle: Path, folders: Path, tmp_path: Path, source: str, count: int) -> None:
    said = unhot("forget", bundle, "--class", 3, "--samples", folders / source, "--json", "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert said.json["samples"]["count"] == [count]
    assert all(str(name).endswith(".png") for name in said.json["samples"]["indices"])
    few = unhot("forget", bundle, "--class", 3, "--samples", folders / source, "--shots", 3, "--out", tmp_path / "v")
    assert (few.code, "from 3 images" in few.out) == (0, True)


@pytest.mark.parametrize("kind", ["safetensors", "pt", "module", "wrapped"])
def test_weights_files(unhot: Run, bundle: Path, tmp_path: Path, kind: str) -> None:
    state = load_file(bundle / "model.safetensors")
    file = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(state, file)
    else:
        state = {f"module.{k}": v for k, v in state.items()} if kind == "module" else state
        torch.save({"state_dict": state, "epoch": 3} if kind == "wrapped" else state, file)
    call = ["forget", file, "--arch", "lenet5", "--class", 3, "--samples", "digits", "--method", "mask", "--json"]
    said = unhot(*call, "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert said.json["model_sha256"] == load(bundle).sha256()


def test_a_pickled_net_is_loaded_only_with_consent(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    torch.save(load(bundle).module, tmp_path / "w.pt")
    call = ["forget", tmp_path / "w.pt", "--arch", "lenet5", "--class", 3, "--samples", "digits", "--method", "mask"]
    refused = unhot(*call, "--out", tmp_path / "u")
    assert (refused.code, "--trust-pickle" in refused.err) == (2, True)
    assert unhot(*call, "--trust-pickle", "--out", tmp_path / "u").code == 0


def test_audit_of_a_folder(unhot: Run, bundle: Path, folders: Path, tmp_path: Path) -> None:
    call = ["audit", "--original", bundle, "--unlearned", bundle, "--class", 3, "--data", folders / "tree", "--quick"]
    said = unhot(*call, "--out", tmp_path / "a")
    assert said.code == 0, said.err
    for shown in (
        "forget_accuracy",
        "retain_drop_masked",
        "Verdict for whoever holds the features: not forgotten.",
        f"Wrote {tmp_path / 'a'}.",
    ):
        assert shown in said.out
    record = json.loads((tmp_path / "a" / "audit.json").read_text())
    accuracy = next(m for m in record["measurements"] if (m["name"], m["subject"]) == ("retain_accuracy", "original"))
    assert record["inputs"]["images"] == {"test": 36, "train": 36}
    assert accuracy["low"] < accuracy["value"] <= accuracy["high"]


@pytest.mark.parametrize(
    ("require", "code"),
    [
        ([], 0),
        (["forget_accuracy<=1"], 0),
        (["forget_accuracy<=1", "retain_accuracy>0.5", "retain_drop < 0.1"], 0),
        (["forget_accuracy<=0.01"], 3),
        (["retain_accuracy>=1e1"], 3),
        (["forget_accuracy<=0.01", "forget_accuracy<=1"], 3),
        (["output_js_to_retrained<=1"], 3),
        (["verdict>=hidden"], 3),
        (["verdict.weights >= retrained"], 3),
    ],
)
def test_requirements(unhot: Run, bundle: Path, folders: Path, tmp_path: Path, require: list[str], code: int) -> None:
    call = ["audit", "--original", bundle, "--unlearned", bundle, "--class", 3, "--data", folders / "tree", "--quick"]
    said = unhot(*call, "--json", "--out", tmp_path / "a", *(a for r in require for a in ("--require", r)))
    assert said.code == code
    assert said.err.count("Not met: ") == (code == 3)
    assert said.json["kind"] == "audit"
    assert (tmp_path / "a" / "audit.json").is_file()


@pytest.mark.usefixtures("short_digits")
def test_demo(unhot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = NhleRenew.run
    monkeypatch.setattr(NhleRenew, "run", lambda m, *a: run(m.model_copy(update={"steps": 20, "images": 64}), *a))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unhot-demo").mkdir()
    said = unhot("demo")
    assert said.code == 0
    assert names(tmp_path) == ["unhot-demo", "unhot-demo-2"]
    assert names(tmp_path / "unhot-demo-2") == [
        *("audit-renewed", "audit-unlearned", "original", "renewed", "report.html", "retrained", "unlearned"),
    ]
    for shown in ("original", "masked", "nhle-cwm", "nhle-renew", "retrained", "forget accuracy", "unhot-demo-2"):
        assert shown in said.out
    assert said.err.count("...") == 6
    for folder, method in demo.METHODS.items():
        assert load(f"unhot-demo-2/{folder}").forgotten[0].name == "3"
        made_by = AuditRecord.read(Path(f"unhot-demo-2/audit-{folder}/audit.json")).made_by
        assert made_by is not None
        assert made_by.method == method


@pytest.mark.parametrize("call", [["list", "methods"], ["show", "mask"], ["env"], ["--version"], ["forget", "--help"]])
def test_results_go_to_stdout_only(unhot: Run, call: list[str]) -> None:
    said = unhot(*call)
    assert (said.code, said.err) == (0, "")
    assert said.out.strip()


@pytest.mark.parametrize("call", [["list", "models"], ["show", "nhle-cwm"], ["env"]])
def test_json_is_one_object(unhot: Run, call: list[str]) -> None:
    assert isinstance(unhot(*call, "--json").json, dict)


def test_show_lists_every_hyperparameter_with_its_range(unhot: Run) -> None:
    said = unhot("show", "nhle-cwm")
    fields = unhot("show", "nhle-cwm", "--json").json["hyperparameters"]
    assert all(name in said.out for name in fields)
    assert "> 0 and <= 1" in said.out
    assert "Reads: forget" in said.out


def test_python_m_unhot_and_the_script_are_the_same(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "unhot"
    ways = [[sys.executable, "-m", "unhot"], [str(script)]]
    first, second = (
        subprocess.run([*way, "list", "methods", "--json"], cwd=tmp_path, capture_output=True, text=True)
        for way in ways
    )
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout
    assert first.stderr == second.stderr == ""
    failed = subprocess.run([*ways[0], "show", "masks"], cwd=tmp_path, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "Error: Unknown method 'masks'. Did you mean 'mask'?\n"


def test_a_traceback_is_shown_when_asked_for(unhot: Run) -> None:
    assert "Traceback" not in unhot("show", "masks").err
    assert "Traceback" in unhot("--traceback", "show", "masks").err


def test_an_empty_argument_is_no_path(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    """Else it would be the current folder."""
    asked = "forget", bundle, "--class", 3, "--out", tmp_path / "out"
    for given in (("--samples", ""), ("--samples=",)):
        said = unhot(*asked, *given)
        assert (said.code, said.err) == (2, "Error: --samples is empty. Is a variable of the shell not set?\n")
    assert "An argument is empty" in unhot("report", "").err
    assert unhot(*asked, "--samples", "digits", "--method", "mask", "--note", "").code == 0
    assert (tmp_path / "out").is_dir()


def test_only_as_sure_as_the_samples(unhot: Run, bundle: Path, folders: Path, tmp_path: Path) -> None:
    threes, fives = (sorted((folders / "nested" / name).iterdir()) for name in "35")
    for name, files in (("most", [*threes, *fives[:4]]), ("few", [*threes[:2], *fives])):
        (tmp_path / name).mkdir()
        for i, file in enumerate(files):
            (tmp_path / name / f"{i:02}.png").write_bytes(file.read_bytes())
    call = ["forget", bundle, "--class", 3, "--method", "mask", "--json", "--out", tmp_path / "u", "--samples"]
    said = unhot(*call, tmp_path / "few")
    assert (said.code, said.out) == (2, "")
    assert re.match(r"Error: 1[0-2] of 14 samples of '3' are classified as '5'", said.err)
    assert "--force" in said.err
    assert not (tmp_path / "u").exists()
    said = unhot(*call, tmp_path / "most")
    assert (said.code, said.json["samples"]["count"]) == (0, [16])
    assert re.search(r"Note: 1[0-2] of 16 samples of '3' are classified as '3', [34] as '5'", said.err)
    said = unhot(*call[:-2], tmp_path / "v", "--force", "--samples", tmp_path / "few")
    assert said.code == 0
    assert re.search(r"Note: [0-2] of 14 samples of '3' are classified as '3', 1[0-2] as '5'", said.err)
