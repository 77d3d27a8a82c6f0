"""Default settings of torch inside unhot, the caller's outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def usual_settings() -> Iterator[None]:
    """Compute with torch's default settings in the block, and restore the caller's after it.

    These are the default number type, the default device, autocast, inference mode and the recording of gradients. The
    number of threads, deterministic algorithms and the precision of products stay as the caller has chosen.
    """
    kind = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda", "xpu", "mps"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if kind != torch.float32:
            stack.callback(torch.set_default_dtype, kind)
            torch.set_default_dtype(torch.float32)
        yield
