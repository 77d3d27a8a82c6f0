from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unhot.data.preprocessing import Preprocessing
from unhot.errors import ModelError
from unhot.models.arch import build
from unhot.models.bundle import read_weights
from unhot.models.classifier import Classifier
from unhot.models.formats.weights import WeightsFile, load_weights
from unhot.records.model import InputSpec

State = dict[str, Tensor]


@pytest.fixture
def how(spec: Callable[..., InputSpec]) -> Callable[..., WeightsFile]:
    def make(**values: Any) -> WeightsFile:
        return WeightsFile(**({"arch": "lenet5", "input": spec(12, 1), "arch_options": {}} | values))

    return make


@pytest.fixture
def state(lenet: Classifier) -> State:
    return dict(lenet.module.state_dict())


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


LAYOUTS: dict[str, Callable[[State], object]] = {
    "plain": lambda s: s,
    "ordered": OrderedDict,
    "DataParallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "DataParallel of compiled": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model_state_dict": lambda s: {"model_state_dict": {f"module.{k}": v for k, v in s.items()}, "lr": 0.1},
    "model": lambda s: {"model": s, "optimizer": {}},
    "nested twice": lambda s: {"state_dict": {"model": s}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_state_dicts_as_they_come(
    tmp_path: Path, how: Callable[..., WeightsFile], lenet: Classifier, state: State, layout: str
) -> None:
    model = load_weights(saved(LAYOUTS[layout](state), tmp_path / "w.pt"), how())
    assert model.sha256() == lenet.sha256()
    assert (model.arch, model.outputs, model.head) == ("lenet5", 10, "head")
    assert [c.name for c in model.classes] == [str(i) for i in range(10)]
    assert not model.module.training


def test_compiled_of_data_parallel(tmp_path: Path, how: Callable[..., WeightsFile], state: State) -> None:
    content = {f"_orig_mod.module.{k}": v for k, v in state.items()}
    assert load_weights(saved(content, tmp_path / "w.pt"), how()).outputs == 10


def test_safetensors(tmp_path: Path, how: Callable[..., WeightsFile], lenet: Classifier, state: State) -> None:
    save_file(state, tmp_path / "w.safetensors")
    assert load_weights(tmp_path / "w.safetensors", how()).sha256() == lenet.sha256()
    (tmp_path / "bad.safetensors").write_bytes(b"not at all")
    with pytest.raises(ModelError, match=r"bad\.safetensors.*readable.*safetensors"):
        load_weights(tmp_path / "bad.safetensors", how())


@pytest.mark.parametrize("outputs", [2, 37])
@pytest.mark.parametrize("bias", [True, False])
def test_the_number_of_outputs_is_told_from_the_file(
    tmp_path: Path, how: Callable[..., WeightsFile], spec: Callable[..., InputSpec], outputs: int, bias: bool
) -> None:
    content = build("lenet5", outputs, spec(12, 1)).state_dict()
    if not bias:
        del content["head.bias"]
    file = saved(content, tmp_path / "w.pt")
    names = tuple(f"n{i}" for i in range(outputs))
    model = load_weights(file, how(data_names=names))
    assert (model.outputs, model.head_layer.out_features, len(model.classes)) == (outputs,) * 3
    assert (model.head_layer.bias is not None) == bias
    assert torch.equal(model.head_layer.weight, content["head.weight"])
    assert model.classes[-1].name == names[-1]
    other = load_weights(file, how(data_names=(*names, "one more")))  # names of a data set of more classes
    assert other.classes[-1].name == str(outputs - 1)


def test_the_head_may_be_named(tmp_path: Path, how: Callable[..., WeightsFile], state: State) -> None:
    file = saved(state, tmp_path / "w.pt")
    assert load_weights(file, how(head="head")).head == "head"
    with pytest.raises(ModelError, match=r"lenet5.*'fc3'.*Linear"):
        load_weights(file, how(head="fc3"))


def test_weights_of_another_architecture_are_listed(
    tmp_path: Path, how: Callable[..., WeightsFile], state: State
) -> None:
    state["conv1.weight"] = torch.zeros(6, 3, 5, 5)
    state["fc1.bias"] = torch.zeros(7)
    state["extra"] = torch.zeros(1)
    del state["fc2.bias"]
    with pytest.raises(ModelError) as caught:
        load_weights(saved(state, tmp_path / "w.pt"), how())
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/w.pt does not fit the architecture: 4 problems:",
        "  - no weights for fc2.bias.",
        "  - extra is not part of the architecture.",
        "  - conv1.weight has shape (6, 3, 5, 5), the architecture (6, 1, 5, 5).",
        "  - fc1.bias has shape (7,), the architecture (120,).",
    ]


def test_what_was_left_out_is_said(tmp_path: Path, how: Callable[..., WeightsFile], spec: Callable[..., Any]) -> None:
    file = saved(build("resnet9", 10, spec(12, 1), {"width": 4}).state_dict(), tmp_path / "w.pt")
    narrow = how(arch="resnet9", arch_options={"width": 4})
    assert load_weights(file, narrow).outputs == 10
    with pytest.raises(ModelError) as refused:
        load_weights(file, how(arch="resnet9"))
    _, first, *_, last = str(refused.value).splitlines()
    assert first == "  - stem.0.weight has shape (4, 1, 3, 3), the architecture (32, 1, 3, 3)."
    assert last == "resnet9 has the options width. Give what it was built with: --arch-option NAME=VALUE."
    with pytest.raises(ModelError) as refused:
        load_weights(file, replace(narrow, input=None))
    grey = "stem.0.weight has shape (4, 1, 3, 3), the architecture (4, 3, 3, 3). Give --image-size too: how pictures "
    assert grey in str(refused.value)
    assert "options" not in str(refused.value)
    sized = load_weights(file, replace(narrow, input=None, preprocessing=Preprocessing(size=12)))
    assert sized.input is not None
    assert sized.input.shape == (1, 12, 12)


def test_an_architecture_of_torchvision_is_offered(tmp_path: Path, how: Callable[..., WeightsFile]) -> None:
    file = saved(build("torchvision:resnet18", 10, None).state_dict(), tmp_path / "w.pt")
    offer = r"has no head\.weight, the head of resnet18\. They fit --arch torchvision:resnet18\."
    with pytest.raises(ModelError, match=offer):
        load_weights(file, how(arch="resnet18"))


def test_a_head_of_other_features_is_listed(tmp_path: Path, how: Callable[..., WeightsFile], state: State) -> None:
    state["head.weight"] = torch.zeros(10, 85)
    with pytest.raises(ModelError, match=r"head\.weight.*10.*85.*architecture.*10.*84"):
        load_weights(saved(state, tmp_path / "w.pt"), how())
    del state["head.weight"]
    with pytest.raises(ModelError, match=r"w\.pt.*head\.weight.*lenet5.*--arch"):
        load_weights(saved(state, tmp_path / "w.pt"), how())


def test_a_head_without_rows_is_refused(tmp_path: Path, how: Callable[..., WeightsFile], state: State) -> None:
    state["head.weight"] = torch.tensor(3.0)
    with pytest.raises(ModelError):
        load_weights(saved(state, tmp_path / "w.pt"), how())


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, how: Callable[..., WeightsFile], state: State) -> None:
    state["fc1.weight"] = torch.full_like(state["fc1.weight"], torch.inf)
    with pytest.raises(ModelError, match=r"w\.pt.*NaN.*infinite.*fc1\.weight"):
        load_weights(saved(state, tmp_path / "w.pt"), how())


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(2), {"a": torch.zeros(1), "b": 2}])
def test_a_file_without_weights(tmp_path: Path, content: object) -> None:
    with pytest.raises(ModelError, match=r"w\.pt.*holds.*state_dict.*model\.state_dict"):
        read_weights(saved(content, tmp_path / "w.pt"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("w.pt", "w.safetensors", "."):
        with pytest.raises(ModelError, match=r"weights.*file.*Check.*path"):
            read_weights(tmp_path / name)


class Trap:
    """Leaves a mark when it is unpickled, and becomes what ``file`` holds."""

    def __init__(self, mark: Path, file: Path) -> None:
        self.code = f"__import__('pathlib').Path({str(mark)!r}).touch() or __import__('torch').load({str(file)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.code,)


def test_a_pickle_that_runs_code_is_run_only_if_it_is_trusted(
    tmp_path: Path, how: Callable[..., WeightsFile], lenet: Classifier, state: State
) -> None:
    mark, plain = tmp_path / "mark", saved(state, tmp_path / "plain.pt")
    trap = saved(Trap(mark, plain), tmp_path / "trap.pt")
    with pytest.raises(ModelError, match=r"trap\.pt.*weights.*loading"):
        load_weights(trap, how())
    assert not mark.exists()
    assert load_weights(trap, how(trust_pickle=True)).sha256() == lenet.sha256()
    assert mark.exists()


def test_a_pickled_net_is_loaded_only_if_it_is_trusted(
    tmp_path: Path, how: Callable[..., WeightsFile], lenet: Classifier
) -> None:
    for net in (lenet.module, nn.DataParallel(lenet.module)):
        file = saved(net, tmp_path / "net.pt")
        with pytest.raises(ModelError, match=r"--trust-pickle"):
            load_weights(file, how())
        assert load_weights(file, how(trust_pickle=True)).sha256() == lenet.sha256()


def test_a_bare_pickle_is_not_read(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(Trap(mark, tmp_path / "nothing")))
    with pytest.raises(ModelError, match=r"was not loaded"):
        read_weights(tmp_path / "w.pkl")
    assert not mark.exists()


@pytest.mark.parametrize("trust", [True, False])
def test_a_damaged_file_is_called_damaged(tmp_path: Path, state: State, trust: bool) -> None:
    file = saved(state, tmp_path / "w.pt")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError) as caught:
        read_weights(file, trust)
    assert "may run code" not in str(caught.value)
