"""Weights: the kinds that unhot supports, their number types and their digest."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from unhot.errors import shortened

SHORT = (torch.float16, torch.bfloat16)  # too coarse to be trained in: small steps are rounded away
FLOATS = (torch.float32, torch.float64, *SHORT)
PLAIN = (Tensor, nn.Parameter, nn.Buffer)

BEFORE = "Give the net in floating point, as it was before it was quantised."


def check_weights(module: nn.Module) -> list[str]:
    """List weights that are not supported, missing or not finite."""
    if problems := odd_weights(module):
        return problems
    if not any(True for _ in module.parameters()):
        return ["it has no weights."]
    state = module.state_dict()
    if extra := [n for n, v in state.items() if not isinstance(v, Tensor)]:
        return [f"it keeps {shortened(extra, 5)} beside its weights, which is not a tensor. Keep it out of the state."]
    bad = [n for n, v in state.items() if (v.is_floating_point() or v.is_complex()) and not v.isfinite().all()]
    problems = [f"NaN or infinite values in {shortened(bad, 5)}."] if bad else []
    if len(devices := {str(p.device) for p in module.parameters()}) > 1:
        problems.append(f"its weights are on several devices, {shortened(sorted(devices))}. Move them to one.")
    return problems


def odd_weights(module: nn.Module) -> list[str]:
    """List weights of a kind that is not supported, whatever their values."""
    return [*_odd_layers(module), *odd_tensors(chain(module.named_parameters(), module.named_buffers()))]


def _odd_layers(module: nn.Module) -> list[str]:
    """List the layers whose weights are not plain parameters, with advice for each kind."""
    found: dict[str, list[str]] = {}
    for name, layer in module.named_modules():
        for problem in _oddities_of_layer(layer):
            names = found.setdefault(problem, [])
            if not any(name.startswith(f"{around}.") for around in names):
                names.append(name or type(layer).__name__)
    return [problem.format(shortened(names, 5)) for problem, names in found.items()]


def _oddities_of_layer(layer: nn.Module) -> list[str]:
    problems = []
    kind = type(layer)
    if ".quantized" in kind.__module__:
        problems.append(f"{{}} is quantised. {BEFORE}")
    if kind.__name__ == "FullyShardedDataParallel":
        problems.append("{} is sharded over processes. Give the whole net, with its full state dict loaded.")
    if isinstance(layer, torch.jit.ScriptModule):
        problems.append("{} is TorchScript, whose layers unhot cannot change. Give the net that it was made from.")
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            problems.append(
                "{} has the old torch.nn.utils.weight_norm, which cannot be copied. Use "
                "torch.nn.utils.parametrizations.weight_norm, or call remove_weight_norm on it."
            )
        if isinstance(hook, SpectralNorm):
            problems.append(
                "{} has the old torch.nn.utils.spectral_norm, which cannot be copied. Use "
                "torch.nn.utils.parametrizations.spectral_norm, or call remove_spectral_norm on it."
            )
        if isinstance(hook, BasePruningMethod):
            problems.append("{} is pruned by a mask. Make it permanent with torch.nn.utils.prune.remove.")
    return list(dict.fromkeys(problems))


def odd_tensors(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """List the tensors that unhot does not support, with advice for each kind."""
    found: dict[str, list[str]] = {}
    for name, tensor in named:
        if problem := _oddity_of_tensor(tensor):
            found.setdefault(problem, []).append(name)
    return [problem.format(shortened(names, 5)) for problem, names in found.items()]


def _oddity_of_tensor(tensor: Tensor) -> str:
    if is_lazy(tensor):
        return "{} has no shape yet. Run the net once on a few images first."
    if tensor.is_meta:
        return "{} is on the meta device and holds no values. Load its weights first."
    if type(tensor) not in PLAIN:
        return f"{{}} is a {type(tensor).__name__}, not a plain tensor. Convert it to one."
    if tensor.is_quantized:
        return f"{{}} is quantised. {BEFORE}"
    if tensor.is_nested:
        return "{} is a nested tensor. Convert it with to_padded_tensor."
    if tensor.layout != torch.strided:
        return f"{{}} is sparse ({tensor.layout}). Convert it with to_dense."
    if tensor.is_floating_point() and tensor.dtype not in FLOATS:
        return f"{{}} is {tensor.dtype}, which torch does not train in. Convert it to bfloat16 or float32."
    if isinstance(tensor, nn.Parameter) and not (tensor.is_floating_point() or tensor.is_complex()):
        return f"{{}} is {tensor.dtype}, not a floating number. {BEFORE}"
    return ""


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the number type that a net takes its inputs in: that of its first floating weight."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())


def as_input(module: nn.Module, x: Tensor) -> Tensor:
    """Return a copy of inputs (B, C, H, W), which a net may change in place, in the number type of the net."""
    return x.to(dtype_of(module) if x.is_floating_point() else x.dtype, copy=True)


def widen(module: nn.Module) -> dict[str, torch.dtype]:
    """Turn float16 and bfloat16 weights into float32, in place.

    Returns:
        The types of all weights before, by name; nothing if there were none of 16 bits.
    """
    tensors = _tensors(module)
    before = {n: t.dtype for n, t in tensors.items()}
    if not any(kind in SHORT for kind in before.values()):
        return {}
    for tensor in tensors.values():
        if tensor.dtype in SHORT:
            tensor.data = tensor.data.float()
    return before


def narrow(module: nn.Module, before: dict[str, torch.dtype], other: torch.dtype) -> None:
    """Give weights the types that :func:`widen` returned, in place; those of new names get the type ``other``."""
    for name, tensor in _tensors(module).items() if before else ():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(before.get(name, other))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def sha256_of(tensors: Mapping[str, Tensor], head: str = "") -> str:
    """Return the SHA-256 of a text and of the names, dtypes, shapes and values of some tensors."""
    total = hashlib.sha256(head.encode())
    for name, value in sorted(tensors.items()):
        array = value.detach().cpu().contiguous()
        total.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        total.update(array.view(torch.uint8).numpy().tobytes() if array.ndim else str(array.item()).encode())
    return total.hexdigest()


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, whose mode is what the umask says.

    Raises:
        OSError: The file cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode  # safetensors would let only the owner read it
    try:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path, metadata)
        path.chmod(mode)
    except SafetensorError as error:  # it hides the error of the system
        if (found := re.search(r"os error (\d+)", str(error))) is not None:
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of a safetensors file, which raises anything if it is damaged."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
