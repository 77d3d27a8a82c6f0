"""Requests on models that are no bundles, and on classes that a label map groups."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from requested import NOTES, Carried, call

from unhot.models.bundle import load
from unhot.records.deletion import DeletionRecord

pytestmark = pytest.mark.filterwarnings(NOTES)

FILE = """
schema = 1
data = "digits"
key = "{key}"
out = "{out}"
quick = true
{more}

[model]
path = "{path}"
arch = "lenet5"

[[request]]
id = "R-1"
reason = "consent withdrawn"
classes = ["{first}"]
samples = "digits"
method = "mask"
force = true

[[request]]
id = "R-2"
reason = "licence ended"
classes = ["{second}"]
samples = "digits"
method = "mask"
force = true
"""


@pytest.fixture
def weights(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(bundle / "model.safetensors", tmp_path / "weights.safetensors"))


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(f"digit {i}" for i in range(10)))
    return path


def written(folder: Path, **values: object) -> Path:
    path = folder / "requests.toml"
    path.write_text(FILE.format(**{"more": "", "out": folder / "out"} | values))
    return path


def test_requests_begin_with_a_weights_file_and_go_on_from_bundles(
    weights: Path, bundle: Path, carried_out: Carried, tmp_path: Path, capsys
) -> None:
    file = written(tmp_path, key=carried_out.private, path=weights, first=3, second=5)
    assert call("request", file, "--json") == 0
    home = tmp_path / "out"
    record = DeletionRecord.read(home / "R-1" / "record" / "record.json")
    assert record.original_sha256 == load(bundle).sha256()
    assert json.loads((home / "R-1" / "request.json").read_text())["model_options"] == ["--arch", "lenet5"]
    assert [c.name for c in load(home / "R-2" / "model").forgotten] == ["3", "5"]
    file.write_text(file.read_text().replace('arch = "lenet5"', 'arch = "lenet5"\nmean = 0.5'))
    capsys.readouterr()
    assert call("request", file) == 2
    assert "R-1 was begun with other values than it has now" in capsys.readouterr().err

    check = ("verify", home / "R-1" / "record", "--key", carried_out.public, "--model", home / "R-1" / "model")
    check += ("--original", weights, "--arch", "lenet5")
    assert call(*check, "--remeasure", "--data", "digits") == 0
    said = capsys.readouterr().out
    assert "weights.safetensors has the weights of the model before; it is no bundle" in said
    assert "ok     verdict: the same for every holder" in said
    capsys.readouterr()
    assert call(*check, "--mean", "0.25") == 0
    assert "takes pictures that are prepared otherwise" in capsys.readouterr().err
    other = load(bundle)
    other.head_layer.weight.data[0] += 1
    wrong = tmp_path / "wrong.pt"
    torch.save(other.module.state_dict(), wrong)
    assert call(*check[:-3], wrong, "--arch", "lenet5") == 3
    assert "FAILED original: " in capsys.readouterr().out


def test_names_and_groups_are_those_of_the_file(
    weights: Path, names: Path, carried_out: Carried, tmp_path: Path, capsys
) -> None:
    (tmp_path / "groups.json").write_text(json.dumps({"round": ["0", "8"], "straight": ["1", "7"]}))
    more = f'label_map = "{tmp_path / "groups.json"}"'
    file = written(tmp_path, key=carried_out.private, path=weights, first="round", second="straight", more=more)
    assert call("request", file) == 0
    assert [c.name for c in load(tmp_path / "out" / "R-2" / "model").forgotten] == ["0", "8", "1", "7"]
    file.write_text(file.read_text().replace('"straight"', '"7", "8"'))
    capsys.readouterr()
    assert call("request", file) == 2
    assert "the class 8 comes twice, in several requests." in capsys.readouterr().err
    named = file.read_text().replace(more, "").replace('"round"', '"digit 3"').replace('"7", "8"', '"digit 3"')
    file.write_text(named.replace('arch = "lenet5"', f'arch = "lenet5"\nclasses = "{names}"'))
    assert call("request", file, "--dry-run") == 2
    assert "the class digit 3 comes twice" in capsys.readouterr().err


def test_a_weights_file_without_an_architecture_is_refused_before_anything_runs(
    weights: Path, carried_out: Carried, tmp_path: Path, capsys
) -> None:
    file = written(tmp_path, key=carried_out.private, path=weights, first=3, second=5)
    file.write_text(file.read_text().replace('arch = "lenet5"', 'arhc = "lenet5"'))
    assert call("request", file) == 2
    assert "'model.arhc': unknown (Did you mean 'arch'?)." in capsys.readouterr().err
    file.write_text(file.read_text().replace('arhc = "lenet5"', "quick = true"))
    assert call("request", file) == 2
    assert "'model.quick': unknown here (It belongs above the first table)." in capsys.readouterr().err
    file.write_text(file.read_text().replace(f'"{weights}"\nquick = true', f'"{weights}"'))
    assert call("request", file) == 2
    assert "'model': " in (said := capsys.readouterr().err)
    assert "set --arch to their architecture" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("short_digits")
def test_a_request_for_a_group_is_carried_out_again_by_the_label_map(
    carried_out: Carried, tmp_path: Path, capsys
) -> None:
    """The model knows groups only; the samples are of one label of the group, and are found again among all."""
    groups, model, out = tmp_path / "groups.json", tmp_path / "model", tmp_path / "out"
    groups.write_text(json.dumps({"low": ["0", "1"], "high": ["2", "3", "4", "5", "6", "7", "8", "9"]}))
    by_map = ("--label-map", groups)
    assert call("train", "--dataset", "digits", "--arch", "lenet5", *by_map, "--out", model) == 0
    text = FILE.format(
        key=carried_out.private, out=out, path=model, first="low", second="", more=f'label_map = "{groups}"'
    )
    text = text[: text.rindex("[[request]]")].replace('classes = ["low"]', 'classes = ["low"]\ngiven = ["1"]')
    (tmp_path / "requests.toml").write_text(text)
    assert call("request", tmp_path / "requests.toml") == 0
    assert call("diff", model, out / "R-1" / "model", "--out", tmp_path / "patch") == 0
    assert call("revert", out / "R-1" / "model", tmp_path / "patch", "--out", tmp_path / "back") == 0
    again = ("replay", tmp_path / "back", out / "R-1" / "record", "--samples", "digits", "--data", "digits")
    again += ("--key", carried_out.private, "--out", tmp_path / "again")
    assert call(*again, *by_map) == 0
    weights = Path("R-1") / "model" / "model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (out / weights).read_bytes()
    (tmp_path / "requests.toml").write_text(text.replace('["low"]\ngiven = ["1"]', '["0"]'))
    capsys.readouterr()
    assert call("request", tmp_path / "requests.toml") == 2
    assert "The request is for a part of low. Only whole classes can be certified" in capsys.readouterr().err
