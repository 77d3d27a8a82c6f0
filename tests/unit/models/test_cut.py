from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from unhot.errors import OptionError
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut, cut_classes

Mlp = Callable[..., nn.Sequential]


def head_only(k: int, bias: bool = True) -> Classifier:
    """A classifier whose logits are its inputs (plus a bias of zeros)."""
    head = nn.Linear(k, k, bias=bias)
    with torch.no_grad():
        head.weight.copy_(torch.eye(k))
        if bias:
            head.bias.zero_()
    return Classifier.wrap(nn.Sequential(nn.Flatten(), head))


def cut(model: Classifier, gone: Sequence[int], how: str) -> Classifier:
    twin = model.copy()
    return cut_classes(twin, [twin.label(i) for i in gone], how)


@given(data=st.data(), bias=st.booleans())
def test_masking_and_excising_give_the_same_probabilities(data: st.DataObject, bias: bool) -> None:
    k = data.draw(st.integers(2, 6))
    gone = data.draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=k - 1, unique=True))
    rows = data.draw(st.lists(st.lists(st.floats(-80, 80, width=32), min_size=k, max_size=k), min_size=1, max_size=4))
    z = torch.tensor(rows)
    model, kept = head_only(k, bias), [i for i in range(k) if i not in gone]
    masked, excised = cut(model, gone, "mask"), cut(model, gone, "excise")
    with torch.no_grad():
        p, q = masked.logits(z).softmax(1), excised.logits(z).softmax(1)
    assert p.shape == z.shape
    assert not p[:, gone].any()
    torch.testing.assert_close(p[:, kept], q)
    torch.testing.assert_close(q, z[:, kept].softmax(1))
    assert [c.index for c in excised.classes] == kept
    assert masked.classes == model.classes


@pytest.mark.parametrize("bias", [True, False])
def test_a_masked_class_never_wins(bias: bool) -> None:
    z = torch.full((1, 5), -5000.0)
    z[0, 2] = 5000.0
    logits = cut(head_only(5, bias), [2], "mask").logits(z)
    assert logits[0].tolist() == [-5000, -5000, -10_000, -5000, -5000]
    assert logits.softmax(1)[0].tolist() == [0.25, 0.25, 0, 0.25, 0.25]
    assert torch.isfinite(logits.half()).all()


def test_zeroing_the_weights_alone_would_not_do() -> None:
    """What the class's own bias, or a logit of 0, would do: the reason for a bias of -10,000."""
    model = head_only(3)
    with torch.no_grad():
        model.head_layer.weight[1] = 0
    assert model.logits(torch.tensor([[-2.0, 0.0, -1.0]])).argmax(1).item() == 1
    assert cut(model, [1], "mask").logits(torch.tensor([[-2.0, 0.0, -1.0]])).argmax(1).item() == 2


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", [h for h in get_args(Cut) if h != "bottleneck"])
def test_the_other_rows_are_bit_identical(mlp: Mlp, x: Tensor, bias: bool, how: str) -> None:
    model = Classifier.wrap(mlp(6, bias))
    done = cut(model, [4, 1], how)
    old, new, kept = model.head_layer, done.head_layer, [0, 2, 3, 5]
    columns = done.columns([model.label(i) for i in kept])
    assert torch.equal(new.weight[columns], old.weight[kept])
    assert torch.equal(done.features(x), model.features(x))
    if bias:
        assert torch.equal(new.bias[columns], old.bias[kept])
    elif how == "mask":
        assert not new.bias[columns].any()
    assert (new.bias is not None) == (bias or how == "mask")
    assert new.out_features == len(done.classes) == (4 if how == "excise" else 6)
    assert [c.index for c in done.forgotten] == [4, 1]
    assert model.forgotten == ()


def test_none_leaves_everything_as_it_is(mlp: Mlp) -> None:
    model = Classifier.wrap(mlp())
    head, before = model.head_layer, model.sha256()
    done = cut_classes(model, [model.label(2)], "none")
    assert done.head_layer is head
    assert done.sha256() == before
    assert done.forgotten == (model.label(2),)


@pytest.mark.parametrize("first", ["mask", "excise"])
@pytest.mark.parametrize("second", ["mask", "excise"])
def test_forgetting_twice(mlp: Mlp, x: Tensor, first: str, second: str) -> None:
    model = Classifier.wrap(mlp(6))
    twice = cut(cut(model, [1], first), [4], second)
    once = cut(model, [1, 4], "excise")
    p = twice.logits(x).softmax(1)
    left = [c for c in twice.classes if c not in twice.forgotten]
    assert left == list(once.classes)
    torch.testing.assert_close(p[:, twice.columns(left)], once.logits(x).softmax(1))
    torch.testing.assert_close(p[:, twice.columns(left)].sum(1), torch.ones(6))
    assert [c.index for c in twice.forgotten] == [1, 4]
    if second == "mask":
        assert cut(twice, [4], "mask").forgotten == twice.forgotten


