"""Nets whose outputs or heads have another form, around which a net is put that returns the logits of one linear head.

A net may return its logits in a dictionary, an object or a tuple; average the logits of several heads, as distilled
transformers do; or have a convolution of kernel 1 as its head, whose outputs are averaged over the picture, if its
features are not. What is computed stays the same: the features of all heads are put side by side, so that one linear
layer gives the sum of what they gave.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init

from unhot.errors import ModelError, first_line, shortened
from unhot.models.head import find_head, inspect_outputs, is_plain, replace_layer, run
from unhot.models.preflight import undisturbed
from unhot.models.weights import check_weights
from unhot.records.model import HeadPart, Origin

LOGITS = "logits"
MOST_HEADS = 4
ROUNDING = 1e-4  # of the largest logit: what sums in another order may differ by
Layer = nn.Linear | nn.Conv2d


class Adapted(nn.Module):
    """A net and what makes logits (B, K) of its output.

    Attributes:
        net: The net as it came, with its heads replaced by :class:`SideBySide` where ``head`` is a layer.
        output: The key or position of the logits in the output of the net; empty if it returns a tensor.
        head: The linear layer that stands for all heads; None if the net has its own.
    """

    def __init__(self, net: nn.Module, output: str = "", head: nn.Linear | None = None) -> None:
        super().__init__()
        self.net = net
        self.output = output
        self.head = head

    def forward(self, x: Tensor) -> Any:
        """Return logits (B, K) of inputs (B, C, H, W)."""
        out = part_of(self.net(x), self.output) if self.output else self.net(x)
        return out if self.head is None else self.head(out)


class SideBySide(nn.Module):
    """Puts the features of a head in their place among those of all heads, with zeros around them.

    Args:
        before: Number of features before them.
        after: Number of features after them.
        convolution: Whether features are (B, d, H, W), and not (B, ..., d).
    """

    def __init__(self, before: int, after: int, convolution: bool) -> None:
        super().__init__()
        self.around = (0, 0, 0, 0, before, after) if convolution else (before, after)

    def forward(self, features: Tensor) -> Tensor:
        """Return D features for d; those of several positions are averaged by the net, which averaged its logits."""
        return functional.pad(features, self.around)


def part_of(out: Any, key: str) -> Any:
    """Return a part of a net's output by its key, its attribute or its position."""
    if isinstance(out, Mapping):
        return out[key]
    return out[int(key)] if key.lstrip("-").isdecimal() else getattr(out, key)


def output_of(module: nn.Module, example: Tensor, asked: str | None) -> str:
    """Return which part of a net's output is its logits; empty if it returns a tensor, or fails.

    Args:
        module: The net.
        example: Inputs (B, C, H, W).
        asked: What the user says it is.

    Raises:
        ModelError: There is no such part, or it is not clear which one it is.
    """
    out, problem = run(module, example)
    if problem or (isinstance(out, Tensor) and asked is None):
        return ""
    if asked is not None:
        try:
            found = part_of(out, asked)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise ModelError(f"The net returns no output {asked!r}. {_choices(out)}") from error
        if not isinstance(found, Tensor):
            raise ModelError(f"The output {asked!r} of the net is a {type(found).__name__}. {_choices(out)}")
        return asked
    if isinstance(getattr(out, LOGITS, None) if not isinstance(out, Mapping) else out.get(LOGITS), Tensor):
        return LOGITS
    if len(tensors := _tensors(out)) == 1:
        return next(iter(tensors))
    raise ModelError(f"The net returns a {type(out).__name__}, not a tensor of logits. {_choices(out)}")


def _tensors(out: Any) -> dict[str, Tensor]:
    """Return the tensors in a net's output by their keys, attributes or positions."""
    if isinstance(out, Mapping):
        parts: Mapping[str, Any] = {str(k): v for k, v in out.items()}
    elif isinstance(out, Sequence) and not isinstance(out, str):
        parts = {str(i): v for i, v in enumerate(out)}
    else:
        parts = vars(out) if hasattr(out, "__dict__") and not isinstance(out, Tensor) else {}
    return {k: v for k, v in parts.items() if isinstance(v, Tensor)}


def _choices(out: Any) -> str:
    """Say by which option the logits can be named."""
    found = ", ".join(f"{k} of shape {tuple(v.shape)}" for k, v in _tensors(out).items())
    if not found:
        return "Wrap it so that it returns logits only."
    return f"Name its logits with --output (output= in Python): {found}."


