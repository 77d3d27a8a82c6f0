from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unhot.data.images import LabelledImages
from unhot.data.samples import draw
from unhot.errors import DataError, DataWarning, ModelError, UnknownNameError
from unhot.methods.forget import forget
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.head import linear, replace_layer
from unhot.records.model import ClassLabel, InputSpec

Mlp = Callable[..., nn.Sequential]
Labelled = Callable[[Sequence[int], Sequence[str] | None], LabelledImages]


class Net(nn.Module):
    """Two linear layers; how they are used is given."""

    def __init__(self, forward: Callable[[Net, Tensor], object]) -> None:
        super().__init__()
        self.head = nn.Linear(7, 5)  # defined first, called last
        self.body = nn.Linear(16, 7)
        self.spare = nn.Linear(7, 5)
        self.how = forward

    def hidden(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1)).relu()

    def forward(self, x: Tensor) -> object:
        return self.how(self, x)


def tokens(net: Net, x: Tensor) -> Tensor:
    return net.head(net.hidden(x)[:, None] * torch.arange(-1.0, 2.0)[:, None]).amax(1)


def raising(net: Net, x: Tensor) -> Tensor:
    raise KeyError("no such buffer\nand more lines")


NOT_FINAL = r"what it returns is not what its head 'head' returns\. Name the final nn.Linear with head=\."
PROBLEMS = [
    (lambda n, x: n.head(n.hidden(x)).softmax(1), r"sum to 1 in every row, so they are probabilities\. Leave out"),
    (lambda n, x: n.head(n.hidden(x)).log_softmax(1), r"are log-probabilities\. Leave out the final log_softmax\."),
    (lambda n, x: n.head(n.hidden(x)).relu() + 1, NOT_FINAL),
    (lambda n, x: n.head(n.hidden(x))[:, :4], NOT_FINAL),
    (
        lambda n, x: n.head(n.hidden(x))[:, :, None, None],
        r"logits of shape \(6, 5, 1, 1\), not \(B, K\)\. Flatten them",
    ),
    (lambda n, x: n.head(n.hidden(x))[0], r"logits of shape \(5,\), not \(B, K\)\."),
    (
        lambda n, x: (n.head(n.hidden(x)), x),
        r"The net returns a tuple, not a tensor of logits\. Name its logits with --output \(output= in Python\): 0 of",
    ),
    (lambda n, x: [3], r"The net returns a list, not a tensor of logits\. Wrap it so that it returns logits only\."),
    (lambda n, x: n.head(n.hidden(x)) / 0, r"it returns NaN or infinite logits on the images given\."),
    (lambda n, x: x.flatten(1), r"no nn\.Linear is called in its forward pass\. Name the final one with head=\."),
    (tokens, r"its head 'head' takes features of shape \(6, 3, 7\), not \(B, d\)\. Pool them first\."),
    (raising, r"it fails on inputs of shape \(6, 1, 4, 4\): 'no such buffer\\nand more lines'\."),
]


@pytest.mark.parametrize(("forward", "sentence"), PROBLEMS)
def test_a_net_that_does_not_fit(x: Tensor, forward: Callable[[Net, Tensor], object], sentence: str) -> None:
    net = Net(forward)
    with pytest.raises(ModelError, match=sentence):
        Classifier.wrap(net, x)
    assert not [m for m in net.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert all(m.training for m in net.modules())


def test_inputs_that_the_net_cannot_take(mlp: Mlp) -> None:
    with pytest.raises(ModelError, match=r"inputs.*2.*3.*9.*9"):
        Classifier.wrap(mlp(), torch.zeros(2, 3, 9, 9))


def test_a_head_that_is_not_called(x: Tensor) -> None:
    with pytest.raises(ModelError, match=r"'spare'.*called.*forward"):
        Classifier.wrap(Net(lambda n, x: n.head(n.hidden(x))), x, head="spare")


def test_a_net_without_linear_layers(x: Tensor) -> None:
    conv = nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten())
    with pytest.raises(ModelError, match=r"nn\.Linear.*unhot.*ends"):
        Classifier.wrap(conv, x)
    with pytest.raises(ModelError, match=r"2 problems:\n  - it has no nn\.Linear.*\n  - it has no weights\."):
        Classifier.wrap(nn.Flatten(), x)


