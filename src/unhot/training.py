"""fit(): the training loop of original, retrained and fine-tuned models."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, JsonValue, ValidationError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from unhot.data.augment import Augment
from unhot.data.images import LabelledImages, prepare
from unhot.data.preprocessing import Preprocessing
from unhot.data.samples import class_position
from unhot.data.source import Source, folder_input
from unhot.errors import DataError, InputError, OptionError, invalid_values
from unhot.files import write_atomic
from unhot.models.arch import build, channels_of, learning_rate
from unhot.models.classifier import Classifier
from unhot.models.weights import as_input, widen
from unhot.records.base import Stored, digest
from unhot.records.choices import Precision
from unhot.records.environment import Cost
from unhot.records.model import InputSpec
from unhot.records.train import TrainRecord
from unhot.runtime import Runtime, usual_precision, usual_settings

NEAR_CHANCE = 0.1  # of the way from guessing to all correct


class TrainSettings(Stored):
    """The settings of :func:`fit`: SGD with Nesterov momentum on a one-cycle schedule.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images in a step.
        lr: Highest learning rate of the cycle.
        momentum: Momentum of SGD.
        weight_decay: L2 penalty on all weights.
        clip: Maximum norm of the gradient; a longer one is scaled down to it.
    """

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=256, ge=1)
    lr: float = Field(default=0.2, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    clip: float = Field(default=5.0, gt=0)

    @classmethod
    def of(cls, values: dict[str, Any]) -> TrainSettings:
        """Make settings from values that a user typed.

        Raises:
            OptionError: One is unknown or out of range; all are listed.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise OptionError(
                f"Invalid settings of training: {'; '.join(invalid_values(error, cls.model_fields))}."
            ) from error


def batches_of(order: Tensor, size: int) -> tuple[Tensor, ...]:
    """Split positions (N,) into batches; a single one left over joins the batch before it.

    In training batch normalisation cannot normalise a single image by its own statistics.
    """
    parts: tuple[Tensor, ...] = order.split(size)
    if size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        return (*parts[:-2], torch.cat(parts[-2:]))
    return parts


