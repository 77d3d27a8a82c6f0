"""A graph of unknown origin neither ends the process, nor fills it, nor changes what it is made of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz_operators import FIRST, WEIGHTS, written
from safetensors.torch import save_file
from torch import nn

import unhot
from unhot.errors import ModelError
from unhot.models.budget import Budget
from unhot.models.bundle import load
from unhot.models.classifier import Classifier
from unhot.models.graph import GraphNet
from unhot.models.operators import OPERATORS, operator_of
from unhot.records.model import InputSpec

X, LAST = {"value": 0}, len(FIRST) + 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    return tmp_path


def refused(folder: Path, *steps: dict[str, Any]) -> str:
    """Return with what a bundle of these steps is refused, when it is loaded."""
    written(folder, *steps)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bundle_of_these_can_be_loaded(folder: Path) -> None:
    written(folder, {"call": "aten.relu.default", "args": [X]})
    assert isinstance(load(folder).module, GraphNet)


@pytest.mark.parametrize(
    ("call", "args", "name"),
    [
        ("aten.to.dtype", [X, 999], "dtype"),  # SIGSEGV
        ("aten.to.dtype", [X, 6], "dtype"),
        ("aten.to.dtype", [X, {"dtype": "float32"}, False, False, 1], "memory_format"),
        ("aten.sum.default", [3.0], "self"),
        ("aten.add.Tensor", [2, X], "self"),
        ("aten.relu.default", [{"value": 1}], "self"),  # a size
        ("aten.softmax.int", [X, X], "dim"),
        ("aten.softmax.int", [X, True], "dim"),
        ("aten.softmax.int", [X, 1.0], "dim"),
        ("aten.softmax.int", [X, {"dtype": "float32"}], "dim"),
        ("aten.cat.default", [X], "tensors"),
        ("aten.cat.default", [[X, 1]], "tensors"),
        ("aten.view.default", [X, {"value": 1}], "size"),
        ("aten.view.default", [X, [2**40]], "size"),
        ("aten.max_pool2d.default", [X, [2, 2], [0, 0]], "stride"),  # SIGFPE
        ("aten.max_pool2d.default", [X, [2, 2], [1, 1], [-1, -1]], "padding"),
        ("aten.conv2d.default", [X, {"weight": "kernel2"}, None, [1, 1], [0, 0], [1, 1], 0], "groups"),
        ("aten.conv2d.default", [X, {"weight": "kernel2"}, None, [1, {"value": 10}]], "stride"),
        ("aten.channel_shuffle.default", [X, 0], "groups"),
        ("aten.repeat.default", [X, [2**62, 4]], "repeats"),
        ("aten.gelu.default", [X], None),
    ],
)
def test_arguments_of_another_kind_are_refused(folder: Path, call: str, args: list[Any], name: str | None) -> None:
    step = {"call": call, "args": args}
    if name is None:
        step["kwargs"] = {"approximate": "x" * 100_000}
    said = refused(folder, step)
    assert f"step {len(FIRST)}: it gives {call} " in said
    assert f"as {name or 'approximate'!r}" in said
    assert len(said) < 400


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        ({"call": "aten.relu.default", "args": []}, "it gives aten.relu.default no 'self'"),
        ({"call": "aten.relu.default", "args": [X, X]}, "arguments that it does not take"),
        ({"call": "aten.relu.default", "args": [X], "kwargs": {"self": X}}, "arguments that it does not take"),
        ({"call": "aten.relu.default", "args": [X], "kwargs": {"out": X}}, "arguments that it does not take"),
        ({"call": "aten.clamp.default", "args": [X], "kwargs": {"min": {"float": "1"}}}, "has no float '1'"),
        ({"call": "aten.to.dtype", "args": [X, {"dtype": "quint8"}]}, "has no dtype 'quint8'"),
        ({"call": "aten.dropout.default", "args": [X, 0.5, True]}, "True as 'train'"),
        ({"call": "aten.add.int", "args": [2**62, 2**62]}, "aten.add.int, which is not among the operators"),
        ({"call": "operator.mul", "args": [X, X]}, "it gives operator.mul arguments that it does not take"),
        ({"call": "operator.mul", "args": ["a", 2**30]}, "it gives operator.mul arguments that it does not take"),
        ({"call": "operator.getitem", "args": [X, 0]}, "it gives operator.getitem arguments that it does not take"),
        ({"call": "operator.mod", "args": [3, 0]}, "calling operator.mod"),
        (
            {
                "call": "aten.batch_norm.default",
                "args": [X, None, None, {"weight": "row"}, {"weight": "row"}, True, 0.1, 1e-5, False],
            },
            "change running statistics",
        ),
        (
            {"call": "aten.remainder.Tensor", "args": [{"weight": "extreme"}, {"weight": "minus"}]},
            "divides whole numbers",
        ),
        ({"call": "aten.floor_divide.default", "args": [{"weight": "whole"}, 0]}, "divides whole numbers"),
        (
            {"call": "aten.embedding.default", "args": [{"weight": "matrix"}, {"weight": "extreme"}]},
            "calling aten.embedding.default",
        ),
        ({"call": "aten._weight_norm.default", "args": [{"weight": "none"}, {"weight": "row"}]}, "no elements"),
    ],
)
def test_what_is_not_in_order_is_refused(folder: Path, step: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(folder, step)


@pytest.mark.parametrize(
    "step",
    [
        {"call": "aten.expand.default", "args": [{"weight": "scalar"}, [2**31 - 1, 2**31 - 1]]},
        {"call": "aten.repeat.default", "args": [X, [65_536, 65_536, 1, 1]]},
        {"call": "aten.full.default", "args": [[2**31 - 1], 1.0]},
        {"call": "aten.arange.default", "args": [1e12]},
        {"call": "aten.pad.default", "args": [X, [60_000, 60_000, 60_000, 60_000]]},
        {"call": "aten.conv2d.default", "args": [X, {"weight": "kernel2"}, None, [1, 1], [60_000, 60_000]]},
        {"call": "aten.upsample_bilinear2d.vec", "args": [X, [60_000, 60_000], False, None]},
        {"call": "aten.upsample_bilinear2d.vec", "args": [X, None, False, [1e6, 1e6]]},
        {"call": "aten.one_hot.default", "args": [{"weight": "whole"}, 65_536]},
        {"call": "aten.adaptive_avg_pool2d.default", "args": [X, [60_000, 60_000]]},
    ],
)
def test_what_takes_too_much_is_refused_before_it_is_called(folder: Path, step: dict[str, Any]) -> None:
    many = (
        [step, {"call": "aten.expand.default", "args": [{"value": LAST}, [2**31 - 1]]}]
        if "hot" in str(step)
        else [step]
    )
    assert "it needs more than 134,217,728 numbers at once" in refused(folder, *many)


def test_what_grows_step_by_step_is_refused(folder: Path) -> None:
    squares = [
        {"call": "aten.outer.default", "args": [{"value": 11 + 2 * i}, {"value": 11 + 2 * i}]}
        if odd
        else {"call": "aten.flatten.using_ints", "args": [{"value": 12 + 2 * i}]}
        for i in range(8)
        for odd in (True, False)
    ]
    flat = {"call": "aten.flatten.using_ints", "args": [X]}
    assert "it needs more than 134,217,728 numbers at once" in refused(folder, flat, *squares)
    sizes = [{"call": "operator.mul", "args": [{"value": LAST - 1 + i}] * 2} for i in range(1, 40)]
    assert "a size becomes too large" in refused(folder, {"call": "operator.add", "args": [{"value": 1}, 2]}, *sizes)


def test_work_without_end_is_refused(folder: Path) -> None:
    big = {"call": "aten.full.default", "args": [[6000, 6000], 0.001]}
    products = [{"call": "aten.mm.default", "args": [{"value": LAST}, {"value": LAST}]} for _ in range(50)]
    assert "more multiplications than a net for such images has" in refused(folder, big, *products)


def test_slow_functions_are_bounded() -> None:
    budget, x = Budget(torch.empty(1, 3, 8, 8)), torch.empty(1).expand(2**24)
    for _ in range(16):
        budget.take("pow", {"self": x, "exponent": 1.5})
    with pytest.raises(ValueError, match=r"multiplications.*net.*such"):
        budget.take("pow", {"self": x, "exponent": 1.5})


def test_many_small_tensors_are_bounded() -> None:
    budget, parts = Budget(torch.empty(1, 3, 8, 8)), [torch.empty(1)] * 65_536
    for _ in range(5):
        budget.keep(parts)
    with pytest.raises(ValueError, match="numbers at once"):
        budget.take("pow", {"self": torch.empty(1), "exponent": 1.5})
    for _ in range(5):
        budget.drop(parts)
    budget.take("pow", {"self": torch.empty(1), "exponent": 1.5})
    for _ in range(20):
        budget.keep(parts)
        budget.drop(parts)
    with pytest.raises(ValueError, match=r"multiplications.*net.*such"):
        budget.take("pow", {"self": torch.empty(1), "exponent": 1.5})


def test_many_dimensions_are_refused(folder: Path) -> None:
    deeper = [{"call": "aten.unsqueeze.default", "args": [{"value": LAST + i}, 0]} for i in range(2_000)]
    first = {"call": "aten.relu.default", "args": [X]}
    assert "a tensor of more than 64 dimensions" in refused(folder, first, *deeper)


@pytest.mark.parametrize("weight", ["row", "head.weight"])
@pytest.mark.parametrize("way", ["itself", "a view", "what dropout returns", "a constant of the same memory"])
def test_weights_are_not_written_to(folder: Path, weight: str, way: str) -> None:
    named = {"weight": weight}
    steps: dict[str, list[dict[str, Any]]] = {
        "itself": [{"call": "aten.mul_.Tensor", "args": [named, 2]}],
        "a view": [
            {"call": "aten.select.int", "args": [named, 0, 0]},
            {"call": "aten.fill_.Scalar", "args": [{"value": LAST}, 0]},
        ],
        "what dropout returns": [
            {"call": "aten.dropout.default", "args": [named, 0.5, False]},
            {"call": "aten.mul_.Tensor", "args": [{"value": LAST}, 2]},
        ],
        "a constant of the same memory": [
            {"call": "aten.broadcast_tensors.default", "args": [[named, named]]},
            {"call": "operator.getitem", "args": [{"value": LAST}, 0]},
            {"call": "aten.relu_.default", "args": [{"value": LAST + 1}]},
        ],
    }
    assert f"it writes to the weights '{weight}'" in refused(folder, *steps[way])


def test_inputs_are_not_written_to(folder: Path) -> None:
    written(
        folder,
        {"call": "aten.dropout.default", "args": [X, 0.5, False]},
        {"call": "aten.zero_.default", "args": [{"value": LAST}]},
    )
    model, x = load(folder), torch.rand(4, 3, 8, 8)
    given = x.clone()
    assert torch.equal(model.logits(x), torch.zeros(4, 5))
    assert torch.equal(x, given)


def test_a_net_that_changes_its_input_can_be_kept(tmp_path: Path) -> None:
    class Shifting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x -= 0.5
            return self.head(x.flatten(1))

    x = torch.rand(4, 3, 2, 2)
    net = Shifting().eval()
    unhot.save(Classifier.wrap(net, x.clone()), tmp_path / "out")
    torch.testing.assert_close(load(tmp_path / "out").logits(x), net(x.clone()))


def test_a_net_that_changes_its_weights_is_not_kept(tmp_path: Path) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(12, 3)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            return self.head(x.flatten(1) + self.seen)

    s = InputSpec(height=2, width=2, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(ModelError, match=r"writes.*weights.*'seen'"):
        unhot.save(Classifier.wrap(Counting(), input=s), tmp_path / "out")


def test_other_inputs_than_those_of_the_graph(folder: Path) -> None:
    written(folder, {"call": "aten.relu.default", "args": [X]})
    model = load(folder)
    with pytest.raises(ModelError, match=r"B.*3.*8.*8.*2.*3.*9.*8"):
        model.logits(torch.rand(2, 3, 9, 8))
    info = json.loads((folder / "bundle.json").read_text())
    info["input"] = {"height": 9, "width": 8, "channels": 3, "mean": [0, 0, 0], "std": [1, 1, 1]}
    (folder / "bundle.json").write_text(json.dumps(info))
    with pytest.raises(ModelError, match=r"inputs.*3.*8.*8.*bundle\.json.*3.*9.*8"):
        load(folder)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"stride": [0, 0]}, "stride"),
        ({"groups": 0}, "groups"),
        ({"padding": [-1, -1]}, "padding"),
        ({"padding": "other"}, "padding"),
        ({"dilation": [2**40, 1]}, "dilation"),
        ({"stride": {"value": 1}}, "stride"),
        ({"groups": 2**40}, "groups"),
    ],
)
def test_options_of_layers_are_checked(folder: Path, options: dict[str, Any], name: str) -> None:
    written(folder, {"call": "aten.relu.default", "args": [X]})
    file = folder / "graph.json"
    graph = json.loads(file.read_text())
    state = WEIGHTS | {"conv.weight": torch.ones(3, 3, 3, 3)}
    save_file(state, folder / "model.safetensors")
    graph["layers"]["conv"] = {"kind": "Conv2d", "options": options}
    written(folder, {"layer": "conv", "args": [X]}, layers=graph["layers"])
    with pytest.raises(ModelError, match=f"as '{name}'"):
        load(folder)


def test_all_operators_are_there() -> None:
    assert all(callable(operator_of(call)) for call in OPERATORS)


@pytest.mark.process
def test_no_call_ends_the_process(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fuzz_operators.py")), str(tmp_path), "0", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    last = (tmp_path / "next.json").read_text()
    assert done.returncode == 0, f"{last}\n{done.stderr}"
    assert done.stdout == ""
    assert int(last) > 200  # ran, and the others were refused
