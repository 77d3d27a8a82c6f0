"""What each measure, threshold and verdict means, in words: one table for the page, the summary and the model card.

The measures themselves live in :mod:`unhot.evaluation`, which imports torch; a test holds the two together.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from unhot.records.audit import Subject, VerdictLabel

Group = Literal["Output", "Features", "Attacks"]

GROUPS: dict[Group, str] = {
    "Output": "What the models answer, as they are used.",
    "Features": "What can still be read from the layer before the output. A model that never saw a class separates it "
    "to some degree, too: read every value beside the retrained model's.",
    "Attacks": "What somebody who holds the model can do to bring the class back, or to notice that it is missing.",
}


class MeasureText(NamedTuple):
    """A measure in words.

    Attributes:
        group: Where it stands on the page.
        title: Its name in plain words.
        compares: One sentence on what is compared with what.
        reading: Its range, and how to read it.
        source: Where the definition is from.
    """

    group: Group
    title: str
    compares: str
    reading: str
    source: str = "standard definition"


MEASURES: dict[str, MeasureText] = {
    "forget_accuracy": MeasureText(
        "Output",
        "Forget accuracy",
        "Share of images of the forgotten classes that the model still assigns to their class.",
        "0 to 1; a retrained model gives 0, and so does the original with the class masked out of its output",
    ),
    "retain_accuracy": MeasureText(
        "Output",
        "Retain accuracy",
        "Share of images of all other classes that the model assigns to their class.",
        "0 to 1",
    ),
    "retain_drop": MeasureText(
        "Output",
        "Retain drop",
        "Retain accuracy of the original minus that of this model on the same images, both as they are used.",
        "-1 to 1; 0 is no loss, below 0 a gain",
    ),
    "retain_drop_masked": MeasureText(
        "Output",
        "Retain drop, classes masked",
        "The same with the forgotten outputs left out of both models' answers: what the method itself costs.",
        "-1 to 1; 0 is no loss, below 0 a gain",
    ),
    "worst_class_drop": MeasureText(
        "Output",
        "Worst class drop",
        "The drop of the retained class that lost most, forgotten outputs left out; a mean hides harm to neighbours.",
        "-1 to 1; the interval is that of this class alone",
    ),
    "calibration_error": MeasureText(
        "Output",
        "Calibration error",
        "Confidence against accuracy on images of the retained classes, in 15 equal bins.",
        "0 to 1",
        "Guo et al., ICML 2017, equation 3",
    ),
    "output_js_to_retrained": MeasureText(
        "Output",
        "Output divergence from retrained",
        "Mean Jensen-Shannon divergence between this model's and a retrained model's outputs on forgotten images.",
        "0 to 0.693 (ln 2) nats, over the retained classes; two retrained models do not give 0 either",
        "Lin, IEEE Trans. Inf. Theory 1991",
    ),
    "activation_distance_to_retrained": MeasureText(
        "Output",
        "Output distance from retrained",
        "Mean Euclidean distance between this model's and a retrained model's probabilities on forgotten images.",
        "0 to 1.414, over the retained classes",
        "Golatkar et al., ECCV 2020",
    ),
    "confusion_distance_to_retrained": MeasureText(
        "Output",
        "Confusion distance from retrained",
        "Total variation between where this model and a retrained model put forgotten images.",
        "0 to 1, over the retained classes",
    ),
    "probe_accuracy": MeasureText(
        "Features",
        "Linear probe",
        "Share of forgotten images that a linear classifier, newly fitted to the frozen features, recognises.",
        "0 to 1; above the retrained model's value the class can still be read, below it is suppressed",
        "linear probe as in ESC, CVPR 2025, and CMF, AISTATS 2026; fitted by L-BFGS here",
    ),
    "knn_accuracy": MeasureText(
        "Features",
        "Nearest neighbours",
        "Share of forgotten images that the 20 nearest neighbours in feature space, by cosine, recognise.",
        "0 to 1; read beside the retrained model's",
    ),
    "ncm_accuracy": MeasureText(
        "Features",
        "Nearest class mean",
        "Share of forgotten images whose features lie nearest to the mean of their own class.",
        "0 to 1; read beside the retrained model's",
    ),
    "feature_fisher_ratio": MeasureText(
        "Features",
        "Fisher ratio",
        "Squared distance of the forgotten class from its nearest class, over its own spread.",
        "0 upwards; 0 is no separation",
        "Fisher, Annals of Eugenics 1936; nearest class",
    ),
    "feature_silhouette": MeasureText(
        "Features",
        "Silhouette",
        "How much nearer forgotten images lie to their own class than to the next one.",
        "-1 to 1; 0 is on the border",
        "Rousseeuw, J. Comput. Appl. Math. 1987",
    ),
    "feature_cka": MeasureText(
        "Features",
        "Similarity with the original",
        "Linear CKA between this model's and the original's features of forgotten images.",
        "0 to 1; 1 is unchanged",
        "Kornblith et al., ICML 2019",
    ),
    "feature_cka_to_retrained": MeasureText(
        "Features",
        "Similarity with retrained",
        "Linear CKA between this model's and a retrained model's features of forgotten images.",
        "0 to 1; two retrained models do not give 1 either",
        "Kornblith et al., ICML 2019",
    ),
    "prototype_attack_accuracy": MeasureText(
        "Attacks",
        "Prototype attack",
        "Share of forgotten images recovered by a new output that is made of a few images of the class.",
        "0 to 1, at a bounded loss on the retained classes; read beside the retrained model's",
        "Spotter, ICML 2026; at a fixed cost here",
    ),
    "relearn_steps": MeasureText(
        "Attacks",
        "Steps to relearn",
        "Fine-tuning steps on a few images until the class is recognised nearly as well as by the original.",
        "0 upwards; not reached counts as one evaluation more than were tried; the range is that over the tries; "
        "without train images one half of the class's test images is learned from, the other half asked about",
        "Golatkar et al., ECCV 2020",
    ),
    "relearn_ratio": MeasureText(
        "Attacks",
        "Relearning ratio",
        "Steps to relearn divided by a retrained model's.",
        "0 upwards; below 1 the class comes back faster than into a model that never saw it",
        "anamnesis index, Chundawat et al., TIFS 2023",
    ),
    "mia_auc": MeasureText(
        "Attacks",
        "Membership, modified entropy",
        "How well a score tells forgotten images that were trained on from those that were not: area under the ROC.",
        "0 to 1; 0.5 is chance, far from it on either side is a leak",
        "Song, Mittal, USENIX Security 2021, equation 8",
    ),
    "mia_auc_loss": MeasureText(
        "Attacks",
        "Membership, loss",
        "The same with minus the loss as the score.",
        "0 to 1; 0.5 is chance, far from it on either side is a leak",
        "Yeom et al., CSF 2018",
    ),
    "mia_auc_confidence": MeasureText(
        "Attacks",
        "Membership, confidence",
        "The same with the highest probability as the score.",
        "0 to 1; 0.5 is chance, far from it on either side is a leak",
        "Salem et al., NDSS 2019",
    ),
    "mia_tpr_at_1pct_fpr": MeasureText(
        "Attacks",
        "Members found at 1 % false alarms",
        "Share of the trained-on forgotten images found while at most 1 % of the others are called members.",
        "0 to 1; 0.01 is chance",
        "Carlini et al., S&P 2022",
    ),
    "mia_tpr_at_01pct_fpr": MeasureText(
        "Attacks",
        "Members found at 0.1 % false alarms",
        "Share of the trained-on forgotten images found while at most 0.1 % of the others are called members.",
        "0 to 1; 0.001 is chance",
        "Carlini et al., S&P 2022",
    ),
    "class_mia_accuracy": MeasureText(
        "Attacks",
        "Class membership",
        "How often a classifier of the outputs tells forgotten images from those of the neighbouring classes.",
        "0 to 1; 0.5 is chance; read beside the retrained model's",
        "CMIA, TREW, ICML 2026; with logistic regression here",
    ),
    "class_mia_gap": MeasureText(
        "Attacks",
        "Class membership gap",
        "Class membership minus that on a retrained model's outputs.",
        "-1 to 1; above 0 the outputs give the class away, below 0 they hide it more than a retrained model's",
        "CMIA, TREW, ICML 2026",
    ),
    "over_unlearning": MeasureText(
        "Attacks",
        "Over-unlearning",
        "Mean Jensen-Shannon divergence from the original's outputs on images just beside forgotten ones.",
        "0 to 0.693 (ln 2) nats; 0 is the original, a retrained model is not at 0",
        "OU@epsilon, Spotter, ICML 2026; clamped in pixel space here",
    ),
    "inversion_recognised": MeasureText(
        "Attacks",
        "Inversion",
        "Share of the images drawn from a model's features that the original recognises as the forgotten class.",
        "0 to 1; the original's own value says how far the attack works at all",
        "Fredrikson et al., CCS 2015; total variation as in Mahendran, Vedaldi, CVPR 2015",
    ),
}

THRESHOLDS: dict[str, str] = {
    "forgotten": "Forget accuracy up to this above a retrained model's counts as forgotten.",
    "damage": "Retain drop (classes masked) above this counts as damage.",
    "unchanged": "Features with a similarity (CKA) above this with the original's count as unchanged.",
    "closed_least": "Below this share of the gap closed, the class is hidden at the output only.",
    "closed_level": "From this share on, the model is at the level of a retrained one, if no measure is further apart.",
    "few_images": "With fewer forgotten test images, measures are noisy: closed_level_few and apart_few decide.",
    "closed_level_few": "Stands in for closed_level on few forgotten test images.",
    "closed_beyond": "Above this share, the model is beyond a retrained one.",
    "apart": "Linear probe and nearest neighbours may find no more than this above the retrained model's value.",
    "apart_few": "Stands in for apart on few forgotten test images.",
    "small_gap": "Where masked and retrained differ by less in sum, the tolerance decides instead of the share.",
    "tolerance": "Recovery within this of the retrained model's, in sum, counts as the same.",
}

VERDICTS: dict[VerdictLabel, str] = {
    "not forgotten": "The model still assigns images of the forgotten classes to their class.",
    "model damaged": "The class may be gone, but the model lost too much of what it was meant to keep.",
    "hidden at the output only": "The model no longer names the class, but nearly everything that it knew about it can "
    "still be read from its features.",
    "short of a retrained model": "Part of what the features told about the class is gone; more of it is left than in "
    "a model that never saw the class.",
    "at the level of a retrained model": "What can be read or brought back of the class is what a model that never saw "
    "it gives away, too.",
    "beyond a retrained model": "Less of the class can be read or brought back than from a model that never saw it. "
    "That is not better by itself: what is missing can be noticed.",
    "not decided without a retrained model": "The output no longer names the class. Whether the features still hold it "
    "cannot be said without a model that never saw it.",
}

SUBJECTS: dict[Subject, str] = {
    "original": "the model before",
    "masked": "the original with the forgotten classes cut out of its output and nothing else changed",
    "unlearned": "the model after; the one that this page is about",
    "retrained": "trained without the forgotten classes from the start",
}

USES: dict[str, str] = {  # what a method may read, by the name that it has there
    "forget": "the samples",
    "retain": "images of other classes",
    "guard": "stored statistics",
}

WITHOUT_RETRAINED = (
    "No retrained model was given. With one (trained without the forgotten classes, given as --retrained) this page "
    "could say whether the features hold more of the class than those of a model that never saw it, whether the "
    "class comes back faster than it would be learned anew, and whether the outputs give away that it is missing; "
    "the verdict could then be short of, at the level of, or beyond a retrained model. With two or more, it "
    "could also say how far retrained models differ from one another."
)

LIMITS: tuple[str, ...] = (
    "It is no formal guarantee. Nothing here bounds what an unlimited attacker could learn; measures can only show "
    "that something is left, never that nothing is.",
    "The attacks are those listed, with the settings listed. A stronger or better informed attacker, one with more "
    "images of the class, more steps, or both models side by side, may find more.",
    "Everything was measured on the images named above. Other images of the same classes, other lighting, other "
    "sources may give other values; the intervals cover the draw of these images, not a change of source.",
    "Forgetting a class is not forgetting single images: what the model keeps of one image is asked only by the "
    "membership measures, and only of forgotten images together.",
    "The original model, its copies, its backups and its training data are outside of this audit.",
)
