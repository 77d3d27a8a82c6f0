"""What a verdict states, in words: one sentence for each reason and flag."""

from __future__ import annotations

from collections.abc import Sequence

from unhot.errors import InputError, shortened
from unhot.records.audit import (
    AuditRecord,
    Conclusion,
    FlagCode,
    MeasurementKey,
    Reason,
    ReasonCode,
    Statement,
    Subject,
    Verdict,
)
from unhot.records.measure import Holder
from unhot.report.tables import declared, interval, number

# {0} and {1} are measurements with their values, {names} the names of all; then come numbers of the statement or, in
# flags, of the inputs of the audit
SENTENCES: dict[ReasonCode | FlagCode, str] = {
    "damaged": "{0}: more than {limit:g} of the retained accuracy is lost.",
    "still_recognised": "{0}: more than {limit:.3g}.",
    "unchanged": "{0}: nearly as high as that of the masked original. What the original held of the class is still "
    "there, and regression finds it.",
    "measured": "{values}.",
    "nearly_all_left": "{names}: less than {closed:.0%} of the gap between the masked original and a retrained model "
    "is closed.",
    "more_left": "{names}: more is recovered than from a retrained model, by more than the draw of images and seeds "
    "explains.",
    "as_much_left": "{names}: as much is recovered as from a retrained model, within what the draw of images and seeds "
    "explains.",
    "less_left": "{names}: less is recovered than from a retrained model, by more than the draw of images and seeds "
    "explains.",
    "not_told_apart": "No recovery tells the masked original from a retrained model here. Only the similarity "
    "with the original could decide.",
    "no_retrained_model": "A model trained without the class is needed to say more.",
    "nothing_measured": "Nothing that decides could be measured: there are too few images of the class.",
    "unused_weights": "{count:,.0f} of the model's parameters are unused: they have no effect on its outputs. What "
    "they hold cannot be measured. Remove them, and audit again.",
    "unseen_weights": "{count:,.0f} of the model's weights, as many as {share:.0%} of the original's, are used inside "
    "a module that is not a layer of torch.nn. What it computes on the way cannot be recorded. Save the model as a "
    "bundle, whose steps can be recorded, and audit that.",
    "original_inside": "The model has {extra:,.0f} weights more than the original, and {share:.0%} of the original's "
    "are among its own. Whether they take effect on images other than these cannot be measured.",
    "features_unchanged": "{0}, but {1}: the features of the forgotten classes are those of the original.",
    "nothing_to_read": "Something to read in the features is needed to say more.",
    "nearly_all_readable": "Nearly all that the features told before can still be read.",
    "small_gap": "A retrained model's features tell nearly as much as the original's (they differ by {gap:.3f}).",
    "gap_closed": "Of the gap between the masked original and a retrained model {share:.0%} is closed.",
    "apart": "{names} {are} more than {limit:g} above a retrained model's.",
    "below_retrained": "{names} is below the retrained model's: suppressed beyond it, which is not better by itself.",
    "class_given_away": "The outputs give the class away more than a retrained model's do ({0}).",
    "class_hidden": "The outputs tell the class from its neighbours less than a retrained model's do ({0}).",
    "members_below_chance": "{0} is below chance: images that were trained on stand out, which is a leak too.",
    "members_above_chance": "{0} is above chance: images that were trained on can be told from others.",
    "earlier_classes_left_out": "{left_out} of {earlier}, which an earlier request made the model forget, are left "
    "out.",
    "test_images_in_train": "{in_train:,} of the {tested:,} test images are train images too: the models have seen "
    "them, and what is measured on them says little about other images.",
    "other_weights": "The record that came with the unlearned model is of other weights (its SHA-256 differs): how the "
    "model was made, and what that took, is not known.",
    "other_original": "By its record the unlearned model was made from another model than the original given here: "
    "comparisons with the original then mean nothing.",
    "near_chance": "The original model classifies {accuracy:.3f} of the retained test images correctly; guessing would "
    "give {chance:.3f}. Check the preprocessing (size, mean, standard deviation) and the order of the classes: "
    "what is measured here says little if they are not those of the training.",
    "reference_accuracy": "The accuracy of a retrained model on the retained classes differs from the original's by "
    "more than {limit:g} ({values}). It may not be what the original would be without the class, and then the verdict "
    "says little.",
    "reference_unfit": "A retrained model is none: it was trained on the class, is the original with its weights "
    "changed, or knows nothing of the other classes. The verdict does not depend on it, since the unlearned model "
    "itself still recognises the class; the values of the retrained models mean nothing.",
    "reference_partial": "A retrained model shares {share:.0%} of its weights with the original: it is a partial "
    "reference, with a fresh last stage. Such a model gives away about as much as a retrained one, or a little more, "
    "so a model that is at its level may be short of a retrained one.",
    "reference_alike": "The weights of a retrained model are like the original's (correlation {correlation:.2f}). Both "
    "may have been trained from the same weights; but if it is the original with its weights changed, the verdict is "
    "worth nothing.",
    "hard_class": "The original itself classifies fewer than half of the test images of the class as it ({0}). There "
    "is little to forget, or the images are not like those that it was trained on.",
    "reference_architecture": "A retrained model has another architecture than the original. Such models differ in "
    "what they give away even of classes that they never saw, so the verdict says less.",
}

