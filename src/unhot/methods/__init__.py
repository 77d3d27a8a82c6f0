"""The unlearning methods, one file each: ``unhot.methods.get(name)`` gives the class of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.methods.base import Method

DEFAULT = "nhle-cwm"

catalogue: Registry[type[Method]] = Registry(
    "method",
    {
        "nhle-cwm": Entry("unhot.methods.nhle_cwm:NhleCwm", "negative-hot label encoding, then class weight masking"),
        "mask": Entry("unhot.methods.mask:Mask", "class weight masking only: the features are left as they are"),
    },
)
get = catalogue.get
register = catalogue.register
