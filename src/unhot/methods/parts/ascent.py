"""Images near others on which a model is less confident: projected gradient ascent on its loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unhot.data.images import input_range
from unhot.models.classifier import Classifier

AT_ONCE = 64  # images in one forward pass


def ascended(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    step: float,
    steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Ascend on the cross-entropy by signs of gradients, near each image and within the range of pixels.

    .. math::
        x' \leftarrow \operatorname{clip}(x' + a \operatorname{sign} \nabla_{x'} \ell(f(x'), y), \; x \pm \epsilon)

    Args:
        model: The classifier, in eval mode; the gradients of its weights are not touched.
        x: Inputs (N, C, H, W).
        y: The column of each one's class, int64 (N,).
        epsilon: Greatest change of a pixel, on a scale of 0..1.
        step: Change of a pixel in one step, a, on the same scale.
        steps: Number of steps.
        generator: Draws a random start within ``epsilon``; the ascent starts at x if None.

    Returns:
        Inputs (N, C, H, W).

    Source: Madry, Makelov, Schmidt, Tsipras, Vladu: Towards deep learning models resistant to adversarial attacks,
    ICLR 2018. One step of ``epsilon`` from x itself is the fast gradient sign method of Goodfellow, Shlens, Szegedy:
    Explaining and harnessing adversarial examples, ICLR 2015.
    """
    low, high = input_range(x, model.input)
    reach, length, start = epsilon * (high - low), step * (high - low), x
    if generator is not None:
        start = (x + (2 * torch.rand(x.shape, generator=generator).to(x) - 1) * reach).clamp(low, high)
    found = []
    for some, mine, near in zip(x.split(AT_ONCE), y.split(AT_ONCE), start.split(AT_ONCE), strict=True):
        for _ in range(steps):
            near = near.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(cross_entropy(model.logits(near), mine, reduction="sum"), near)
            near = (near.detach() + length * gradient.sign()).clamp(some - reach, some + reach).clamp(low, high)
        found.append(near.detach())
    return torch.cat(found)
