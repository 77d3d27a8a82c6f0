r"""Synthesis: images that a net classifies as some of its classes, made from images of other classes only.

Source: adversarial examples of the samples preserve the net's knowledge in Cha, Cho, Hwang, Lee, Moon, Lee: Learning to
unlearn: instance-wise unlearning for pre-trained classifiers, AAAI 2024. Unlike there, half of them are aimed at a mix
of two classes, which is where a decision is lost first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torch.optim.adam import adam

from unhot.data.augment import Augment, distort
from unhot.data.images import at_once, input_range
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime

LR = 0.02  # learning rate of Adam, as a share of the range of the inputs
# the function and not the class torch.optim.Adam, which takes two seconds to import what compiles
SETTINGS: dict[str, Any] = {"amsgrad": False, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0, "eps": 1e-8}
SETTINGS |= {"maximize": False, "foreach": False}
AT_ONCE = 256  # images in one forward pass
LEAST = 0.3  # share of the first class in a mix of two; the most is 1


def stand_ins(
    model: Classifier,
    x: Tensor,
    logits: Tensor,
    retained: Tensor,
    count: int,
    steps: int,
    runtime: Runtime,
    *purpose: object,
) -> Tensor:
    r"""Move images of other classes until the model classifies them as retained classes.

    .. math::
        \min_x \operatorname{CE}(z(x), t), \quad t = a e_k + (1 - a) e_j

    k runs through the retained classes, j is drawn from the softmax of their logits; a is 1 in half of the
    images, and between 0.3 and 1 in the others. Adam descends on the pixels, from shifted images.

    Args:
        model: The classifier, in eval mode; the gradients of its weights are not touched.
        x: Images to start from, (B, C, H, W).
        logits: The model's logits for them, (B, K).
        retained: Output columns, int64 (R,).
        count: Number of images to make.
        steps: Number of steps of Adam.
        runtime: Gives shifts, classes and shares, and counts steps.
        purpose: What sets these images apart: for another purpose others are made.

    Returns:
        Inputs (N, C, H, W).
    """
    generator = runtime.generator("stand-ins", *purpose)
    which, mixed = torch.arange(count) % len(x), torch.arange(count) % 2
    start = Augment(max(1, x.shape[-1] // 8))(x[which.to(x.device)], generator)
    first = torch.arange(count) % len(retained)
    second = logits[:, retained].softmax(1).cpu()[which].multinomial(1, generator=generator).flatten()
    share = 1 - mixed * (1 - LEAST) * torch.rand(count, generator=generator)
    one, other = (one_hot(retained.cpu()[k], logits.shape[1]) for k in (first, second))
    target = (share[:, None] * one + (1 - share)[:, None] * other).to(x)
    size = at_once(x, AT_ONCE)
    pieces = zip(start.split(size), target.split(size), strict=True)
    made = torch.cat([_moved(model, some, towards, steps) for some, towards in pieces])
    runtime.steps += steps
    return made


def distorted(x: Tensor, count: int, runtime: Runtime) -> Tensor:
    """Return distorted copies of some inputs (B, C, H, W), at most ``count``, drawn at random: (6 count, C, H, W)."""
    some = torch.randperm(len(x), generator=runtime.generator("some"))[:count].to(x.device)
    return distort(x[some], runtime.generator("distort"))


def _moved(model: Classifier, x: Tensor, target: Tensor, steps: int) -> Tensor:
    """Descend from x (B, C, H, W) to the distribution target (B, K)."""
    low, high = input_range(x, model.input)
    x = x.clone().requires_grad_()
    mean, square, count = torch.zeros_like(x), torch.zeros_like(x), torch.zeros(())
    for _ in range(steps):
        loss = cross_entropy(model.logits(x), target, reduction="sum")
        gradient = torch.autograd.grad(loss, x)  # none of the weights
        with torch.no_grad():
            adam([x], [*gradient], [mean], [square], [], [count], lr=LR * float((high - low).mean()), **SETTINGS)
            x.copy_(x.clamp(low, high))
    return x.detach()
