from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from unhot.errors import InputError
from unhot.records.audit import Measurement
from unhot.records.base import digest
from unhot.records.environment import Cost, Environment
from unhot.records.forget import ForgetRecord, SamplesInfo
from unhot.records.model import BundleInfo, ClassLabel, InputSpec
from unhot.records.train import TrainRecord

GREY = InputSpec(height=28, width=28, channels=1, mean=(0.5,), std=(0.25,))


def bundle_info(**changes: Any) -> BundleInfo:
    values: dict[str, Any] = {
        "arch": "lenet5",
        "outputs": 2,
        "classes": (ClassLabel(index=0, name="cat"), ClassLabel(index=1, name="Hündin")),
        "input": GREY,
        "head": "head",
        "weights_sha256": "0" * 64,
        "unhot_version": "0.1.0",
    }
    return BundleInfo(**values | changes)


def forget_record(**changes: Any) -> ForgetRecord:
    values: dict[str, Any] = {
        "digest": "0" * 64,
        "method": "mask",
        "hyperparameters": {"cut": "mask"},
        "uses": (),
        "classes": (ClassLabel(index=0, name="cat"),),
        "samples": SamplesInfo(origin="tensors", count=(2,), indices=(0, "b.png"), sha256=("a", "b")),
        "seed": 3,
        "model_sha256": "1",
        "weights_sha256": "2",
        "stop_reason": "done",
        "notes": {"left": 0.5},
        "cost": Cost(seconds=0.1, peak_memory_bytes=1, steps=0),
        "environment": Environment.here(),
    }
    return ForgetRecord(**values | changes)


@pytest.mark.parametrize("record", [bundle_info(), forget_record()], ids=["bundle", "forget"])
def test_round_trip(tmp_path: Path, record: BundleInfo | ForgetRecord) -> None:
    path = tmp_path / "record.json"
    record.write(path)
    assert type(record).read(path) == record
    assert path.read_text() == record.to_json()
    assert record.to_json().endswith("}\n")
    assert json.loads(record.to_json())["schema_version"] == record.VERSION


def test_text_is_kept_as_it_is() -> None:
    assert "Hündin" in bundle_info().to_json()


def test_bytes_of_a_name_that_are_not_utf_8_are_words(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    samples = SamplesInfo(origin=f"/data/{name}", count=(1,), indices=(name,), sha256=("a",))
    forget_record(samples=samples).write(tmp_path / "record.json")
    read = ForgetRecord.read(tmp_path / "record.json")
    assert read.samples.indices == ("caf\\udce9.png",)
    assert read.samples.origin == "/data/caf\\udce9.png"


def edited(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(json.loads(bundle_info().to_json()) | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "not a valid BundleInfo: 'colour'"),
        ({"outputs": 0}, "outputs"),
        ({"classes": [{"index": -1, "name": "x"}]}, r"classes\.0\.index"),
        ({"schema_version": 99}, "was written by a newer unhot"),
        ({"arch": None}, "arch"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = edited(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        BundleInfo.read(path)
    assert str(path) in str(caught.value)


def test_a_schema_version_that_is_text_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, schema_version="two")
    with pytest.raises(InputError, match=r"schema_version"):
        BundleInfo.read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"null"])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bundle.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bundle.json is not"):
        BundleInfo.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read: No such file"):
        BundleInfo.read(tmp_path / "none.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        Measurement(name="x", subject="original", value=value)
    with pytest.raises(ValueError, match=r"JSON|finite"):
        forget_record(notes={"left": value}).to_json()


def test_records_are_frozen() -> None:
    with pytest.raises(ValidationError, match=r"frozen"):
        bundle_info().arch = "other"  # type: ignore[misc]


@pytest.mark.parametrize("changes", [{"height": 0}, {"channels": 2}, {"std": (0.0,)}, {"mean": (float("nan"),)}])
def test_an_input_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InputSpec.model_validate(GREY.model_dump() | changes)


@pytest.mark.parametrize("changes", [{"mean": (0.1, 0.2)}, {"std": (0.1, 0.2, 0.3)}])
def test_a_mean_for_each_channel_is_required(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InputSpec.model_validate(GREY.model_dump() | changes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_digest_is_that_of_the_canonical_text(value: Any) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert digest(value) == hashlib.sha256(text.encode()).hexdigest()
    assert digest(json.loads(json.dumps(value))) == digest(value)


def test_digest_ignores_the_order_of_keys_and_refuses_nan() -> None:
    assert digest({"a": 1, "b": [1.5, "x"]}) == digest({"b": [1.5, "x"], "a": 1})
    assert digest({"a": 1, "b": [1.5, "x"]}) == "253252306831c7a53e616d2fac19ec1f21555d2c739d3366d5fa6399d3cce7be"
    assert digest({"a": 1}) != digest({"a": 2})
    with pytest.raises(ValueError, match=r"JSON"):
        digest(float("nan"))


def test_the_environment_names_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("HOSTNAME", "secret-host")
        text = Environment.here(threads=2).model_dump_json()
    assert "secret-host" not in text
    assert "/" not in Environment.here().platform
    assert json.loads(text)["cpu_threads"] == 2


def test_a_train_record_takes_no_test_split() -> None:
    record = TrainRecord(
        dataset="d", arch="a", arch_options={}, excluded=(), settings={}, seed=0, train_images=1, test_accuracy=None,
        cost=Cost(seconds=1, peak_memory_bytes=1, steps=1), weights_sha256="", environment=Environment.here(),
    )  # fmt: skip
    assert TrainRecord.model_validate_json(record.to_json()) == record
