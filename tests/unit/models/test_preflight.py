"""Nets that would make the numbers of a run wrong are refused with the name of the layer; usable ones are not."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from unhot.data.samples import draw
from unhot.errors import ModelError, ModelWarning
from unhot.evaluation.auditor import audit
from unhot.methods.mask import Mask
from unhot.methods.nhle_cwm import NhleCwm
from unhot.models.arch import build
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec
from unhot.runtime import Runtime

Forward = Callable[["Net", Tensor], Tensor]
SPEC = InputSpec.model_validate({"height": 8, "width": 8, "channels": 1, "mean": [0.5], "std": [0.5]})


class Net(nn.Module):
    """A small convolutional net whose forward pass is given."""

    def __init__(self, forward: Forward, **parts: nn.Module) -> None:
        super().__init__()
        self.how = forward
        self.body = nn.Conv2d(1, 4, 3, padding=1)
        self.hidden = nn.Linear(256, 6)
        self.head = nn.Linear(6, 5)
        for name, part in parts.items():
            setattr(self, name, part)

    def features(self, x: Tensor) -> Tensor:
        return self.hidden(self.body(x).relu().flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x


class Stuck(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


class Own(nn.Module):
    """Noise of a generator of its own, which moves no global one."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return x * float(self.draws.random() > 0.5)


