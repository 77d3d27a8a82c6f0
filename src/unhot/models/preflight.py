"""Pre-flight: check that a net behaves as unhot assumes.

unhot runs a net in eval mode, more than once, on batches of any size, and changes its weights by their gradients. A few
passes over three images at most show whether the logits of an image are the same each time and in every batch, whether
the net changes its own state, and whether it computes only with its parameters.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unhot.errors import ModelWarning, first_line, shortened, warn
from unhot.models.head import eval_mode, find_head, flowing, hooked, inspect_outputs, run
from unhot.models.weights import check_weights, odd_weights
from unhot.shared_state import SHARED_STATE

TRIES = 8  # passes where something may be random: enough to notice what happens in half of them
SIZES = (1, 2, 3, 4)  # sizes of batches to try with a net that fails on some
# largest difference of logits that count as equal, as a share of the largest logit: batches of other sizes are computed
# by other kernels
ALIKE = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.05}
ALIKE_CUDA = 1e-2  # there convolutions of float32 are computed in TF32


def problems_of(module: nn.Module, head: str | None, example: Tensor | None) -> tuple[str, list[str]]:
    """Find the head of a plain net, and list every reason why the net cannot be used."""
    if odd := odd_weights(module):
        return "", odd
    problems = check_weights(module)
    with undisturbed(module):
        name, unfound = find_head(module, head, None if problems else example)
        if unfound and not problems and example is not None:
            unfound = fixed_batch(module, example) or unfound
    problems = unfound + problems
    if not problems and example is not None:
        problems = check_behaviour(module, example, name)
    return name, problems


def check_behaviour(module: nn.Module, example: Tensor, head: str) -> list[str]:
    """List the properties of a net that would invalidate a run; net and global generators are not changed.

    Args:
        module: A net whose weights can be computed with (:func:`unhot.models.weights.check_weights`).
        example: A few inputs (B, C, H, W).
        head: Dotted name of its final linear layer.
    """
    with undisturbed(module):
        buffers, states = _copies(module), _generators()
        logits, problems = inspect_outputs(module, example, head)
        if problems:
            return fixed_batch(module, example) or problems
        first = logits.clone()
        drew = _generators() != states
        problems = _other_weights(module, example, head)
        unlike = _other_batches(module, example, first)
        if not torch.equal(logits, first):
            problems.append("it overwrites the logits that it returned before. Return a new tensor in each pass.")
        problems += _random(module, example, first, drew, bool(unlike)) or unlike
        if changed := [n for n, b in module.named_buffers() if not _same(b, buffers.get(n))]:
            problems.append(
                f"it changes its buffers {shortened(changed, 5)} in eval mode, so that no two passes are of the same "
                "model. Change them in training only."
            )
    return problems


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Restore the buffers and gradient flags of a net after the block, and the state of the global generators."""
    buffers, wanted = _copies(module), {p: p.requires_grad for p in module.parameters()}
    cuda = {p.device.index or 0 for p in module.parameters() if p.is_cuda}
    with SHARED_STATE, torch.random.fork_rng(devices=cuda):
        states = np.random.get_state(), random.getstate()
        try:
            yield
        finally:
            np.random.set_state(states[0])
            random.setstate(states[1])
            with torch.no_grad():
                for name, buffer in module.named_buffers():
                    if name in buffers and not _same(buffer, buffers[name]):
                        buffer.copy_(buffers[name])
            for parameter, flag in wanted.items():
                _want_gradients([parameter], flag)


def _copies(module: nn.Module) -> dict[str, Tensor]:
    return {n: b.clone() for n, b in module.named_buffers()}


def _same(x: Tensor, y: Tensor | None) -> bool:
    """Return whether two tensors are equal, NaN included."""
    return y is not None and x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())


def _generators() -> bytes:
    """Return the state of the global generators in a form that can be compared."""
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    numbers = [state.numpy().tobytes() for state in (torch.get_rng_state(), *cuda)]
    return pickle.dumps((numbers, np.random.get_state(), random.getstate()))


def _want_gradients(parameters: list[nn.Parameter], flag: bool) -> None:
    for p in parameters:
        if p.requires_grad != flag and not p.is_inference() and (p.is_floating_point() or p.is_complex()):
            p.requires_grad_(flag)