def test_every_problem_is_listed(mlp: Mlp, x: Tensor) -> None:
    net = mlp()
    with torch.no_grad():
        net[1].weight[0, 0] = torch.nan
        net[3].bias[1] = torch.inf
    with pytest.raises(ModelError) as caught:
        Classifier.wrap(net, x, head="4")
    assert str(caught.value).splitlines() == [
        "The model does not fit: 2 problems:",
        "  - there is no layer '4' to be the head. Linear layers: 1, 3.",
        "  - NaN or infinite values in 1.weight, 3.bias.",
    ]
    with pytest.raises(ModelError, match=r"'2'.*nn\.Linear.*Linear.*1.*3"):
        Classifier.wrap(mlp(), head="2")


def test_nan_in_a_buffer_is_found(x: Tensor) -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 5))
    net[0].running_mean[0] = torch.nan
    with pytest.raises(ModelError, match=r"NaN.*infinite.*0.*running_mean"):
        Classifier.wrap(net)


def test_only_nets_are_wrapped(x: Tensor) -> None:
    with pytest.raises(ModelError, match=r"torch\.nn\.Module.*unhot\.Classifier.*function"):
        Classifier.wrap(lambda x: x, x)


def test_the_head_is_the_last_linear_layer_called(x: Tensor) -> None:
    net = Net(lambda n, x: n.head(n.hidden(x)))
    assert Classifier.wrap(net, x).head == "head"
    assert Classifier.wrap(net).head == "spare"  # not run: the last one defined
    assert Classifier.wrap(net, head="head").head == "head"


def test_the_head_is_the_layer_whose_output_is_returned(x: Tensor) -> None:
    def with_auxiliary(net: Net, x: Tensor) -> Tensor:
        logits = net.head(net.hidden(x))
        net.last_auxiliary = net.spare(x.flatten(1)[:, : net.spare.in_features])
        return logits

    assert Classifier.wrap(Net(with_auxiliary), x).head == "head"


def test_a_head_that_is_called_by_keyword(x: Tensor) -> None:
    net = Net(lambda n, x: n.head(input=n.hidden(x)))
    model = Classifier.wrap(net, x)
    assert model.head == "head"
    features, logits = model.features_and_logits(x)
    assert torch.equal(features, net.hidden(x))
    assert torch.equal(logits, net(x))
    with pytest.raises(ModelError, match=NOT_FINAL):
        Classifier.wrap(Net(lambda n, x: n.head(input=n.hidden(x)).relu() + 1), x)


def test_a_net_that_calls_its_layers_by_keyword_forgets_as_one_that_does_not(x: Tensor) -> None:
    def keyword(net: Net, x: Tensor) -> Tensor:
        return net.head(input=net.body(input=x.flatten(1)).relu())

    plain, named = Net(lambda n, x: n.head(n.hidden(x))), Net(keyword)
    named.load_state_dict(plain.state_dict())
    y = plain.eval()(x).argmax(1)
    label = int(y.mode().values)
    samples = draw((x, y), [label], shots=int((y == label).sum()))
    results = [forget(net, samples, head="head").model.state_dict() for net in (plain, named)]
    assert all(torch.equal(v, results[1][k]) for k, v in results[0].items())
    assert not torch.equal(results[0]["body.weight"], plain.body.weight)


