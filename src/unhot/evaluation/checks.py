"""What an audit refuses or says of the models that it is given, and what it cannot know of the unlearned one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch

from unhot.errors import DataWarning, ModelError, ModelWarning, shortened
from unhot.evaluation.verdict import flag, reason
from unhot.evaluation.view import Views
from unhot.models.classifier import Classifier
from unhot.models.layers import unseen_weights
from unhot.models.likeness import SAME, likeness, mean_likeness
from unhot.models.preflight import gradient_problem
from unhot.models.unused import unused_weights
from unhot.records.audit import Flag, Measurement, Reason, Subject
from unhot.records.forget import ForgetRecord
from unhot.training import near_chance

TRIED = 16  # images of either kind that tell whether a weight has an effect
HARD = 0.5  # accuracy of an original that hardly knows the classes in these images, or any
KNOWS = 0.1  # forget accuracy above which a model cannot have been trained without the classes
SHARED = 0.01  # of the weights: no model that was trained anew shares as many
FRESH = 0.3  # correlation of weights: below it in a fresh last stage, above it in one that was changed
ALIKE = 0.8  # that of a model that was trained anew from the original's initial weights is below it (digits: 0.66)
UNLIKE = 0.03  # by which accuracies of the original and of retrained models on the retained classes may differ
UNSEEN = 0.05  # of the original's weights: fewer are no net by themselves (tokens, embeddings of positions)
INSIDE = 0.1  # of the original's weights that are in a model which has as many more
KEPT = 0.9  # correlation of weights that were changed little


def check_models(views: Views, forgotten: float) -> Iterator[Flag]:
    """Refuse retrained models that are none; only say so of them where nothing is concluded from them.

    Args:
        views: The models and their test images.
        forgotten: Forget accuracy above which the unlearned model has not forgotten, whatever retrained models give
            away.

    Raises:
        ModelError: A retrained model was trained on the classes, is the original changed, or knows nothing.
    """
    problem = next(_reference_problems(views), None)
    if problem is None:
        return
    if _hits(views, "unlearned") <= forgotten:
        raise ModelError(problem)
    warnings.warn(problem, ModelWarning, stacklevel=3)
    yield flag("reference_unfit")


def _reference_problems(views: Views) -> Iterator[str]:
    """Say what is wrong with retrained models that are none."""
    names = shortened(c.name for c in views.labels)
    guesses = _retained(views, "original") < HARD  # a model that was hardly trained: then flags say so
    chance = _chance(views)
    for run in range(len(views.models["retrained"])):
        if (share := _hits(views, "retrained", run)) > KNOWS:
            yield (
                f"Retrained model {run + 1} classifies {share:.0%} of the test images of {names} correctly, so it was "
                "trained on them. Give a model that was trained without them, or none."
            )
        if near_chance(share := _retained(views, "retrained", run), chance) and not guesses:
            yield (
                f"Retrained model {run + 1} classifies {share:.0%} of the retained test images correctly, hardly more "
                "than by guessing. Give one that was trained on the other classes, in the order of the original's."
            )
        kept, rest = _likeness(views, run)
        if kept > SHARED and rest > FRESH:
            yield (
                f"Retrained model {run + 1} is the original, changed: {kept:.0%} of its weights are the original's, "
                f"and the others are like them (correlation {rest:.2f}). Give one that was trained without {names}, "
                "or what unhot reference makes."
            )


def believed(record: ForgetRecord | None, sha256: str) -> tuple[ForgetRecord | None, list[Flag]]:
    """Return the record of how the unlearned model was made, if it is of these weights; and what to say if not."""
    if record is None or record.weights_sha256 == sha256:
        return record, []
    warnings.warn(
        "The record beside the unlearned model is of other weights, so it is not used. Restore the one of this model.",
        ModelWarning,
        stacklevel=3,
    )
    return None, [flag("other_weights")]


def origin_flags(record: ForgetRecord | None, original: str, unlearned: Classifier) -> Iterator[Flag]:
    """Say so where the unlearned model was made from another model than the original, by one run alone.

    Args:
        record: How the unlearned model was made.
        original: SHA-256 of the weights of the original.
        unlearned: The unlearned model. If it has forgotten more than the record says, it went through several runs, and
            the original may be the model before the first.
    """
    if record is None or record.model_sha256 == original:
        return
    if {c.name for c in unlearned.forgotten} - {c.name for c in record.classes}:
        return
    warnings.warn(
        f"By its record the unlearned model was made from a model with weights {record.model_sha256[:12]}. The "
        f"original given here has weights {original[:12]}. Give the model that it was made from as the original.",
        ModelWarning,
        stacklevel=3,
    )
    yield flag("other_original")


def original_flags(views: Views, by_name: Mapping[tuple[str, Subject], Measurement]) -> Iterator[Flag]:
    """Say so where the original hardly knows the classes, or classifies the others little better than by guessing."""
    if _hits(views, "original") < HARD:
        yield flag("hard_class", by_name["forget_accuracy", "original"])
    accuracy, chance = by_name["retain_accuracy", "original"], _chance(views)
    if accuracy.value is None or not near_chance(accuracy.value, chance):
        return
    warnings.warn(
        f"The original model classifies {accuracy.value:.3f} of the retained test images correctly; guessing would "
        f"give {chance:.3f}. Check the preprocessing (size, mean, standard deviation) and the order of the classes.",
        DataWarning,
        stacklevel=3,
    )
    yield flag("near_chance", accuracy, accuracy=accuracy.value, chance=chance)


def reference_flags(views: Views, by_name: Mapping[tuple[str, Subject], Measurement]) -> Iterator[Flag]:
    """Say so where the retrained models are not what the original would be without the classes."""
    original, references = views.models["original"][0], views.models["retrained"]
    before, *others = (by_name["retain_accuracy", s] for s in ("original", "retrained"))
    found = [v for m in others for v in (m.runs or (m.value,)) if v is not None]
    if before.value is not None and any(abs(v - before.value) > UNLIKE for v in found):
        yield flag("reference_accuracy", before, *others, limit=UNLIKE)
    shared = max((_shared(original, m) for m in references), default=0.0)
    if shared > SHARED:
        yield flag("reference_partial", share=shared)
    alike = max((_likeness(views, run)[1] for run in range(len(references))), default=0.0)
    if alike > ALIKE:
        yield flag("reference_alike", correlation=alike)
    shapes = [_shapes(m) for m in (original, *references)]
    if any(s != shapes[0] for s in shapes[1:]):
        yield flag("reference_architecture")


def doubts(views: Views) -> list[Reason]:
    """Say why nothing good can be concluded for whoever holds the weights of the unlearned model."""
    original, model, images = views.models["original"][0], views.models["unlearned"][0], views.splits["test"]
    forgotten = torch.isin(images.y, torch.tensor(views.columns))
    some = torch.cat([rows.nonzero().flatten()[:TRIED] for rows in (forgotten, ~forgotten)])
    x, found, weights = images.inputs(some, model.input, model.device), list[Reason](), _count(original)
    if not gradient_problem(model.module, x[:1], model.head):
        unused = sum(unused_weights(model, x).values())
        if unused >= model.head_layer.in_features:
            found.append(reason("unused_weights", count=unused))
    if (unseen := unseen_weights(model, x[:1])) > UNSEEN * weights:
        found.append(reason("unseen_weights", count=unseen, share=unseen / weights))
    if (extra := _count(model) - weights) > INSIDE * weights:
        inside = sum(n for n, correlation in likeness(original, model) if correlation > KEPT) / weights
        if inside > INSIDE:
            found.append(reason("original_inside", extra=extra, share=inside))
    return found


def _hits(views: Views, subject: Subject, run: int = 0) -> float:
    """Return the share of test images of the forgotten classes that a model classifies as their class."""
    view = views.of(subject, "test", run)
    return float(view.correct[view.is_forget].double().mean())


def _retained(views: Views, subject: Subject, run: int = 0) -> float:
    """Return the share of retained test images that a model classifies correctly."""
    view = views.of(subject, "test", run)
    return float(view.correct[~view.is_forget].double().mean())


def _chance(views: Views) -> float:
    return 1 / len(views.models["original"][0].classes)


def _likeness(views: Views, run: int) -> tuple[float, float]:
    """Return which share of a retrained model's weights are the original's, and how like these the others are.

    The second is 1 if there are no others, and 0 if no weights can be compared.
    """
    original, model = views.results["original"][0], views.results["retrained"][run]

    def compare() -> tuple[float, float]:
        found = likeness(model.model, original.model)
        others = [(n, c) for n, c in found if c < SAME]
        if not found or not others:
            return (1.0, 1.0) if found else (0.0, 0.0)
        return 1 - sum(n for n, _ in others) / sum(n for n, _ in found), mean_likeness(others)

    return model.once(("likeness", original.sha256()), compare)


def _count(model: Classifier) -> int:
    return sum(w.numel() for w in model.module.parameters())


def _shapes(model: Classifier) -> list[tuple[int, ...]]:
    """Return the shapes of all weights before the head, in order."""
    head = f"{model.head}."
    return [tuple(w.shape) for n, w in model.module.named_parameters() if not n.startswith(head)]


def _shared(one: Classifier, other: Classifier) -> float:
    """Return the share of the weights of one model that another has, too, bit for bit."""
    theirs = dict(other.module.named_parameters())
    own = list(one.module.named_parameters())
    same = sum(w.numel() for n, w in own if n in theirs and torch.equal(w.cpu(), theirs[n].cpu()))
    return same / sum(w.numel() for _, w in own)