class Overwriting(nn.Module):
    """A head whose output goes to a place that is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.place = torch.zeros(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.place = self.place.detach()
        self.place[: len(x)] = x
        return self.place[: len(x)]


def plain(net: Net, x: Tensor) -> Tensor:
    return net.head(net.features(x))


def through(net: Net, x: Tensor) -> Tensor:
    return net.head(net.features(net.part(x)))


def outside() -> Net:
    net = Net(lambda n, x: n.head(n.layers[0](n.features(x))))
    net.layers = [nn.Linear(6, 6)]  # a list that nn.Module does not look into
    return net


def spent(net: Net, x: Tensor) -> Tensor:
    h = net.features(x)
    logits = net.head(h.exp_())
    h.zero_()
    return logits


def no_grad(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = net.features(x)
    return net.head(h)


def fed_back(net: Net, x: Tensor) -> Tensor:
    h = net.features(x)
    return net.head(h + functional.pad(net.head(h), (0, 1)))


def flipped(net: Net, x: Tensor) -> Tensor:
    return plain(net, x.flip(-1) if random.random() < 0.5 else x)


def of_two(net: Net, x: Tensor) -> Tensor:
    return net.head(net.features(x.reshape(2, 1, 8, 8)))


def in_pairs(net: Net, x: Tensor) -> Tensor:
    return net.head(net.features(x.view(-1, 2, 8, 8).reshape(-1, 1, 8, 8)))


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(6), nn.Linear(6, 5))


def quantised() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)


def with_weight(change: Callable[[Tensor], Tensor]) -> Net:
    net = Net(plain)
    net.hidden.weight = nn.Parameter(change(net.hidden.weight.detach()), requires_grad=False)
    return net


def changed(change: Callable[[Net], object]) -> Net:
    net = Net(plain)
    change(net)
    return net


HOSTILE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "functional dropout": (
        lambda: Net(lambda n, x: n.head(functional.dropout(n.features(x)))),
        r"Net\.forward is random",
    ),
    "dropout that stays on": (
        lambda: Net(lambda n, x: n.head(functional.dropout(n.features(x), 0.02))),
        r"it returns other logits each time that it is run in eval mode: Net\.forward is random\. Make it follow",
    ),
    "functional dropout between the layers of a part": (
        lambda: Net(lambda n, x: n.head(n.part[1](functional.dropout(n.part[0](n.features(x))))), part=two_layers()),
        r"Net\.forward is random",
    ),
    "noise layer": (lambda: Net(through, part=Noise()), r"the layer 'part' \(Noise\) is random"),
    "noise of its own": (lambda: Net(through, part=Own()), r"the layer 'part' \(Own\) is random"),
    "random augmentation": (lambda: Net(flipped), r"Net\.forward is random"),
    "batch norm without statistics": (
        lambda: Net(through, part=nn.BatchNorm2d(1, track_running_stats=False)),
        r"the logits of an image depend on the other images of its batch: the batch normalisation part has no running",
    ),
    "batch norm that stays in train mode": (lambda: Net(through, part=Stuck(1)), r"part is not in eval mode after"),
    "centred by the batch": (
        lambda: Net(lambda n, x: n.head(n.features(x - x.mean(0, keepdim=True)))),
        r"depend on the other images of its batch: Net\.forward mixes them",
    ),
    "compared with the first": (
        lambda: Net(lambda n, x: n.head(n.features(x - x[:1]))),
        r"depend on the other images of its batch: Net\.forward mixes them",
    ),
    "batches of two": (lambda: Net(of_two), r"it takes batches of 2 images, and not of every size"),
    "batches of one": (
        lambda: Net(lambda n, x: n.head(n.hidden(n.body(x).relu().view(1, 256)))),
        r"it takes batches of 1 images, and not of every size",
    ),
    "pairs": (lambda: Net(in_pairs), r"it takes batches of 2, 4 images, and not of every size"),
    "counter": (lambda: Net(through, part=Counter()), r"it changes its buffers part\.count in eval mode"),
    "weights in a list": (outside, r"weights that are not among its parameters, held by layers\. Keep layers in an"),
    "head fed back": (lambda: Net(fed_back), r"it calls its head 'head' 2 times, and its logits depend on each"),
    "overwritten logits": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5), Overwriting()),
        r"it overwrites the logits that it returned before",
    ),
    "bent in place": (
        lambda: Net(lambda n, x: n.head(n.features(x)).relu_()),
        r"what it returns is not what its head 'head' returns",
    ),
    "one output": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), r"it has a single output"),
    "lazy": (lazy, r"1\.weight, 1\.bias has no shape yet\. Run the net once on a few images first"),
    "quantised": (quantised, r"1 is quantised\. Give the net in floating point, as it was before"),
    "int8": (lambda: with_weight(lambda w: w.to(torch.int8)), r"hidden\.weight is torch\.int8, not a floating"),
    "float8": (
        lambda: with_weight(lambda w: w.to(torch.float8_e4m3fn)),
        r"hidden\.weight is torch\.float8_e4m3fn, which torch does not train in\. Convert it to",
    ),
    "meta": (lambda: Net(plain).to("meta"), r"body\.weight, .* is on the meta device and holds no values\. Load"),
    "one layer on meta": (
        lambda: changed(lambda n: n.hidden.to("meta")),
        r"hidden\.weight, hidden\.bias is on the meta device and holds no values",
    ),
    "sparse": (lambda: with_weight(lambda w: w.to_sparse()), r"hidden\.weight is sparse .* Convert it with to_dense"),
    "nested": (
        lambda: with_weight(lambda w: torch.nested.nested_tensor([w, w[:2]])),
        r"hidden\.weight is a nested tensor\. Convert it with to_padded_tensor",
    ),
    "old weight_norm": (
        lambda: changed(lambda n: nn.utils.weight_norm(n.hidden)),
        r"hidden has the old torch\.nn\.utils\.weight_norm, which cannot be copied\. Use",
    ),
    "old spectral_norm": (
        lambda: changed(lambda n: nn.utils.spectral_norm(n.hidden)),
        r"hidden has the old torch\.nn\.utils\.spectral_norm, which cannot be copied\. Use",
    ),
    "pruned": (
        lambda: changed(lambda n: prune.l1_unstructured(n.hidden, "weight", 0.5)),
        r"hidden is pruned by a mask\. Make it permanent with torch\.nn\.utils\.prune\.remove",
    ),
    "TorchScript": (
        lambda: torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), torch.zeros(2, 1, 8, 8)),
        r"is TorchScript, whose layers unhot cannot change",
    ),
}


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.rand(2, 1, 8, 8, generator=generator)


@pytest.mark.filterwarnings("ignore:.*(weight_norm|deprecated|nested tensors|jit|quantiz).*")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_nets_are_refused_by_name(name: str, x: Tensor) -> None:
    make, sentence = HOSTILE[name]
    net = make()
    flags = [m.training for m in net.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with pytest.raises(ModelError, match=sentence):
        Classifier.wrap(net, x)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    if name == "counter":
        assert net.part.count == 0
    assert not any(m._forward_hooks for m in net.modules())
    assert [m.training for m in net.modules()] == flags


def test_all_problems_are_listed(x: Tensor) -> None:
    net = Net(lambda n, x: n.head(functional.dropout(n.features(n.part(x)))), part=Counter())
    with pytest.raises(ModelError) as caught:
        Classifier.wrap(net, x)
    said = str(caught.value).splitlines()
    assert said[0] == "The model does not fit: 2 problems:"
    assert [("is random" in s, "part.count" in s) for s in said[1:]] == [(True, False), (False, True)]


class Tokens(nn.Module):
    """A transformer of torch, which is computed by a fused kernel where no gradients are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.first(x.flatten(1, 2))).mean(1))


