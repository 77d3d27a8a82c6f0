"""Classifier: a net with its classes, its input and its head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from unhot.errors import ModelError, raise_all
from unhot.models.adapted import fitted
from unhot.models.head import flowing, linear
from unhot.models.head_edits.edit import HeadEdit
from unhot.models.head_edits.forgotten import ForgottenEdit
from unhot.models.head_edits.listed import edits_in
from unhot.models.outputs import Outputs
from unhot.models.plain import copied, plain_name, unwrapped
from unhot.models.preflight import problems_of
from unhot.models.weights import as_input, sha256_of, widen
from unhot.records.model import ClassLabel, InputSpec, Origin
from unhot.runtime import usual_settings


@dataclass(frozen=True)
class Classifier(Outputs):
    """A net with all that is needed to use it.

    Attributes:
        module: Takes inputs (B, C, H, W), returns logits (B, K).
        classes: The class of each of the K outputs, in order. A class keeps its index when others are excised.
        head: Dotted name of the final linear layer; its inputs are the features (B, d).
        input: How pixels become inputs; None if that is not known, so that only tensors can be passed.
        arch: Name of the architecture, as for ``--arch``. None for a net that was passed as an object.
        arch_options: Keyword arguments of the architecture.
        outputs: Number of outputs that the architecture was built with.
        head_edits: Edits of the head since then, in order, and the classes that were forgotten.
        example_shape: (C, H, W) of the inputs that the net was run on, if ``input`` is None.
        origin: What the model was read from; None if unhot trained it.
    """

    module: nn.Module
    classes: tuple[ClassLabel, ...]
    head: str
    input: InputSpec | None = None
    arch: str | None = None
    arch_options: dict[str, JsonValue] = field(default_factory=dict)
    outputs: int = 0
    head_edits: tuple[HeadEdit, ...] = ()
    example_shape: tuple[int, int, int] | None = None
    origin: Origin | None = None

    @classmethod
    @usual_settings()
    def wrap(
        cls,
        module: nn.Module | Classifier,
        example: Tensor | None = None,
        class_names: Sequence[str] | None = None,
        head: str | None = None,
        input: InputSpec | None = None,
        output: str | None = None,
    ) -> Classifier:
        """Make a classifier from any net that returns logits.

        With an example, a net that returns its logits in a dictionary, an object or a tuple, or sums those of several
        heads, becomes part of one that returns those of one linear head (:mod:`unhot.models.adapted`).

        Args:
            module: The net; a classifier is returned unchanged. Of a compiled or wrapped net the plain one inside is
                used, which shares its weights (:mod:`unhot.models.plain`).
            example: A few inputs of the net, (B, C, H, W). With it the net is run a few times, and its outputs are
                checked (:mod:`unhot.models.preflight`).
            class_names: One name for each output; its index if None.
            head: Dotted name of the final linear layer, if it cannot be found.
            input: How pixels become inputs.
            output: The key or position of the logits in what the net returns, if it is not a tensor.

        Raises:
            ModelError: The net does not fit; all reasons are listed.
        """
        if isinstance(module, Classifier):
            plain = unwrapped(module.module)
            found = replace(module, module=plain, head=plain_name(plain, module.head))
            if example is not None:
                raise_all(ModelError, "The model does not fit", problems_of(plain, found.head, example)[1])
            return module if plain is module.module else found
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"Expected a torch.nn.Module or an unhot.Classifier, got {type(module).__name__}. Of the result of "
                "unhot.forget it is result.classifier."
            )
        if not isinstance(head, str | None):
            raise ModelError(f"The head is named by text, such as 'fc'. Got {head!r}.")
        plain = unwrapped(module)
        head = None if head is None else plain_name(plain, head)
        module, origin = plain, None
        name, problems = problems_of(module, head, example)
        if problems and example is not None:
            module, origin = fitted(plain, example, output, head)
        if origin is not None:
            name, problems = problems_of(module, None if head is None else origin.prefix + head, example)
        raise_all(ModelError, "The model does not fit", problems)
        count = linear(module, name).out_features
        names = [str(i) for i in range(count)] if class_names is None else list(class_names)
        if len(names) != count:
            raise ModelError(f"The model has {count} outputs and {len(names)} class names. Give one name an output.")
        labels = tuple(ClassLabel(index=i, name=n) for i, n in enumerate(names))
        edits = edits_in(module, name)
        found = cls(module, labels, name, input, outputs=count, head_edits=edits, origin=origin)
        return found.with_example_shape(example)

    def with_example_shape(self, example: Tensor | None) -> Classifier:
        """Return the classifier with the shape of an example, unless the shape of its inputs is known."""
        if example is None or example.ndim != 4 or self.input_shape is not None:
            return self
        channels, height, width = example.shape[1:]
        return replace(self, example_shape=(channels, height, width))

    def taking(self, spec: InputSpec | None) -> Classifier:
        """Return the classifier with other inputs.

        Raises:
            ModelError: They have another size, and the net is a graph, which takes images of one size.
        """
        if spec is not None and self.input_shape not in (None, spec.shape) and hasattr(self.module, "unhot_graph"):
            raise ModelError(
                f"This bundle holds a graph of inputs {self.input_shape} (channels, height, width), and {spec.shape} "
                "are asked for. Leave out --image-size, or name with --arch the code that builds the net."
            )
        return replace(self, input=spec)

    def same_inputs(self, other: Classifier) -> bool:
        """Return whether a tensor that is an input of this model is one of another model too."""
        mine, its = self.input, other.input
        return mine == its or (mine is not None and mine.same_values(its))

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of the inputs, if it is known."""
        return self.example_shape if self.input is None else self.input.shape

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.module.parameters()).device

    @property
    def head_layer(self) -> nn.Linear:
        """The final linear layer."""
        return linear(self.module, self.head)

    def logits(self, x: Tensor) -> Tensor:
        """Return logits (B, K) of inputs (B, C, H, W), which are converted to the number type of the weights."""
        out: Tensor = self.module(as_input(self.module, x))
        return out

    def features(self, x: Tensor) -> Tensor:
        """Return the input of the head, (B, d), for inputs (B, C, H, W)."""
        return self.features_and_logits(x)[0]

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, d) and logits (B, K) of one forward pass."""
        with self.recording([self.head]) as seen:
            logits = self.logits(x)
        return seen[self.head], logits

    @contextmanager
    def recording(self, layers: Iterable[str], after: Iterable[str] = ()) -> Iterator[dict[str, Tensor]]:
        """Record activations in every forward pass of the block, by dotted name of a module.

        The records are copies: the net may change tensors in place. An output that is no tensor is not recorded.

        Args:
            layers: Modules whose inputs are recorded.
            after: Other modules, whose outputs are recorded.
        """
        seen: dict[str, Tensor] = {}

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> None:
            seen[name] = flowing(args, kwargs).clone()

        def behind(_: nn.Module, args: tuple[Any, ...], output: object, name: str) -> None:
            if isinstance(output, Tensor):
                seen[name] = output.clone()

        with ExitStack() as hooks:
            for name in layers:
                layer = self.module.get_submodule(name)
                hooks.enter_context(layer.register_forward_pre_hook(partial(before, name=name), with_kwargs=True))
            for name in after:
                hooks.enter_context(self.module.get_submodule(name).register_forward_hook(partial(behind, name=name)))
            yield seen

    @contextmanager
    def replacing(self, layer: str, flow: Tensor) -> Iterator[None]:
        """Replace the input of a layer, by dotted name, in every forward pass of the block."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            given = flow.clone()  # the net may change it in place
            if args:
                return (given, *args[1:]), kwargs
            return args, kwargs | {next(iter(kwargs)): given}

        with self.module.get_submodule(layer).register_forward_pre_hook(hook, with_kwargs=True):
            yield

    def mark_forgotten(self, labels: Iterable[ClassLabel]) -> Classifier:
        """Return the classifier with these classes marked as forgotten, too."""
        return self.marked(dict.fromkeys((*self.forgotten, *labels)))

    def marked(self, labels: Iterable[ClassLabel]) -> Classifier:
        """Return the classifier with only these classes marked as forgotten."""
        edits: list[HeadEdit] = [e for e in self.head_edits if not isinstance(e, ForgottenEdit)]
        marks = tuple(labels)
        return replace(self, head_edits=(*edits, *([ForgottenEdit(classes=marks)] if marks else [])))

    def edited(self, edit: HeadEdit, values: Mapping[str, Tensor]) -> Classifier:
        """Apply an edit to the net, in place, and record it.

        Args:
            edit: The edit.
            values: New values of weights, by dotted name. The ``of`` of an edit's class returns both.
        """
        module = edit.structure(self.module)
        with torch.no_grad():
            for name, value in values.items():
                attrgetter(name)(module).copy_(value)
        return replace(
            self,
            module=module,
            classes=edit.classes_after(self.classes),
            head=edit.head_after(self.head),
            head_edits=(*self.head_edits, edit),
        )

    def copy(self, device: torch.device | None = None) -> Classifier:
        """Return a deep copy that shares nothing with this one, on ``device``; of its plain net, if it is wrapped.

        Raises:
            ModelError: The net cannot be copied.
        """
        module = copied(self.module, device or self.device)
        return replace(self, module=module, head=plain_name(module, self.head))

    def trainable(self, device: torch.device | None = None) -> Classifier:
        """Return a deep copy to be trained: weights of 16 bits become float32."""
        found = self.copy(device)
        widen(found.module)
        return found

    def sha256(self) -> str:
        """Return the SHA-256 of the names, dtypes, shapes and values of all weights and buffers."""
        return sha256_of(unwrapped(self.module).state_dict())
