"""The device, and the precision that is the faster one on it."""

from __future__ import annotations

import torch
from torch import nn

from unhot.errors import OptionError
from unhot.records.choices import Precision

BF16_PARAMETERS = 200_000  # smaller nets are slower in bfloat16, because of conversions


def pick_device(name: str | None = None) -> torch.device:
    """Return the device of that name; the best one of this machine if None.

    Raises:
        OptionError: There is no such device here, or it cannot compute.
    """
    # accelerate takes longer to import than most runs need, so it is loaded only to choose
    if name in (None, "auto"):
        if not (torch.cuda.is_available() or torch.accelerator.is_available()):
            return torch.device("cpu")
        from accelerate import PartialState

        best: torch.device = PartialState().device
        return best
    try:
        device = torch.device(str(name))
        torch.ones(1, device=device).sum().item()  # some devices, as meta, hold tensors and compute nothing
    except Exception as error:  # each back end raises another kind
        raise OptionError(f"Device {name!r} cannot be used here. Try 'cpu', or leave it out.") from error
    return device


def fast_bf16(device: torch.device) -> bool:
    """Return whether the device computes bfloat16 faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def usual_precision(net: nn.Module, device: torch.device) -> Precision:
    """Return the precision in which a net is trained if none is asked for: the faster one on this device."""
    big = sum(p.numel() for p in net.parameters()) > BF16_PARAMETERS
    return "bf16" if big and fast_bf16(device) else "fp32"
