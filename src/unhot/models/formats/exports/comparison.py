"""Comparing what was exported with the model that it was made of."""

from __future__ import annotations

import torch
from torch import Tensor

from unhot.data.images import prepare
from unhot.errors import ExportFailedError, ModelError, UnhotError, first_line, shortened
from unhot.models.classifier import Classifier
from unhot.models.formats.exports.target import Run
from unhot.models.head_edits.mask import CUT_LOGIT
from unhot.models.weights import dtype_of
from unhot.records.export import Comparison
from unhot.records.model import ClassLabel

BATCHES = 1, 2, 5, 8  # sizes of the batches; the first three are of the images of the last one
IMAGES = 8
# largest difference of logits, as a share of the largest logit of a class that is not masked: other libraries add and
# multiply in another order
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.05}


def masked_classes(model: Classifier) -> tuple[ClassLabel, ...]:
    """Return the classes of a classifier whose outputs are masked."""
    logits = torch.zeros(1, model.outputs)
    for edit in model.head_edits:
        logits = edit.on_logits(logits)
    return tuple(c for c, logit in zip(model.classes, logits[0], strict=True) if logit == CUT_LOGIT)


def random_inputs(model: Classifier, count: int, seed: int = 0) -> Tensor:
    """Return inputs (count, C, H, W) of random pictures, each of noise of its own brightness; the same ones every time.

    Raises:
        ModelError: The size of the inputs is not known.
    """
    if model.input_shape is None:
        raise ModelError(
            "The size of the model's inputs is not known. Say it when the model is wrapped: "
            "unhot.Classifier.wrap(net, example=x)."
        )
    generator = torch.Generator().manual_seed(seed)
    noise, light = (torch.rand(count, *shape, generator=generator) for shape in (model.input_shape, (1, 1, 1)))
    pixels = noise.mul(light).mul(256).floor().to(torch.uint8)
    return prepare(pixels, model.input).to(dtype_of(model.module))


@torch.no_grad()
def compare(model: Classifier, run: Run, other_cut: bool) -> Comparison:
    """Compare what was exported with its model, on random images.

    Args:
        model: The model.
        run: What was exported.
        other_cut: Whether masked classes have other logits than in the model, and are not compared.

    Raises:
        ExportFailedError: They differ by more than the tolerance or in an answer; or a masked class is an answer.
    """
    x = random_inputs(model, IMAGES)
    masked = model.columns(masked_classes(model))
    retained = [c for c in range(len(model.classes)) if c not in masked]
    largest, scale = 0.0, 0.0
    for inputs in (*x.split(BATCHES[:-1]), x):
        wanted, found = model.logits(inputs), _outputs(run, inputs)
        if found.shape != wanted.shape:
            raise ExportFailedError(
                f"What was exported returns {tuple(found.shape)} for {len(inputs)} images, not {tuple(wanted.shape)}. "
                "Nothing was written. Export to another format."
            )
        kept = retained if other_cut else slice(None)
        difference = (wanted[:, kept].double() - found[:, kept].double()).abs().max().item()
        largest = max(largest, difference) if difference == difference else float("inf")
        scale = max(scale, wanted[:, retained].abs().max().item())
        _check_answers(model, wanted, found, masked)
    tolerance = TOLERANCE[dtype_of(model.module)] * scale
    if largest > tolerance:
        raise ExportFailedError(
            f"The logits of what was exported differ from the model's by up to {largest:.2g} on {IMAGES} random "
            f"images, and {tolerance:.2g} is accepted. Nothing was written. Export to another format."
        )
    return Comparison(images=IMAGES, batch_sizes=BATCHES, largest_difference=largest, tolerance=tolerance)


def _outputs(run: Run, x: Tensor) -> Tensor:
    try:
        return run(x)
    except UnhotError:
        raise
    except Exception as error:  # other libraries raise many kinds
        raise ExportFailedError(
            f"What was exported cannot be run on {len(x)} images: {first_line(error)}. Nothing was written. Export to "
            "another format."
        ) from error


def _check_answers(model: Classifier, wanted: Tensor, found: Tensor, masked: list[int]) -> None:
    """Refuse other answers than the model's, and answers that it never gives."""
    answers = found.argmax(1)
    if said := sorted({model.classes[c].name for c in answers.tolist() if c in masked}):
        raise ExportFailedError(
            f"What was exported still answers {shortened(said)}, which the model was made to forget. Nothing was "
            "written. Export to another format."
        )
    if other := int((answers != wanted.argmax(1)).sum()):
        raise ExportFailedError(
            f"What was exported classifies {other} of {len(wanted)} random images as another class than the model. "
            "Nothing was written. Export to another format."
        )
