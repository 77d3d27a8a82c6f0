"""What is measured of a model that was made to forget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.evaluation.metric import Metric

_ACCURACY = "unhot.evaluation.metrics.accuracy"
_FEATURES = "unhot.evaluation.metrics.features"
_OUTPUT = "unhot.evaluation.metrics.output"

catalogue: Registry[Metric] = Registry(
    "metric",
    {
        "forget_accuracy": Entry(f"{_ACCURACY}:FORGET_ACCURACY", "accuracy on images of the forgotten classes"),
        "retain_accuracy": Entry(f"{_ACCURACY}:RETAIN_ACCURACY", "accuracy on images of all other classes"),
        "retain_drop": Entry(f"{_ACCURACY}:RETAIN_DROP", "retain accuracy of the original minus the model's"),
        "retain_drop_masked": Entry(
            f"{_ACCURACY}:RETAIN_DROP_MASKED", "the same with the forgotten logits left out of both argmaxes"
        ),
        "worst_class_drop": Entry(
            f"{_ACCURACY}:WORST_CLASS_DROP", "largest drop of any retained class, forgotten logits left out"
        ),
        "calibration_error": Entry(f"{_OUTPUT}:CALIBRATION_ERROR", "confidence against accuracy on retained images"),
        "output_js_to_retrained": Entry(
            f"{_OUTPUT}:OUTPUT_JS_TO_RETRAINED", "divergence of outputs on forgotten images from a retrained model's"
        ),
        "activation_distance_to_retrained": Entry(
            f"{_OUTPUT}:ACTIVATION_DISTANCE_TO_RETRAINED", "the same as a Euclidean distance of probabilities"
        ),
        "confusion_distance_to_retrained": Entry(
            f"{_OUTPUT}:CONFUSION_DISTANCE_TO_RETRAINED", "the same of where forgotten images are put"
        ),
        "probe_accuracy": Entry(f"{_FEATURES}:PROBE_ACCURACY", "the forgotten classes read by a linear probe"),
        "knn_accuracy": Entry(f"{_FEATURES}:KNN_ACCURACY", "the forgotten classes read by 20 nearest neighbours"),
        "ncm_accuracy": Entry(f"{_FEATURES}:NCM_ACCURACY", "the forgotten classes read by nearest class mean"),
        "feature_fisher_ratio": Entry(
            f"{_FEATURES}:FEATURE_FISHER_RATIO", "distance of the class from its nearest one over its spread"
        ),
        "feature_silhouette": Entry(f"{_FEATURES}:FEATURE_SILHOUETTE", "how well the class stands apart, -1 to 1"),
        "feature_cka": Entry(
            f"{_FEATURES}:FEATURE_CKA", "similarity of forgotten images' features with the original's"
        ),
        "feature_cka_to_retrained": Entry(f"{_FEATURES}:FEATURE_CKA_TO_RETRAINED", "the same with a retrained model's"),
    },
)
