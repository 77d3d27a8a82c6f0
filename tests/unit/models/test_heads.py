"""Heads that are not a plain nn.Linear: what cuts a class from their output leaves the other logits, or is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

import unhot
from unhot.errors import MethodFailedError, ModelError, OptionError
from unhot.methods.checks import cut_and_compare
from unhot.methods.pour import PourP
from unhot.models.bundle import GraphWarning, load, save
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.head import is_plain
from unhot.models.head_edits.mask import CUT_LOGIT, CUT_OUTPUTS


class Cosine(nn.Linear):
    def forward(self, h: Tensor) -> Tensor:
        return 20 * linear(normalize(h), normalize(self.weight))


class Scaled(nn.Linear):
    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) * 30


class Margin(nn.Linear):
    """As ArcFace: with labels a margin is taken off; in use it is a cosine."""

    def forward(self, h: Tensor, y: Tensor | None = None) -> Tensor:
        cosine = linear(normalize(h), normalize(self.weight))
        return 16 * (cosine if y is None else cosine - 0.3 * nn.functional.one_hot(y, cosine.shape[1]))


class Adapted(nn.Linear):
    """As a low-rank adapter."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.up, self.down = (nn.Parameter(torch.randn(n, 2)) for n in (self.out_features, self.in_features))

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) + h @ self.down @ self.up.T


def hooked(head: nn.Linear) -> nn.Linear:
    head.register_forward_hook(lambda _, args, out: out * 3)
    return head


def watched(head: nn.Linear) -> nn.Linear:
    head.register_forward_hook(lambda *_: None)
    return head


def patched(head: nn.Linear) -> nn.Linear:
    head.forward = lambda h: 5 * linear(h, head.weight, head.bias).tanh()  # type: ignore[method-assign]
    return head


HEADS: dict[str, Callable[[int, int], nn.Linear]] = {
    "cosine": Cosine,
    "scaled": Scaled,
    "margin": Margin,
    "adapted": Adapted,
    "weight norm": lambda d, k: nn.utils.parametrizations.weight_norm(nn.Linear(d, k)),
    "spectral norm": lambda d, k: nn.utils.parametrizations.spectral_norm(nn.Linear(d, k)),
    "hooked": lambda d, k: hooked(nn.Linear(d, k)),
}
PLAIN: dict[str, Callable[[int, int], nn.Linear]] = {
    "linear": nn.Linear,
    "no bias": lambda d, k: nn.Linear(d, k, bias=False),
    "watched": lambda d, k: watched(nn.Linear(d, k)),
}


def body(head: nn.Linear) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), head).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(3))


def request(model: Classifier, x: Tensor) -> tuple[int, unhot.Samples]:
    """Return the class that a net most often names, and its images."""
    found = model.logits(x).argmax(1)
    label = int(found.mode().values)
    return label, unhot.draw((x, found), [label], shots=4)


def test_which_heads_are_plain() -> None:
    assert {name for name, make in (HEADS | PLAIN).items() if is_plain(make(12, 5))} == set(PLAIN)
    assert not is_plain(patched(nn.Linear(12, 5)))


@pytest.mark.parametrize("kind", [*HEADS, *PLAIN])
@pytest.mark.parametrize("method", ["mask", "nhle-cwm"])
def test_the_other_logits_are_those_of_before_the_cut(kind: str, method: str, x: Tensor) -> None:
    net = body((HEADS | PLAIN)[kind](12, 5))
    model = Classifier.wrap(net, x)
    label, samples = request(model, x)
    settings = {} if method == "mask" else {"steps": 0}
    made = unhot.forget(net, samples, method=method, **settings)
    others = [c for c in range(5) if c != label]
    with torch.no_grad():
        before, (features, after) = model.logits(x), made.classifier.features_and_logits(x)
    torch.testing.assert_close(after[:, others], before[:, others])
    assert (after[:, label] == CUT_LOGIT).all()
    assert torch.equal(features, model.features(x))
    assert type(made.classifier.head_layer) is type(model.head_layer)
    assert [c.index for c in made.classifier.forgotten] == [label]
    assert CUT_OUTPUTS not in dict(net[-1].named_buffers())  # the caller's model is as it was


@pytest.mark.parametrize("kind", HEADS)
def test_a_second_class_is_forgotten_after_the_first(kind: str, x: Tensor) -> None:
    net = body(HEADS[kind](12, 5))
    model = Classifier.wrap(net, x)
    first, samples = request(model, x)
    once = unhot.forget(net, samples, method="mask").classifier
    second, samples = request(once, x)
    twice = unhot.forget(once, samples, method="mask").classifier
    others = [c for c in range(5) if c not in (first, second)]
    with torch.no_grad():
        before, between, after = (m.logits(x) for m in (model, once, twice))
    torch.testing.assert_close(after[:, others], before[:, others])
    assert (after[:, [first, second]] == CUT_LOGIT).all()
    assert not (between[:, second] == CUT_LOGIT).any()
    assert len(twice.head_layer._forward_hooks) == len(once.head_layer._forward_hooks)
    assert sorted(c.index for c in twice.forgotten) == sorted([first, second])


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("how", ["excise", "bottleneck"])
def test_what_makes_a_new_head_is_refused_for_these(kind: str, how: str, x: Tensor) -> None:
    net = body(HEADS[kind](12, 5))
    _, samples = request(Classifier.wrap(net, x), x)
    with pytest.raises(OptionError, match=rf"^cut={how} makes a new head .* Choose cut=mask\.$"):
        unhot.forget(net, samples, method="mask", cut=how)
    with pytest.raises(OptionError, match=r"^deploy=head edits the weights .* Choose deploy=layer\.$"):
        unhot.forget(net, samples, method="pour-p", deploy="head")


