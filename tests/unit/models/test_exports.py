"""Exports do what the model does, in whatever form, and never answer with a class that it was made to forget."""

from __future__ import annotations

import copy
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import unhot
from unhot.errors import ExportFailedError, ModelError, OptionError, OutputError, UnknownNameError
from unhot.models.arch import build
from unhot.models.bundle import load, save
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.formats.exports import catalogue
from unhot.models.formats.exports.state_dict import StateDict
from unhot.models.formats.exports.torchscript import TorchScript
from unhot.models.head import linear_like, replace_layer
from unhot.models.head_edits.projection import ProjectionEdit
from unhot.records.model import ClassLabel, InputSpec

Spec = Callable[..., InputSpec]
FILES = {"state_dict": "m.safetensors", "onnx": "m.onnx", "torchscript": "m.pt", "pt2": "m.pt2"}
MANY = 500


def own(bias: bool = True) -> nn.Sequential:
    """A net of no name: it is kept as a graph."""
    layers = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(24, 5, bias=bias)).eval()


class Patches(nn.Module):
    """A net that reads the number of images, as every vision transformer does for its class token."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.embed, self.head = nn.Conv2d(1, 8, 4, 4), nn.Linear(8, 5)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1)
        logits: Tensor = self.head(self.layer(tokens)[:, 0])
        return logits


class Cosine(nn.Linear):
    def forward(self, h: Tensor) -> Tensor:
        return 9 * nn.functional.linear(nn.functional.normalize(h), nn.functional.normalize(self.weight))


@pytest.fixture
def masked(spec: Spec) -> Callable[..., Classifier]:
    """Wrap a net of five classes and cut the one that it answers most on random images."""

    def make(net: nn.Module, how: str = "mask", classes: int = 1, size: int = 12) -> Classifier:
        model = Classifier.wrap(net.eval(), example=images(size)[:2], class_names=list("abcde"), input=spec(size, 1))
        return cut_classes(model, favourites(model, classes), how)

    return make


def images(size: int, count: int = MANY) -> Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def favourites(model: Classifier, count: int) -> list[ClassLabel]:
    """Return the classes that a model answers most often on random images: they would be seen if they came back."""
    answers = model.logits(images(model.input.height)).argmax(1).bincount(minlength=len(model.classes))
    assert answers.max() > 20
    return [model.classes[c] for c in answers.argsort(descending=True)[:count].tolist()]


def loaded(path: Path, net: nn.Module | None) -> Callable[[Tensor], Tensor]:
    """Load an export as a stranger would, without unhot."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    if net is None:
        return torch.jit.load(path)
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    net.load_state_dict(state)
    return net.eval()


@pytest.mark.parametrize("to", FILES)
def test_no_export_answers_with_a_forgotten_class(masked: Callable[..., Classifier], tmp_path: Path, to: str) -> None:
    original = own()
    model = masked(copy.deepcopy(original), classes=2)
    gone = model.columns(model.forgotten)
    save(model, tmp_path / "bundle")
    record = unhot.export(load(tmp_path / "bundle"), to, tmp_path / FILES[to])
    assert [c.name for c in record.masked] == [model.classes[c].name for c in sorted(gone)]
    run = loaded(tmp_path / FILES[to], own() if to == "state_dict" else None)
    with torch.no_grad():
        for count in (1, 7, MANY):
            x = images(12, count)
            answers, wanted = run(x), model.logits(x)
            assert torch.allclose(answers, wanted, atol=1e-5)
            assert not torch.isin(answers.argmax(1), torch.tensor(gone)).any()
    assert record.comparison.largest_difference <= record.comparison.tolerance < 1e-2
    assert sum(record.comparison.batch_sizes[:-1]) == record.comparison.batch_sizes[-1] == record.comparison.images


@pytest.mark.parametrize("to", ["onnx", "torchscript", "pt2"])
def test_a_net_that_reads_the_number_of_images_takes_any_number(
    masked: Callable[..., Classifier], tmp_path: Path, to: str
) -> None:
    model = masked(Patches())
    save(model, tmp_path / "bundle")
    for name, given in (("a", model), ("b", load(tmp_path / "bundle"))):  # the net itself, and its graph
        path = tmp_path / name / FILES[to]
        path.parent.mkdir()
        unhot.export(given, to, path)
        run = loaded(path, None)
        with torch.no_grad():
            for count in (1, 3, 9):
                assert torch.allclose(run(images(12, count)), model.logits(images(12, count)), atol=1e-5)


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_a_state_dict_has_the_names_and_the_number_types_that_came_in(
    masked: Callable[..., Classifier], tmp_path: Path, name: str, kind: torch.dtype
) -> None:
    net = own().to(kind)
    before = {n: (t.dtype, t.shape) for n, t in net.state_dict().items()}
    record = unhot.export(masked(copy.deepcopy(net)), "state_dict", tmp_path / name)
    state = load_file(tmp_path / name) if name == "m.safetensors" else torch.load(tmp_path / name, weights_only=True)
    assert {n: (t.dtype, t.shape) for n, t in state.items()} == before
    assert record.added == ()
    assert record.comparison.largest_difference == 0


