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
        "mu-mis": Entry("unhot.methods.mu_mis:MuMis", "input gradients: of the class down, of the others up"),
        "pour-p": Entry("unhot.methods.pour:PourP", "project the features away from the class, in closed form"),
        "pour-d": Entry("unhot.methods.pour:PourD", "distil those projected features into the net"),
        "spotter": Entry("unhot.methods.spotter:Spotter", "masked teacher on and beside the samples; scatter features"),
        "svd": Entry("unhot.methods.svd:Svd", "project layers away from directions of the class alone"),
        "ssd": Entry("unhot.methods.ssd:Ssd", "dampen the weights that matter most to the class"),
        "lfssd": Entry("unhot.methods.ssd:Lfssd", "dampening that needs no labels and no loss"),
        "tarf": Entry("unhot.methods.tarf:Tarf", "fading ascent on the class, descent on the unaffected"),
        "wf-net": Entry("unhot.methods.wf_net:WfNet", "learn gates on filters that hide the class; bake them in"),
        "retrain": Entry("unhot.methods.retrain:Retrain", "train from scratch without the class: the reference"),
        "finetune": Entry("unhot.methods.finetune:Finetune", "go on training, without the class"),
        "neggrad+": Entry("unhot.methods.neggrad_plus:NegGradPlus", "ascent on the class, descent on the rest at once"),
        "scrub": Entry("unhot.methods.scrub:Scrub", "a student that disobeys its teacher on the class alone"),
        "salun": Entry("unhot.methods.salun:SalUn", "random labels for the class, by the weights salient for it"),
        "ugradsl": Entry("unhot.methods.ugradsl:Ugradsl", "ascent under negatively smoothed labels until forgotten"),
        "ugradsl+": Entry("unhot.methods.ugradsl:UgradslPlus", "fine-tuning, with such an ascent in every step"),
    },
)
get = catalogue.get
register = catalogue.register