def supervised_deeply(net: Net, x: Tensor) -> Tensor:
    """Call the head on the way, too, as for losses in training, and return its last output."""
    h = net.features(x)
    net.head(h / 2)
    return net.head(h)


def in_place(net: Net, x: Tensor) -> Tensor:
    x.sub_(0.5).mul_(2)
    h = net.features(x)
    logits = net.head(h)
    h.zero_()
    return logits


def normalised() -> nn.Module:
    body = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout2d(0.5), nn.GroupNorm(2, 4)]
    return nn.Sequential(*body, nn.InstanceNorm2d(4), nn.Flatten(), nn.LayerNorm(144), nn.Linear(144, 5))


def own_registry() -> Net:
    net = Net(plain)
    net.layers = {"body": net.body, "head": net.head}  # known to nn.Module already
    return net


RIGHT: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Net(plain),
    "normalisation of every kind and dropout": normalised,
    "transformer": Tokens,
    "head called on the way": lambda: Net(supervised_deeply),
    "inputs and features changed in place": lambda: Net(in_place),
    "a list of its own layers": own_registry,
    "one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)),
    "parametrised": lambda: changed(lambda n: nn.utils.parametrizations.weight_norm(n.hidden)),
    "frozen": lambda: Net(plain).requires_grad_(False),
    "float64": lambda: Net(plain).double(),
    "bfloat16": lambda: Net(plain).bfloat16(),
    "float16": lambda: Net(plain).half(),
    "vit_tiny": lambda: build("vit_tiny", 5, SPEC),
    "resnet9": lambda: build("resnet9", 5, SPEC),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_nets_are_taken(name: str, x: Tensor) -> None:
    net = RIGHT[name]().train()
    kept, given = copy.deepcopy(net.state_dict()), x.clone()
    wanted = [p.requires_grad for p in net.parameters()]
    for example in (x, x[:1], x.double()):
        model = Classifier.wrap(net, example)
        assert model.module is net
        assert net.training
        assert [p.requires_grad for p in net.parameters()] == wanted
        assert all(torch.equal(v, kept[n]) for n, v in net.state_dict().items())
        net.eval()
        assert model.logits(example).shape == (len(example), 5)
        net.train()
    assert torch.equal(x, given)


BIG = [
    "torchvision:resnet18", "torchvision:mobilenet_v3_small", "torchvision:swin_t",
    "timm:resnet10t", "timm:vit_tiny_patch16_224", "timm:convnext_atto", "timm:regnety_002", "timm:mixer_s32_224",
]  # fmt: skip


@pytest.mark.parametrize("arch", BIG)
def test_nets_of_torchvision_and_timm_are_taken(arch: str, generator: torch.Generator) -> None:
    size = 224 if arch.partition(":")[2] in ("vit_tiny_patch16_224", "mixer_s32_224") else 64
    spec = InputSpec.model_validate({"height": size, "width": size, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3})
    net = build(arch, 5, spec)
    assert len(Classifier.wrap(net, torch.rand(2, 3, size, size, generator=generator)).classes) == 5


UNCHANGEABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "spent": (lambda: Net(spent), r"it cannot be differentiated \(one of the variables needed"),
    "no gradients": (lambda: Net(no_grad), "no gradient reaches the layers before its head"),
}


@pytest.mark.filterwarnings("ignore:The original model classifies 0.000 of the retained")
@pytest.mark.parametrize("name", UNCHANGEABLE)
def test_a_net_without_gradients_is_refused_by_what_needs_them(name: str, generator: torch.Generator) -> None:
    make, sentence = UNCHANGEABLE[name]
    x, net = torch.rand(60, 1, 8, 8, generator=generator), make()
    with torch.no_grad():
        y = net(x.clone()).argmax(1)
    label = int(y.mode().values)
    samples, labels = draw((x, y), [label], 4), y.clone()
    labels[:20] = (label + 1) % 5  # so that there are images of another class
    assert Mask()(net, samples).record.stop_reason == "done"  # which needs none
    with pytest.raises(ModelError, match=sentence):
        NhleCwm()(net, samples)
    runtime = Runtime(torch.device("cpu"))
    found = audit(original=net, unlearned=net, classes=[label], test=(x, labels), runtime=runtime)
    assert found["forget_accuracy"].value == 1
    assert re.search(sentence, found["relearn_steps"].absent_because or "") or name == "no gradients"


