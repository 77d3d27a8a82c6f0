"""Views: logits and features against plain forward passes, and columns put right."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from handmade import Board, labels, nothing, random_board, runtime
from hypothesis import given
from hypothesis import strategies as st

from unhot.errors import ModelError, ModelWarning
from unhot.evaluation.view import LAST, LAYERS, View, Views
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.layers import pooled, stages
from unhot.records.model import ClassLabel


def named(names: list[str]) -> tuple[ClassLabel, ...]:
    return tuple(ClassLabel(index=i, name=n) for i, n in enumerate(names))


def views_of(original: Classifier, other: Classifier, forgotten: list[int]) -> Views:
    gone = [original.label(i) for i in forgotten]
    return Views(original, other, [], gone, {}, runtime())


def test_views_hold_what_plain_forward_passes_give(zoo) -> None:
    model = zoo.original(0)
    views = zoo.board()
    view = views.of("original", "test")
    x = views.splits["test"].inputs(torch.arange(len(view.y)), model.input, torch.device("cpu"))
    with torch.no_grad():
        features, logits = model.features_and_logits(x)
    assert torch.allclose(view.logits, logits, atol=1e-4)
    assert torch.allclose(view.features, features, atol=1e-4)
    assert torch.equal(view.y, zoo.source.test_images.y)
    assert view.correct.tolist() == (logits.argmax(1) == view.y).tolist()
    found = stages(model, x[:2])
    assert list(view.layers)[-LAST:] == found[-LAST:]
    assert 1 <= len(view.layers) - LAST <= LAYERS
    assert [n for n in found[1:] if n in view.layers] == list(view.layers)
    with torch.no_grad(), model.recording([], after=view.layers) as seen:
        model.logits(x)
    for name, flow in view.layers.items():
        assert torch.allclose(flow, seen[name].flatten(2).mean(2) if seen[name].ndim == 4 else seen[name], atol=1e-4)
    assert view.layer(None) is view.features


def test_batches_do_not_matter(zoo) -> None:
    model, views = zoo.original(0), zoo.board()
    x = views.splits["test"].inputs(torch.arange(150), model.input, torch.device("cpu"))
    whole = views.logits(model, x)
    parts = torch.cat([views.logits(model, p) for p in x.split(7)])
    assert torch.allclose(whole, parts, atol=1e-4)
    assert torch.allclose(whole, views.of("original", "test").logits[:150], atol=1e-4)


def test_pooled_averages_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    image, tokens, flat = (
        torch.rand(2, 3, 4, 5, generator=generator),
        torch.rand(2, 7, 3, generator=generator),
        torch.ones(2, 3),
    )
    assert torch.allclose(pooled(image), image.mean((2, 3)))
    assert torch.allclose(pooled(tokens), tokens.mean(1))
    assert pooled(flat) is flat


def test_a_masked_view_has_no_forgotten_logits_and_the_same_features() -> None:
    board = random_board(0, forgotten=(1, 3))
    own, masked = board.views.of("original", "test"), board.views.of("masked", "test")
    assert masked.logits[:, [1, 3]].eq(-torch.inf).all()
    assert torch.equal(masked.logits[:, [0, 2]], own.logits[:, [0, 2]])
    assert masked.features is own.features
    assert own.logits.isfinite().all()


def test_each_model_is_looked_at_once(zoo, monkeypatch) -> None:
    passes: list[str] = []
    plain = Views._view

    def counted(self: Views, model: Classifier, subject: str, split: str) -> View:
        passes.append(split)
        return plain(self, model, subject, split)

    monkeypatch.setattr(Views, "_view", counted)
    views = zoo.board(unlearned=zoo.retrained(3, 10))
    for _ in range(2):
        for subject in views.models:
            views.of(subject, "test")
    assert passes == ["test", "test"]  # the original and masked share one, so do the unlearned and the retrained


@given(st.integers(3, 9), st.data())
def test_a_model_with_the_other_outputs_only_has_them_in_order(k, data) -> None:
    gone = data.draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=k - 2, unique=True))
    kept = [i for i in range(k) if i not in gone]
    by_name = kept == list(range(len(kept)))  # the last ones are gone: then the others have their names
    with nullcontext() if by_name else pytest.warns(ModelWarning, match=r"The unlearned model has \d outputs without"):
        views = views_of(nothing(k), nothing(k - len(gone)), gone)
    model = views.models["unlearned"][0]
    assert views.places(model) == kept
    placed = views._placed(model, torch.arange(float(len(kept)))[None])
    assert placed[0, kept].tolist() == list(range(len(kept)))
    assert placed[0, gone].eq(-torch.inf).all()


@given(st.integers(3, 9), st.data())
def test_an_excised_model_has_its_outputs_where_they_were(k, data) -> None:
    gone = data.draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=k - 2, unique=True))
    original = nothing(k)
    model = original.copy()
    with torch.no_grad():
        model.head_layer.bias.copy_(torch.arange(float(k)))
        model.head_layer.weight.zero_()
    cut = cut_classes(model, [original.label(i) for i in gone], "excise")
    views = views_of(original, cut, gone)
    z = views.logits(cut, torch.zeros(2, 1, 1, 1))
    assert z[0].tolist() == [-torch.inf if i in gone else float(i) for i in range(k)]


def test_a_model_whose_outputs_are_in_another_order_is_put_right() -> None:
    order = [2, 0, 1]
    turned = replace(nothing(3), classes=tuple(labels(3)[i] for i in order))
    views = views_of(nothing(3), turned, [0])
    assert views.places(turned) == order
    assert views._placed(turned, torch.tensor([[20.0, 0, 10]])).tolist() == [[0, 10, 20]]


@given(st.permutations(["cat", "dog", "cow", "9", "0"]), st.integers(3, 5))
def test_a_model_with_names_is_matched_by_them(names, k) -> None:
    """Retrained models come with their classes in another order, or without those that they never saw."""
    original = replace(nothing(5), classes=named(["0", "9", "cat", "cow", "dog"]))
    other = replace(nothing(k), classes=named(names[:k]))
    places = views_of(original, other, [1]).places(other)
    assert [original.classes[i].name for i in places] == names[:k]


def test_a_model_with_other_names_is_matched_by_position_and_that_is_said() -> None:
    other = replace(nothing(3), classes=named(["cat", "dog", "cow"]))
    with pytest.warns(ModelWarning, match=r"unlearned.*model.*name.*matched.*position"):
        assert views_of(nothing(3), other, [0]).places(other) == [0, 1, 2]
    with pytest.raises(ModelError, match=r"unlearned.*cat.*dog"):
        views_of(nothing(3), replace(nothing(2), classes=named(["cat", "dog"])), [0])


def test_an_output_that_the_original_has_lost_is_refused() -> None:
    original = cut_classes(nothing(4), [labels(4)[2]], "excise")
    with pytest.raises(ModelError, match=r"unlearned.*2.*excised"):
        views_of(original, nothing(4), [0])


def test_an_excised_model_may_have_lost_other_classes_too() -> None:
    cut = replace(nothing(3), classes=tuple(labels(5)[i] for i in (0, 2, 4)), outputs=5)
    assert views_of(nothing(5), cut, [1]).places(cut) == [0, 2, 4]


def test_more_outputs_than_the_original_are_refused() -> None:
    with pytest.raises(ModelError, match=r"unlearned.*3.*4"):
        views_of(nothing(3), nothing(5), [0])


def test_too_few_outputs_of_unknown_classes_are_refused() -> None:
    with pytest.raises(ModelError):
        views_of(nothing(10), nothing(8), [3])


def test_as_many_outputs_of_other_classes_are_refused() -> None:
    original = replace(nothing(9), classes=labels(10)[1:], outputs=10)
    other = replace(nothing(9), classes=labels(10)[:9], outputs=10)
    try:
        places = views_of(original, other, [3]).places(other)
    except ModelError:
        return
    assert len(set(places)) == 9


def test_halves_are_the_same_for_every_model_and_differ_by_seed() -> None:
    board, other = random_board(0), random_board(0)
    other.views.runtime = runtime(1)
    first, second = board.case().halves
    assert torch.equal(board.case("original").halves[0], first)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(240))
    assert not torch.equal(other.case().halves[0], first)


def test_is_forget_marks_all_forgotten_classes() -> None:
    board: Board = random_board(0, forgotten=(0, 2))
    view = board.views.of("unlearned", "test")
    assert view.is_forget.tolist() == [c in (0, 2) for c in view.y.tolist()]
    assert board.case().is_forget(torch.tensor([0, 1, 2, 3])).tolist() == [True, False, True, False]
