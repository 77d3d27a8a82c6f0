"""Shuffled mini-batches of the data of a method; none has a single image unless that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, count, islice

import torch
from torch import Tensor

from unhot.data.images import LabelledImages, at_once
from unhot.methods.parts.data import Batch
from unhot.models.classifier import Classifier
from unhot.models.replay import replay_point
from unhot.runtime import Runtime
from unhot.training import batches_of


@torch.no_grad()
def logits_of(model: Classifier, x: Tensor) -> Tensor:
    """Return the logits (N, K) of inputs (N, C, H, W), computed in batches."""
    return torch.cat([model.logits(some) for some in x.split(at_once(x))])


@torch.no_grad()
def repeatedly(model: Classifier, x: Tensor, trained: Sequence[str]) -> tuple[Callable[[Classifier], Tensor], Tensor]:
    """Return what gives the logits (N, K) of the same inputs again and again, while only some layers change, and these.

    What flows into the last replay point before these layers is kept, and replaces what a pass of a single input gives
    there: nothing before is computed again. Where that does not give the same bits, all of the net is run each time.

    Args:
        model: The classifier, before it is changed.
        x: The inputs (N, C, H, W).
        trained: The layers that will be changed, in the order they are called; any may be if there are none.
    """
    whole = partial(logits_of, x=x)
    point = replay_point(model, trained[0], x[:1]) if trained else ""
    if not point:
        return whole, whole(model)
    flows, parts = list[Tensor](), list[Tensor]()
    with model.recording([point]) as seen:
        for some in x.split(at_once(x)):
            parts.append(model.logits(some))
            flows.append(seen[point])

    @torch.no_grad()
    def rest(changed: Classifier) -> Tensor:
        found = list[Tensor]()
        for flow in flows:
            with changed.replacing(point, flow):
                found.append(changed.logits(x[:1]))
        return torch.cat(found)

    logits = torch.cat(parts)
    try:
        return (rest if torch.equal(rest(model), logits) else whole), logits
    except Exception:  # the net is the caller's: it may take the number of images from its input
        return whole, logits


def forward(
    model: Classifier, samples: Batch, loss: Callable[[Tensor, Batch], Tensor]
) -> tuple[Tensor, Callable[[Sequence[Tensor]], tuple[Tensor, ...]]]:
    """Return the logits (N, K) of samples, and what gives the gradients of a mean loss for some weights.

    More samples than fit into one pass are taken in batches, whose gradients add up to those of all of them; since
    nothing is kept of a batch but these, the memory that it takes does not grow with the number of samples.

    Args:
        model: The classifier, in eval mode: the logits of a sample do not depend on the others.
        samples: The samples.
        loss: The mean loss of logits (B, K) of some samples.
    """
    size, n = at_once(samples.x), len(samples.y)
    if n <= size:
        logits = model.logits(samples.x)
        return logits, lambda weights: torch.autograd.grad(loss(logits, samples), list(weights))

    def summed(weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        total = [torch.zeros_like(w) for w in weights]
        for start in range(0, n, size):
            some = samples.part(slice(start, start + size))
            mean = loss(model.logits(some.x), some) * (len(some.y) / n)
            for so_far, part in zip(total, torch.autograd.grad(mean, list(weights)), strict=True):
                so_far += part
        return tuple(total)

    return logits_of(model, samples.x), summed


def drawn(columns: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one of ``columns`` for each image of y (B,), int64 (B,), on its device."""
    return columns[torch.randint(len(columns), (len(y),), generator=generator)].to(y.device)


def forget_batches(forget: Batch, size: int, runtime: Runtime, *purpose: object) -> Iterator[Batch]:
    """Yield the samples once, in random order.

    Args:
        forget: The samples.
        size: Samples in a batch.
        runtime: Gives the order.
        purpose: What sets this pass apart, such as the number of the epoch: another purpose, another order.
    """
    order = torch.randperm(len(forget.y), generator=runtime.generator("forget order", *purpose))
    for index in batches_of(order.to(forget.y.device), size):
        yield forget.part(index)


def forget_stream(forget: Batch, size: int, runtime: Runtime, steps: int | None = None) -> Iterator[Batch]:
    """Yield ``steps`` batches of samples, or endlessly many, pass after pass, each pass in an order of its own."""
    return islice(chain.from_iterable(forget_batches(forget, size, runtime, i) for i in count()), steps)


def retain_batches(
    retain: LabelledImages, model: Classifier, size: int, runtime: Runtime, *purpose: object
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield retained images once, in random order, as inputs (B, C, H, W) and output columns int64 (B,).

    Args:
        retain: The images; their labels are output columns of the model.
        model: Says how pixels become inputs.
        size: Images in a batch.
        runtime: Gives device, order and progress.
        purpose: What sets this pass apart, such as the number of the epoch: another purpose, another order.
    """
    order = torch.randperm(len(retain), generator=runtime.generator("retain order", *purpose))
    with runtime.progress("retained images", len(retain)) as advance:
        for index in batches_of(order, size):
            yield retain.inputs(index, model.input, runtime.device), retain.y[index].to(runtime.device)
            advance(len(index))


def retain_stream(
    retain: LabelledImages, model: Classifier, size: int, runtime: Runtime, *purpose: object
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield retained images without end, each pass in an order of its own; see :func:`retain_batches`."""
    return chain.from_iterable(retain_batches(retain, model, size, runtime, *purpose, i) for i in count())