@contextmanager
def normalising() -> Iterator[None]:
    """Explain the error of batch normalisation on a single image in training.

    Raises:
        DataError: A batch has a single image.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataError(
            "In training batch normalisation cannot normalise a batch of a single image. Give more images, or a larger "
            "batch_size."
        ) from error


def fit(
    model: Classifier,
    images: LabelledImages,
    settings: TrainSettings,
    augment: Augment,
    runtime: Runtime,
    checkpoint: Path | None = None,
) -> float:
    """Train a classifier in place; the same seed gives the same weights, with or without an interruption.

    Args:
        model: A classifier with ``input``; its module is on the device of the runtime.
        images: The images, labelled with output columns of the model.
        settings: The settings of SGD.
        augment: Augmentation, applied to every batch anew.
        runtime: Device, precision and seed.
        checkpoint: A file that is written after every epoch; if it exists and fits, training resumes from it.

    Returns:
        The seconds that training took, including those before an interruption.

    Raises:
        DataError: There are no images, or batches of one that cannot be normalised.
        InputError: The checkpoint is of another run.
    """
    if model.input is None or len(images) == 0:
        raise DataError("Training needs images, and a model whose input is known. Pass both.")
    net, device, n, started = model.module, runtime.device, len(images), runtime.clock()
    layout = torch.channels_last if runtime.precision == "bf16" else torch.contiguous_format
    _lay_out(net, layout)
    cached = images.cached(model.input)
    optimizer, schedule = _one_cycle(net, settings, n)
    shapes = {k: list(v.shape) for k, v in net.state_dict().items()}
    identity = "" if checkpoint is None else _identity(settings, runtime, shapes, images, model.input, augment)
    state = {"net": net, "optimizer": optimizer, "schedule": schedule}
    first, before = _restore(checkpoint, state, identity, runtime)
    processes, forward = runtime.processes, runtime.processes.wrap_ddp(net)
    with runtime.progress("training", (settings.epochs - first) * n) as advance:
        for epoch in range(first, settings.epochs):
            order = torch.randperm(n, generator=runtime.generator("order", epoch))
            augmenting = runtime.generator("augment", epoch)
            net.train()
            with runtime.seeded("dropout", epoch), normalising():
                for index in batches_of(order, settings.batch_size):
                    pixels = augment(cached.pixels(index, model.input).to(device), augmenting)
                    mine = processes.shard(torch.arange(len(index)))
                    x = prepare(pixels[mine.to(device)], model.input).contiguous(memory_format=layout)
                    with runtime.autocast():
                        logits = forward(as_input(net, x))
                    loss = cross_entropy(logits.float(), images.y[index[mine]].to(device))
                    loss = loss * processes.weight(len(index))
                    runtime.step(loss, optimizer, settings.clip)
                    schedule.step()
                    advance(len(index))
            if not torch.isfinite(loss):
                raise InputError(f"Training diverged in epoch {epoch + 1}. Lower --lr (now {settings.lr}).")
            if checkpoint is not None and epoch + 1 < settings.epochs and processes.rank == 0:
                taken = before + runtime.clock() - started
                _save(checkpoint, state, {"identity": identity, "epoch": epoch + 1, "seconds": taken}, runtime)
    _lay_out(net, torch.contiguous_format)
    net.eval()
    return before + runtime.clock() - started


def _one_cycle(net: nn.Module, settings: TrainSettings, images: int) -> tuple[SGD, OneCycleLR]:
    """Return SGD and its schedule: the learning rate rises for a quarter of the steps, then falls."""
    optimizer = SGD(
        net.parameters(),
        settings.lr,
        settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )
    steps = settings.epochs * len(batches_of(torch.arange(images), settings.batch_size))
    rising = 0.3 if steps == 4 else 0.25  # the schedule divides by steps * rising - 1
    schedule = OneCycleLR(optimizer, settings.lr, total_steps=steps, pct_start=rising, cycle_momentum=False)
    return optimizer, schedule


@usual_settings()
def train(
    source: Source,
    arch: str,
    *,
    options: dict[str, JsonValue] | None = None,
    image_size: int | None = None,
    preprocessing: Preprocessing | None = None,
    exclude: Sequence[int | str] = (),
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    precision: Precision | None = None,
    runtime: Runtime | None = None,
    checkpoint: Path | None = None,
) -> tuple[Classifier, TrainRecord]:
    """Build a net and train it on a data set.

    Args:
        source: The data; the net is trained on its train split and evaluated once, at the end, on the images of its
            test split that are of the classes trained on.
        arch: Name of the architecture; see :func:`unhot.models.arch.build`.
        options: Keyword arguments of the architecture.
        image_size: Side of the inputs in pixels; what suits the data set if None.
        preprocessing: Overrides how pictures of the data set become inputs.
        exclude: Classes to leave out of training; the net keeps their outputs. This makes the retrained reference.
        settings: Fields of :class:`TrainSettings`; the others are chosen to suit the data set and the net.
        seed: The same seed gives the same weights on the same machine.
        precision: Precision of training; the faster of the two on this machine if None.
        runtime: Device and progress.
        checkpoint: See :func:`fit`.

    Raises:
        DataError: There is nothing to train on.
        OptionError: A setting or an option does not fit.
    """
    runtime = replace(runtime or Runtime(), seed=seed, steps=0)
    images = source.train_images
    names = images.class_names or ()
    dropped = [class_position(images, c) for c in exclude]
    if len(set(dropped)) >= len(names) - 1:
        raise DataError("At least two classes must be left to train on. Exclude fewer.")
    spec = channels_of(arch, _input(source, preprocessing or Preprocessing(size=image_size)))
    with runtime.seeded("init"):
        net = build(arch, len(names), spec, options)
    widen(net)
    model = replace(
        Classifier.wrap(
            net.to(runtime.device),
            example=images.inputs(torch.arange(min(2, len(images))), spec, runtime.device),
            class_names=names,
            input=spec,
        ),
        arch=arch,
        arch_options=dict(options or {}),
    )
    runtime.precision = precision or usual_precision(net, runtime.device)
    fitted = complete(settings or {}, source, arch)
    kept = images.without(dropped)
    seconds = fit(model, kept, fitted, source.augment, runtime, checkpoint)
    held_out = None if source.test is None else model.align(source.test).without(dropped)
    record = TrainRecord(
        dataset=source.name,
        data_sha256=source.sha256,
        input=spec,
        arch=arch,
        arch_options=model.arch_options,
        excluded=tuple(model.classes[i] for i in dropped),
        settings=fitted.model_dump() | {"precision": runtime.precision},
        seed=seed,
        train_images=len(kept),
        test_accuracy=accuracy(model, held_out, runtime) if held_out else None,
        cost=Cost(seconds=seconds, peak_memory_bytes=runtime.peak_memory_bytes(), steps=runtime.steps),
        weights_sha256=model.sha256(),
        environment=runtime.environment(),
    )
    return model, record


def complete(settings: dict[str, Any], source: Source, arch: str) -> TrainSettings:
    """Complete the settings of training with those that suit the data set and the net.

    Raises:
        OptionError: A setting does not fit.
    """
    batch_size = 256 if len(source.train_images) > 5_000 else 64
    usual = {"epochs": source.epochs, "lr": learning_rate(arch), "batch_size": batch_size}
    return TrainSettings.of(usual | settings)


@torch.no_grad()
def accuracy(model: Classifier, images: LabelledImages, runtime: Runtime) -> float:
    """Return the share of images that a model classifies correctly."""
    aligned, right = model.align(images.select(runtime.processes.shard(torch.arange(len(images))))), 0
    with runtime.progress("testing", len(aligned)) as advance:
        for x, y in aligned.batches(model.input, runtime.device):
            right += int((model.logits(x).argmax(1) == y).sum())
            advance(len(y))
    shares = runtime.processes.all_gather(torch.tensor([[right, len(aligned)]]))
    return int(shares[:, 0].sum()) / int(shares[:, 1].sum())


def near_chance(accuracy: float, chance: float) -> bool:
    """Return whether an accuracy is hardly above that of guessing."""
    return accuracy - chance < NEAR_CHANCE * (1 - chance)


def _input(source: Source, preprocessing: Preprocessing) -> InputSpec:
    found = source.input or folder_input(source.train_images)
    return preprocessing.applied(found) or found


def _identity(
    settings: TrainSettings,
    runtime: Runtime,
    shapes: dict[str, list[int]],
    images: LabelledImages,
    spec: InputSpec,
    augment: Augment,
) -> str:
    """Return the digest of all that determines the weights; only a run of the same digest may resume this one."""
    data = [images.origin, images.sha256(), spec.model_dump(mode="json"), augment.shift, augment.flip]
    return digest([settings.model_dump(), runtime.seed, runtime.precision, shapes, data])


def _lay_out(net: nn.Module, layout: torch.memory_format) -> None:
    net.to(memory_format=layout)  # type: ignore[call-overload]


def _save(path: Path, state: dict[str, Any], progress: dict[str, object], runtime: Runtime) -> None:
    content = {name: part.state_dict() for name, part in state.items()}
    buffer = io.BytesIO()
    torch.save(content | progress | {"steps": runtime.steps}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def _restore(path: Path | None, state: dict[str, Any], identity: str, runtime: Runtime) -> tuple[int, float]:
    """Resume from a checkpoint, if there is one; return the number of epochs in it and the seconds that they took."""
    if path is None or not path.exists():
        return 0, 0.0
    try:
        saved = torch.load(path, map_location=runtime.device, weights_only=True)
    except Exception as error:  # torch raises many kinds on a damaged file
        raise InputError(f"The checkpoint {path} is damaged. Remove it to start again.") from error
    if not isinstance(saved, dict) or saved.get("identity") != identity:
        raise InputError(f"The checkpoint {path} is of a run with other settings. Remove it to start again.")
    for name, part in state.items():
        part.load_state_dict(saved[name])
    runtime.steps = saved["steps"]
    return int(saved["epoch"]), float(saved["seconds"])
