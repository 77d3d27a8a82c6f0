"""The command line, end to end on bundled digits, and what it says to bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unhot.cli import main

# a model of few epochs is not sure of all samples
pytestmark = pytest.mark.filterwarnings("default::unhot.errors.SampleWarning")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "base"
    assert main(["train", "--dataset", "digits", "--arch", "lenet5", "--epochs", "8", "--out", str(out)]) == 0
    return out


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), dtype=np.uint8)).save(path)
    return path


def test_forget_and_audit(bundle, tmp_path, capsys):
    out, page = tmp_path / "u", tmp_path / "a"
    call = ["forget", str(bundle), "--class", "3", "--samples", "digits", "--out", str(out), "--json"]
    assert main(call) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["method"] == "nhle-cwm"
    assert {p.name for p in out.iterdir()} == {"bundle.json", "model.safetensors", "record.json"}
    call = ["audit", "--original", str(bundle), "--unlearned", str(out), "--class", "3", "--data", "digits", "--quick"]
    assert main([*call, "--out", str(page), "--json", "--require", "forget_accuracy<=0.01"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["label"]
    assert {"audit.json", "report.html", "samples.png", "summary.md"} <= {p.name for p in page.iterdir()}
    unmet = ["--out", str(tmp_path / "b"), "--require", "retain_accuracy>=1.01"]
    assert main([*call, *unmet]) == 3
    assert "Not met: retain_accuracy" in capsys.readouterr().err


def test_several_models_in_one_table(bundle, tmp_path, capsys):
    cut = tmp_path / "cut"
    call = ["forget", str(bundle), "--class", "3", "--samples", "digits", "--method", "mask", "-o", "cut=excise"]
    assert main([*call, "--out", str(cut)]) == 0
    both = ["compare", str(cut), str(bundle), "--original", str(bundle), "--class", "3", "--data", "digits", "--quick"]
    assert main([*both, "--out", str(tmp_path / "c")]) == 0
    said = capsys.readouterr().out
    assert "not forgotten" in said
    assert "hidden at the output" in said
    assert (tmp_path / "c" / "report.html").exists()


@pytest.mark.parametrize("what", ["methods", "metrics", "attacks", "models", "datasets"])
def test_lists_are_json_when_asked(what, capsys):
    assert main(["list", what, "--json"]) == 0
    assert all(json.loads(capsys.readouterr().out).values())


def test_show_says_what_is_a_reconstruction(capsys):
    assert main(["show", "nhle-cwm"]) == 0
    said = capsys.readouterr().out
    assert "Reconstruction:" in said
    assert "Only its abstract" in said
    assert main(["env", "--json"]) == 0
    assert "torch" in json.loads(capsys.readouterr().out)


def test_an_interrupted_training_goes_on_where_it_was(tmp_path, capsys):
    call = ["train", "--dataset", "digits", "--arch", "lenet5", "--epochs", "300", "--out", str(tmp_path / "t")]
    run = subprocess.Popen([sys.executable, "-m", "unhot", *call], stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / ".t.checkpoint"
    for _ in range(600):
        if checkpoint.exists():
            break
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    said = run.communicate()[1]
    assert run.returncode == 130
    assert "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == [".t.checkpoint"]


def test_help_and_lists_do_not_import_torch():
    code = "import sys; from unhot.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    for call in (["--help"], ["list", "methods"], ["forget", "--help"]):
        assert subprocess.run([sys.executable, "-c", code, *call], capture_output=True).returncode == 0, call


FORGET = ["forget", "BASE", "--class", "3", "--samples", "digits"]
AUDIT = ["audit", "--original", "BASE", "--unlearned", "BASE", "--class", "3", "--data", "digits"]
BAD = {
    "class out of range": ["forget", "BASE", "--class", "99", "--samples", "digits"],
    "unknown class": ["forget", "BASE", "--class", "nope", "--samples", "digits"],
    "unknown method": [*FORGET, "--method", "maskk"],
    "unknown option": [*FORGET, "-o", "guardd=1"],
    "option of the wrong type": [*FORGET, "-o", "guard=fast"],
    "option out of range": [*FORGET, "-o", "step_size=2"],
    "option without a value": [*FORGET, "-o", "guard"],
    "no shots": [*FORGET, "--shots", "0"],
    "too many shots": [*FORGET, "--shots", "9999"],
    "no model": ["forget", "TMP/none", "--class", "3", "--samples", "digits"],
    "empty folder": ["forget", "BASE", "--class", "3", "--samples", "TMP/empty"],
    "broken images": ["forget", "BASE", "--class", "3", "--samples", "TMP/broken"],
    "not of the class": ["forget", "BASE", "--class", "3", "--samples", "TMP/other"],
    "all classes": ["forget", "BASE", *(a for c in range(10) for a in ("--class", str(c))), "--samples", "digits"],
    "weights without an architecture": ["forget", "TMP/w.pt", "--class", "3", "--samples", "digits"],
    "a pickle that runs code": ["forget", "TMP/bomb.pt", "--arch", "lenet5", "--class", "3", "--samples", "digits"],
    "NaN weights": ["forget", "TMP/nan.pt", "--arch", "lenet5", "--class", "3", "--samples", "digits"],
    "unknown data set": ["train", "--dataset", "digitz", "--arch", "lenet5"],
    "unknown architecture": ["train", "--dataset", "digits", "--arch", "lenet"],
    "data set that is not there": ["train", "--dataset", "mnist", "--arch", "lenet5", "--data-dir", "TMP/empty"],
    "malformed requirement": [*AUDIT, "--require", "forget_accuracy"],
    "unknown requirement": [*AUDIT, "--require", "forgot_accuracy<=0.1"],
    "unknown device": [*FORGET, "--device", "tpu9"],
    "a device that computes nothing": [*FORGET, "--device", "meta"],
}


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_sentence_exit_code_2_and_nothing_written(what, bundle, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    (tmp_path / "broken" / "b.png").write_bytes(picture(tmp_path / "whole" / "b.png").read_bytes()[:90])
    picture(tmp_path / "other" / "a.png")
    state = torch.nn.Linear(2, 2, device="meta").state_dict()
    torch.save({k: torch.zeros(v.shape) for k, v in state.items()}, tmp_path / "w.pt")
    torch.save({"w": Bomb()}, tmp_path / "bomb.pt")
    import safetensors.torch

    weights = safetensors.torch.load_file(bundle / "model.safetensors")
    torch.save({k: v * float("nan") for k, v in weights.items()}, tmp_path / "nan.pt")
    monkeypatch.chdir(tmp_path)
    call = [a.replace("BASE", str(bundle)).replace("TMP", str(tmp_path)) for a in BAD[what]]
    assert main([*call, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Error: ")
    assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "pwned").exists()
    if what == "broken images":
        assert "a.png" in said.err
        assert "b.png" in said.err


def test_a_folder_with_other_files_is_left_alone(bundle, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    call = [a.replace("BASE", str(bundle)) for a in FORGET]
    assert main([*call, "--out", str(tmp_path)]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    assert "not empty" in capsys.readouterr().err
