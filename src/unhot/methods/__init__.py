"""The unlearning methods, one file each: ``unhot.methods.get(name)`` gives the class of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.methods.base import Method

QUICK, GUARDED, DEEP = "nhle-cwm", "nhle-guard", "nhle-renew"
REFERENCES = {"mask": "masked", "retrain": "retrained"}  # they make subjects of every audit, and are not ranked

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
            "match features to the retained classes, with or without stored statistics",
            reads="forget, guard if given",
        ),
        "nhle-renew": Entry(
            "unhot.methods.nhle_renew:NhleRenew",
            "make the last stage partly new, and distil all but the class into it",
            reads="forget, retain if given, guard if given",
        ),
        "mask": Entry(
            "unhot.methods.mask:Mask",
            "class weight masking only; the features are unchanged",
            "KAIS 2025",
            reads="nothing",
        ),
        "neggrad": Entry(
            "unhot.methods.neggrad:NegGrad",
            "gradient ascent on the samples, until they are forgotten",
            "CVPR 2020",
            reads="forget",
        ),
        "random-label": Entry(
            "unhot.methods.random_label:RandomLabel",
            "fine-tune on the samples with random other labels",
            "AAAI 2021",
            reads="forget",
        ),
        "boundary-shrink": Entry(
            "unhot.methods.boundary_shrink:BoundaryShrink",
            "fine-tune on the samples under the class across the nearest decision boundary",
            "CVPR 2023",
            reads="forget",
        ),
        "jit": Entry(
            "unhot.methods.jit:Jit",
            "smooth the output around the samples, until they are forgotten",
            "TMLR 2025",
            reads="forget",
        ),
        "delete": Entry(
            "unhot.methods.delete:Delete", "distil the original with the class masked", "CVPR 2025", reads="forget"
        ),
        "scrub-and-learn": Entry(
            "unhot.methods.scrub_and_learn:ScrubAndLearn",
            "fine-tune on the samples with their second most likely class",
            "AI (MDPI) 2025",
            reads="forget",
        ),
        "forsaken": Entry(
            "unhot.methods.forsaken:Forsaken",
            "add sparse masks to the weights until the samples look unknown",
            "IEEE TDSC 2023",
            reads="forget",
        ),
        "mu-mis": Entry(
            "unhot.methods.mu_mis:MuMis",
            "lower the input gradients of the class, raise those of the others",
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
            "unhot.methods.pour:PourD", "distil the features of pour-p into the net", "CVPR 2026", reads="forget"
        ),
        "spotter": Entry(
            "unhot.methods.spotter:Spotter",
            "distil a masked teacher on and around the samples; scatter their features",
            "ICML 2026",
            reads="forget",
        ),
        "svd": Entry(
            "unhot.methods.svd:Svd",
            "project out of every layer the directions that only the class uses",
            "TMLR 2024",
            reads="forget, retain",
        ),
        "ssd": Entry(
            "unhot.methods.ssd:Ssd",
            "dampen the weights that are most important to the class",
            "AAAI 2024",
            reads="forget, retain",
        ),
        "lfssd": Entry(
            "unhot.methods.ssd:Lfssd",
            "dampen weights as ssd does, without labels and loss",
            "ICLR 2024 tiny papers",
            reads="forget, retain",
        ),
        "tarf": Entry(
            "unhot.methods.tarf:Tarf",
            "fading ascent on the class, descent on images that it hardly affects",
            "ICLR 2026",
            reads="forget, retain",
        ),
        "wf-net": Entry(
            "unhot.methods.wf_net:WfNet",
            "learn gates on filters that hide the class; bake them into the weights",
            "IEEE Int. Sys. 2024",
            reads="forget, retain",
        ),
        "retrain": Entry(
            "unhot.methods.retrain:Retrain", "train from scratch without the class: the reference", reads="retain"
        ),
        "finetune": Entry(
            "unhot.methods.finetune:Finetune", "continue training without the class", "CVPR 2020", reads="retain"
        ),
        "neggrad+": Entry(
            "unhot.methods.neggrad_plus:NegGradPlus",
            "ascent on the class and descent on the rest, in every step",
            "NeurIPS 2023",
            reads="forget, retain",
        ),
        "scrub": Entry(
            "unhot.methods.scrub:Scrub",
            "train a student to disagree with its teacher on the class only",
            "NeurIPS 2023",
            reads="forget, retain",
        ),
        "salun": Entry(
            "unhot.methods.salun:SalUn",
            "random labels for the class; train only the weights salient for it",
            "ICLR 2024",
            reads="forget, retain",
        ),
        "ugradsl": Entry(
            "unhot.methods.ugradsl:Ugradsl",
            "gradient ascent with negatively smoothed labels, until forgotten",
            "ICLR 2026",
            reads="forget, retain",
        ),
        "ugradsl+": Entry(
            "unhot.methods.ugradsl:UgradslPlus",
            "fine-tuning with the ascent of ugradsl in every step",
            "ICLR 2026",
            reads="forget, retain",
        ),
    },
)

get = catalogue.get
register = catalogue.register
