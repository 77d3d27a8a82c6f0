"""What models are and what an audit does not say, in words, for the page, the summary and the model card."""

from __future__ import annotations

from unhot.records.audit import Subject
from unhot.records.measure import Group

GROUPS: dict[Group, str] = {
    "Output": "What the models answer, as they are used.",
    "Features": "What can still be read from the layer before the output. A model that never saw a class separates it "
    "to some degree, too: read every value beside the retrained model's.",
    "Attacks": "What somebody who holds the model can do to bring the class back, or to notice that it is missing.",
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
    "could say whether the outputs, the features and the weights give away more of the class than those of a model "
    "that never saw it, and whether the class comes back faster than it would be learned anew; the verdict could then "
    "be short of, at the level of, or beyond a retrained model. With two or more, it could also say how far retrained "
    "models differ from one another. Without one the verdict can only say that the class was not forgotten, that the "
    "model was damaged, or that what the original held of the class is still there."
)

LIMITS: tuple[str, ...] = (
    "It is no formal guarantee. Nothing here bounds what an unlimited attacker could learn; measures can only show "
    "that something is left, never that nothing is.",
    "The attacks are those listed, with the settings listed. A stronger or better informed attacker, one with more "
    "images of the class, more steps, or both models side by side, may find more. A model can hold the "
    "class in a form that these attacks miss, and from which somebody who knows it recovers the class.",
    "Each holder is judged by what is listed for it: of outputs by recovery from their probabilities, of features by "
    "recovery from the layer before the output, of weights by that, the layers that were kept and relearning.",
    "Everything was measured on the images named above. Other images of the same classes, other lighting, other "
    "sources may give other values; the intervals cover the draw of these images, not a change of source.",
    "Forgetting a class is not forgetting single images: what the model keeps of one image is asked only by the "
    "membership measures, and only of forgotten images together.",
    "The original model, its copies, its backups and its training data are outside of this audit.",
)
