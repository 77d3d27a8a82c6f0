r"""Synthesis: images that a net takes for given classes, made from nothing but the net.

Source: Yin et al.: Dreaming to distill: data-free knowledge transfer via DeepInversion, CVPR 2020. Unlike the paper,
means and deviations are compared in units of the running deviation, so that the weight suits every net, and there is no
penalty on pixels but their range and smoothness.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unhot.data.augment import Augment, distort
from unhot.data.images import input_range
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime

LR = 0.05  # of Adam, as a share of the range of the inputs
SMOOTH = 0.02  # weight of the mean absolute difference of neighbouring pixels, in units of the range
STATISTICS = 2.0  # weight of the distance from the running statistics, beside a cross-entropy in nats


def normalisations(model: Classifier) -> dict[str, nn.BatchNorm2d]:
    """Return the layers, by name, whose running statistics say what the net was trained on."""
    return {
        n: m for n, m in model.module.named_modules() if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None
    }


def synthesise(model: Classifier, y: Tensor, like: Tensor, steps: int, runtime: Runtime) -> Tensor:
    r"""Descend from noise to images of some classes that agree with the running statistics of batch normalisation.

    .. math::
        \min_x \operatorname{CE}(z(x), y) + \beta \operatorname*{mean}_l \operatorname*{mean}_c
        \frac{(\mu_{lc}(x) - m_{lc})^2 + (\sigma_{lc}(x) - s_{lc})^2}{s_{lc}^2} + \gamma \operatorname{TV}(x)

    Args:
        model: The classifier, in eval mode, with batch normalisation.
        y: Output columns, int64 (N,).
        like: Inputs (B, C, H, W) that say shape, number type, device and, where the model does not, the range.
        steps: Of Adam.
        runtime: Gives the noise and the random shifts, and counts steps.

    Returns:
        Inputs (N, C, H, W).
    """
    layers = normalisations(model)
    low, high = input_range(like, model.input)
    noise = torch.rand((len(y), *like.shape[1:]), generator=runtime.generator("synthesis"))
    x = (low + noise.to(like) * (high - low)).requires_grad_()
    optimizer = torch.optim.Adam([x], LR * float((high - low).mean()), betas=(0.5, 0.9))
    moving, shifted = runtime.generator("synthesis shift"), Augment(max(1, like.shape[-1] // 16))
    for _ in range(steps):
        with model.recording(layers) as seen:
            loss = cross_entropy(model.logits(shifted(x, moving)), y)
        away = torch.stack([_distance(seen[n], m) for n, m in layers.items() if n in seen]).mean()
        smooth = (x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean()) / (high - low).mean()
        (x.grad,) = torch.autograd.grad(loss + STATISTICS * away + SMOOTH * smooth, x)  # none of the weights
        optimizer.step()
        runtime.steps += 1
        with torch.no_grad():
            x.copy_(x.clamp(low, high))
    return x.detach()


def _distance(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    usual = (layer.running_var + layer.eps).sqrt()
    return (((mean - layer.running_mean) / usual).square() + ((var + layer.eps).sqrt() / usual - 1).square()).mean()


def stand_ins(like: Tensor, count: int, runtime: Runtime) -> Tensor:
    """Return at least ``count`` distorted copies of inputs: what there is where no statistics can be had.

    Args:
        like: Inputs (B, C, H, W).
        count: How many are wanted.
        runtime: Gives the distortions.
    """
    generator = runtime.generator("stand-ins")
    rounds = -(-count // (6 * len(like)))
    return torch.cat([distort(like, generator) for _ in range(rounds)])[:count]