class Around(nn.Module):
    """Uses the weights of its head beside calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.head = nn.Flatten(), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.flat(x)
        out: Tensor = self.head(h / self.head.weight.norm())
        return out


@pytest.mark.parametrize("how", ["mask", "excise", "bottleneck"])
def test_a_cut_that_moves_the_other_logits_is_an_error(how: str, x: Tensor) -> None:
    model = Classifier.wrap(Around().eval(), x)
    label, samples = request(model, x)
    said = "'Bottleneck' object has no attribute" if how == "bottleneck" else f"cut={how}. moved the logits of .* by 0"
    with pytest.raises(MethodFailedError, match=said):
        unhot.forget(model, samples, method="mask", cut=how)
    before = model.logits(x).detach()
    cut_classes(model, [model.classes[label]], "mask")
    assert (model.logits(x) - before).abs().max() > 0.01  # which nothing else would have seen


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("how", ["mask", "excise", "bottleneck"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_rounding_is_no_move(dtype: torch.dtype, how: str, scale: float, x: Tensor) -> None:
    net = body(nn.Linear(12, 5))
    net[-1].weight.data *= scale
    model = Classifier.wrap(net.to(dtype))
    kept, _ = cut_and_compare(model, [model.classes[2]], how, x.to(dtype))  # type: ignore[arg-type]
    assert kept.logits(x.to(dtype)).isfinite().all()


@pytest.mark.filterwarnings("ignore::unhot.errors.SampleWarning")
def test_the_projection_takes_out_what_the_class_reads_or_is_refused(x: Tensor) -> None:
    """A cosine or a scale keeps the direction of a row, an adapter does not."""
    for kind in ("cosine", "scaled", "margin", "weight norm"):
        net = body(HEADS[kind](12, 5))
        label, samples = request(Classifier.wrap(net, x), x)
        made = unhot.forget(net, samples, method="pour-p").classifier
        nothing = made.head_layer(torch.zeros(1, 12))[:, label]
        torch.testing.assert_close(made.logits(x)[:, label], nothing.expand(len(x)), atol=1e-4, rtol=1e-4)
    net = body(Adapted(12, 5))
    with pytest.raises(ModelError, match=r"reads.*features.*weights"):
        PourP()(net, request(Classifier.wrap(net, x), x)[1])


def cosine_net(outputs: int = 5) -> nn.Module:
    """A factory, as --arch names it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return body(Cosine(12, outputs, bias=False))


def test_a_bundle_masks_the_outputs_again(x: Tensor, tmp_path: Path) -> None:
    arch = f"{__name__}:cosine_net"
    model = replace(Classifier.wrap(cosine_net(), x), arch=arch)
    label, samples = request(model, x)
    made = unhot.forget(model, samples, method="mask").classifier
    with pytest.warns(GraphWarning, match="is not a plain nn.Linear"):
        save(made, tmp_path / "u")
    back = load(tmp_path / "u", trust_arch=arch)
    assert torch.equal(back.logits(x), made.logits(x))
    assert (back.logits(x)[:, label] == CUT_LOGIT).all()
    assert back.forgotten == made.forgotten
    with pytest.raises(ModelError, match=r"nn\.Linear.*output.*masked"):
        save(replace(made, arch=None), tmp_path / "v")
    twice = unhot.forget(back, request(back, x)[1], method="mask").classifier
    assert (twice.logits(x) == CUT_LOGIT).sum() == 2 * len(x)


def test_a_head_that_is_not_plain_is_given_no_other_number_of_rows(x: Tensor, tmp_path: Path) -> None:
    arch = f"{__name__}:cosine_net"
    model = replace(Classifier.wrap(cosine_net(5), x), arch=arch)
    with pytest.warns(GraphWarning):
        save(model, tmp_path / "five")
    wide = replace(model, module=cosine_net(6), classes=Classifier.wrap(cosine_net(6)).classes)
    with pytest.warns(GraphWarning):
        save(wide, tmp_path / "six")  # it says that it is built with five outputs
    with pytest.raises(ModelError, match=r"3.*6.*12.*architecture.*5.*12"):
        load(tmp_path / "six", trust_arch=arch)


def test_relearning_gives_such_a_head_no_rows(x: Tensor) -> None:
    net = body(Scaled(12, 5))
    model = Classifier.wrap(net, x)
    label, samples = request(model, x)
    made = unhot.forget(net, samples, method="mask").classifier
    y = model.logits(x).argmax(1)
    train = x + 1e-3  # the same images would be warned of
    found = unhot.audit(original=model, unlearned=made, classes=[label], test=(x, y), train=(train, y))
    steps = found["relearn_steps"]
    assert steps.value is None
    assert "its head is a Scaled" in str(steps.absent_because)


def test_a_copy_masks_for_itself(x: Tensor) -> None:
    model = Classifier.wrap(body(Cosine(12, 5)), x)
    cut_classes(model, [model.classes[1]], "mask")
    twin = Classifier.wrap(copy.deepcopy(model.module), x)
    cut_classes(twin, [twin.classes[2]], "mask")
    assert (model.logits(x)[:, 2] != CUT_LOGIT).all()
    assert (twin.logits(x)[:, [1, 2]] == CUT_LOGIT).all()