def test_the_head_keeps_its_dtype_and_flags_and_draws_no_numbers(mlp: Mlp) -> None:
    model = Classifier.wrap(mlp().double().eval())
    model.head_layer.requires_grad_(False)
    before = torch.get_rng_state()
    for how in ("mask", "excise"):
        head = cut(model, [0], how).head_layer
        assert head.weight.dtype == head.bias.dtype == torch.float64
        assert not head.training
        assert not head.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), before)
    model.module.train().requires_grad_(True)
    head = cut(model, [0], "mask").head_layer
    assert head.training
    assert head.weight.requires_grad


def test_a_head_inside_the_net_is_replaced(x: Tensor) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(16, 7), nn.Linear(7, 5)))
    done = cut(Classifier.wrap(net), [3], "excise")
    assert done.head == "1.1"
    assert done.logits(x).shape == (6, 4)


@pytest.mark.parametrize("bias", [True, False])
def test_a_bottleneck_leaves_the_probabilities_of_the_others_as_they_were(mlp: Mlp, x: Tensor, bias: bool) -> None:
    model = Classifier.wrap(mlp(6, bias).double())
    done = cut(model, [4, 1], "bottleneck")
    with torch.no_grad():
        features, logits = done.features_and_logits(x.double())
        before = model.logits(x.double())[:, [0, 2, 3, 5]].softmax(1)
    torch.testing.assert_close(logits.softmax(1)[:, [0, 2, 3, 5]], before)
    assert not logits.softmax(1)[:, [1, 4]].any()
    assert features.shape == (len(x), 3)  # four classes are left
    basis = done.module.get_submodule(f"{model.head}.0").get_parameter("weight")
    torch.testing.assert_close(basis @ basis.T, torch.eye(3).double())
    assert (done.head, done.forgotten) == (f"{model.head}.1", tuple(model.label(i) for i in (4, 1)))


def test_a_bottleneck_keeps_a_direction_that_hardly_tells_two_classes_apart() -> None:
    """Inputs that are long in it are told apart by it alone."""
    model = head_only(5)
    with torch.no_grad():
        model.head_layer.weight[2] = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.01])
        model.head_layer.weight[4, 4] = 0
    x = torch.tensor([[9.0, 0.0, 0.0, 0.0, 300.0], [9.0, 0.0, 0.0, 0.0, -300.0]])
    p = cut(model, [1], "bottleneck").logits(x).softmax(1)
    torch.testing.assert_close(p[:, [0, 2, 3, 4]], model.logits(x)[:, [0, 2, 3, 4]].softmax(1))
    assert p.argmax(1).tolist() == [2, 0]


def test_a_bottleneck_hides_what_no_class_left_uses() -> None:
    """Two inputs that differ in nothing but the forgotten class's own direction are one behind it."""
    model = head_only(3)
    with torch.no_grad():
        model.head_layer.weight.copy_(torch.eye(3))
    done = cut(model, [1], "bottleneck")
    features = done.features(torch.tensor([[1.0, 0.0, 2.0], [1.0, 9.0, 2.0], [3.0, 0.0, 2.0]]))
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[2])


def test_a_second_bottleneck_narrows_the_first(mlp: Mlp, x: Tensor) -> None:
    model = Classifier.wrap(mlp(6))
    once = cut(model, [4], "bottleneck")
    twice = cut(once, [1], "bottleneck")
    with torch.no_grad():
        features, logits = twice.features_and_logits(x)
        before = model.logits(x)[:, [0, 2, 3, 5]].softmax(1)
    assert features.shape[1] == 3
    assert twice.head == once.head  # one projection, not two
    torch.testing.assert_close(logits.softmax(1)[:, [0, 2, 3, 5]], before)
    assert not logits.softmax(1)[:, [1, 4]].any()


@pytest.mark.parametrize(("outputs", "gone"), [(6, [0, 1, 2, 3, 4]), (12, [0])])
def test_a_bottleneck_that_would_leave_out_nothing_or_all_is_refused(outputs: int, gone: list[int]) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, outputs))
    with pytest.raises(OptionError, match="Choose cut=mask or cut=excise"):
        cut(Classifier.wrap(net), gone, "bottleneck")
