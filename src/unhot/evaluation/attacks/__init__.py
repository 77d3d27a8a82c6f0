"""The attacks: each spends compute on a model to bring a forgotten class back, or to notice its absence.

Here stand what each is and measures, and where its class is; its file is imported when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from unhot.records.measure import Decides, Holder, Measure
from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.evaluation.metric import Attack

A = TypeVar("A", bound="type[Attack]")


class Caption(NamedTuple):
    """What there is to see in pictures that an attack makes: a title in plain words, and some sentences."""

    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class AttackEntry(Entry):
    """An attack: a class whose fields are its settings, and whose ``run`` gives estimates of several measures.

    Attributes:
        measures: What the estimates are.
        slow: Whether ``--quick`` leaves the attack out.
        pictures: What there is to see in the pictures that it makes, by their names.
    """

    measures: tuple[Measure, ...] = field(kw_only=True)
    slow: bool = field(default=False, kw_only=True)
    pictures: Mapping[str, Caption] = field(default_factory=dict, kw_only=True)


_HERE = "unhot.evaluation.attacks"
_LEAK = "far from it on either side is a leak"


_FROM = {1: "one image", 5: "five images", 20: "twenty images"}


def _few_shot(prefix: str, what: str, title: str, holder: Holder, spread: float) -> tuple[Measure, ...]:
    return tuple(
        Measure(
            name=f"{prefix}_{count}_shot",
            title=f"{title} from {images}",
            group="Attacks",
            sentence=f"Share of forgotten images recovered from {what} by the strongest of several attacks with "
            f"{images} of the class.",
            low=0,
            high=1,
            higher_is_better=False,
            beside_retrained=True,
            found_in_original=True,
            note="at a bounded loss on the retained classes",
            source="prototypical networks, Snell et al., NeurIPS 2017; on five representations, at a fixed cost here",
            decides=Decides(holder=holder, spread=spread),
        )
        for count, images in _FROM.items()
    )


_ENTRIES = {
    "few-shot-outputs": AttackEntry(
        f"{_HERE}.few_shot:FewShotOutputs",
        "recover the class from the outputs for one, five or twenty of its images, by five attacks",
        measures=_few_shot("output_recovery", "outputs", "Recovery by outputs", "outputs", 0.06),
    ),
    "few-shot": AttackEntry(
        f"{_HERE}.few_shot:FewShot",
        "recover the class from the features of one, five or twenty of its images, by five attacks",
        measures=_few_shot("recovery", "features", "Recovery", "features", 0.04),
    ),
    "few-shot-layers": AttackEntry(
        f"{_HERE}.few_shot:FewShotLayers",
        "the same with the features of earlier layers, too",
        measures=_few_shot("layer_recovery", "any layer", "Recovery by any layer", "weights", 0.04),
    ),
    "trained-probes": AttackEntry(
        f"{_HERE}.trained_probes:TrainedProbes",
        "classifiers fitted to the features of all images of the class",
        slow=True,
        measures=(
            Measure(
                name="recovery_all_images",
                title="Recovery from all images",
                group="Attacks",
                sentence="Share of forgotten images recovered from features by the strongest of four classifiers "
                "fitted to all images of the class.",
                low=0,
                high=1,
                higher_is_better=False,
                beside_retrained=True,
                found_in_original=True,
                note="at a bounded loss on the retained classes",
                source="linear, nearest-neighbour and one-hidden-layer probes; at a fixed cost here",
                decides=Decides(holder="features", spread=0.04),
            ),
        ),
    ),
    "prototype": AttackEntry(
        f"{_HERE}.prototype:Prototype",
        "a new output made of the mean of five images' features",
        measures=(
            Measure(
                name="prototype_attack_accuracy",
                title="Prototype attack",
                group="Attacks",
                sentence="Share of forgotten images recovered by a new output that is made of a few images of the "
                "class.",
                low=0,
                high=1,
                higher_is_better=False,
                beside_retrained=True,
                found_in_original=True,
                note="at a bounded loss on the retained classes",
                source="Spotter, ICML 2026; at a fixed cost here",
            ),
        ),
    ),
    "relearning": AttackEntry(
        f"{_HERE}.relearning:Relearning",
        "fine-tuning on a few images: how fast the class is back",
        slow=True,
        measures=(
            Measure(
                name="relearn_steps",
                title="Steps to relearn",
                group="Attacks",
                sentence="Fine-tuning steps on a few images until the class is recognised nearly as well as by the "
                "original.",
                low=0,
                unit="steps",
                higher_is_better=True,
                beside_retrained=True,
                found_in_original=True,
                note="not reached counts as one evaluation more than were tried; the interval is that over the tries; "
                "without train images one half of the class's test images is learned from, the other half evaluated",
                source="Golatkar et al., ECCV 2020",
            ),
            Measure(
                name="relearn_accuracy",
                title="Accuracy while relearning",
                group="Attacks",
                sentence="Accuracy on forgotten images, averaged over the fine-tuning steps.",
                low=0,
                high=1,
                higher_is_better=False,
                beside_retrained=True,
                found_in_original=True,
                note="the interval is that of a mean over the tries",
                source="area under the relearning curve, after Golatkar et al., ECCV 2020",
                decides=Decides(holder="weights", spread=0.04),
            ),
            Measure(
                name="relearn_ratio",
                title="Relearning ratio",
                group="Attacks",
                sentence="Steps to relearn divided by a retrained model's.",
                low=0,
                unit="ratio",
                higher_is_better=True,
                at_retrained=1,
                found_in_original=True,
                note="below 1 the class comes back faster",
                source="anamnesis index, Chundawat et al., TIFS 2023",
            ),
        ),
    ),
    "membership": AttackEntry(
        f"{_HERE}.membership:Membership",
        "were these images of the class trained on?",
        measures=(
            Measure(
                name="mia_auc",
                title="Membership, modified entropy",
                group="Attacks",
                sentence="How well a score tells forgotten images that were trained on from those that were not: area "
                "under the ROC.",
                low=0,
                high=1,
                at_retrained=0.5,
                found_in_original=True,
                note=_LEAK,
                source="Song, Mittal, USENIX Security 2021, equation 8",
            ),
            Measure(
                name="mia_auc_loss",
                title="Membership, loss",
                group="Attacks",
                sentence="Membership with minus the loss as the score.",
                low=0,
                high=1,
                at_retrained=0.5,
                found_in_original=True,
                note=_LEAK,
                source="Yeom et al., CSF 2018",
            ),
            Measure(
                name="mia_auc_confidence",
                title="Membership, confidence",
                group="Attacks",
                sentence="Membership with the highest probability as the score.",
                low=0,
                high=1,
                at_retrained=0.5,
                found_in_original=True,
                note=_LEAK,
                source="Salem et al., NDSS 2019",
            ),
            Measure(
                name="mia_tpr_at_1pct_fpr",
                title="Members found at 1 % false alarms",
                group="Attacks",
                sentence="Share of the trained-on forgotten images found while at most 1 % of the others are called "
                "members.",
                low=0,
                high=1,
                higher_is_better=False,
                at_retrained=0.01,
                source="Carlini et al., S&P 2022",
            ),
            Measure(
                name="mia_tpr_at_01pct_fpr",
                title="Members found at 0.1 % false alarms",
                group="Attacks",
                sentence="Share of the trained-on forgotten images found while at most 0.1 % of the others are called "
                "members.",
                low=0,
                high=1,
                higher_is_better=False,
                at_retrained=0.001,
                source="Carlini et al., S&P 2022",
            ),
        ),
    ),
    "class-membership": AttackEntry(
        f"{_HERE}.class_membership:ClassMembership",
        "do the outputs tell images of the class from those of its neighbours?",
        measures=(
            Measure(
                name="class_mia_accuracy",
                title="Class membership",
                group="Attacks",
                sentence="How often a classifier of the outputs tells forgotten images from those of the neighbouring "
                "classes.",
                low=0,
                high=1,
                beside_retrained=True,
                note="0.5 is chance",
                source="CMIA, TREW, ICML 2026; with logistic regression here",
            ),
            Measure(
                name="class_mia_gap",
                title="Class membership gap",
                short="class MIA gap",
                group="Attacks",
                sentence="Class membership minus that on a retrained model's outputs.",
                low=-1,
                high=1,
                at_retrained=0,
                note="above 0 the outputs give the class away, below 0 they hide it more than a retrained model's",
                source="CMIA, TREW, ICML 2026",
            ),
        ),
    ),
    "over-unlearning": AttackEntry(
        f"{_HERE}.over_unlearning:OverUnlearning",
        "how far outputs changed for slightly perturbed images of the class",
        slow=True,
        measures=(
            Measure(
                name="over_unlearning",
                title="Over-unlearning",
                group="Attacks",
                sentence="Mean Jensen-Shannon divergence from the original's outputs on slightly perturbed forgotten "
                "images.",
                low=0,
                high=math.log(2),
                unit="nats",
                higher_is_better=False,
                at_original=0,
                note="a retrained model is not at 0",
                source="OU@epsilon, Spotter, ICML 2026; clamped in pixel space here",
            ),
        ),
    ),
    "inversion": AttackEntry(
        f"{_HERE}.inversion:Inversion",
        "do images that are optimised for the class in the model still show it?",
        slow=True,
        measures=(
            Measure(
                name="inversion_recognised",
                title="Inversion",
                group="Attacks",
                sentence="Share of the images drawn from a model's features that the original recognises as the "
                "forgotten class.",
                low=0,
                high=1,
                higher_is_better=False,
                beside_retrained=True,
                note="the original's own value says how far the attack works at all",
                source="Fredrikson et al., CCS 2015; total variation as in Mahendran, Vedaldi, CVPR 2015",
            ),
        ),
        pictures={
            "inversion": Caption(
                "What the models still draw",
                "Images drawn from noise until the model's features point to where the forgotten class lies. What a "
                "model that never saw the class draws is what any model would; more likeness than that is knowledge "
                "that was left.",
            )
        },
    ),
}

catalogue: Registry[type[Attack], AttackEntry] = Registry("attack", _ENTRIES, AttackEntry)


def register(
    name: str, summary: str, *measures: Measure, slow: bool = False, pictures: Mapping[str, Caption] | None = None
) -> Callable[[A], A]:
    """Register the class that is decorated as an attack.

    Args:
        name: The name of the attack.
        summary: What it does, in one line.
        *measures: What it measures.
        slow: Whether ``--quick`` leaves it out.
        pictures: What there is to see in the pictures that it makes, by their names.

    Raises:
        InputError: The name is taken.
    """

    def decorate(attack: A) -> A:
        entry = AttackEntry(attack, summary, measures=measures, slow=slow, pictures=pictures or {})
        catalogue.add(name, entry)
        return attack

    return decorate
