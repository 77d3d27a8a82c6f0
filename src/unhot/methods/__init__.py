"""The unlearning methods, one file each: ``unhot.methods.get(name)`` gives the class of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.methods.base import Method

DEFAULT, GUARDED = "nhle-cwm", "nhle-guard"
REFERENCES = {"mask": "masked", "retrain": "retrained"}  # what they make is a subject of every audit, not a rival

catalogue: Registry[type[Method], Entry] = Registry(
    "method",
    {
        "nhle-cwm": Entry(
            "unhot.methods.nhle_cwm:NhleCwm",
            "negative-hot label encoding, then class weight masking",
            "Sci. Reports 2026",
            reads="forget",
        ),
        "nhle-guard": Entry(
            "unhot.methods.nhle_guard:NhleGuard",
            "features made those of the retained classes, by stored statistics or none",
            reads="forget, guard if given",
        ),
        "mask": Entry(
            "unhot.methods.mask:Mask",
            "class weight masking only: the features are left as they are",
            "KAIS 2025",
            reads="nothing",
        ),
        "neggrad": Entry(
            "unhot.methods.neggrad:NegGrad",
            "gradient ascent on the samples, until forgotten",
            "CVPR 2020",
            reads="forget",
        ),
        "random-label": Entry(
            "unhot.methods.random_label:RandomLabel",
            "teach the samples random other classes",
            "AAAI 2021",
            reads="forget",
        ),
        "boundary-shrink": Entry(
            "unhot.methods.boundary_shrink:BoundaryShrink",
            "give the samples to the class across the nearest boundary",
            "CVPR 2023",
            reads="forget",
        ),
        "jit": Entry(
            "unhot.methods.jit:Jit",
            "make the output on the samples smooth, until forgotten",
            "TMLR 2025",
            reads="forget",
        ),
        "delete": Entry(
            "unhot.methods.delete:Delete", "distil the original with the class masked", "CVPR 2025", reads="forget"
        ),
        "scrub-and-learn": Entry(
            "unhot.methods.scrub_and_learn:ScrubAndLearn",
            "teach the samples the second likeliest class",
            "AI (MDPI) 2025",
            reads="forget",
        ),
        "forsaken": Entry(
            "unhot.methods.forsaken:Forsaken",
            "sparse masks that make the samples look unknown",
            "IEEE TDSC 2023",
            reads="forget",
        ),
        "mu-mis": Entry(
            "unhot.methods.mu_mis:MuMis",
            "input gradients: of the class down, of the others up",
            "ICLR 2026",
            reads="forget",
        ),
        "pour-p": Entry(
            "unhot.methods.pour:PourP",
            "project the features away from the class, in closed form",
            "CVPR 2026",
            reads="nothing",
        ),
        "pour-d": Entry(
            "unhot.methods.pour:PourD", "distil those projected features into the net", "CVPR 2026", reads="forget"
        ),
        "spotter": Entry(
            "unhot.methods.spotter:Spotter",
            "masked teacher on and beside the samples; scatter features",
            "ICML 2026",
            reads="forget",
        ),
        "svd": Entry(
            "unhot.methods.svd:Svd",
            "project layers away from directions of the class alone",
            "TMLR 2024",
            reads="forget, retain",
        ),
        "ssd": Entry(
            "unhot.methods.ssd:Ssd",
            "dampen the weights that matter most to the class",
            "AAAI 2024",
            reads="forget, retain",
        ),
        "lfssd": Entry(
            "unhot.methods.ssd:Lfssd",
            "dampening that needs no labels and no loss",
            "ICLR 2024 tiny papers",
            reads="forget, retain",
        ),
        "tarf": Entry(
            "unhot.methods.tarf:Tarf",
            "fading ascent on the class, descent on the unaffected",
            "ICLR 2026",
            reads="forget, retain",
        ),
        "wf-net": Entry(
            "unhot.methods.wf_net:WfNet",
            "learn gates on filters that hide the class; bake them in",
            "IEEE Int. Sys. 2024",
            reads="forget, retain",
        ),
        "retrain": Entry(
            "unhot.methods.retrain:Retrain", "train from scratch without the class: the reference", reads="retain"
        ),
        "finetune": Entry(
            "unhot.methods.finetune:Finetune", "go on training, without the class", "CVPR 2020", reads="retain"
        ),
        "neggrad+": Entry(
            "unhot.methods.neggrad_plus:NegGradPlus",
            "ascent on the class, descent on the rest at once",
            "NeurIPS 2023",
            reads="forget, retain",
        ),
        "scrub": Entry(
            "unhot.methods.scrub:Scrub",
            "a student that disobeys its teacher on the class alone",
            "NeurIPS 2023",
            reads="forget, retain",
        ),
        "salun": Entry(
            "unhot.methods.salun:SalUn",
            "random labels for the class, by the weights salient for it",
            "ICLR 2024",
            reads="forget, retain",
        ),
        "ugradsl": Entry(
            "unhot.methods.ugradsl:Ugradsl",
            "ascent under negatively smoothed labels until forgotten",
            "ICLR 2026",
            reads="forget, retain",
        ),
        "ugradsl+": Entry(
            "unhot.methods.ugradsl:UgradslPlus",
            "fine-tuning, with such an ascent in every step",
            "ICLR 2026",
            reads="forget, retain",
        ),
    },
)


def default(guarded: bool) -> str:
    """Return the method that is run where none is named, with a guard or without."""
    return GUARDED if guarded else DEFAULT


get = catalogue.get
register = catalogue.register
