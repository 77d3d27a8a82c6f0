"""Edits of a head, one after the other: what they do to a net, to its logits, and in a bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from unhot.errors import InputError, ModelError, OptionError
from unhot.models.arch import build
from unhot.models.bundle import load, save
from unhot.models.classifier import Classifier
from unhot.models.graph import GraphNet
from unhot.models.head import is_plain, linear_like
from unhot.models.head_edits.bottleneck import BottleneckEdit
from unhot.models.head_edits.edit import HeadEdit
from unhot.models.head_edits.excise import ExciseEdit
from unhot.models.head_edits.filter import FilterEdit, gated_weights
from unhot.models.head_edits.listed import ADAPTER
from unhot.models.head_edits.mask import CUT_LOGIT, MaskEdit
from unhot.models.head_edits.projection import Projection, ProjectionEdit
from unhot.records.model import InputSpec

K = 7
SPEC = InputSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.25,))
X = torch.linspace(-1, 1, 5 * 64).sin().view(5, 1, 8, 8)
Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["mask", "excise", "bottleneck", "layer", "head", "bake", "select", "forgotten"]),
        st.integers(0, 2**16),
    ),
    max_size=6,
)


class Cosine(nn.Linear):
    def forward(self, h: Tensor) -> Tensor:
        return 20 * linear(normalize(h), normalize(self.weight))


def cosine_net(num_classes: int) -> nn.Module:
    """A factory, as --arch names it."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), Cosine(12, num_classes, bias=False))


def built() -> Classifier:
    net = build("resnet9", K, SPEC, {"width": 2}).eval()
    nn.init.normal_(net.head.weight)
    return replace(Classifier.wrap(net, input=SPEC), arch="resnet9", arch_options={"width": 2})


def cosine() -> Classifier:
    return replace(Classifier.wrap(cosine_net(K).eval(), input=SPEC), arch=f"{__name__}:cosine_net")


def nameless() -> Classifier:
    head = nn.Linear(12, K, bias=False)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Sequential(nn.Identity(), head))
    return Classifier.wrap(net.eval(), X)


def edited(model: Classifier, kind: str, number: int) -> Classifier:
    """Edit a model in place; leave it as it is where it cannot be edited so, or would be left with one class."""
    label = model.classes[number % len(model.classes)]
    rows = model.head_layer.weight.detach()[[number % len(model.classes)]]
    filtered = any(isinstance(edit, FilterEdit) and edit.selected for edit in model.head_edits)
    if kind == "mask":
        return model.edited(*MaskEdit.of(model, model.columns([label])))
    if kind == "forgotten":
        return model.mark_forgotten([label]) if len(model.others([])) > 2 else model
    if kind in ("bake", "select"):
        generator = torch.Generator().manual_seed(number)
        row = {n: torch.rand(len(w), generator=generator) for n, w in gated_weights(model.module).items()}
        return model.edited(*FilterEdit.of(model, [label], row, selected=kind == "select"))
    if kind == "layer":
        return model.edited(*ProjectionEdit.of(model, rows)) if not filtered else model
    if filtered or not is_plain(model.head_layer):  # gates are those of layers of these sizes
        return model
    if kind == "head":
        return model.edited(*ProjectionEdit.of(model, rows, "head"))
    if kind == "excise":
        return model.edited(*ExciseEdit.of(model, model.columns([label]))) if len(model.classes) > 3 else model
    try:
        return model.edited(*BottleneckEdit.of(model))
    except OptionError:
        return model


@pytest.mark.parametrize("make", [built, cosine])
@pytest.mark.filterwarnings("ignore::unhot.models.bundle.GraphWarning")
@given(steps=STEPS)
def test_a_bundle_of_any_edits_returns_the_same_logits(make: Callable[[], Classifier], steps: list[Step]) -> None:
    model = make()
    for step in steps:
        model = edited(model, *step)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save(model, Path(folder, "out"))
        back = load(Path(folder, "out"), trust_arch=model.arch)
        assert torch.equal(back.logits(X), model.logits(X))
    assert replace(back, module=model.module) == model
    assert back.sha256() == model.sha256()