def test_wrapping_leaves_the_net_as_it_was(mlp: Mlp, x: Tensor) -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), *mlp(), nn.Identity())
    net[0].eval()
    flags, state = {m: m.training for m in net.modules()}, copy.deepcopy(net.state_dict())
    model = Classifier.wrap(net, x)
    assert model.module is net
    assert {m: m.training for m in net.modules()} == flags
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert not [m for m in net.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_a_wrapped_net_is_wrapped_already(mlp: Mlp, x: Tensor) -> None:
    model = Classifier.wrap(mlp())
    assert Classifier.wrap(model) is model
    assert Classifier.wrap(model, x) is model
    with pytest.raises(ModelError, match=r"its outputs sum to 1"):
        Classifier.wrap(replace(model, module=nn.Sequential(*model.module, nn.Softmax(1))), x)


def test_class_names(mlp: Mlp) -> None:
    assert [c.name for c in Classifier.wrap(mlp(3)).classes] == ["0", "1", "2"]
    named = Classifier.wrap(mlp(3), class_names=["a", "b", "c"])
    assert named.classes[2] == ClassLabel(index=2, name="c")
    assert named.outputs == 3
    with pytest.raises(ModelError, match=r"3.*outputs.*2"):
        Classifier.wrap(mlp(3), class_names=["a", "b"])


def test_features_are_the_input_of_the_head(mlp: Mlp, x: Tensor) -> None:
    net = mlp()
    model = Classifier.wrap(net)
    expected = net[2](net[1](net[0](x)))
    assert torch.equal(model.features(x), expected)
    features, logits = model.features_and_logits(x)
    assert torch.equal(features, expected)
    assert torch.equal(logits, model.logits(x))
    assert torch.equal(logits, net(x))


def test_recording_leaves_no_hook_even_after_an_error(mlp: Mlp, x: Tensor) -> None:
    model = Classifier.wrap(mlp())
    with model.recording(["1", "3"]) as seen:
        assert seen == {}
        model.logits(x)
    assert torch.equal(seen["1"], x.flatten(1))
    kept = seen["1"]
    model.logits(x + 1)
    assert seen["1"] is kept
    with pytest.raises(RuntimeError), model.recording(["1", "3"]):
        model.logits(x[:, :, :3])
    assert not [m for m in model.module.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_looking_a_class_up(mlp: Mlp) -> None:
    model = Classifier.wrap(mlp(4), class_names=["cat", "dog", "3", "cow"])
    assert [model.label(c).name for c in ("cat", 0, "0", 2, 3, "1")] == ["cat", "cat", "cat", "3", "cow", "dog"]
    with pytest.warns(DataWarning, match=r"Class.*3.*taken"):
        assert model.label("3").index == 2  # a name goes before an index
    assert model.label(3).index == 3
    assert model.label(model.classes[3]) is model.classes[3]
    for wrong in (4, -1, "4", ""):
        with pytest.raises(UnknownNameError, match=r"Known: cat, dog, 3, cow\."):
            model.label(wrong)
    with pytest.raises(UnknownNameError, match=r"Unknown.*'dof'.*'dog'"):
        model.label("dof")


def test_a_class_keeps_its_index_when_others_are_gone(mlp: Mlp) -> None:
    model = Classifier.wrap(mlp(4))
    left = replace(model, classes=(model.classes[0], model.classes[2], model.classes[3]))
    assert left.columns([left.label(3), left.label("2"), left.label(0)]) == [2, 1, 0]
    with pytest.raises(UnknownNameError):
        left.label(1)


def test_labels_are_aligned_by_name(mlp: Mlp, labelled: Labelled) -> None:
    model = Classifier.wrap(mlp(3), class_names=["cat", "dog", "cow"])
    aligned = model.align(labelled([0, 1, 1, 0], ["cow", "cat"]))
    assert aligned.y.tolist() == [2, 0, 0, 2]
    assert aligned.class_names == ("cat", "dog", "cow")
    assert model.align(aligned).y.tolist() == [2, 0, 0, 2]
    assert model.align(labelled([0, 0], ["dog", "horse"])).y.tolist() == [1, 1]  # no horse is among them
    with pytest.raises(DataError, match=r"toy.*ass.*horse"):
        model.align(labelled([0, 1, 2], ["ass", "dog", "horse"]))


def test_labels_are_aligned_by_position(mlp: Mlp, labelled: Labelled) -> None:
    named, unnamed = Classifier.wrap(mlp(3), class_names=["cat", "dog", "cow"]), Classifier.wrap(mlp(3))
    assert named.align(labelled([2, 0, 1], None)).y.tolist() == [2, 0, 1]
    with pytest.warns(DataWarning, match=r"toy.*class.*name.*position"):
        assert unnamed.align(labelled([2, 0, 1], ["cat", "dog", "cow"])).y.tolist() == [2, 0, 1]
    with pytest.raises(DataError, match=r"classes.*3.*0.*1.*2"):
        unnamed.align(labelled([2, 3], None))
    with pytest.raises(DataError, match=r"classes.*cat"):
        unnamed.align(labelled([0], ["cat", "dog"]))  # two names for three outputs say nothing about positions


def test_labels_are_aligned_after_an_excision(mlp: Mlp, labelled: Labelled) -> None:
    model = Classifier.wrap(mlp(4))
    left = replace(model, classes=(model.classes[0], model.classes[2], model.classes[3]))
    assert left.align(labelled([3, 2, 0], None)).y.tolist() == [2, 1, 0]
    with pytest.warns(DataWarning, match=r"by position"):
        assert left.align(labelled([3, 2, 0], ["a", "b", "c", "d"])).y.tolist() == [2, 1, 0]
    with pytest.raises(DataError, match=r"does not have the classes b\."):
        left.align(labelled([1], ["a", "b", "c", "d"]))


def test_images_of_a_class_that_was_excised_are_left_out(mlp: Mlp, labelled: Labelled) -> None:
    model = Classifier.wrap(mlp(4), class_names=["a", "b", "c", "d"])
    left = cut_classes(model, [model.classes[1]], "excise")
    for names in (None, ["a", "b", "c", "d"]):
        with pytest.warns(DataWarning, match=r"2.*b.*forget"):
            found = left.align(labelled([3, 1, 0, 1], names))
        assert (found.y.tolist(), found.keys) == ([2, 0], (0, 2))
    with pytest.warns(DataWarning, match=r"3 images of b, c,"):
        assert left.align(labelled([3, 1, 0, 1, 2], None), without=[model.classes[2]]).y.tolist() == [2, 0]


def test_classes_of_samples_are_those_that_were_drawn(mlp: Mlp, labelled: Labelled) -> None:
    """Whatever a number that was given to draw would mean to the model."""
    model = Classifier.wrap(mlp(3), class_names=["zebra", "ape", "mole"])
    sorted_by_name = labelled([0, 1, 2], ["ape", "mole", "zebra"])
    for wanted, name in ((0, "ape"), ("2", "zebra"), ("mole", "mole")):
        assert [c.name for c in model.requested(draw(sorted_by_name, [wanted], 1))] == [name]
    assert model.requested(draw(labelled([0, 1, 2], None), [1], 1)) == (model.classes[1],)
    assert model.positions(sorted_by_name, model.classes) == [2, 0, 1]
    with pytest.raises(DataError, match=r"toy.*images.*mole"):
        model.positions(labelled([0], ["ape"]), model.classes[1:])


def test_no_images_are_aligned(mlp: Mlp, labelled: Labelled) -> None:
    assert len(Classifier.wrap(mlp(3)).align(labelled([], None))) == 0


def test_a_copy_shares_nothing(mlp: Mlp, x: Tensor, spec: Callable[..., InputSpec]) -> None:
    model = Classifier.wrap(nn.Sequential(nn.BatchNorm2d(1), *mlp()), input=spec(4, 1))
    model.logits(x).sum().backward()
    twin = model.copy()
    assert replace(twin, module=model.module) == model
    mine = {t.data_ptr() for t in model.module.state_dict().values()}
    assert mine.isdisjoint(t.data_ptr() for t in twin.module.state_dict().values())
    before = model.sha256()
    assert twin.sha256() == before
    for t in twin.module.state_dict().values():
        t.zero_()
    assert model.sha256() == before != twin.sha256()


def test_sha256_changes_with_any_weight_shape_name_and_dtype(mlp: Mlp) -> None:
    model = Classifier.wrap(nn.Sequential(nn.BatchNorm2d(1), *mlp()))
    seen = {model.sha256()}
    assert model.sha256() in seen
    for name in model.module.state_dict():
        twin = model.copy()
        twin.module.state_dict()[name].view(-1)[-1:].add_(1)
        seen.add(twin.sha256())
    assert len(seen) == 1 + len(model.module.state_dict())
    seen.add(replace(model, module=copy.deepcopy(model.module).double()).sha256())
    seen.add(replace(model, module=nn.Sequential(nn.Identity(), *copy.deepcopy(model.module))).sha256())
    reshaped = model.copy()
    reshaped.module[2].weight = nn.Parameter(reshaped.module[2].weight.detach().view(14, 8))
    seen.add(reshaped.sha256())
    assert len(seen) == 4 + len(model.module.state_dict())


def test_sha256_tells_dtypes_of_the_same_bytes_apart(mlp: Mlp) -> None:
    nets = [mlp() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net, dtype in zip(nets, (torch.float32, torch.int32), strict=True):
        net.register_buffer("zeros", torch.zeros(3, dtype=dtype))
    first, second = (Classifier.wrap(net).sha256() for net in nets)
    assert first != second


def test_layers_by_dotted_name() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Linear(3, 2))
    new = nn.Linear(2, 3)
    replace_layer(net, "0.0", new)
    assert linear(net, "0.0") is net[0][0] is new
    replace_layer(net, "1", new)
    assert net[1] is new
    with pytest.raises(ModelError, match=r"'0\.1'.*ReLU.*final.*nn\.Linear"):
        linear(net, "0.1")