def test_numbers_that_are_drawn_and_not_used_are_warned_of(x: Tensor) -> None:
    net = Net(lambda n, x: n.head(n.features(x + 0 * torch.rand(1))))
    with pytest.warns(ModelWarning, match=r"random.*although.*logits"):
        Classifier.wrap(net, x)


# wrapped nets

WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": lambda n: torch.compile(n, backend="eager"),
    "compiled in place": lambda n: (n.compile(backend="eager"), n)[1],
    "DataParallel": nn.DataParallel,
    "compiled DataParallel": lambda n: torch.compile(nn.DataParallel(n), backend="eager"),
    "DataParallel of compiled": lambda n: nn.DataParallel(torch.compile(n, backend="eager")),
    "AveragedModel": AveragedModel,
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("part", [False, True])
def test_a_wrapped_net_is_taken_for_the_plain_one_inside(name: str, part: bool, x: Tensor) -> None:
    net = Net(through, part=nn.Sequential(nn.Conv2d(1, 1, 3, padding=1))).eval()
    with torch.no_grad():
        wanted, names = net(x), list(net.state_dict())
    if part:
        net.part = WRAPPED[name](net.part)
        given: nn.Module = net
    else:
        given = WRAPPED[name](net)
    before = [(n, id(m)) for n, m in given.named_modules()]
    head = next(n for n, m in given.named_modules() if n.endswith("head"))
    for chosen in (None, head):
        model = Classifier.wrap(given, x, head=chosen)
        assert model.head == "head"
        assert list(model.module.state_dict()) == names
        assert {type(m) for m in model.module.modules()} <= {Net, nn.Sequential, nn.Conv2d, nn.Linear}
        assert all(m._compiled_call_impl is None for m in model.module.modules())
        assert torch.equal(model.logits(x), wanted)
    assert [(n, id(m)) for n, m in given.named_modules()] == before
    if name != "AveragedModel":
        assert model.head_layer.weight is net.head.weight


class Around(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


ADAPTED: dict[str, Callable[[Any, nn.Module, Any], nn.Module]] = {
    "whole": lambda peft, net, how: peft.get_peft_model(net, how),
    "within another net": lambda peft, net, how: Around(peft.get_peft_model(net, how)),
    "compiled": lambda peft, net, how: torch.compile(peft.get_peft_model(net, how), backend="eager"),
    "without a wrapper": lambda peft, net, how: peft.inject_adapter_in_model(how, net),
}


def adapted(x: Tensor, name: str) -> tuple[Any, nn.Module]:
    """Return a net of PEFT with an adapter in its body and, where there is a wrapper, a head of its own."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    own = None if name == "without a wrapper" else ["head"]
    how = peft.LoraConfig(r=2, target_modules=["part.0"], modules_to_save=own, init_lora_weights=False)
    net = ADAPTED[name](peft, Net(through, part=nn.Sequential(nn.Conv2d(1, 1, 3, padding=1))), how).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return peft, net


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_of_peft_are_merged(name: str, x: Tensor) -> None:
    _, net = adapted(x, name)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    model = Classifier.wrap(net, x)
    torch.testing.assert_close(model.logits(x), net(x))
    assert {type(m) for m in model.module.modules()} <= {Net, Around, nn.Sequential, nn.Conv2d, nn.Linear}
    plain = Net(through, part=nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)))
    assert [k.removeprefix("net.") for k in model.module.state_dict()] == list(plain.state_dict())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())  # the net itself is as it was
    assert list(net.state_dict()) == list(before)


@pytest.mark.usefixtures("keep_generators")
def test_adapters_of_peft_that_cannot_be_merged_are_refused(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    peft, net = adapted(x, "whole")
    net.base_model.disable_adapter_layers()
    with pytest.raises(ModelError, match=r"are switched off\. Switch them on, or give .* model\.unload\(\) returns"):
        Classifier.wrap(net, x)
    net.base_model.enable_adapter_layers()
    monkeypatch.setattr(peft.tuners.lora.Conv2d, "merge", lambda *_, **__: 1 / 0)
    with pytest.raises(ModelError, match=r"cannot be merged \(division by zero\)\. Give a net"):
        Classifier.wrap(net, x)