def test_a_bias_that_was_not_there_is_named_or_avoided(masked: Callable[..., Classifier], tmp_path: Path) -> None:
    original = own(bias=False)
    model = masked(copy.deepcopy(original))
    save(model, tmp_path / "bundle")
    model = load(tmp_path / "bundle")
    record = unhot.export(model, "state_dict", tmp_path / "with.safetensors")
    assert record.added == ("5.bias",)
    assert load_file(tmp_path / "with.safetensors").keys() == {*original.state_dict(), "5.bias"}
    record = unhot.export(model, "state_dict", tmp_path / "without.safetensors", keep_keys=True)
    assert record.added == ()
    assert load_file(tmp_path / "without.safetensors").keys() == original.state_dict().keys()
    with torch.no_grad():
        x, (gone,) = images(12), model.columns(model.forgotten)
        answers, wanted = loaded(tmp_path / "without.safetensors", own(bias=False))(x), model.logits(x)
    others = [c for c in range(5) if c != gone]
    assert torch.equal(answers.argmax(1), wanted.argmax(1))
    assert torch.allclose(answers[:, others], wanted[:, others], atol=1e-5)
    assert torch.allclose(answers[:, gone], wanted[:, others].mean(1), atol=1e-5)


def test_keep_keys_changes_nothing_where_there_was_a_bias(masked: Callable[..., Classifier], tmp_path: Path) -> None:
    model = masked(own())
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for path, keep in zip(files, (False, True), strict=True):
        unhot.export(model, "state_dict", path, keep_keys=keep)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_mean_of_one_class_is_no_cut(masked: Callable[..., Classifier], tmp_path: Path) -> None:
    model = masked(own(bias=False), classes=4)
    with pytest.raises(OptionError, match="of which there must be two"):
        unhot.export(model, "state_dict", tmp_path / "m.pt", keep_keys=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["excise", "bottleneck", "projection", "projection and bottleneck"])
def test_layers_that_edits_inserted_are_multiplied_into_the_head(
    masked: Callable[..., Classifier], tmp_path: Path, how: str
) -> None:
    model = masked(own(), "excise" if how == "excise" else "mask")
    if how.startswith("projection"):
        model = model.edited(*ProjectionEdit.of(model, model.head_layer.weight[:2].clone()))
    if how.endswith("bottleneck"):
        model = cut_classes(model, [model.classes[0]], "bottleneck")
    unhot.export(model, "state_dict", tmp_path / "m.pt")
    net = own()
    if how == "excise":
        replace_layer(net, "5", linear_like(net[5], rows=4))
    run = loaded(tmp_path / "m.pt", net)
    with torch.no_grad():
        assert torch.allclose(run(images(12)), model.logits(images(12)), atol=1e-4)


def test_a_layer_within_a_graph_is_not_taken_out(masked: Callable[..., Classifier], tmp_path: Path) -> None:
    save(masked(own(), "bottleneck"), tmp_path / "bundle")
    model = load(tmp_path / "bundle")
    with pytest.raises(ModelError, match=r"The layer 5\.0, .* Export it as onnx"):
        unhot.export(model, "state_dict", tmp_path / "m.pt")
    unhot.export(model, "torchscript", tmp_path / "m.pt")


def test_a_head_that_is_masked_by_a_hook_needs_a_format_that_holds_it(
    masked: Callable[..., Classifier], tmp_path: Path
) -> None:
    net = own()
    net[5] = Cosine(24, 5)
    model = masked(net)
    with pytest.raises(ModelError, match="weights alone do not hold that"):
        unhot.export(model, "state_dict", tmp_path / "m.pt")
    unhot.export(model, "pt2", tmp_path / "m.pt2")
    with torch.no_grad():
        answers = torch.export.load(tmp_path / "m.pt2").module()(images(12))
    assert torch.allclose(answers, model.logits(images(12)), atol=1e-4)
    assert (answers[:, model.columns(model.forgotten)] == -1e4).all()


def test_half_precision_in_every_format(masked: Callable[..., Classifier], tmp_path: Path) -> None:
    model = masked(own().half())
    for to, name in FILES.items():
        record = unhot.export(model, to, tmp_path / name)
        assert record.comparison.largest_difference <= record.comparison.tolerance


