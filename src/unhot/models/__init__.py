"""Classifiers: their parts, the built-in nets, and their files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.models.arch import Builder

catalogue: Registry[Builder, Entry] = Registry(
    "model",
    {
        "lenet5": Entry("unhot.models.nets:LeNet5", "LeNet-5 with ReLU; any image of 12 pixels or more"),
        "resnet9": Entry("unhot.models.nets:ResNet9", "9-layer residual net for small images; option width"),
        "resnet18": Entry("unhot.models.nets:ResNet18", "ResNet-18 with the stem for small images; option width"),
        "vgg11_bn": Entry("unhot.models.nets:Vgg11Bn", "VGG-11 with batch normalisation, for small images"),
        "vit_tiny": Entry("unhot.models.nets:VitTiny", "vision transformer, 6 layers of width 192; option patch"),
    },
)
