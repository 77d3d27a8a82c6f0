r"""Inverted images: made from noise, classified as the net's classes, and of the statistics that it was trained on.

Source: DeepInversion, in Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz: Dreaming to distill: data-free
knowledge transfer via DeepInversion, CVPR 2020. Unlike there, half of the images are mixes of two classes, which is
where a decision is lost first, and what is optimised is not the pixels but the amplitudes of waves, as in Olah,
Mordvintsev, Schubert: Feature visualization, Distill 2017: the same number of steps comes nearer to the statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim.lr_scheduler import CosineAnnealingLR

from unhot.data.augment import Augment
from unhot.data.images import at_once, input_range
from unhot.errors import counted
from unhot.files import check_new
from unhot.methods.parts.data import Data
from unhot.methods.parts.last_stage import Flow, LastStage
from unhot.methods.parts.sources import cache
from unhot.methods.parts.sources.source import COPIES, SHIFT, Source
from unhot.models.classifier import Classifier
from unhot.models.layers import normalisations
from unhot.records.inversion import InversionInfo
from unhot.runtime import Runtime

MOST, FEWEST = 256, 64  # images of all classes of which the statistics are compared with those of the training images
LEAST = 0.4  # share of the first class in a mix of two; the most is 1
NOISE = 0.5  # standard deviation of the first images
FALL = 0.75  # the amplitudes of a wave of frequency f are in units of f to the power of minus this
LR, BETAS = 0.2, (0.5, 0.9)  # of Adam
STATISTICS = 10.0  # weight of the statistics: at 1 they are four times as far away after the same number of steps
ROUGHNESS = 2e-4  # weight of the total variation
TINY = 1e-8  # keeps the gradient of a root finite


@dataclass(frozen=True)
class Inverted(Source):
    """Images made from the net, of all classes; those classified as a class to forget are left out afterwards.

    Attributes:
        descent: Number of steps in which an image is made.
        whole: Number of images that a cache is to hold, so that it serves requests with fewer given images, too.
        kept: The images of a cache.
        normalised: Whether the net has stored statistics.
    """

    descent: int
    whole: int
    kept: Tensor | None = None
    normalised: bool = True

    mode: ClassVar[str] = "bare"
    usual: ClassVar[float] = 1.3
    most: ClassVar[float] = 1.8  # 1.2 to 1.4 for two classes each of Fashion-MNIST and CIFAR-10

    @property
    def what(self) -> str:
        """How many of what there are, in words."""
        images = counted(self.images, "image")
        return f"{images} to make" if self.kept is None else f"{images} of the cache"

    @property
    def calibrated(self) -> bool:
        """Whether nets of this kind were among those that ``usual`` and ``most`` were set on.

        Without stored statistics the images may look like noise: an MLP of digits lost 7 times as much on real ones.
        """
        return self.normalised

    def ready(self, stage: LastStage, runtime: Runtime) -> Inverted:
        """Read the images of the cache, if there are some, and look for normalisations."""
        ready = replace(self, normalised=any(normalisations(stage.model.module)))
        if runtime.cache is None:
            return replace(ready, whole=self.images)  # none but these are needed
        if not runtime.cache.exists():
            check_new(runtime.cache)
            return ready
        wanted = InversionInfo(model_sha256=stage.model.sha256(), images=self.whole, descent=self.descent)
        found = cache.read(runtime.cache, wanted, tuple(stage.example.shape[1:]))[: self.images]
        return replace(ready, kept=found, images=len(found))

    def fewer(self, images: int) -> Inverted:
        """Return the source with a smaller number of images, and so much less to make."""
        return replace(self, images=images, whole=max(images, self.whole * images // self.images))

    def seconds(self, stage: LastStage, runtime: Runtime) -> float:
        """Return how long one image takes, from one timed step; nothing if the images are kept in a cache."""
        if self.kept is not None:
            return 0.0
        some = min(self.whole, at_once(stage.example, MOST))
        inversion = Inversion(stage.model, stage.example, some, self.descent, runtime.generator("timing"), runtime)
        return runtime.median_seconds(inversion.step, 1) * self.descent / some * self.whole / self.images

    def flow(self, stage: LastStage, data: Data, runtime: Runtime) -> Flow:
        """Make the images, or read them from the cache, and return the inputs of the last stage for them."""
        x = self._images(stage, runtime).to(stage.example)
        flow = stage.flow(x, COPIES, SHIFT, runtime.generator("copies of inverted"))
        return flow.part(~torch.isin(flow.logits.argmax(1), torch.tensor(data.columns, device=x.device)))

    def _images(self, stage: LastStage, runtime: Runtime) -> Tensor:
        if self.kept is not None:
            return self.kept
        images = inverted(stage.model, stage.example, self.whole, self.descent, runtime).half()
        if runtime.cache is not None:
            made = InversionInfo(model_sha256=stage.model.sha256(), images=self.whole, descent=self.descent)
            cache.write(runtime.cache, made, images)
        return images[: self.images]


def inverted(model: Classifier, like: Tensor, count: int, steps: int, runtime: Runtime) -> Tensor:
    r"""Make images that a net classifies as its classes, or as mixes of two.

    .. math::
        \min_x \operatorname{CE}(z(x), t) + \nu \sum_l \frac{1}{d_l} \sum_i \left[ \frac{(\mu_i - \hat\mu_i)^2}
        {\hat\sigma_i^2} + \left( \frac{\sigma_i}{\hat\sigma_i} - 1 \right)^2 \right] + \lambda \operatorname{TV}(x)

    :math:`\mu, \sigma` are the statistics of the inputs of the batch normalisation l over the images,
    :math:`\hat\mu, \hat\sigma` the stored ones, and :math:`\nu` is 10. Since these are of all classes, so are the
    images. Adam descends on waves from noise, each step on shifted images. What is drawn does not depend on the seed of
    the run, so that the images depend on the model alone.

    Args:
        model: The classifier, in eval mode; the gradients of its weights are not touched.
        like: Inputs of the shape wanted, (B, C, H, W).
        count: Number of images to make.
        steps: Number of steps of Adam for each.
        runtime: Shows progress; its precision is that of the passes.

    Returns:
        Inputs (N, C, H, W).
    """
    generator, made = replace(runtime, seed=0).generator("inversion"), []
    group = _in_a_group(like)
    with runtime.progress("steps of inversion", steps * len(range(0, count, group))) as advance:
        for start in range(0, count, group):
            inversion = Inversion(model, like, min(group, count - start), steps, generator, runtime)
            for _ in range(steps):
                inversion.step()
                advance(1)
            made.append(inversion.x())
    return torch.cat(made)


class Inversion:
    """Some images while they are made.

    Args:
        model: The classifier.
        like: Inputs of the shape wanted, (B, C, H, W).
        count: Number of images.
        steps: Number of steps, over which the learning rate falls to 0.
        generator: Gives noise, classes, shares and shifts.
        runtime: Its precision is that of the passes.
    """

    def __init__(
        self,
        model: Classifier,
        like: Tensor,
        count: int,
        steps: int,
        generator: torch.Generator,
        runtime: Runtime,
    ) -> None:
        self.model, self.generator, self.runtime, classes = model, generator, runtime, len(model.classes)
        first = torch.randperm(count, generator=generator) % classes
        second = torch.randint(classes, (count,), generator=generator)
        mixed = torch.rand(count, generator=generator) < 0.5
        share = (1 - mixed * (1 - LEAST) * torch.rand(count, generator=generator))[:, None]
        self.target = (share * one_hot(first, classes) + (1 - share) * one_hot(second, classes)).to(like)
        noise = torch.randn((count, *like.shape[1:]), generator=generator).to(like.device)
        self.units = _units(noise.shape[2:], noise.device)
        self.waves = (noise * NOISE / _of_waves(noise, self.units).std()).requires_grad_()
        self.low, self.high = input_range(like, model.input)
        self.shifted = Augment(SHIFT)
        self.optimizer = torch.optim.Adam([self.waves], LR, betas=BETAS)
        self.schedule = CosineAnnealingLR(self.optimizer, max(steps, 1))

    def step(self) -> None:
        """Descend one step."""
        drawn = self._drawn()
        x = drawn + (drawn.clamp(self.low, self.high) - drawn).detach()  # where it is clipped, the gradient is kept
        with _departures(self.model) as departures, self.runtime.autocast():
            logits = self.model.logits(self.shifted(x, self.generator)).to(self.target)
        variation = sum(x.diff(dim=d).square().sum((1, 2, 3)).mean() for d in (2, 3))
        loss = cross_entropy(logits, self.target) + STATISTICS * sum(departures) + ROUGHNESS * variation
        (self.waves.grad,) = torch.autograd.grad(loss, self.waves)  # none of the weights
        self.optimizer.step()
        self.schedule.step()

    @torch.no_grad()
    def x(self) -> Tensor:
        """Return the images as they are now, inputs (N, C, H, W)."""
        return self._drawn().clamp(self.low, self.high)

    def _drawn(self) -> Tensor:
        return _of_waves(self.waves, self.units).to(self.target.dtype)


def _in_a_group(like: Tensor) -> int:
    """Return how many images of a shape (B, C, H, W) are made together: as many as fit into memory."""
    return max(FEWEST, at_once(like, MOST))


def _units(size: torch.Size, device: torch.device) -> Tensor:
    """Return the units of the amplitudes of all waves of an image of a size (H, W), as rfft2 orders them."""
    height, width = size
    y, x = torch.fft.fftfreq(height, device=device), torch.fft.rfftfreq(width, device=device)
    return torch.hypot(y[:, None], x).clamp_min(1 / max(size)).pow(-FALL)


def _of_waves(waves: Tensor, units: Tensor) -> Tensor:
    """Return images (N, C, H, W): those of ``waves`` (N, C, H, W) with their amplitudes multiplied by the units."""
    images: Tensor = torch.fft.irfft2(torch.fft.rfft2(waves) * units, s=waves.shape[2:])
    return images


@contextmanager
def _departures(model: Classifier) -> Iterator[list[Tensor]]:
    """Collect how far the statistics of the images in the block are from the stored ones, one number a layer."""
    found: list[Tensor] = []

    def hook(_: nn.Module, args: tuple[Any, ...], mean: Tensor, var: Tensor) -> None:
        now, at = torch.var_mean(args[0].to(mean), [0, *range(2, args[0].ndim)], correction=0)
        found.append(((at - mean).square() / var).mean() + ((now / var + TINY).sqrt() - 1).square().mean())

    with ExitStack() as hooks:
        for layer, mean, var in normalisations(model.module):
            hooks.enter_context(layer.register_forward_pre_hook(partial(hook, mean=mean, var=var)))
        yield found