def heads_of(module: nn.Module, shape: tuple[int, ...], output: str) -> tuple[HeadPart, ...]:
    """Return the layers whose outputs a net adds up to its logits; nothing if it does not.

    Args:
        module: The net; its own output may be another than the logits.
        shape: (C, H, W) of its inputs.
        output: Which part of its output is the logits.
    """
    seen: list[tuple[str, Layer, Tensor]] = []

    def see(name: str, layer: Layer, out: Tensor) -> None:
        seen.append((name, layer, out.detach().clone()))

    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            if isinstance(layer, Layer) and _may_be_head(layer):
                hooks.enter_context(layer.register_forward_hook(lambda m, _, out, name=name: see(name, m, out)))
        logits, problem = run(Adapted(module, output), _noise(module, shape, seed=0))
    if problem or not isinstance(logits, Tensor) or logits.ndim != 2:
        return ()
    pooled = [
        (name, layer, mean) for name, layer, out in seen if (mean := _averaged(out, layer)).shape == logits.shape
    ][-MOST_HEADS:]
    if not pooled or len({name for name, *_ in pooled}) < len(pooled):
        return ()
    columns, sums = torch.stack([_flat(out) for *_, out in pooled], 1), _flat(logits)
    shares = torch.linalg.lstsq(columns, sums[:, None]).solution.flatten()
    if not columns.isfinite().all() or not _near(columns @ shares, sums):
        return ()
    return tuple(
        HeadPart(layer=name, columns=_width(layer), share=share, convolution=isinstance(layer, nn.Conv2d))
        for (name, layer, _), share in zip(pooled, (round(float(s), 6) for s in shares), strict=True)
        if share
    )


def _may_be_head(layer: Layer) -> bool:
    if isinstance(layer, nn.Linear):
        return is_plain(layer)
    return type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.groups == 1


def _averaged(out: Tensor, layer: Layer) -> Tensor:
    """Return the mean (B, K) over the positions of what a layer gives."""
    return (out if isinstance(layer, nn.Linear) else out.movedim(1, -1)).flatten(1, -2).mean(1) if out.ndim > 2 else out


def _width(layer: Layer) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _flat(x: Tensor) -> Tensor:
    return x.cpu().double().flatten()


