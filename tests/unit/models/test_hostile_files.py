"""Weights and descriptions of unknown origin: read within bounds, or refused with one sentence."""

from __future__ import annotations

import io
import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from unhot.errors import InputError, ModelError
from unhot.models.arch import build
from unhot.models.bundle import load, read_weights, save
from unhot.models.classifier import Classifier
from unhot.models.formats.weights import WeightsFile, load_weights
from unhot.models.weight_filter import WeightFilter
from unhot.records.model import InputSpec


@pytest.fixture
def how(spec: Callable[..., InputSpec]) -> WeightsFile:
    return WeightsFile(arch="lenet5", input=spec(12, 1), arch_options={})


def zipped(content: bytes, path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """Write a file of torch that holds this pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return path


def doubled(times: int) -> bytes:
    """Return a pickle of a dict whose key is a tuple of twice a tuple of twice a tuple, and so on."""
    twice = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(times))
    return b"\x80\x02})" + twice + b"K\x01s."


@pytest.mark.parametrize("form", ["zip", "old"])
def test_a_pickle_that_would_take_for_ever(tmp_path: Path, form: str) -> None:
    assert len(pickle.loads(doubled(10))) == 1
    begun = time.perf_counter()
    file = tmp_path / "w.pt"
    if form == "zip":
        zipped(doubled(60), file)
    else:
        file.write_bytes(doubled(60))
    with pytest.raises(ModelError, match=r"w\.pt.*damaged.*objects"):
        read_weights(file)
    assert time.perf_counter() - begun < 5


def test_a_zip_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    content = pickle.dumps({"a": "x" * 10_000_000}, protocol=2)
    with pytest.raises(ModelError, match=r"compressed.*torch.*never"):
        read_weights(zipped(content, tmp_path / "w.pt", zipfile.ZIP_DEFLATED))
    bomb = b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."
    with pytest.raises(ModelError, match=r"holds.*bytearray.*weights"):
        read_weights(zipped(bomb, tmp_path / "b.pt"))


def test_a_tensor_that_declares_more_than_there_is(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1).expand(2**20, 2**16)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt.*take.*memory"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_pipes_and_devices_are_not_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match="is not a regular file"):
        read_weights(tmp_path / name)
    with pytest.raises(ModelError, match=r"zero.*regular.*file"):
        read_weights(Path("/dev/zero"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch says that some of these are new, or old
@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda t: t.to_sparse(), "fc2.bias is sparse (torch.sparse_coo). Convert it with to_dense."),
        (lambda t: t.to("meta"), "fc2.bias is on the meta device and holds no values"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "fc2.bias is quantised"),
        (lambda t: t.to(torch.float8_e4m3fn), "fc2.bias is torch.float8_e4m3fn"),
        (lambda t: torch.nested.nested_tensor([t, t[:3]]), "fc2.bias is a nested tensor"),
        (lambda t: t.to(torch.complex64), "fc2.bias holds complex64 numbers, the architecture floating ones."),
        (lambda t: t.to(torch.int8), "fc2.bias holds int8 numbers, the architecture floating ones."),
        (lambda t: t > 0, "fc2.bias holds bool numbers, the architecture floating ones."),
        (lambda t: t.sum(), "fc2.bias has shape (), the architecture (84,)."),
    ],
)
def test_tensors_of_other_kinds_are_refused_by_name(
    tmp_path: Path, how: WeightsFile, lenet: Classifier, made: Callable[[torch.Tensor], torch.Tensor], sentence: str
) -> None:
    state = dict(lenet.module.state_dict())
    state["fc2.bias"] = made(state["fc2.bias"])
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError) as caught:
        load_weights(tmp_path / "w.pt", how)
    assert sentence in str(caught.value)
    if state["fc2.bias"].dtype in (torch.int8, torch.complex64, torch.float8_e4m3fn):
        save_file(state, tmp_path / "w.safetensors")
        with pytest.raises(ModelError) as caught:
            load_weights(tmp_path / "w.safetensors", how)
        assert sentence in str(caught.value)


def test_whole_numbers_in_buffers_are_fine(tmp_path: Path, spec: Callable[..., InputSpec]) -> None:
    state = build("resnet9", 4, spec(32), {"width": 2}).state_dict()
    assert any(not v.is_floating_point() for v in state.values())
    torch.save(state, tmp_path / "w.pt")
    load_weights(tmp_path / "w.pt", WeightsFile(arch="resnet9", input=spec(32), arch_options={"width": 2}))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    torch.save({3: torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="holds no state_dict"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"arch_options": {"width": 20_000}}, "does not fit the architecture"),
        ({"arch_options": {"width": 2**40}}, "arch_options has 1099511627776"),
        ({"arch_options": {"width": 2**63}}, "arch_options has 9223372036854775808"),
        ({"arch_options": {"width": -(2**63)}}, "arch_options has -9223372036854775808"),
        ({"arch_options": {"width": None}}, "cannot be built with"),
        ({"arch_options": {"width": 2.5}}, "cannot be built with"),
        ({"arch_options": {"width": [1]}}, "cannot be built with"),
        ({"outputs": 2**40}, "'outputs': It must be less than or equal to 524288"),
        ({"arch": "vit_tiny", "arch_options": {}, "input": {"height": 8192, "width": 8192}}, "does not fit"),
        ({"input": {"height": 20_000}}, "'input.height': It must be less than or equal to 8192"),
        (
            {"arch": "torchvision:mobilenet_v2", "arch_options": {"inverted_residual_setting": [[1, 16, 10**9, 1]]}},
            "arch_options has 1000000000",
        ),
    ],
)
def test_a_net_is_not_built_larger_than_its_weights(
    tmp_path: Path, spec: Callable[..., InputSpec], values: dict[str, Any], sentence: str
) -> None:
    net = Classifier.wrap(build("resnet9", 4, spec(32), {"width": 2}), input=spec(32))
    save(replace(net, arch="resnet9", arch_options={"width": 2}), tmp_path / "out")
    file = tmp_path / "out" / "bundle.json"
    content = json.loads(file.read_text())
    if "input" in values:
        values = values | {"input": content["input"] | values["input"]}
    file.write_text(json.dumps(content | values))
    begun = time.perf_counter()
    with pytest.raises(InputError) as caught:
        load(tmp_path / "out")
    assert sentence in str(caught.value)
    assert time.perf_counter() - begun < 10


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, lenet: Classifier, umask: int) -> None:
    before = os.umask(umask)
    try:
        save(lenet, tmp_path / "out")
        WeightFilter.of(lenet).save(tmp_path / "filter.safetensors")
    finally:
        os.umask(before)
    files = [*(tmp_path / "out").iterdir(), tmp_path / "filter.safetensors"]
    assert len(files) == 3
    assert {oct(f.stat().st_mode & 0o777) for f in files} == {oct(0o666 & ~umask)}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_gates_that_are_no_gates(tmp_path: Path, lenet: Classifier, value: float) -> None:
    gates = WeightFilter.of(lenet)
    gates.gates["fc1.weight"][0, 0] = value
    gates.save(tmp_path / "f")
    with pytest.raises(ModelError, match=r"gates.*fc1\.weight.*0.*1"):
        WeightFilter.load(tmp_path / "f", lenet)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="there is no regular file"):
        WeightFilter.load(tmp_path / "pipe", lenet)


def test_a_file_that_is_none_of_torch(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes(buffer.getvalue())  # from before torch 1.6
    assert read_weights(tmp_path / "old.pt")["a"].tolist() == [1, 1, 1]
    for content in (b"", b"PK\x03\x04", b"\x80", b"\x80\x02h\x00.", b"x" * 1000, buffer.getvalue()[:-20]):
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(ModelError, match=r"damaged.*file.*torch"):
            read_weights(tmp_path / "w.pt")


def test_a_pickle_of_many_operations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.pt").write_bytes(b"\x80\x02]" + b"2" * 1_500_000 + b".")
    with pytest.raises(ModelError, match=r"1,000,000.*operations"):
        read_weights(tmp_path / "long.pt")
