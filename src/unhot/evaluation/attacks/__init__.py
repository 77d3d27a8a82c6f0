"""One attack a file: each spends compute on a model to bring a forgotten class back, or to notice its absence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.evaluation.metric import Attack

_HERE = "unhot.evaluation.attacks"

catalogue: Registry[type[Attack]] = Registry(
    "attack",
    {
        "prototype": Entry(f"{_HERE}.prototype:Prototype", "a new output made of the mean of five images' features"),
        "relearning": Entry(
            f"{_HERE}.relearning:Relearning", "fine-tuning on a few images: how fast the class is back"
        ),
        "membership": Entry(f"{_HERE}.membership:Membership", "were these images of the class trained on?"),
        "class-membership": Entry(
            f"{_HERE}.class_membership:ClassMembership", "do outputs tell the class from its neighbours?"
        ),
        "over-unlearning": Entry(
            f"{_HERE}.over_unlearning:OverUnlearning", "how far outputs changed just beside images of the class"
        ),
        "inversion": Entry(f"{_HERE}.inversion:Inversion", "what the model still draws for the class"),
    },
)
