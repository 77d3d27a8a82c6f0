r"""Named loss terms.

The negative-hot encodings are losses of the logits ``z`` (B, K) of images whose class is to be forgotten. Written as a
soft-label cross-entropy :math:`-\sum_k y_k \log p_k` the gradient is :math:`(\sum_k y_k)\, p - y`; each docstring
gives the gradient for one image. ``f`` is the image's class, ``F`` all classes to forget, ``p`` the softmax of ``z``,
:math:`\tilde p` that of the original model's logits with ``F`` left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss


@dataclass(frozen=True)
class Request:
    """What an encoding may read beside the logits.

    Attributes:
        y: The column of each image's class, int64 (B,).
        columns: The columns of all classes to forget.
        original: The original model's logits on the same images, (B, K); constant.
    """

    y: Tensor
    columns: list[int]
    original: Tensor

    def retained(self) -> Tensor:
        """Return which columns are retained, bool (K,)."""
        kept = torch.ones(self.original.shape[1], dtype=torch.bool, device=self.original.device)
        kept[self.columns] = False
        return kept

    def without_forgotten(self, logits: Tensor) -> Tensor:
        """Return logits (B, K) with those of the classes to forget at minus infinity."""
        return logits.masked_fill(~self.retained(), -torch.inf)


Encoding = Callable[[Tensor, Request], Tensor]


def literal(logits: Tensor, request: Request) -> Tensor:
    """-1 at f, 0 elsewhere: gradient ascent on the cross-entropy, unbounded. Gradient: e_f - p."""
    return -cross_entropy(logits, request.y)


def zero_sum(logits: Tensor, request: Request) -> Tensor:
    """-1 at f, equal shares of 1 on the retained classes: linear in z, unbounded. Gradient: e_f - u."""
    return _gap(logits, request).mean()


def margin(logits: Tensor, request: Request) -> Tensor:
    """Zero-sum until z_f is 1 below the mean of the retained logits, then 0. Gradient: e_f - u, or 0."""
    return torch.relu(_gap(logits, request) + 1.0).mean()


def mse(logits: Tensor, request: Request) -> Tensor:
    """Squared distance of the logits to -e_f. Gradient: 2 (z + e_f) / K."""
    target = torch.zeros_like(logits).scatter_(1, request.y[:, None], -1.0)
    return mse_loss(logits, target)


def complement(logits: Tensor, request: Request) -> Tensor:
    """-log(1 - p_F). Gradient: p - r, where r is p with F left out, which follows the model and may drift."""
    return -torch.logsumexp(request.without_forgotten(log_softmax(logits, dim=1)), dim=1).mean()


def masked(logits: Tensor, request: Request) -> Tensor:
    """KL divergence from the original model's distribution with F left out, frozen: bounded. Gradient: p - p~."""
    target = log_softmax(request.without_forgotten(request.original), dim=1)
    return _kl(target, logits, request)


def uniform(logits: Tensor, request: Request) -> Tensor:
    """KL divergence from equal shares on the retained classes: bounded. Gradient: p - u."""
    target = log_softmax(request.without_forgotten(torch.zeros_like(logits)), dim=1)
    return _kl(target, logits, request)


def second_class(logits: Tensor, request: Request) -> Tensor:
    """Cross-entropy to the best retained class of the original model. Gradient: p - e_second.

    Source: Scrub-and-Learn, AI (MDPI) 2025, "sub-maximum one-hot encoding".
    """
    return cross_entropy(logits, request.without_forgotten(request.original).argmax(1))


ENCODINGS: dict[str, Encoding] = {
    "literal": literal,
    "zero-sum": zero_sum,
    "margin": margin,
    "mse": mse,
    "complement": complement,
    "masked": masked,
    "uniform": uniform,
    "second-class": second_class,
}


def _gap(logits: Tensor, request: Request) -> Tensor:
    """Return z_f minus the mean of the retained logits, (B,)."""
    return logits.gather(1, request.y[:, None]).squeeze(1) - logits[:, request.retained()].mean(1)


def _kl(log_target: Tensor, logits: Tensor, request: Request) -> Tensor:
    """Return KL(target || softmax(logits)), nats, mean over B; columns where the target is 0 count as 0."""
    kept = request.retained()
    log_p = log_softmax(logits, dim=1)
    return kl_div(log_p[:, kept], log_target[:, kept], reduction="batchmean", log_target=True)