def _alike(x: Any, y: Tensor) -> bool:
    """Return whether two logits (B, K) differ by no more than rounding."""
    if not isinstance(x, Tensor) or x.shape != y.shape:
        return False
    share = max(ALIKE[x.dtype], ALIKE_CUDA if x.is_cuda and x.dtype == torch.float32 else 0.0)
    return bool((x - y).abs().max() <= share * y.abs().max())


def fixed_batch(module: nn.Module, example: Tensor) -> list[str]:
    """Return, for a net that fails on some batches, the sizes that it takes; nothing if it takes all or none."""
    taken, failed = [], ""
    for count in SIZES:
        logits, problem = run(module, example[:1].expand(count, *example.shape[1:]))
        rows = len(logits) if isinstance(logits, Tensor) and logits.ndim else 0
        if rows == count:
            taken.append(count)
        else:
            failed = problem or f"it returns {rows} rows of logits for {count} images."
    if not taken or not failed:
        return []
    return [
        f"it takes batches of {shortened(taken)} images, and not of every size: {failed} "
        "Build or export it for batches of any size."
    ]


def _other_batches(module: nn.Module, example: Tensor, first: Tensor) -> list[str]:
    """Run some images in other batches, and return where their logits depend on the other images."""
    other = example[:1].flip(tuple(range(1, example.ndim))) / 2
    few, wanted = example[:2].flip(0), first[: len(example[:2])].flip(0)
    mixed = torch.cat([other, few])
    for x, rows in ((mixed, slice(1, None)), (example[-1:], slice(None))):
        logits, problem = run(module, x)
        if problem or len(logits) != len(x):
            return fixed_batch(module, example) or [problem or f"it returns {len(logits)} rows for {len(x)} images."]
        if not _alike(logits[rows], wanted if x is mixed else first[-1:]):
            return [_dependence(module, mixed)]
    return []


def _dependence(module: nn.Module, x: Tensor) -> str:
    """Return which layers let the logits of an image depend on the other images of a batch (B, C, H, W)."""
    dependence = "the logits of an image depend on the other images of its batch: "
    norms = {n: m for n, m in module.named_modules() if isinstance(m, _BatchNorm)}
    if bare := [n for n, m in norms.items() if m.running_mean is None]:
        return (
            f"{dependence}the batch normalisation {shortened(bare, 5)} has no running statistics. Train it with "
            "track_running_stats=True."
        )
    with eval_mode(module):
        stuck = [n for n, m in norms.items() if m.training]
    if stuck:
        return (
            f"{dependence}the batch normalisation {shortened(stuck, 5)} is not in eval mode after eval(). "
            "Let it follow the mode of the net."
        )
    where = _first_difference(module, x, x[-1:])
    return f"{dependence}{where} mixes them. unhot needs a net that treats each image on its own."


def _random(module: nn.Module, example: Tensor, first: Tensor, drew: bool, suspected: bool) -> list[str]:
    """Return where a net is random in eval mode; warn if it only draws random numbers."""
    for _ in range(TRIES if drew or suspected else 1):
        logits, problem = run(module, example)
        if problem or not (torch.equal(logits, first) if drew else _alike(logits, first)):
            where = _first_difference(module, example, example)
            return [
                f"it returns other logits each time that it is run in eval mode: {where} is random. Make it follow the "
                "mode of the net, as in F.dropout(x, training=self.training)."
            ]
    if drew and not suspected:
        warn(
            "The model draws random numbers in eval mode, although its logits were the same each time.",
            ModelWarning,
        )
    return []


def _first_difference(module: nn.Module, x: Tensor, y: Tensor) -> str:
    """Return the first layer whose outputs for y differ from those for the last images of x, which are the same."""
    names = dict(module.named_modules())
    for _ in range(4 * TRIES):
        for (place, one), (_, other) in zip(_flows(module, x), _flows(module, y), strict=False):
            per_image = one.shape[1:] == other.shape[1:] and (len(one), len(other)) == (len(x), len(y))
            if per_image and not _alike(one[-len(y) :].float(), other.float()):
                layer = names[place]
                return f"the layer {place!r} ({type(layer).__name__})" if place else f"{type(layer).__name__}.forward"
    return "something in it"