def _noise(module: nn.Module, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return enough random inputs for the shares of several heads of two outputs to be found."""
    x = torch.randn(2 * MOST_HEADS, *shape, generator=torch.Generator().manual_seed(seed))
    return x.to(next(module.parameters()).device)


def _near(x: Tensor, y: Tensor) -> bool:
    return bool((x - y).abs().max() <= ROUNDING * y.abs().max())


def structured(net: nn.Module, output: str, heads: Sequence[HeadPart], outputs: int) -> nn.Module:
    """Return a net with one linear head of ``outputs`` rows, whose weights are still to be set, around a net.

    Args:
        net: The net as it came; the layers of ``heads`` are replaced in it.
        output: See :class:`Adapted`.
        heads: The layers that become one.
        outputs: Number of classes.
    """
    if not heads:
        return Adapted(net, output) if output else net
    width, before = sum(part.columns for part in heads), 0
    old = net.get_submodule(heads[0].layer).get_parameter("weight")
    head: nn.Linear = skip_init(nn.Linear, width, outputs, device=old.device, dtype=old.dtype)
    for part in heads:
        replace_layer(net, part.layer, SideBySide(before, width - before - part.columns, part.convolution))
        before += part.columns
    return Adapted(net, output, head).train(net.training)


def joined(module: nn.Module, output: str, heads: Sequence[HeadPart]) -> nn.Module:
    """Return a net whose heads are one linear layer, and which shares all other weights with a net.

    Raises:
        ModelError: The net cannot be copied.
    """
    shared: dict[int, object] = {id(t): t for t in chain(module.parameters(), module.buffers())}
    layers = [module.get_submodule(part.layer) for part in heads]
    weights = [layer.get_parameter("weight").detach().flatten(1) for layer in layers]
    try:
        net = copy.deepcopy(module, shared)
    except Exception as error:  # the net is the caller's: it may hold anything
        raise ModelError(f"The model does not fit: it cannot be copied ({first_line(error)}).") from error
    found = structured(net, output, heads, len(weights[0]))
    with torch.no_grad():
        found.get_parameter("head.weight").copy_(torch.cat(weights, 1))
        bias = found.get_parameter("head.bias").zero_()
        for part, layer in zip(heads, layers, strict=True):
            if layer.bias is not None:
                bias += part.share * layer.get_parameter("bias")
    return found


def separated(state: Mapping[str, Tensor], heads: Sequence[HeadPart]) -> dict[str, Tensor]:
    """Return the weights of a net as it came, by its own names, from those of an :class:`Adapted` net.

    Each head gets its columns and the same bias; the sum of what they give is what the one head gives.

    Args:
        state: The weights of the adapted net.
        heads: The layers that became one; empty if none did.
    """
    found = {k.removeprefix("net."): v for k, v in state.items() if not (heads and k.startswith("head."))}
    if heads:
        columns = state["head.weight"].split([part.columns for part in heads], 1)
        bias = state["head.bias"] / sum(part.share for part in heads)
        for part, weight in zip(heads, columns, strict=True):
            found[f"{part.layer}.weight"] = weight[:, :, None, None] if part.convolution else weight
            found[f"{part.layer}.bias"] = bias
    return found


def _refuse_others(module: nn.Module, example: Tensor) -> None:
    """Refuse a net that makes its logits of its last layers in another way than by adding and averaging.

    Raises:
        ModelError: It has several linear layers with an output for each class, or only convolutions.
    """
    outputs: dict[str, int] = {}
    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and _may_be_head(layer)):
                count = len(layer.weight)
                hook = layer.register_forward_hook(lambda *_, name=name, count=count: outputs.update({name: count}))
                hooks.enter_context(hook)
        logits, _ = run(module, example)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        return
    names = [name for name, count in outputs.items() if count == logits.shape[1]]
    linear = [name for name in names if isinstance(module.get_submodule(name), nn.Linear)]
    if len(linear) > 1:
        raise ModelError(
            f"The model does not fit: it makes its logits of the outputs of {shortened(linear)} in another way than by "
            "adding them. unhot needs one linear head, or several whose outputs are added. Build the net with one."
        )
    if names and not linear:
        raise ModelError(
            f"The model does not fit: the outputs of its last convolution {names[-1]!r} are changed, as by a ReLU, "
            "before they are averaged, so that no weights of it can take a class out of the logits. Leave out what "
            "changes them, train the net a little further, and give that."
        )


def _adapted(
    module: nn.Module, example: Tensor, output: str | None = None, head: str | None = None
) -> tuple[nn.Module, str, tuple[HeadPart, ...]]:
    """Return a net that returns the logits of one linear head, the net itself if it does.

    Args:
        module: The net; it is not changed, and the result shares its weights.
        example: Inputs (B, C, H, W).
        output: Which part of the net's output is the logits, if the user says so.
        head: The name of its head, if the user says so.

    Returns:
        The net, which part of the output it takes, and the layers that became its head, if they are no longer there.

    Raises:
        ModelError: It is not clear which part of the output is the logits.
    """
    where = output_of(module, example, output)
    found = Adapted(module, where) if where else module
    if head is not None:
        return found, where, ()
    name, problems = find_head(found, None, example)
    if not problems and not inspect_outputs(found, example, name)[1]:
        return found, where, ()  # the usual net
    shape = tuple(example.shape[1:])
    heads = heads_of(module, shape, where)
    if not heads:
        _refuse_others(found, example)
        return found, where, ()
    made, x = joined(module, where, heads), _noise(module, shape, seed=1)
    (logits, problem), (wanted, _) = run(made, x), run(found, x)
    if problem or not isinstance(logits, Tensor) or not _near(_flat(logits), _flat(wanted)):
        return found, where, ()
    return made, where, heads


def fitted(
    module: nn.Module, example: Tensor, output: str | None = None, head: str | None = None
) -> tuple[nn.Module, Origin | None]:
    """Return a net that returns the logits of one linear head, and what was made of the net for that.

    Args:
        module: The net, which is returned itself if it does so, or if it cannot be run.
        example: Inputs (B, C, H, W).
        output: Which part of the net's output is the logits, if the user says so.
        head: The name of its head, if the user says so.

    Raises:
        ModelError: It is not clear which part of the output is the logits.
    """
    if check_weights(module):
        return module, None  # the check of the whole net lists what is wrong
    with undisturbed(module):
        found, where, heads = _adapted(module, example, output, head)
    return found, None if found is module else Origin(kind="module", output=where, heads=heads)
