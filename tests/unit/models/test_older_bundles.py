"""Bundles that unhot wrote before what was done to a head had a list.

``version_1.tar.xz`` holds some of every kind, as ``made.py`` in it wrote them with the code of commit 22468ed, each
with what its net returned then.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unhot.errors import InputError, ModelError
from unhot.models.arch import build
from unhot.models.bundle import load, save
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut, cut_classes
from unhot.models.head_edits.projection import ProjectionEdit
from unhot.records.model import InputSpec

RESNET = {"arch": "resnet9", "arch_options": {"width": 1}}
PROJECTED = "unhot.models.projection:projected"  # what a net with a projection was built by
EDITS = {  # kind: what its head_edits are now, the marks left out; a graph has the bottleneck in itself
    "masked": [{"kind": "mask", "layer": "head", "outputs": (1, 4), "by": "weights", "adds_bias": False}],
    "excised": [{"kind": "excise", "layer": "head", "outputs": (1, 4)}],
    "bottleneck": [
        {"kind": "bottleneck", "layer": "head", "width": 3},
        {"kind": "mask", "layer": "head.1", "outputs": (1, 4), "by": "weights", "adds_bias": False},
    ],
    "two-bottlenecks": [
        {"kind": "bottleneck", "layer": "head", "width": 3},
        {"kind": "mask", "layer": "head.1", "outputs": (1, 4), "by": "weights", "adds_bias": False},
    ],
    "projected": [{"kind": "projection", "layer": "head", "rank": 1, "deploy": "layer"}],
    "projected-twice": [{"kind": "projection", "layer": "head", "rank": 3, "deploy": "layer"}],
    "projected-and-masked": [
        {"kind": "projection", "layer": "head", "rank": 1, "deploy": "layer"},
        {"kind": "mask", "layer": "head.1", "outputs": (2,), "by": "weights", "adds_bias": False},
    ],
    "projected-and-excised": [
        {"kind": "projection", "layer": "head", "rank": 1, "deploy": "layer"},
        {"kind": "excise", "layer": "head.1", "outputs": (2,)},
    ],
    "projected-and-bottleneck": [
        {"kind": "projection", "layer": "head", "rank": 1, "deploy": "layer"},
        {"kind": "bottleneck", "layer": "head.1", "width": 4},
        {"kind": "mask", "layer": "head.1.1", "outputs": (2,), "by": "weights", "adds_bias": False},
    ],
    "masked-after-excise": [
        {"kind": "excise", "layer": "head", "outputs": (1,)},
        {"kind": "mask", "layer": "head", "outputs": (3,), "by": "weights", "adds_bias": False},
    ],
    "bias-free-masked": [{"kind": "mask", "layer": "head", "outputs": (3,), "by": "weights", "adds_bias": True}],
    "bias-free-excised": [{"kind": "excise", "layer": "head", "outputs": (3,)}],
    "gated": [],
    "cosine-masked": [{"kind": "mask", "layer": "3", "outputs": (2,), "by": "hook", "adds_bias": False}],
    "cosine-projected-and-masked": [
        {"kind": "projection", "layer": "3", "rank": 1, "deploy": "layer"},
        {"kind": "mask", "layer": "3.1", "outputs": (2,), "by": "hook", "adds_bias": False},
    ],
    "of-mine-projected-and-masked": [
        {"kind": "projection", "layer": "3", "rank": 1, "deploy": "layer"},
        {"kind": "mask", "layer": "3.1", "outputs": (2,), "by": "weights", "adds_bias": False},
    ],
    "graph-masked": [{"kind": "mask", "layer": "3", "outputs": (1, 4), "by": "weights", "adds_bias": False}],
    "graph-excised": [{"kind": "excise", "layer": "3", "outputs": (1, 4)}],
    "graph-bottleneck": [{"kind": "mask", "layer": "3.1", "outputs": (1, 4), "by": "weights", "adds_bias": False}],
}
ARCHS = {
    "cosine-masked": "old_nets:cosine",
    "cosine-projected-and-masked": "old_nets:cosine",
    "of-mine-projected-and-masked": "old_nets:plain",
}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(Path(__file__).with_name("version_1.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    sys.path.insert(0, str(folder))  # where old_nets.py is
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("old_nets", None)


def inputs(model: Classifier) -> Tensor:
    """As made.py says."""
    shape = model.input_shape or (1, 4, 4)
    return torch.linspace(-1, 1, 3 * shape[1] * shape[2]).sin().view(3, *shape)


def assert_as_then(model: Classifier, folder: Path) -> None:
    then = json.loads((folder / "expected.json").read_text())
    with torch.no_grad():
        features, logits = model.features_and_logits(inputs(model))
    torch.testing.assert_close(features, torch.tensor(then["features"]))
    torch.testing.assert_close(logits, torch.tensor(then["logits"]))
    assert model.head == then["head"]
    assert [c.index for c in model.classes] == then["classes"]
    assert [c.index for c in model.forgotten] == then["forgotten"]
    assert model.sha256() == then["sha256"]


@pytest.mark.filterwarnings("ignore::unhot.models.bundle.GraphWarning")
@pytest.mark.parametrize("kind", EDITS)
def test_they_load_as_before_and_are_written_anew(old: Path, tmp_path: Path, kind: str) -> None:
    said = json.loads((old / kind / "bundle.json").read_text())
    assert said["schema_version"] == 1
    arch = ARCHS.get(kind, "resnet9" if "graph" not in kind else said["arch"] or None)
    model = load(old / kind, trust_arch=ARCHS.get(kind))
    classes = tuple(c.model_dump() for c in model.forgotten)
    marks = [{"kind": "forgotten", "classes": classes}] if classes else []
    for name in ("0", "1"):
        assert_as_then(model, old / kind)
        assert (model.arch, model.arch_options) == (arch, {"width": 1} if arch == "resnet9" else {})
        assert [edit.model_dump() for edit in model.head_edits] == [*EDITS[kind], *marks]
        save(model, tmp_path / name)
        model = load(tmp_path / name, trust_arch=ARCHS.get(kind))
    new = json.loads((tmp_path / "0" / "bundle.json").read_text())
    assert new["schema_version"] == 2
    assert "forgotten" not in new
    assert (tmp_path / "0" / "model.safetensors").read_bytes() == (tmp_path / "1" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["graph-excised", "graph-bottleneck"])
def test_code_that_is_trusted_builds_them_too(old: Path, kind: str) -> None:
    model = load(old / kind, trust_arch="old_nets:plain")
    assert type(model.module).__name__ == "Sequential"
    assert_as_then(model, old / kind)
    assert ("bottleneck" in kind) == (model.head_edits[0].model_dump()["kind"] == "bottleneck")


def test_the_factory_that_they_name_is_trusted_as_before(old: Path) -> None:
    for kind in ARCHS:
        if "projected" in kind:
            assert_as_then(load(old / kind, trust_arch=PROJECTED), old / kind)
        with pytest.raises(ModelError, match=r"trust.*--arch.*old_nets"):
            load(old / kind)


@pytest.mark.parametrize("kind", [k for k in EDITS if k not in ARCHS])
def test_they_are_edited_further(old: Path, tmp_path: Path, kind: str) -> None:
    model = load(old / kind)
    left = [c for c in model.classes if c not in model.forgotten]
    with torch.no_grad():
        further = model.copy().edited(*ProjectionEdit.of(model, model.head_layer.weight[model.columns(left[:1])]))
        save(further, tmp_path / "projected")
        assert torch.equal(load(tmp_path / "projected").logits(inputs(model)), further.logits(inputs(model)))
    cut = cut_classes(model, left[:1], "excise")
    save(cut, tmp_path / "cut")
    assert replace(load(tmp_path / "cut"), module=cut.module) == cut


def as_version_1(folder: Path, **values: Any) -> None:
    """Describe a bundle as version 1 did; its weights had the names that they have now."""
    file = folder / "bundle.json"
    said = json.loads(file.read_text()) | {"schema_version": 1} | values
    marks = [e["classes"] for e in said.pop("head_edits") if e["kind"] == "forgotten"]
    file.write_text(json.dumps(said | {"forgotten": [c for classes in marks for c in classes]}))


@pytest.mark.parametrize("how", ["mask", "excise", "bottleneck", "projection"])
def test_nets_of_torchvision(tmp_path: Path, how: Cut) -> None:
    spec = InputSpec(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    arch = "torchvision:shufflenet_v2_x0_5"
    net = build(arch, 5, spec).eval()
    model = replace(Classifier.wrap(net, input=spec), arch=arch)
    values: dict[str, Any] = {}
    if how == "projection":
        model = model.edited(*ProjectionEdit.of(model, model.head_layer.weight[:2]))
        options = {"arch": arch, "options": {}, "head": "fc", "rank": 2}
        values = {"arch": PROJECTED, "arch_options": options}
    else:
        model = cut_classes(model, [model.classes[2]], how)
    save(model, tmp_path / "out")
    as_version_1(tmp_path / "out", **values)
    back = load(tmp_path / "out")
    assert (back.arch, back.arch_options, back.head, back.forgotten) == (arch, {}, model.head, model.forgotten)
    assert back.sha256() == model.sha256()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(back.logits(x), model.logits(x))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"arch": "os:mkdir", "head": 3, "rank": 1},
        {"arch": "resnet9", "head": "head", "rank": -1},
        {"arch": "resnet9", "head": "head", "rank": 65_536},
        {"arch": "resnet9", "head": "stem", "rank": 1},
        {"arch": PROJECTED, "head": "head", "rank": 1},
        {"arch": "resnet9", "head": "head", "rank": 1, "options": {"width": 2000}},
    ],
)
def test_a_projection_that_cannot_be_is_refused(old: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "b").mkdir()
    for name in ("bundle.json", "model.safetensors"):
        (tmp_path / "b" / name).write_bytes((old / "projected" / name).read_bytes())
    said = json.loads((tmp_path / "b" / "bundle.json").read_text())
    (tmp_path / "b" / "bundle.json").write_text(json.dumps(said | {"arch_options": options}))
    with pytest.raises(InputError) as caught:
        load(tmp_path / "b")
    assert "\n" not in str(caught.value).replace("\n  - ", "")


def test_no_version_has_what_another_has(old: Path) -> None:
    file = old / "masked" / "bundle.json"
    said = json.loads(file.read_text())
    for wrong, name in (({"head_edits": []}, "head_edits"), ({"schema_version": 2}, "forgotten")):
        file.write_text(json.dumps(said | wrong))
        with pytest.raises(InputError, match=f"has no {name}"):
            load(old / "masked")
    file.write_text(json.dumps(said))
