"""The final linear layer of a net: finding it, replacing it, and checking the outputs of the net."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init
from torch.utils.hooks import RemovableHandle

from unhot.errors import ModelError, first_line, shortened
from unhot.models.weights import as_input

SINGLE = (
    "a single output. Forgetting needs one for each class: give the net two, the first of them always 0, so that "
    "softmax gives what its sigmoid gave."
)


def find_head(module: nn.Module, name: str | None, example: Tensor | None) -> tuple[str, list[str]]:
    """Find the final linear layer.

    Of the linear layers that the net calls on ``example``, the last one whose output the net returns, or else the last
    one called; without an example, the last one defined. ``name`` overrides all.

    Returns:
        Its dotted name, and the problems found.
    """
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear)}
    if name is not None:
        if name not in dict(module.named_modules()):
            return "", [f"there is no layer {name!r} to be the head. Linear layers: {shortened(layers) or 'none'}."]
        if name not in layers:
            return "", [f"the head {name!r} is not an nn.Linear. Linear layers: {shortened(layers) or 'none'}."]
        return name, []
    if not layers:
        return "", ["it has no nn.Linear. unhot needs a net that ends in one, with an output for each class."]
    if example is None:
        return list(layers)[-1], []
    called: list[tuple[str, Tensor | None]] = []

    def see(name: str, out: Any) -> None:  # a copy: the net may change it in place
        called.append((name, out.clone() if isinstance(out, Tensor) else None))

    with ExitStack() as hooks:
        for n, m in layers.items():
            hooks.enter_context(m.register_forward_hook(lambda *a, n=n: see(n, a[2])))
        logits, problem = run(module, example)
    if problem:
        return "", [problem]
    if not called:
        return "", ["no nn.Linear is called in its forward pass. Name the final one with head=."]
    returned = [n for n, out in called if out is not None and isinstance(logits, Tensor) and torch.equal(out, logits)]
    return (returned or [n for n, _ in called])[-1], []


def inspect_outputs(module: nn.Module, example: Tensor, head: str) -> tuple[Tensor, list[str]]:
    """Run a net on a few inputs and list the problems of its outputs.

    Args:
        module: The net.
        example: Inputs (B, C, H, W).
        head: Dotted name of its final linear layer.

    Returns:
        The output of the net, logits (B, K) if there are no problems, and the problems.
    """
    seen: list[tuple[Tensor, Tensor]] = []  # copies: the net may change either in place
    with hooked(module, head, lambda features, out: seen.append((features.clone(), out.clone()))):
        logits, problem = run(module, example)
    return logits, [problem] if problem else _unlike_logits(logits, len(example), seen, head)


def _unlike_logits(logits: Any, count: int, seen: list[tuple[Tensor, Tensor]], head: str) -> list[str]:
    """Return the first problem of a net's output for some images, or of its head's inputs and outputs."""
    if not isinstance(logits, Tensor):
        return [f"it returns {type(logits).__name__}, not a tensor of logits. Wrap it so that it returns logits only."]
    if logits.ndim != 2:
        return [f"it returns logits of shape {tuple(logits.shape)}, not (B, K). Flatten them in the net."]
    if len(logits) != count:
        return [f"it returns {len(logits)} rows of logits for {count} images. Return one row for each image."]
    if not logits.isfinite().all():
        return ["it returns NaN or infinite logits on the images given. Check its weights and the normalisation."]
    if logits.shape[1] < 2:
        return [f"it has {SINGLE}"]
    if (logits >= 0).all() and torch.allclose(logits.sum(1), logits.new_ones(())):
        return ["its outputs sum to 1 in every row, so they are probabilities. Leave out the final softmax."]
    if torch.allclose(logits.exp().sum(1), logits.new_ones(())):
        return ["its outputs are log-probabilities. Leave out the final log_softmax."]
    if not seen:
        return [f"its head {head!r} is not called in its forward pass. Name the final nn.Linear with head=."]
    features, out = seen[-1]
    if features.ndim != 2:
        return [f"its head {head!r} takes features of shape {tuple(features.shape)}, not (B, d). Pool them first."]
    if out.shape != logits.shape or not torch.equal(out, logits):
        return [f"what it returns is not what its head {head!r} returns. Name the final nn.Linear with head=."]
    return []


@torch.no_grad()
def is_plain(head: nn.Linear) -> bool:
    """Return whether a head computes h W^T + b of its features h with parameters W and b, and nothing else.

    A subclass (cosine, scaled, parametrised), a quantised weight and another ``forward`` are not plain; nor are hooks
    that change inputs or outputs, as in weight normalisation, which is tested on a few features.
    """
    if type(head) is not nn.Linear or type(head.weight) is not nn.Parameter or "forward" in vars(head):
        return False
    if not head._forward_hooks and not head._forward_pre_hooks:
        return True
    generator, weight = torch.Generator().manual_seed(0), head.weight
    h = torch.randn(4, head.in_features, generator=generator) * torch.tensor([[0.1], [1.0], [10.0], [100.0]])
    h = h.to(weight)
    try:
        return torch.allclose(head(h), functional.linear(h, weight, head.bias))
    except Exception:  # a hook is the caller's: it may raise anything
        return False


def flowing(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the tensor that a layer of one input was called with, by position or by keyword."""
    x: Tensor = args[0] if args else next(iter(kwargs.values()))
    return x


def hooked(module: nn.Module, head: str, see: Callable[[Tensor, Tensor], object]) -> RemovableHandle:
    """Pass inputs and outputs of the head to a function in a ``with`` block; it may return another output."""
    return module.get_submodule(head).register_forward_hook(
        lambda _, args, kwargs, out: see(flowing(args, kwargs), out), with_kwargs=True
    )


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a net in eval mode, and restore the flags of its layers after the block."""
    training = {m: m.training for m in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for m, flag in training.items():
            m.training = flag


def run(module: nn.Module, x: Tensor, grad: bool = False) -> tuple[Any, str]:
    """Run a net in eval mode; return its output and the problem, if any."""
    try:
        with eval_mode(module), torch.set_grad_enabled(grad):
            return module(as_input(module, x)), ""
    except Exception as error:  # the net is the caller's: it may raise anything
        return None, f"it fails on inputs of shape {tuple(x.shape)}: {first_line(error)}."


def linear(module: nn.Module, name: str) -> nn.Linear:
    """Return the linear layer of that dotted name.

    Raises:
        ModelError: It is not one.
    """
    layer = dict(module.named_modules()).get(name)
    if layer is None:
        raise ModelError(f"The net has no layer {name!r} to be its head.")
    if not isinstance(layer, nn.Linear):
        raise ModelError(f"The head {name!r} is a {type(layer).__name__}. Name the final nn.Linear.")
    return layer


def linear_like(head: nn.Linear, rows: int | None = None, features: int | None = None, bias: bool = True) -> nn.Linear:
    """Return a linear layer like ``head``, of other sizes if passed; its weights are not initialised."""
    sizes = head.in_features if features is None else features, head.out_features if rows is None else rows
    made: nn.Linear = skip_init(nn.Linear, *sizes, bias=bias, device=head.weight.device, dtype=head.weight.dtype)
    made.train(head.training).requires_grad_(head.weight.requires_grad)
    return made


def replace_layer(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace the layer of that dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
