"""What ``unhot doctor`` found: what is known of a model, and what a request to forget would do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from unhot.records.base import Count, Record, Seconds, Stored
from unhot.records.model import ClassLabel, InputSpec


class KnownModel(Stored):
    """What is known of a model.

    Attributes:
        arch: Name of the architecture; empty for a net of no name.
        graph: Whether the net is a graph of operators, and not of its own class.
        weights: Number of its weights.
        number_type: Type of the weights, such as float32.
        head: Dotted name of the final linear layer.
        features: Number of its inputs.
        plain_head: Whether it computes logits with a matrix and a bias, and nothing else.
        named: Whether the classes have names; else these are their numbers.
        forgotten: Classes that it was made to forget before.
    """

    arch: str
    graph: bool
    weights: Count
    number_type: str
    head: str
    features: Count
    plain_head: bool
    classes: tuple[ClassLabel, ...]
    named: bool
    forgotten: tuple[ClassLabel, ...]
    input: InputSpec | None


class Answers(Stored):
    """What a model classifies images of a class as.

    Attributes:
        label: The class.
        n: Number of images.
        answers: The classes that they are classified as, with how many, the most frequent one first.
    """

    label: ClassLabel
    n: Count
    answers: tuple[tuple[ClassLabel, Count], ...]

    @property
    def right(self) -> int:
        """How many are classified as the class."""
        return sum(n for label, n in self.answers if label == self.label)


class Accuracy(Stored):
    """How a model classifies test images.

    Attributes:
        n: Number of images.
        correct: How many are classified correctly.
        worst: The class with the lowest share of correct ones.
    """

    n: Count = Field(gt=0)
    correct: Count
    worst: Answers


class Plan(Stored):
    """What a request to forget would do.

    Attributes:
        method: Its name.
        hyperparameters: Those of the method.
        reads: Data that it would read.
        most_steps: The most optimiser steps of one run of it, of which it may make several; None if it says no number.
        pass_seconds: Time of one forward and backward pass over the samples, at most 16 of them.
        seconds: Time that the run would take, at least and at most; None if the method does not say.
        announced: What the run would say before it begins its work.
    """

    method: str
    hyperparameters: dict[str, JsonValue]
    reads: tuple[str, ...] = ()
    most_steps: Count | None = None
    pass_seconds: Seconds | None = None
    seconds: tuple[Seconds, Seconds] | None = None
    announced: tuple[str, ...] = ()


class Diagnosis(Record):
    """What ``unhot doctor`` found.

    Attributes:
        model: What is known of the model.
        samples: What the samples of each class are classified as.
        data: Accuracy on test images; None if there were none.
        plan: What a request would do.
        refusal: Why a request would be refused; None if it would go on.
        warnings: What a request would warn of.
    """

    kind: Literal["diagnosis"] = "diagnosis"
    model: KnownModel
    samples: tuple[Answers, ...] = ()
    data: Accuracy | None = None
    plan: Plan
    refusal: str | None = None
    warnings: tuple[str, ...] = ()
