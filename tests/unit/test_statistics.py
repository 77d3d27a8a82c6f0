"""Guards: arithmetic beside slow obvious code, what dropping leaves, and files that are not what they should be."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unhot import statistics as guards
from unhot.errors import DataError, InputError
from unhot.models.arch import build
from unhot.models.classifier import Classifier
from unhot.models.layers import input_rows
from unhot.records.model import InputSpec
from unhot.runtime import Runtime
from unhot.statistics import METADATA, ClassStatistics, Sketch, principal
from unhot.testing import Toy, toy_problem

RUNTIME = Runtime(torch.device("cpu"))


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_problem()


@pytest.fixture(scope="module")
def model(toy: Toy) -> Classifier:
    return Classifier.wrap(toy.model, toy.x[:2])


@pytest.fixture(scope="module")
def guard(model: Classifier, toy: Toy) -> ClassStatistics:
    return ClassStatistics.collect(model, (toy.x, toy.y), RUNTIME)


def flows(model: Classifier, x: Tensor, layer: str) -> Tensor:
    with torch.no_grad(), model.recording([layer]) as seen:
        model.logits(x)
    return seen[layer]


def covariance(guard: ClassStatistics, point: str, k: int) -> Tensor:
    rows = guard.tensors[f"{point}.rows"][k].flatten(1).float()
    return rows.T @ rows


def test_means_and_covariances_are_those_of_the_images(model: Classifier, toy: Toy, guard: ClassStatistics) -> None:
    assert guard.info.replay_points == {"0": "", "4": "4", "7": "7"}
    assert guard.info.layers == ("0", "4", "7")
    assert guard.info.counts == (24, 24, 24, 24)
    for point in ("", "4", "7"):
        for k in range(4):
            h = flows(model, toy.x[toy.y == k], point)
            torch.testing.assert_close(guard.tensors[f"{point}.mean"][k], h.mean(0), atol=1e-5, rtol=1e-4)
            wanted = h.flatten(1).T.cov(correction=0)
            assert (covariance(guard, point, k) - wanted).norm() < 0.01 * wanted.norm()  # kept in bfloat16
            assert guard.tensors[f"{point}.least"][k] == h.min()


def test_as_many_split_points_as_may_be_kept_and_at_least_the_last(
    model: Classifier, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [flows(model, toy.x[:1], point).numel() for point in ("7", "4")]
    for values, wanted in ((0, {"7"}), (sum(sizes) - 1, {"7"}), (sum(sizes), {"4", "7"})):
        monkeypatch.setattr(guards, "NUMBERS", 4 * 128 * values)
        guard = ClassStatistics.collect(model, (toy.x, toy.y), RUNTIME)
        assert set(guard.info.replay_points.values()) == wanted
        assert {n.rpartition(".")[0] for n in guard.tensors if n.endswith(".mean")} == wanted


def test_what_room_is_left_goes_to_the_split_point_nearest_the_head(
    model: Classifier, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {point: flows(model, toy.x[:1], point).numel() for point in ("7", "4", "")}
    monkeypatch.setattr(guards, "ROWS", 4 * 3)
    monkeypatch.setattr(guards, "LEAST", 3)
    monkeypatch.setattr(guards, "MOST", 4)
    for wanted in ({"7": 3, "4": 3}, {"7": 4, "4": 3}, {"7": 4, "4": 4, "": 3}):
        monkeypatch.setattr(guards, "NUMBERS", 4 * sum(sizes[point] * rows for point, rows in wanted.items()))
        guard = ClassStatistics.collect(model, (toy.x, toy.y), RUNTIME)
        points = set(guard.info.replay_points.values())
        assert {point: guard.tensors[f"{point}.rows"].shape[1] for point in points} == wanted


def test_second_moments_are_those_of_the_input_rows(
    model: Classifier, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "SEEN", 1_000_000)
    unequal = torch.cat([(toy.y != 2).nonzero().flatten(), (toy.y == 2).nonzero().flatten()[:5]])
    guard = ClassStatistics.collect(model, (toy.x[unequal], toy.y[unequal]), RUNTIME)
    for name in guard.info.layers:
        rows = input_rows(model.module.get_submodule(name), flows(model, toy.x[unequal], name))
        wanted = rows.T @ rows / len(rows)
        b, a = guard.second_moment(name)
        found = b.float().T @ b.float() + a * torch.eye(b.shape[1])
        assert (found - wanted).norm() < 0.01 * wanted.norm()  # kept in bfloat16


def test_dropping_a_class_leaves_what_would_have_been_collected_without_it(
    model: Classifier, toy: Toy, guard: ClassStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "ROWS", 3 * guards.ROWS // 4)  # three classes share what four did
    x, y = toy.retain(1)
    never = ClassStatistics.collect(model, (x, y), RUNTIME)
    dropped = guard.excluding([model.classes[1]])
    assert dropped.info == never.info
    assert dropped.tensors.keys() == never.tensors.keys()
    for name, value in never.tensors.items():
        assert torch.equal(dropped.tensors[name], value), name
    assert dropped.sha256() == never.sha256() != guard.sha256()
    with pytest.raises(DataError, match="No class would be left"):
        dropped.excluding(model.classes)


def test_draws_have_the_mean_and_the_covariance_of_their_class(
    guard: ClassStatistics, generator: torch.Generator
) -> None:
    free = replace(guard, tensors=guard.tensors | {"7.least": torch.full((4,), -1e9)})
    classes = torch.full((40_000,), 3)
    drawn = free.draw("7", classes, generator)
    wanted = covariance(guard, "7", 3)
    scale = wanted.diagonal().max()
    assert drawn.shape[1:] == guard.tensors["7.mean"].shape[1:]
    torch.testing.assert_close(drawn.mean(0), guard.tensors["7.mean"][3], atol=0.03 * scale.sqrt(), rtol=0)
    torch.testing.assert_close(drawn.flatten(1).T.cov(), wanted, atol=0.04 * scale, rtol=0)
    least = guard.tensors["7.least"].min()
    assert guard.draw("7", classes, generator).min() == least > drawn.min()


def test_draws_around_something_else_have_that_mean(guard: ClassStatistics, generator: torch.Generator) -> None:
    free = replace(guard, tensors=guard.tensors | {"7.least": torch.full((4,), -1e9)})
    centre = torch.full((1, *guard.tensors["7.mean"].shape[1:]), 5.0)
    around = centre.expand(20_000, *centre.shape[1:])
    drawn = free.draw("7", torch.zeros(20_000, dtype=torch.int64), generator, around)
    spread = covariance(guard, "7", 0).diagonal().max().sqrt()
    torch.testing.assert_close(drawn.mean(0), centre[0], atol=0.04 * spread, rtol=0)
    assert (around == 5).all()


def test_what_is_drawn_is_taken_for_its_class(
    model: Classifier, guard: ClassStatistics, generator: torch.Generator
) -> None:
    classes = torch.arange(4).repeat_interleave(100)
    for point in ("4", "7"):
        with torch.no_grad(), model.replacing(point, guard.draw(point, classes, generator)):
            taken = model.logits(torch.zeros(1, 1, 8, 8)).argmax(1)
        assert (taken == classes).float().mean() > 0.8


@pytest.mark.usefixtures("keep_generators")
def test_a_block_is_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    spec = InputSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    x = torch.randn(6, 3, 8, 8)
    net = Classifier.wrap(build("resnet9", 2, spec, {"width": 2}).eval(), x)
    monkeypatch.setattr(guards, "NUMBERS", 0)
    guard = ClassStatistics.collect(net, (x, torch.arange(6) % 2), RUNTIME)
    assert guard.info.replay_points == {"res3.body.0.0": "res3", "res3.body.1.0": "res3"}


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 12), st.integers(0, 1000))
def test_principal_directions_are_those_of_the_covariance(n: int, d: int, size: int, seed: int) -> None:
    h = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double()
    rows = principal(h, size)
    assert rows.shape == (min(size, d), d)
    wanted = h.T @ h / n
    values, vectors = torch.linalg.eigh(wanted)
    values[: max(0, d - size)] = 0
    torch.testing.assert_close(rows.T @ rows, vectors @ values.diag() @ vectors.T, atol=1e-6, rtol=1e-5)


def test_max_images_looks_at_as_many_of_each_class(model: Classifier, toy: Toy) -> None:
    guard = ClassStatistics.collect(model, (toy.x, toy.y), RUNTIME, max_images=12)
    assert guard.info.counts == (24, 24, 24, 24)  # of the data: classes count for what they are there
    few = ClassStatistics.collect(model, (toy.x, toy.y), RUNTIME, max_images=1)
    assert all(t.isfinite().all() for t in few.tensors.values())
    assert guard.sha256() != few.sha256()


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 12), st.integers(0, 1000))
def test_a_sketch_keeps_the_trace_and_never_exceeds_what_it_describes(n: int, d: int, size: int, seed: int) -> None:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    sketch = Sketch(size)
    for part in rows.split(7):
        sketch.add(part)
    b, a = sketch.mean()
    assert b.shape == (min(size, d), d)
    wanted, found = rows.T @ rows / n, b.T @ b
    assert torch.linalg.eigvalsh(wanted - found).min() > -1e-4
    assert (found.trace() + d * a).item() == pytest.approx(wanted.trace().item(), rel=1e-3, abs=1e-4)
    # Liberty 2013, with size rows left after each shrinking: the error is at most the trace over size + 1
    assert torch.linalg.eigvalsh(wanted - found).max() <= wanted.trace() / (size + 1) + 1e-4
    if size >= d or size >= n:
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def test_a_file_gives_back_what_was_saved(guard: ClassStatistics, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    guard.save(path)
    again = ClassStatistics.load(path)
    assert again.info == guard.info
    assert again.sha256() == guard.sha256()
    assert [p.name for p in tmp_path.iterdir()] == ["g.safetensors"]


def test_it_belongs_to_one_model(guard: ClassStatistics, model: Classifier) -> None:
    assert guard.check(model) is None
    other = model.copy()
    with torch.no_grad():
        other.head_layer.bias[0] += 1
    with pytest.raises(DataError, match="collected from another model"):
        guard.check(other)


def test_there_must_be_images(model: Classifier, toy: Toy) -> None:
    with pytest.raises(DataError, match="A guard needs images"):
        ClassStatistics.collect(model, (toy.x[:0], toy.y[:0]), RUNTIME)


def rewritten(path: Path, header: dict[str, str] | None = None, **changes: Tensor | None) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    tensors |= {n: t for n, t in changes.items() if t is not None}
    save_file(
        {n: t for n, t in tensors.items() if changes.get(n, t) is not None},
        path,
        metadata if header is None else header,
    )


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda p: p.unlink(), "There is no guard at"),
        (lambda p: p.write_bytes(p.read_bytes()[:-9]), "is not a readable safetensors file"),
        (lambda p: p.write_bytes(b"\0" * 40), "is not a readable safetensors file"),
        (lambda p: p.write_text("no"), "is not a readable safetensors file"),
        (lambda p: rewritten(p, header={}), "is not a guard"),
        (lambda p: rewritten(p, header={METADATA: "{"}), "is not valid JSON"),
        (lambda p: rewritten(p, header={METADATA: '{"schema_version": 2}'}), "was written by a newer unhot"),
        (lambda p: rewritten(p, header={METADATA: '{"kind": "audit"}'}), "is not a valid StatisticsInfo"),
        (lambda p: rewritten(p, **{"7.least": torch.full((4,), torch.nan)}), "7.least holds NaN"),
        (lambda p: rewritten(p, **{"7.mean": None}), "other tensors.*7.mean"),
        (lambda p: rewritten(p, more=torch.ones(4)), "other tensors.*more"),
        (lambda p: rewritten(p, **{"7.mean": torch.zeros(3, 12)}), r"7.mean has the shape \(3, 12\)"),
        (lambda p: rewritten(p, **{"7.mean": torch.zeros(4, 11)}), "7 has a mean and rows of different shapes"),
        (lambda p: rewritten(p, **{"0.input_rest": torch.zeros(4, 1)}), "0.input_rest has the shape"),
        (lambda p: rewritten(p, **{"0.input_rest": torch.tensor(1.0)}), r"0.input_rest has the shape \(\)"),
        (lambda p: rewritten(p, **{"7.mean": torch.tensor(1.0)}), r"7.mean has the shape \(\)"),
        (lambda p: rewritten(p, **{"7.mean": torch.zeros(4)}), r"7.mean has the shape \(4,\)"),
        (lambda p: rewritten(p, **{"7.least": torch.zeros(4, dtype=torch.int8)}), "7.least is not of floating numbers"),
        (lambda p: rewritten(p, **{"7.least": torch.zeros(4).to(torch.float8_e5m2)}), "7.least is not of floating"),
        (lambda p: rewritten(p, **{"7.least": torch.zeros(4, dtype=torch.complex64)}), "7.least is not of floating"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "There is no guard at"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence(guard: ClassStatistics, tmp_path: Path, fault, sentence: str) -> None:
    path = tmp_path / "g.safetensors"
    guard.save(path)
    fault(path)
    with pytest.raises(InputError, match=sentence):
        ClassStatistics.load(path)


def test_counts_must_fit_the_classes(guard: ClassStatistics, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    replace(guard, info=guard.info.model_copy(update={"counts": (1, 2)})).save(path)
    with pytest.raises(InputError, match="each class needs one count"):
        ClassStatistics.load(path)