# what the values of a measure say that decided for a holder, in short
SAYS: dict[ReasonCode, str] = {
    "unchanged": "nearly as high as that of the masked original",
    "nearly_all_left": "less than {closed:.0%} of the gap between masked and retrained is closed",
    "more_left": "more than a retrained model gives away",
    "as_much_left": "as much as a retrained model gives away, within what the draw of images and seeds explains",
    "less_left": "less than a retrained model gives away",
    "no_retrained_model": "a model trained without the class is needed to say whether that is more than it should be",
}
# what "hidden at the output only" means to whoever holds nothing but the outputs
MERELY_MASKED = "The class is merely masked: the probabilities of the other classes still give it away."
DOUBTS: tuple[ReasonCode, ...] = ("unused_weights", "unseen_weights", "original_inside")
GAP_CLOSED = "at least {closed:.0%} of the gap between masked and retrained is closed"  # said of a similarity
BESIDE: tuple[Subject, ...] = ("unlearned", "masked", "retrained")


def sentence(statement: Statement | str, record: AuditRecord) -> str:
    """Put a reason or a flag of a verdict into words; measures are called by their titles.

    Args:
        statement: A sentence, as older files have them, is returned as it is.
        record: The audit.

    Raises:
        InputError: The statement lacks what it is about.
    """
    if isinstance(statement, str):
        return statement
    values = [_value(record, key) for key in statement.measurements]
    names = list(dict.fromkeys(_title(record, key) for key in statement.measurements))
    inputs = record.inputs
    known = {
        "values": "; ".join(values),
        "names": " and ".join(names),
        "are": "is" if len(names) == 1 else "are",
        "left_out": " and ".join(f"{n:,} {split} images" for split, n in inputs.left_out.items()),
        "earlier": shortened(c.name for c in inputs.forgotten_before),
        "in_train": inputs.test_in_train,
        "tested": inputs.images.get("test", 0),
    }
    text = f"{{names}}: {GAP_CLOSED}." if _of_similarity(statement, record) else SENTENCES[statement.code]
    try:
        return text.format(*values, **known | statement.numbers)
    except LookupError as error:
        raise InputError(
            f"The audit says {statement.code!r} without all that it is about. It was changed since."
        ) from error


def sentences(record: AuditRecord) -> list[str]:
    """Return the reasons and the flags of an audit's verdict in words."""
    return [sentence(s, record) for s in (*record.verdict.because, *record.verdict.flags)]


def decided(holder: Holder, found: Conclusion, record: AuditRecord) -> str:
    """Say what decided for a holder, and what the label means where its words do not say that.

    Raises:
        InputError: A reason lacks what it is about.
    """
    said = _decided(found.because, record)
    masked = holder == "outputs" and found.label == "hidden at the output only"
    return f"{said} {MERELY_MASKED}" if said and masked else said


def _decided(reasons: Sequence[Reason], record: AuditRecord) -> str:
    """Say in one sentence what decided, with the values of the models where they were compared.

    Raises:
        InputError: A reason lacks what it is about.
    """
    if not reasons:
        return ""
    deciding = next((r for r in reasons if r.code in (*DOUBTS, *SAYS)), reasons[0])
    if deciding.code not in SAYS or not deciding.measurements:
        return sentence(deciding, record)
    key, *others = deciding.measurements
    found = [(s, record.find(key.name, s, key.split)) for s in BESIDE]
    values = ", ".join(f"{s} {number(m.value, m.unit)}" for s, m in found if m is not None and m.value is not None)
    closed = deciding.numbers.get("closed", record.verdict.thresholds.get("closed", 0.0))
    also = f", and likewise {shortened((_title(record, k) for k in others), 3)}" if others else ""
    says = GAP_CLOSED if _of_similarity(deciding, record) else SAYS[deciding.code]
    return f"{_title(record, key)}: {values}; {says.format(closed=closed)}{also}."


def headline(verdict: Verdict) -> str:
    """Return what a verdict's label is the answer to; files that knew no holders do not say."""
    return f"Verdict for whoever holds the {verdict.holder}" if verdict.holders else "Verdict"


def conclusions(record: AuditRecord) -> list[str]:
    """Say what each holder can recover, and what decided it; of a record without holders, the reasons."""
    verdict = record.verdict
    if not verdict.holders:
        return [sentence(reason, record) for reason in verdict.because]
    return [f"Whoever holds the {h}: {c.label}. {decided(h, c, record)}" for h, c in verdict.holders.items()]


def _of_similarity(statement: Statement, record: AuditRecord) -> bool:
    """Whether it says of a similarity that much of the gap is closed; models as unlike the original differ widely."""
    found = [declared(record).get(key.name) for key in statement.measurements]
    similar = [m is not None and m.decides is not None and m.decides.similarity for m in found]
    return statement.code == "as_much_left" and any(similar)


def _title(record: AuditRecord, key: MeasurementKey) -> str:
    measure = declared(record).get(key.name)
    return key.name if measure is None else measure.title


def _value(record: AuditRecord, key: MeasurementKey) -> str:
    found = record.find(key.name, key.subject, key.split)
    where = f"{_title(record, key)} ({key.subject})"
    if found is None or found.value is None:
        return f"{where} absent"
    return f"{where} {number(found.value, found.unit)} {interval(found)}"
