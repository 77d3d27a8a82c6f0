"""The metrics: what each is, and where the function stands that computes it; its files are imported when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from unhot.records.measure import Decides, Measure
from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.evaluation.metric import Compute

C = TypeVar("C", bound="Compute")


@dataclass(frozen=True)
class MetricEntry(Entry):
    """A metric: a function that gives one estimate of a case, or raises ``NotMeasurable``.

    Attributes:
        measure: What the estimate is.
    """

    summary: str = field(init=False, default="")
    measure: Measure = field(kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", self.measure.sentence)


# by the file in which the function of the same name computes it
_MEASURES = {
    "accuracy": (
        Measure(
            name="forget_accuracy",
            title="Forget accuracy",
            group="Output",
            sentence="Share of images of the forgotten classes that the model still assigns to their class.",
            low=0,
            high=1,
            higher_is_better=False,
            at_retrained=0,
            found_in_original=True,
            note="the original with the class masked out of its output gives 0, too",
            splits=("test", "train"),
        ),
        Measure(
            name="worst_forget_accuracy",
            title="Worst forget accuracy",
            group="Output",
            sentence="Forget accuracy of the forgotten class that is recognised most; a mean hides one of several.",
            low=0,
            high=1,
            higher_is_better=False,
            at_retrained=0,
            found_in_original=True,
            note="the interval is that of this class alone",
        ),
        Measure(
            name="retain_accuracy",
            title="Retain accuracy",
            group="Output",
            sentence="Share of images of all other classes that the model assigns to their class.",
            low=0,
            high=1,
            higher_is_better=True,
            splits=("test", "train"),
        ),
        Measure(
            name="retain_drop",
            title="Retain drop",
            group="Output",
            sentence="Retain accuracy of the original minus that of this model on the same images, both as they are "
            "used.",
            low=-1,
            high=1,
            higher_is_better=False,
            at_original=0,
            note="below 0 is a gain",
        ),
        Measure(
            name="retain_drop_masked",
            title="Retain drop, classes masked",
            short="retain drop, masked",
            group="Output",
            sentence="Retain drop with the forgotten outputs left out of both models' answers: what the method itself "
            "costs.",
            low=-1,
            high=1,
            higher_is_better=False,
            at_original=0,
            note="below 0 is a gain",
        ),
        Measure(
            name="worst_class_drop",
            title="Worst class drop",
            group="Output",
            sentence="The drop of the retained class that lost most, forgotten outputs left out; a mean hides harm to "
            "neighbours.",
            low=-1,
            high=1,
            higher_is_better=False,
            at_original=0,
            note="the interval is that of this class alone",
        ),
    ),
    "output": (
        Measure(
            name="calibration_error",
            title="Calibration error",
            group="Output",
            sentence="Confidence against accuracy on images of the retained classes, in 15 equal bins.",
            low=0,
            high=1,
            higher_is_better=False,
            source="Guo et al., ICML 2017, equation 3",
        ),
        Measure(
            name="output_js_to_retrained",
            title="Output divergence from retrained",
            short="JS to retrained",
            group="Output",
            sentence="Mean Jensen-Shannon divergence between this model's and a retrained model's outputs on "
            "forgotten images.",
            low=0,
            high=math.log(2),
            unit="nats",
            higher_is_better=False,
            note="over the retained classes; two retrained models do not give 0 either",
            source="Lin, IEEE Trans. Inf. Theory 1991",
        ),
        Measure(
            name="activation_distance_to_retrained",
            title="Output distance from retrained",
            group="Output",
            sentence="Mean Euclidean distance between this model's and a retrained model's probabilities on forgotten "
            "images.",
            low=0,
            high=math.sqrt(2),
            unit="distance",
            higher_is_better=False,
            note="over the retained classes; two retrained models do not give 0 either",
            source="Golatkar et al., ECCV 2020",
        ),
        Measure(
            name="confusion_distance_to_retrained",
            title="Confusion distance from retrained",
            group="Output",
            sentence="Total variation distance between the classes that this model and a retrained model predict for "
            "forgotten images.",
            low=0,
            high=1,
            higher_is_better=False,
            note="over the retained classes; two retrained models do not give 0 either",
        ),
    ),
    "features": (
        Measure(
            name="probe_accuracy",
            title="Linear probe",
            short="probe",
            group="Features",
            sentence="Share of forgotten images that a linear classifier, newly fitted to the frozen features, "
            "recognises.",
            low=0,
            high=1,
            higher_is_better=False,
            beside_retrained=True,
            found_in_original=True,
            note="above it the class can still be read, below it is suppressed",
            source="linear probe as in ESC, CVPR 2025, and CMF, AISTATS 2026; fitted by L-BFGS here",
            features_only=True,
        ),
        Measure(
            name="knn_accuracy",
            title="Nearest neighbours",
            short="kNN",
            group="Features",
            sentence="Share of forgotten images that the 20 nearest neighbours in feature space, by cosine, recognise.",
            low=0,
            high=1,
            higher_is_better=False,
            beside_retrained=True,
            found_in_original=True,
            features_only=True,
        ),
        Measure(
            name="ncm_accuracy",
            title="Nearest class mean",
            group="Features",
            sentence="Share of forgotten images whose features lie nearest to the mean of their own class.",
            low=0,
            high=1,
            higher_is_better=False,
            beside_retrained=True,
            found_in_original=True,
            features_only=True,
        ),
        Measure(
            name="feature_fisher_ratio",
            title="Fisher ratio",
            group="Features",
            sentence="Squared distance of the forgotten class from its nearest class, over its own spread.",
            low=0,
            unit="ratio",
            higher_is_better=False,
            beside_retrained=True,
            found_in_original=True,
            note="0 is no separation",
            source="Fisher, Annals of Eugenics 1936; nearest class",
            features_only=True,
        ),
        Measure(
            name="feature_silhouette",
            title="Silhouette",
            group="Features",
            sentence="How much nearer forgotten images lie to their own class than to the next one.",
            low=-1,
            high=1,
            unit="silhouette",
            higher_is_better=False,
            beside_retrained=True,
            found_in_original=True,
            note="0 is on the border",
            source="Rousseeuw, J. Comput. Appl. Math. 1987",
            features_only=True,
        ),
        Measure(
            name="feature_cka",
            title="Similarity with the original",
            group="Features",
            sentence="Linear CKA between this model's and the original's features of forgotten images.",
            low=0,
            high=1,
            at_original=1,
            source="Kornblith et al., ICML 2019",
            features_only=True,
        ),
        Measure(
            name="feature_cka_to_retrained",
            title="Similarity with retrained",
            group="Features",
            sentence="Linear CKA between this model's and a retrained model's features of forgotten images.",
            low=0,
            high=1,
            higher_is_better=True,
            note="two retrained models do not give 1 either",
            source="Kornblith et al., ICML 2019",
            features_only=True,
        ),
    ),
    "similarity": (
        Measure(
            name="original_outputs_r2",
            title="Original's outputs predicted",
            group="Output",
            sentence="Share of the variance of the original's outputs for forgotten images that ridge regression "
            "predicts from this model's outputs.",
            low=0,
            high=1,
            higher_is_better=False,
            beside_retrained=True,
            found_in_original=True,
            note="the masked original gives 1 where there are enough images",
            source="coefficient of determination, standard definition",
            decides=Decides(holder="outputs", similarity=True),
        ),
        Measure(
            name="original_features_r2",
            title="Original's features predicted",
            group="Features",
            sentence="Share of the variance of the original's features of forgotten images that ridge regression "
            "predicts from this model's features.",
            low=0,
            high=1,
            higher_is_better=False,
            beside_retrained=True,
            found_in_original=True,
            note="the masked original gives 1 where there are enough images",
            source="coefficient of determination, standard definition",
            decides=Decides(holder="features", similarity=True),
            features_only=True,
        ),
        Measure(
            name="original_layers_r2",
            title="Original's features predicted from any layer",
            group="Features",
            sentence="Share of the variance of the original's features of forgotten images that ridge regression "
            "predicts from the best of this model's layers.",
            low=0,
            high=1,
            higher_is_better=False,
            beside_retrained=True,
            found_in_original=True,
            note="the masked original gives 1 where there are enough images",
            source="coefficient of determination, standard definition",
            decides=Decides(holder="weights", similarity=True),
            features_only=True,
        ),
    ),
}
_ENTRIES = {
    m.name: MetricEntry(f"unhot.evaluation.metrics.{file}:{m.name}", measure=m)
    for file, found in _MEASURES.items()
    for m in found
}

catalogue: Registry[Compute, MetricEntry] = Registry("metric", _ENTRIES, MetricEntry)


def register(measure: Measure) -> Callable[[C], C]:
    """Register the function that is decorated as a metric.

    Raises:
        InputError: The name is taken.
    """

    def decorate(compute: C) -> C:
        catalogue.add(measure.name, MetricEntry(compute, measure=measure))
        return compute

    return decorate