def test_a_built_in_net(lenet: Classifier, tmp_path: Path) -> None:
    model = cut_classes(lenet, [lenet.label(2)], "mask")
    unhot.export(model, "state_dict", tmp_path / "m.safetensors")
    net = build("lenet5", 10, lenet.input)
    assert torch.equal(loaded(tmp_path / "m.safetensors", net)(images(12, 3)), model.logits(images(12, 3)))


@pytest.mark.parametrize("to", FILES)
def test_files_have_the_mode_of_the_umask_and_the_model_stays(
    masked: Callable[..., Classifier], tmp_path: Path, to: str
) -> None:
    model = masked(own())
    model.module.train()
    before = model.sha256()
    mask = os.umask(0o027)
    try:
        unhot.export(model, to, tmp_path / FILES[to])
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / FILES[to]).stat().st_mode) == 0o640
    assert model.sha256() == before
    assert model.module.training
    assert [p.name for p in tmp_path.iterdir()] == [FILES[to]]


class OtherHead(StateDict):
    """Writes other weights than the model's: of the head, what ``change`` makes of its tensors."""

    change: Callable[[nn.Linear], object]

    def write(self, path: Path) -> None:
        with torch.no_grad():
            type(self).change(self.model.head_layer)
        super().write(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda head: head.bias.zero_(), "still answers"),
        (lambda head: head.weight.neg_(), "as another class than the model"),
        (lambda head: head.weight.mul_(1.01), "differ from the model's by up to"),
        (lambda head: head.weight.mul_(float("nan")), "Nothing was written"),
    ],
)
def test_an_export_that_differs_is_not_written(
    masked: Callable[..., Classifier],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[nn.Linear], object],
    said: str,
) -> None:
    net = own()
    with torch.no_grad():
        net[5].bias.fill_(-50.0)  # so that the masked logit is the largest without its bias
    model = masked(net)
    monkeypatch.setattr(OtherHead, "change", change, raising=False)
    monkeypatch.setitem(catalogue._loaded, "state_dict", OtherHead)
    with pytest.raises(ExportFailedError, match=said):
        unhot.export(model, "state_dict", tmp_path / "m.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_trace_of_one_batch_size_is_found(
    masked: Callable[..., Classifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(masked(Patches()), tmp_path / "bundle")
    monkeypatch.setattr("unhot.models.formats.exports.torchscript._traceable", lambda net: net)
    with pytest.raises(ExportFailedError, match=r"cannot be run on 1 images: .* Nothing was written"):
        unhot.export(load(tmp_path / "bundle"), "torchscript", tmp_path / "m.pt")
    assert not (tmp_path / "m.pt").exists()
    assert TorchScript.suffixes == (".pt", ".ts")


def test_what_is_refused(masked: Callable[..., Classifier], tmp_path: Path) -> None:
    model = masked(own())
    (tmp_path / "there.pt").touch()
    with pytest.raises(UnknownNameError, match=r"Unknown export 'onx'. Did you mean 'onnx'\?"):
        unhot.export(model, "onx", tmp_path / "m")
    with pytest.raises(OptionError, match=r"--to onnx writes a file whose name ends in \.onnx"):
        unhot.export(model, "onnx", tmp_path / "m.pt")
    with pytest.raises(OptionError, match="keep_keys=True is for formats of weights alone"):
        unhot.export(model, "onnx", tmp_path / "m.onnx", keep_keys=True)
    with pytest.raises(OutputError, match=r"exists\. Choose another --out"):
        unhot.export(model, "state_dict", tmp_path / "there.pt")
    with pytest.raises(ModelError, match=r"Expected an unhot\.Classifier, got Sequential"):
        unhot.export(own(), "state_dict", tmp_path / "m.pt")
    with pytest.raises(ModelError, match="The size of the model's inputs is not known"):
        unhot.export(replace(model, input=None, example_shape=None), "state_dict", tmp_path / "m.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["there.pt"]


def test_a_missing_package_is_named(
    masked: Callable[..., Classifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"onnxruntime is not installed. Install it with: pip install 'unhot\[onnx\]'"):
        unhot.export(masked(own()), "onnx", tmp_path / "m.onnx")


def test_an_onnx_file_names_its_classes_and_the_number_of_its_images(
    masked: Callable[..., Classifier], tmp_path: Path
) -> None:
    import json

    import onnx

    model = masked(own(), "excise")
    unhot.export(model, "onnx", tmp_path / "m.onnx")
    file = onnx.load(tmp_path / "m.onnx")
    found = {p.key: p.value for p in file.metadata_props}
    assert json.loads(found["classes"]) == [c.name for c in model.classes]
    for value in (*file.graph.input, *file.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
