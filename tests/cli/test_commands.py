"""The command line, end to end on bundled digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unhot.cli import main

# a model of few epochs is not sure of all samples
pytestmark = pytest.mark.filterwarnings("default::unhot.errors.SampleWarning")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "base"
    assert main(["train", "--dataset", "digits", "--arch", "lenet5", "--epochs", "8", "--out", str(out)]) == 0
    return out


def test_forget_and_audit(bundle, tmp_path, capsys) -> None:
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


def test_several_models_in_one_table(bundle, tmp_path, capsys) -> None:
    cut = tmp_path / "cut"
    call = ["forget", str(bundle), "--class", "3", "--samples", "digits", "--method", "mask", "-o", "cut=excise"]
    assert main([*call, "--out", str(cut)]) == 0
    both = ["compare", str(cut), str(bundle), "--original", str(bundle), "--class", "3", "--data", "digits", "--quick"]
    assert main([*both, "--out", str(tmp_path / "c")]) == 0
    said = capsys.readouterr().out
    assert "not forgotten" in said
    assert "hidden at the output" in said
    assert "recovery_1_shot" in said
    assert "knn_accuracy" not in said
    assert (tmp_path / "c" / "report.html").exists()


@pytest.mark.parametrize("what", ["methods", "metrics", "attacks", "models", "datasets"])
def test_lists_are_json_when_asked(what, capsys) -> None:
    assert main(["list", what, "--json"]) == 0
    assert all(json.loads(capsys.readouterr().out).values())


def test_show_says_what_is_a_reconstruction(capsys) -> None:
    assert main(["show", "nhle-cwm"]) == 0
    said = capsys.readouterr().out
    assert "Reconstruction:" in said
    assert "Only its abstract" in said
    assert main(["env", "--json"]) == 0
    assert "torch" in json.loads(capsys.readouterr().out)


def test_an_audit_says_of_each_holder_what_decided_it(bundle, tmp_path, capsys) -> None:
    groups = tmp_path / "map.json"
    groups.write_text(json.dumps({str(i): [str(i)] for i in range(10)}))
    cut = tmp_path / "cut"
    call = ["forget", str(bundle), "--class", "3", "--samples", "digits", "--method", "mask"]
    assert main([*call, "--out", str(cut)]) == 0
    call = ["audit", "--unlearned", str(cut), "--original", str(bundle), "--class", "3", "--data", "digits", "--quick"]
    more = ["--label-map", str(groups), "--holder", "weights", "--require", "verdict.outputs>=hidden"]
    assert main([*call, *more, "--out", str(tmp_path / "a")]) in (0, 3)
    said = capsys.readouterr().out
    verdict = json.loads((tmp_path / "a" / "audit.json").read_text())["verdict"]
    assert verdict["holder"] == "weights"
    for holder, one in verdict["holders"].items():
        assert f"  Whoever holds the {holder}: {one['label']}. " in said
    verdicts = said[said.index("Verdict for whoever holds the weights: ") :]
    assert "Original's features predicted: unlearned" in verdicts
    assert "original_features_r2" not in verdicts