def _flows(module: nn.Module, x: Tensor) -> list[tuple[str, Tensor]]:
    """Return the inputs and outputs of the layers of a net, in order, each with the layer that computed it."""
    flows: list[tuple[str, Tensor]] = []

    def keep(name: str, flow: Any) -> None:
        if isinstance(flow, Tensor) and flow.ndim and flow.is_floating_point():
            flows.append((name, flow.clone()))

    running = [""]  # the layers that are being computed, the innermost last

    def before(_: nn.Module, args: Any, kwargs: Any, name: str) -> None:
        if args or kwargs:
            keep(running[-1], flowing(args, kwargs))
        running.append(name)

    def after(_: nn.Module, __: Any, out: Any, name: str) -> None:
        running.pop()
        keep(name, out)

    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            hooks.enter_context(layer.register_forward_pre_hook(partial(before, name=name), with_kwargs=True))
            hooks.enter_context(layer.register_forward_hook(partial(after, name=name)))
        run(module, x)
    return flows


def gradient_problem(module: nn.Module, example: Tensor, head: str) -> str:
    """Return why the weights before the head of a net cannot be trained by gradients; nothing if they can.

    Args:
        module: A net that :func:`check_behaviour` finds nothing wrong with.
        example: A few inputs (B, C, H, W).
        head: Dotted name of its final linear layer.
    """
    of_head = set(module.get_submodule(head).parameters())
    with undisturbed(module):
        weights = [p for p in module.parameters() if p not in of_head]
        _want_gradients(list(module.parameters()), True)
        logits, problem = run(module, example, grad=True)
        if problem:
            return f"with gradients {problem}"
        try:
            found = torch.autograd.grad(logits.sum(), weights, allow_unused=True)
        except Exception as error:  # torch and the net's own code raise many kinds
            return f"it cannot be differentiated ({first_line(error)}). Do not change the inputs of a layer in place."
    if all(g is None for g in found):
        return (
            "no gradient reaches the layers before its head: its forward pass switches gradients off, as "
            "torch.no_grad() or detach() do. Leave that out."
        )
    return ""


def _other_weights(module: nn.Module, example: Tensor, head: str) -> list[str]:
    """Return whether a net has weights that are no parameters, or calls its head more than once."""
    _want_gradients(list(module.parameters()), False)
    calls: list[Tensor] = []
    with hooked(module, head, lambda features, _: calls.append(features)):
        logits, problem = run(module, example, grad=True)
    if problem:
        return [f"with gradients {problem}"]
    found = _repeated_head(module, example, head, len(calls))
    if logits.requires_grad:
        where = shortened(_hidden(module)) or "what its code refers to"
        found.append(
            f"it computes with weights that are not among its parameters, held by {where}. Keep layers in an "
            "nn.ModuleList or nn.ModuleDict, and weights in nn.Parameter."
        )
    return found


def _repeated_head(module: nn.Module, example: Tensor, head: str, calls: int) -> list[str]:
    """Return a problem if a net calls its head several times and its logits depend on more than the last call."""
    if calls == 1:
        return []
    outs: list[Tensor] = []

    def all_but_last(_: Tensor, out: Tensor) -> Tensor | None:
        outs.append(out)
        return torch.zeros_like(out) if len(outs) < calls else None

    wanted, _ = run(module, example)
    with hooked(module, head, all_but_last):
        logits, problem = run(module, example)
    if not problem and _alike(logits, wanted):
        return []
    return [
        f"it calls its head {head!r} {calls} times, and its logits depend on each call. Name a layer that is called "
        "once with head=."
    ]


def _hidden(module: nn.Module) -> list[str]:
    """Return the attributes of a net that hold layers or weights which are not registered."""
    known = {id(t) for t in [*module.modules(), *module.parameters(), *module.buffers()]}
    found = []
    for name, layer in module.named_modules():
        for attribute, value in vars(layer).items():
            inside = (
                value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else [value]
            )
            if not attribute.startswith("_") and any(
                isinstance(v, nn.Module | Tensor) and id(v) not in known for v in inside
            ):
                found.append(f"{name}.{attribute}".lstrip("."))
    return found
