"""The labels of a verdict, and the codes of what it states."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

VerdictLabel = Literal[
    "not forgotten",
    "model damaged",
    "hidden at the output only",
    "short of a retrained model",
    "at the level of a retrained model",
    "beyond a retrained model",
    "undecided",
]
RENAMED = {  # labels of older files
    "not decided without a retrained model": "undecided",
    "undecided (no retrained model)": "undecided",
}
StoredLabel = Annotated[VerdictLabel, BeforeValidator(lambda v: RENAMED.get(v, v) if isinstance(v, str) else v)]

# codes of reasons and flags of a verdict; the sentences are in report/sentences.py
ReasonCode = Literal[
    "damaged",
    "still_recognised",
    "unchanged",
    "measured",
    "nearly_all_left",
    "more_left",
    "as_much_left",
    "less_left",
    "not_told_apart",
    "no_retrained_model",
    "nothing_measured",
    "unused_weights",
    "unseen_weights",
    "original_inside",
    # of files that knew no holders
    "features_unchanged",
    "nothing_to_read",
    "nearly_all_readable",
    "small_gap",
    "gap_closed",
    "apart",
]
FlagCode = Literal[
    "class_given_away",
    "class_hidden",
    "members_below_chance",
    "members_above_chance",
    "earlier_classes_left_out",
    "test_images_in_train",
    "other_weights",
    "other_original",
    "near_chance",
    "reference_accuracy",
    "reference_architecture",
    "reference_partial",
    "reference_unfit",
    "reference_alike",
    "hard_class",
    "below_retrained",  # of files that knew no holders
]
