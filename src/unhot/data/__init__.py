"""Images and their labels: from named data sets, folders, torch data sets and tensors to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.data.named import NamedSet

catalogue: Registry[NamedSet, Entry] = Registry(
    "dataset",
    {
        "digits": Entry("unhot.data.named:DIGITS", "1,797 handwritten digits, 8x8 grey, bundled with scikit-learn"),
        "mnist": Entry("unhot.data.named:MNIST", "70,000 handwritten digits, 28x28 grey"),
        "fashion-mnist": Entry(
            "unhot.data.named:FASHION_MNIST", "70,000 articles of clothing in 10 classes, 28x28 grey"
        ),
        "svhn": Entry("unhot.data.named:SVHN", "99,289 house number digits, 32x32 colour"),
        "cifar10": Entry("unhot.data.named:CIFAR10", "60,000 photos in 10 classes, 32x32 colour"),
        "cifar100": Entry("unhot.data.named:CIFAR100", "60,000 photos in 100 classes, 32x32 colour"),
    },
)
