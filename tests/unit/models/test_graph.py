"""Bundles of nets that come with a package: without the package they do all that they did with it."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import unhot
from unhot.data.source import Source
from unhot.errors import ModelError
from unhot.files import sha256
from unhot.models.arch import build
from unhot.models.bundle import GraphWarning, load, save
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut, cut_classes
from unhot.models.graph import GraphNet
from unhot.models.head import replace_layer
from unhot.models.layers import weight_layers
from unhot.models.operators import operator_of
from unhot.records.model import InputSpec
from unhot.runtime import Runtime, torchvision_ops
from unhot.training import train

NETS = """
import torch
from torch import nn
from torch.nn import functional as F


class Normed(nn.Sequential):
    def __init__(self, num_classes, in_channels=1):
        super().__init__(
            nn.Conv2d(in_channels, 12, 3, padding="same", bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1, padding_mode="reflect"),
            nn.BatchNorm2d(24, affine=False),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(96, num_classes),
        )


class Functional(nn.Module):
    # a residual connection, operators without modules, a layer called twice, a tensor that is no buffer
    def __init__(self, num_classes, image_size=8):
        super().__init__()
        self.last = nn.Linear(8 * (image_size // 2 + 4), num_classes)  # defined first, called last
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.scale = nn.Parameter(torch.ones(8))
        self.shifted = torch.linspace(0, 0.1, 8)
        self.register_buffer("masked", torch.tensor([0.0] * 7 + [float("-inf")]), persistent=False)

    def forward(self, x):
        h = F.leaky_relu(self.stem(x), 0.1)
        h = h + self.again(F.relu(self.again(h)))
        h *= self.scale.view(1, -1, 1, 1)
        h = h + self.shifted.to(h.device, h.dtype)[:, None, None] + self.masked.softmax(0).view(1, -1, 1, 1)
        low, high = F.max_pool2d(h, 2).chunk(2, dim=1)
        h = torch.cat([low.amax(3), high.mean(3)], 1)
        h = F.pad(h, (0, 4)).transpose(1, 2).reshape(x.size(0), -1)
        return self.last(F.dropout(h, 0.5, self.training))


class Attention(nn.Module):
    def __init__(self, num_classes, image_size=8):
        super().__init__()
        self.embed = nn.Conv2d(1, 24, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 24))
        self.position = nn.Embedding((image_size // 4) ** 2 + 1, 24)
        layer = nn.TransformerEncoderLayer(24, 2, 48, batch_first=True, norm_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.heads = nn.ModuleDict({"main": nn.Linear(24, num_classes), "graph": nn.Linear(24, 3)})  # one is not used

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1)
        tokens = tokens + self.position(torch.arange(tokens.shape[1], device=x.device))
        return self.heads["main"](self.layers(tokens)[:, 0])


class Branching(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.fc(x if x.mean() > 0 else -x)
"""
KINDS = "Normed", "Functional", "Attention"

# in a process that does not find the package of the net
ALONE = """
import json, sys
import torch, unhot
from pathlib import Path

try:
    import nets_of_mine
except ImportError:
    pass
else:
    sys.exit("the package is there")
train, test = unhot.load_named("digits", train=True), unhot.load_named("digits", train=False)
said = {}
for here in map(Path, sys.argv[1:]):
    model = unhot.load(here / "original")
    samples = unhot.draw(train, classes=[3], shots=16, seed=0)
    result = unhot.forget(model, samples, method="nhle-cwm", device="cpu")
    unhot.save(result.classifier, here / "unlearned", result.record)
    again = unhot.load(here / "unlearned")
    audit = unhot.audit(original=model, unlearned=again, classes=[3], test=test, quick=True)
    said[here.name] = {
        "kept": again.sha256() == result.classifier.sha256(),
        "forget": audit["forget_accuracy"].value,
        "drop": audit["retain_drop"].value,
        "steps": result.record.cost.steps,
    }
assert not {"torch._dynamo", "torch.export._trace"} & set(sys.modules), "what traces was imported"
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A package with nets of the user's; forgotten afterwards."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "nets_of_mine.py").write_text(NETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr(sys, "dont_write_bytecode", True)
        yield importlib.import_module("nets_of_mine")
    sys.modules.pop("nets_of_mine", None)


Make = Callable[..., Classifier]


@pytest.fixture(scope="module")
def of(mine: Any) -> Make:
    """Make an untrained classifier of one of these nets."""
    s = InputSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.25,))

    def make(name: str, **values: Any) -> Classifier:
        arch = f"nets_of_mine:{name}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = build(arch, 5, s).eval()
            for layer in net.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.running_mean.normal_()
                    layer.running_var.uniform_(0.5, 2)
            wrapped = Classifier.wrap(net, example=torch.randn(2, 1, 8, 8), input=s)
        return replace(wrapped, **({"arch": arch} | values))

    return make


@pytest.fixture(scope="module")
def kept(of: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of each kind; read only."""
    folder = tmp_path_factory.mktemp("kept")
    for kind in KINDS:
        save(of(kind), folder / kind)
    return folder


@pytest.fixture
def out(kept: Path, tmp_path: Path) -> Path:
    """A copy of one of them, to be spoilt."""
    return shutil.copytree(kept / "Normed", tmp_path / "out")


def assert_same(a: Classifier, b: Classifier, shape: tuple[int, ...] = (1, 8, 8)) -> None:
    assert a.sha256() == b.sha256()
    dtype = a.head_layer.weight.dtype
    for count in (1, 2, 5):
        x = torch.randn(count, *shape).to(dtype)
        with torch.no_grad():
            for one, other in zip(a.features_and_logits(x), b.features_and_logits(x), strict=True):
                torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_comes_back_as_a_graph(of: Make, kept: Path, kind: str) -> None:
    model, back = of(kind), load(kept / kind)
    assert sorted(p.name for p in (kept / kind).iterdir()) == ["bundle.json", "graph.json", "model.safetensors"]
    assert isinstance(back.module, GraphNet)
    assert replace(back, module=model.module) == replace(model, module=model.module)
    assert not any(m.training for m in back.module.modules())
    assert_same(back, model)
    x = torch.randn(2, 1, 8, 8)
    assert weight_layers(back, x) == weight_layers(model, x)
    assert set(dict(back.module.named_parameters())) == set(dict(model.module.named_parameters()))
    assert set(dict(model.module.named_buffers())) <= set(dict(back.module.named_buffers()))


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_same_gradients(of: Make, kept: Path, kind: str) -> None:
    model, back, x = of(kind), load(kept / kind), torch.randn(4, 1, 8, 8)
    named = dict(model.module.named_parameters())
    found = []
    for m in (model, back):
        weights = [m.module.get_parameter(n) for n in named]
        loss = m.logits(x).logsumexp(1).sum()
        found.append(torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("how", ["mask", "excise"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_bundle_can_be_saved_and_loaded_again_and_again(kept: Path, tmp_path: Path, kind: str, how: Cut) -> None:
    folder = kept / kind
    for i in range(2):
        model = load(folder)
        cut = cut_classes(model, [model.classes[1 + i]], how)
        folder = tmp_path / str(i)
        save(cut, folder)
        assert_same(load(folder), cut)
    assert (folder / "graph.json").read_bytes() == (kept / kind / "graph.json").read_bytes()
    assert load(folder).head_layer.out_features == (5 if how == "mask" else 3)


def test_a_bottleneck_is_written_down_anew(kept: Path, tmp_path: Path) -> None:
    model = load(kept / "Normed")
    cut = cut_classes(model, [model.classes[1]], "bottleneck")
    save(cut, tmp_path / "cut")
    assert cut.head_layer.in_features < load(kept / "Normed").head_layer.in_features
    assert_same(load(tmp_path / "cut"), cut)


def test_a_net_that_was_changed_is_written_down_anew(kept: Path, tmp_path: Path) -> None:
    model = load(kept / "Normed")
    replace_layer(model.module, "10", nn.Sequential(nn.Linear(96, 96), nn.Tanh(), model.head_layer))
    model = replace(model, head="10.2")
    save(model, tmp_path / "inside")
    assert_same(load(tmp_path / "inside"), model)
    outer = Classifier.wrap(nn.Sequential(nn.Upsample(8), model.module).eval(), torch.randn(2, 1, 4, 4))
    save(outer, tmp_path / "outside")
    assert_same(load(tmp_path / "outside"), outer, (1, 4, 4))


@pytest.mark.parametrize(
    ("kind", "dtype"), [("Normed", torch.float64), ("Normed", torch.float16), ("Functional", torch.bfloat16)]
)
def test_the_number_type_is_kept(of: Make, tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    model = of(kind)
    model.module.to(dtype).to(memory_format=torch.channels_last)
    save(model, tmp_path / "out")
    back = load(tmp_path / "out")
    assert_same(back, model)
    assert {b.dtype for b in back.module.buffers() if b.is_floating_point()} == {
        b.dtype for b in [*model.module.buffers(), getattr(model.module, "shifted", back.head_layer.weight)]
        if b.is_floating_point()
    }  # fmt: skip


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    first, last = nn.Linear(9, 9), nn.Linear(9, 9)
    last.weight = first.weight
    net = nn.Sequential(nn.Flatten(), first, nn.Tanh(), last).eval()
    model = Classifier.wrap(net, torch.randn(2, 1, 3, 3))
    save(model, tmp_path / "out")
    back = load(tmp_path / "out")
    assert_same(back, model, (1, 3, 3))
    assert back.module.get_parameter("1.weight") is back.module.get_parameter("3.weight")
    cut = cut_classes(back, [back.label(0)], "excise")
    save(cut, tmp_path / "cut")
    assert_same(load(tmp_path / "cut"), cut, (1, 3, 3))


def test_saving_leaves_the_net_as_it_was(of: Make, tmp_path: Path) -> None:
    model = of("Normed")
    model.module.train()
    before, frozen = model.sha256(), model.module.get_parameter("0.weight").requires_grad_(False)
    save(model, tmp_path / "out")
    assert model.sha256() == before
    assert all(m.training for m in model.module.modules())
    assert not frozen.requires_grad
    assert not load(tmp_path / "out").module.training
    assert logging.root.manager.disable == 0


def test_a_net_that_was_passed_as_an_object(tmp_path: Path, digits: Source) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))
    x, y = digits.train_images.inputs(torch.arange(400), digits.input, torch.device("cpu")), digits.train_images.y[:400]
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    for given in (net, Classifier.wrap(net)):
        result = unhot.forget(given, unhot.draw((x, y), classes=[3], shots=8), device="cpu")
        assert result.classifier.input_shape == (1, 16, 16)
    save(result.classifier, tmp_path / "out", result.record)
    back = load(tmp_path / "out")
    assert (back.arch, back.input, back.input_shape) == (None, None, (1, 16, 16))
    assert_same(back, result.classifier, (1, 16, 16))
    assert json.loads((tmp_path / "out" / "bundle.json").read_text())["arch"] == ""


def test_without_any_example_there_is_nothing_to_trace_with(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(ModelError, match=r"inputs.*Classifier\.wrap.*example"):
        save(Classifier.wrap(net), tmp_path / "out")
    with pytest.raises(ModelError, match=r"unhot\.Classifier.*Sequential.*Wrap"):
        save(net, tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_net_that_cannot_be_traced(of: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, out = of("Branching"), tmp_path / "out"
    with pytest.raises(ModelError) as caught:
        save(replace(model, arch=None), out)
    assert str(caught.value).startswith("This net cannot be kept in a bundle: torch.export cannot trace it (Data-dep")
    assert "\n" not in str(caught.value)
    assert not out.exists()
    with pytest.warns(GraphWarning, match=r"loading.*'nets_of_mine'.*--arch"):
        save(model, out)
    assert tuple(capfd.readouterr()) == ("", "")
    assert not (out / "graph.json").exists()
    with pytest.raises(ModelError, match=r"--arch.*nets_of_mine.*Branching"):
        load(out)
    with pytest.raises(ModelError, match="If you trust that code"):
        load(out, trust_arch="nets_of_mine:Normed")
    assert_same(load(out, trust_arch="nets_of_mine:Branching"), model)


def test_the_code_builds_it_where_it_is_trusted(mine: Any, of: Make, kept: Path) -> None:
    own = load(kept / "Functional", trust_arch="nets_of_mine:Functional")
    assert type(own.module) is mine.Functional
    assert_same(own, of("Functional"))


def test_code_that_a_bundle_names_is_not_run(out: Path, tmp_path: Path) -> None:
    file, target = out / "bundle.json", str(tmp_path / "made")
    content = json.loads(file.read_text())
    projected = {"arch": "os:mkdir", "options": {"path": target}, "head": "10", "rank": 1}
    for arch, options in (("os:mkdir", {"path": target}), ("unhot.models.projection:projected", projected)):
        file.write_text(json.dumps(content | {"arch": arch, "arch_options": options}))
        assert load(out).arch == arch  # by its graph
        file.write_text(json.dumps(content | {"arch": arch, "arch_options": options, "graph_sha256": None}))
        with pytest.raises(ModelError, match=r"trust.*code.*name"):
            load(out)
    assert not Path(target).exists()


def test_a_graph_that_was_tampered_with_is_refused(out: Path) -> None:
    file = out / "graph.json"
    file.write_text(file.read_text().replace("relu", "gelu"))
    with pytest.raises(ModelError, match=r"graph\.json.*bundle\.json.*describes"):
        load(out)
    file.unlink()
    with pytest.raises(ModelError, match=r"graph\.json.*bundle\.json.*describes"):
        load(out)


def rewritten(folder: Path, **values: Any) -> None:
    """Change a graph, and the digest with it."""
    graph, info = folder / "graph.json", folder / "bundle.json"
    graph.write_text(json.dumps(json.loads(graph.read_text()) | values))
    info.write_text(json.dumps(json.loads(info.read_text()) | {"graph_sha256": sha256(graph)}))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"steps": [{"call": "aten.from_file.default", "args": ["/etc/passwd"]}]},
            "aten.from_file.default, which is not",
        ),
        ({"steps": [{"call": "aten.set_.default", "args": [{"value": 0}]}]}, "aten.set_.default, which is not among"),
        ({"steps": [{"call": "aten.add.out", "args": [{"value": 0}]}]}, "aten.add.out, which is not among"),
        ({"steps": [{"call": "aten.add.__class__"}]}, "aten.add.__class__, which is not among"),
        ({"steps": [{"call": "operator.attrgetter", "args": ["x"]}]}, "operator.attrgetter, which is not among"),
        ({"steps": [{"call": "os.system", "args": ["ls"]}]}, "os.system, which is not among"),
        ({"steps": [{"layer": "11"}]}, "step 0 calls '11', which is not among its layers"),
        ({"steps": [{"call": "aten.relu.default", "args": [{"value": 1}]}]}, "step 0 has no value 1"),
        ({"steps": [{"call": "aten.relu.default", "args": [[{"weight": "__dict__"}]]}]}, "has no weight '__dict__'"),
        ({"steps": [{"call": "aten.relu.default", "args": [{"dtype": "load"}]}]}, "step 0 has no dtype 'load'"),
        ({"steps": [{"call": "aten.relu.default", "args": [{}]}]}, "{} is not an argument"),
        ({"output": 99}, "it has no value 99 to return"),
        ({"layers": {"99": {"kind": "Linear"}}, "steps": [], "output": 0}, "there are no weights of '99'"),
        (
            {"layers": {"0": {"kind": "Linear", "options": {"device": "meta"}}}, "steps": [], "output": 0},
            "has no options ['device']",
        ),
        ({"constants": "AAAA"}, "graph.json is not a graph that can be run"),
    ],
)
def test_a_graph_does_only_what_graphs_may(out: Path, values: dict[str, Any], sentence: str) -> None:
    rewritten(out, **values)
    with pytest.raises(ModelError) as caught:
        load(out)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_graph_of_another_net_does_not_fit(out: Path, kept: Path) -> None:
    shutil.copy(kept / "Functional" / "graph.json", out)
    rewritten(out)
    with pytest.raises(ModelError, match=r"graph\.json.*graph.*run"):
        load(out)


def test_operators_that_do_more_than_compute_are_none() -> None:
    names = "aten.save.default aten.set_.default aten.add.out aten.add_.out aten.rand.default aten.empty.memory_format"
    for call in names.split():
        with pytest.raises(ValueError, match="not among the operators"):
            operator_of(call)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_timm_nets_come_back_without_timm(spec: Callable[..., InputSpec], tmp_path: Path, name: str) -> None:
    torchvision_ops.prepare()
    timm = pytest.importorskip("timm", reason="timm is not installed")
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    s, x = spec(32), torch.randn(2, 3, 32, 32)
    net = build(f"timm:{name}", 4, s, {}).eval()
    model = replace(Classifier.wrap(net, x, input=s), arch=f"timm:{name}")
    save(model, tmp_path / "out")
    back = load(tmp_path / "out")
    assert isinstance(back.module, GraphNet)
    assert_same(back, model, (3, 32, 32))
    assert weight_layers(back, x) == weight_layers(model, x)


@pytest.mark.process
@pytest.mark.filterwarnings("ignore::unhot.errors.SampleWarning")  # they are not trained to the end
def test_without_the_package_it_forgets_is_audited_and_saved(mine: Any, digits: Source, tmp_path: Path) -> None:
    lived = {}
    for kind in KINDS:
        settings = {"epochs": 12 if kind == "Attention" else 6, "lr": 0.1}
        runtime = Runtime(torch.device("cpu"))
        model, record = train(digits, f"nets_of_mine:{kind}", settings=settings, runtime=runtime)
        save(model, tmp_path / kind / "original", record)
        samples = unhot.draw(digits.train_images, classes=[3], shots=16, seed=0)
        lived[kind] = unhot.forget(model, samples, method="nhle-cwm", device="cpu")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-c", ALONE, *(str(tmp_path / kind) for kind in KINDS)]
    done = subprocess.run(command, env=env, cwd=tmp_path / "elsewhere", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for kind, said in json.loads(done.stdout).items():
        assert said["kept"]
        assert said["forget"] == 0
        assert said["drop"] < 0.1
        assert said["steps"] == lived[kind].record.cost.steps > 0
        alone = load(tmp_path / kind / "unlearned").module.state_dict()
        for name, weight in lived[kind].model.state_dict().items():
            torch.testing.assert_close(alone[name], weight, atol=1e-3, rtol=1e-3)