@pytest.mark.parametrize("seed", range(4))
def test_a_bundle_of_any_edits_of_a_graph_returns_the_same_logits(seed: int, tmp_path: Path) -> None:
    """Also where edits come after it was a graph."""
    drawn = torch.randint(2**16, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
    model = nameless()
    for i, number in enumerate(drawn):
        kinds = ["mask", "layer", "bottleneck", "excise", "head", "bake", "forgotten"]
        model = edited(model, kinds[number % 7], number)
        if i % 3 == 2:
            save(model, tmp_path / str(i))
            back = load(tmp_path / str(i))
            assert isinstance(back.module, GraphNet)
            with torch.no_grad():
                assert torch.equal(back.logits(X), model.logits(X))
            assert replace(back, module=model.module) == model
            model = back


@given(steps=STEPS, bias=st.booleans())
def test_logits_are_edited_as_the_net_is(steps: list[Step], bias: bool) -> None:
    """What edits the features or all weights comes first: the logits do not tell what it does."""
    model = built()
    head = linear_like(model.head_layer, bias=bias)
    head.load_state_dict({k: v for k, v in model.head_layer.state_dict().items() if bias or k == "weight"})
    model.module.head = head
    early = ("layer", "head", "bake", "select")
    steps = [s for s in steps if s[0] in early[:3]] + [s for s in steps if s[0] not in early]
    with torch.no_grad():
        expected, shifted = model.logits(X), False
        for kind, number in steps:
            before = model.head_edits
            model = edited(model, kind, number)
            new = [edit for edit in model.head_edits if edit not in before]
            expected = model.logits(X) if kind in early else expected
            for edit in new:
                expected = edit.on_logits(expected)
                shifted |= isinstance(edit, BottleneckEdit)
        found = model.logits(X)
    columns = model.others([])  # a bottleneck keeps nothing of the classes that were forgotten
    found, expected = (z[:, columns] for z in (found, expected))
    if shifted:
        found, expected = found.softmax(1), expected.softmax(1)
    torch.testing.assert_close(found, expected)


@given(steps=STEPS)
def test_edits_are_plain_json(steps: list[Step]) -> None:
    model = built()
    for step in steps:
        model = edited(model, *step)
    text = json.dumps([edit.model_dump(mode="json") for edit in model.head_edits])
    assert ADAPTER.validate_json(text) == model.head_edits
    for edit in model.head_edits:
        with pytest.raises(ValueError, match="frozen"):
            edit.kind = "mask"  # type: ignore[attr-defined, misc]


def test_two_projections_are_one_layer_in_a_graph_too(tmp_path: Path) -> None:
    model = nameless()
    w = model.head_layer.weight.detach().clone()
    once = model.edited(*ProjectionEdit.of(model, w[:1]))
    save(once, tmp_path / "once")
    back = load(tmp_path / "once")
    assert isinstance(back.module, GraphNet)
    with torch.no_grad():
        twice = [m.edited(*ProjectionEdit.of(m, w[1:3])) for m in (once, back)]
        features = [m.features(X) for m in twice]
    torch.testing.assert_close(features[0] @ w[:3].T, torch.zeros(len(X), 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(features[1], features[0])
    assert twice[0].head_edits == twice[1].head_edits
    assert twice[0].head == twice[1].head == "3.1.1"
    save(twice[1], tmp_path / "twice")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "twice").features(X), features[1])


@pytest.mark.parametrize("kind", ["layer", "bottleneck", "select", "mask"])
def test_a_net_that_comes_without_its_list_is_edited_as_one_with_it(kind: str) -> None:
    model = edited(edited(cosine() if kind == "mask" else built(), kind, 1), "forgotten", 1)
    bare = Classifier.wrap(model.module, X)
    listed = [edit for edit in model.head_edits if not hasattr(edit, "classes")]
    assert [e for e in bare.head_edits if not hasattr(e, "classes")] == listed
    assert bare.forgotten == ()
    again = [edited(m.copy(), "layer" if kind == "select" else kind, 2) for m in (model, bare)]
    assert again[0].head == again[1].head
    assert [n for n, _ in again[0].module.named_modules()] == [n for n, _ in again[1].module.named_modules()]


def test_a_selected_filter_is_kept_and_taken_off_again(tmp_path: Path) -> None:
    model = built()
    selected = edited(model, "select", 5)
    save(selected, tmp_path / "out")
    back = load(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(back.logits(X), selected.logits(X))
        assert not torch.allclose(selected.logits(X), model.logits(X))
        assert torch.equal(back.module.base(X), model.logits(X))
    assert (back.arch, back.head) == ("resnet9", "base.head")
    assert back.head_edits[0].classes == (model.classes[5],)
    with pytest.raises(ModelError, match=r"is not a plain nn\.Linear"):  # as a graph: its weights are computed
        save(edited(nameless(), "select", 5), tmp_path / "nameless")


def test_a_projection_drawn_anew_takes_nothing_out() -> None:
    layer = Projection(2, 6)
    layer.away.data.normal_()
    layer.reset_parameters()
    h = torch.randn(3, 6)
    assert torch.equal(layer(h), h)


def test_marks_are_one_entry_in_the_order_of_the_requests() -> None:
    model = built()
    a, b, c = model.classes[:3]
    model = model.mark_forgotten([b]).edited(*MaskEdit.of(model, [0])).mark_forgotten([a, b])
    assert model.forgotten == (b, a)
    assert [edit.model_dump()["kind"] for edit in model.head_edits] == ["mask", "forgotten"]
    assert model.marked([c]).forgotten == (c,)
    assert model.marked([]).head_edits == model.head_edits[:1]


def test_masking_draws_no_numbers_and_leaves_tied_weights(tmp_path: Path) -> None:
    model, tied = built(), nn.Linear(16, K)
    tied.weight = model.head_layer.weight
    before, state = tied.weight.detach().clone(), torch.get_rng_state()
    for kind in ("mask", "bottleneck", "excise"):
        model = edited(model, kind, 3)
    assert torch.equal(tied.weight, before)
    assert torch.equal(torch.get_rng_state(), state)


LAYER = {"kind": "projection", "layer": "head", "rank": 1}


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ([{"kind": "hide"}], "is not a valid BundleInfo: head_edits"),
        ([{"layer": "head"}], "is not a valid BundleInfo: head_edits"),
        ([LAYER | {"rank": -1}], "head_edits '0.projection.rank'"),
        ([LAYER | {"rank": 65_537}], "head_edits '0.projection.rank'"),
        ([LAYER | {"surprise": 1}], "head_edits '0.projection.surprise'"),
        ([LAYER | {"rank": 60_000}], "60000 directions cannot be removed from 16 features"),
        ([LAYER | {"layer": "stem"}], "'stem.1' is a BatchNorm2d"),
        ([LAYER | {"layer": "nothing"}], "no layer 'nothing'"),
        ([LAYER], "The head 'head' is a Sequential"),
        ([{"kind": "bottleneck", "layer": "head", "width": 17}], "does not fit the 16 features"),
        ([{"kind": "bottleneck", "layer": "head", "width": 5}], "The head 'head' is a Bottleneck"),
        ([{"kind": "mask", "layer": "head", "outputs": []}], "head_edits '0.mask.outputs'"),
        ([{"kind": "mask", "layer": "head", "outputs": [7]}], "Output 7 of 'head' is edited, and it has 7 outputs"),
        ([{"kind": "mask", "layer": "head", "outputs": [2**40]}], "head_edits '0.mask.outputs.0'"),
        ([{"kind": "mask", "layer": "head", "outputs": [1], "by": "hook"}], "no weights for head.cut_outputs"),
        ([{"kind": "excise", "layer": "stem.0", "outputs": [1]}], "'stem.0' is a Conv2d"),
        ([{"kind": "excise", "layer": "head", "outputs": list(range(7))}], "All outputs of 'head' are removed"),
        ([{"kind": "filter", "classes": [], "selected": True}], "does not fit the architecture"),
        ([{"kind": "filter", "classes": [], "selected": True}] * 9_000, "More than 8 filters are nested"),
        ([{"kind": "bottleneck", "layer": f"head{n * '.1'}", "width": 3} for n in range(400)], "at most 300 char"),
        ([{"kind": "forgotten", "classes": []}] * 10_001, "at most 10000 items"),
        ([{"kind": "forgotten", "classes": [{"index": 1, "name": "a"}] * 2}], "forgotten class 1 comes twice"),
    ],
)
def test_edits_that_do_not_fit_the_net_are_refused(tmp_path: Path, edits: list[Any], sentence: str) -> None:
    save(built(), tmp_path / "out")
    file = tmp_path / "out" / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"head_edits": edits}))
    with pytest.raises((InputError, ModelError)) as caught:
        load(tmp_path / "out")
    assert sentence in str(caught.value)


def test_what_every_edit_does_to_logits() -> None:
    z = torch.arange(8.0).view(2, 4)
    assert torch.equal(ExciseEdit(layer="head", outputs=(2, 0)).on_logits(z), z[:, [1, 3]])
    masked = MaskEdit(layer="head", outputs=(2, 0)).on_logits(z)
    assert torch.equal(masked, torch.tensor([[CUT_LOGIT, 1, CUT_LOGIT, 3], [CUT_LOGIT, 5, CUT_LOGIT, 7]]))
    assert torch.equal(HeadEdit().on_logits(z), z)
