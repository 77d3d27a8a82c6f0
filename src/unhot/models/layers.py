"""The layers before the head: those with weights, the order in which they are called, and their inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from unhot.models.classifier import Classifier
from unhot.models.head import eval_mode

WIDEST = 4_096  # channels of a stage


def weight_layers(model: Classifier, x: Tensor) -> list[str]:
    """Return the names of the layers before the head that can be preconditioned, in the order they are called.

    These are the linear layers and the convolutions without groups whose weights are parameters not shared with the
    head.

    Args:
        model: The classifier.
        x: A few inputs (B, C, H, W).
    """
    head = model.head_layer.weight
    found = {
        n: m
        for n, m in model.module.named_modules()
        if n != model.head
        and not is_parametrized(m)
        and (isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.groups == 1))
        and m.weight is not head
    }
    with torch.no_grad(), model.recording(found) as seen:
        model.logits(x)
    return list(seen)


def normalisations(module: nn.Module) -> Iterator[tuple[nn.Module, Tensor, Tensor]]:
    """Yield the batch normalisations of a net with the means and variances (C,) that they stored."""
    for m in module.modules():
        if isinstance(m, _BatchNorm) and m.running_mean is not None and m.running_var is not None:
            yield m, m.running_mean, m.running_var + m.eps


def stages(model: Classifier, x: Tensor) -> list[str]:
    """Return the names of the modules before the head that give features, in the order they are called.

    Of modules that give the same as another, or as flows into the head, only the first counts. What gives more than
    :data:`WIDEST` channels, such as a flattened image, is left out.

    Args:
        model: The classifier.
        x: A few inputs (B, C, H, W), which tell the outputs of modules apart.
    """
    names = [n for n, _ in model.module.named_modules() if n and n != model.head and not model.head.startswith(f"{n}.")]
    with torch.no_grad(), model.recording([model.head], after=names) as seen:
        model.logits(x)
    known, found = [pooled(seen.pop(model.head))], list[str]()
    for name, flow in seen.items():
        if flow.is_floating_point() and len(flow) == len(x) and flow.ndim in (2, 3, 4):
            features = pooled(flow)
            if features.shape[1] <= WIDEST and not any(torch.equal(features, other) for other in known):
                known.append(features)
                found.append(name)
    return found


def unseen_weights(model: Classifier, x: Tensor) -> int:
    """Return how many weights are used where no output of a layer shows what is computed with them.

    Seen are those of a layer of ``torch.nn`` that is called, or of another module before the head that is called and
    owns one tensor of weights; and all of a graph, whose steps are called one by one. Tensors of one dimension, such as
    scales of layers, do not count.

    Args:
        model: The classifier.
        x: A few inputs (B, C, H, W).
    """
    net = model.module
    if hasattr(net, "unhot_graph"):
        return 0
    modules = {n: m for n, m in net.named_modules() if n}
    with torch.no_grad(), eval_mode(net), model.recording((), after=modules) as outputs, called(modules) as seen:
        model.logits(x)
    layers = [n for n in seen if _of_torch(modules[n])]
    known, unseen = set[int](), dict[int, int]()
    for name, module in (("", net), *modules.items()):
        own = [p for p in module.parameters(recurse=False) if p.ndim > 1]
        alone = len(own) == 1 and name in outputs and not model.head.startswith(f"{name}.")
        if alone or any(f"{name}.".startswith(f"{n}.") for n in layers):
            known.update(id(p) for p in own)
        else:
            unseen |= {id(p): p.numel() for p in own}
    return sum(count for key, count in unseen.items() if key not in known)


@contextmanager
def called(modules: Mapping[str, nn.Module]) -> Iterator[set[str]]:
    """Collect the names of the modules that are called in the block."""
    seen: set[str] = set()
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_pre_hook(lambda *_, name=name: seen.add(name)))
        yield seen


def _of_torch(module: nn.Module) -> bool:
    """Whether a module is a layer of torch.nn, or of a class derived from one."""
    homes = {kind.__module__ for kind in type(module).__mro__ if kind is not nn.Module}
    return any(h.startswith("torch.nn.modules.") for h in homes - {"torch.nn.modules.container"})


def nearest_head(names: Sequence[str], depth: float) -> Sequence[str]:
    """Return the last of some layers in the order they are called, at least a share ``depth`` (0 to 1) of them."""
    return names[len(names) - math.ceil(depth * len(names)) :]


def input_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the inputs (n, d) that a layer's weights (out, d) multiply."""
    return _places(layer, x).flatten(0, 2).flatten(1) if isinstance(layer, nn.Conv2d) else x.flatten(0, -2)


def some_rows(layer: nn.Module, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return at most ``count`` rows of :func:`input_rows`, chosen at random; only these are copied."""
    if not isinstance(layer, nn.Conv2d):
        rows = x.flatten(0, -2)
        return rows[torch.randperm(len(rows), generator=generator)[:count].to(x.device)]
    places = _places(layer, x)
    b, h, w = places.shape[:3]
    chosen = torch.randperm(b * h * w, generator=generator)[:count].to(x.device)
    return places[chosen // (h * w), chosen // w % h, chosen % w].flatten(1)


def _places(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return the patches that a convolution reads, (B, H', W', C, k, k), as a view of its padded inputs."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = pad(x, layer._reversed_padding_repeated_twice, mode=mode)  # of each side, in whatever form it was passed
    for dim in (0, 1):
        step = layer.dilation[dim]
        x = x.unfold(2 + dim, (layer.kernel_size[dim] - 1) * step + 1, layer.stride[dim])[..., ::step]
    return x.permute(0, 2, 3, 1, 4, 5)


def pooled(x: Tensor) -> Tensor:
    """Average the inputs of a layer over positions: (B, C, H, W) or (B, T, C) to (B, C); (B, C) as it is."""
    return x.flatten(2).mean(2) if x.ndim == 4 else x.mean(1) if x.ndim == 3 else x
