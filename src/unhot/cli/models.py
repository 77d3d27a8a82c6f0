"""MODEL of the command line: what options say of it, and loading it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unhot.cli.options import PreprocessingOptions, settings
from unhot.errors import ModelError, shortened

if TYPE_CHECKING:
    from unhot.data.source import Source
    from unhot.models.classifier import Classifier
    from unhot.models.formats.asked import Asked
    from unhot.records.model import InputSpec

MODEL = "Bundle, folder of transformers or timm, or weights file with --arch."


@dataclass(frozen=True)
class ModelOptions:
    """What the options of a command say of its models.

    Attributes:
        preprocessing: What the user says of the inputs, which counts most.
        spec: How images become inputs, if neither the user nor the model says.
        data_names: Names of classes in the data, which a weights file with as many outputs has, if nothing names them.
    """

    arch: Annotated[
        str | None, typer.Option("--arch", help="Architecture of a weights file. Code that it names is run.")
    ] = None
    arch_option: Annotated[
        list[str], typer.Option("--arch-option", help="Keyword argument of the architecture, as key=value.")
    ] = field(default_factory=list)
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)
    head: Annotated[
        str | None, typer.Option("--head", help="Dotted name of the final linear layer, if it is not found.")
    ] = None
    output: Annotated[
        str | None, typer.Option("--output", help="Key or position of the logits, if the net returns no tensor.")
    ] = None
    class_names: Annotated[
        Path | None,
        typer.Option("--classes", help="File of class names, one for each output: lines, a JSON list, id2label."),
    ] = None
    weights_key: Annotated[
        str | None, typer.Option("--key", help="Key of the weights in a file that holds other things too.")
    ] = None
    prefix: Annotated[
        str | None, typer.Option("--prefix", help="Prefix of the names of weights in a file, if it is not found.")
    ] = None
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Load weights files that may run code: whole nets, TorchScript, .pt2 and other pickles.",
        ),
    ] = False
    spec: Any = None  # an InputSpec, whose type takes --help too long to import
    data_names: tuple[str, ...] | None = None

    def beside(self, spec: InputSpec | None, data_names: tuple[str, ...] | None) -> ModelOptions:
        """Return them with what the data says of the models, unless that is known already."""
        return replace(self, spec=self.spec or spec, data_names=self.data_names or data_names)

    def beside_source(self, source: Source) -> ModelOptions:
        """Return them with what a data set says of the models, unless that is known already."""
        images = source.test if source.train is None else source.train
        return self.beside(source.input, images.class_names if images else None)

    def load(self, path: Path) -> Classifier:
        """Load a model: a bundle, a folder of another library, or a weights file with its architecture.

        Raises:
            ModelError: It is not there or does not fit.
        """
        from unhot.cli.output import note
        from unhot.models.formats.folder import is_folder_of_others, load_folder
        from unhot.report.inputs import input_text

        arch_options = settings(self.arch_option)
        if is_folder_of_others(path):
            model = load_folder(path, self._asked())
        elif path.is_dir() or not path.exists():
            return self._bundle(path)
        else:
            model = self._weights(path, arch_options)
        if model.input is not None:
            note(f"For {path.name} pictures are {input_text(model.input)}.")
        return model

    def _asked(self) -> Asked:
        from unhot.models.formats.asked import Asked, read_class_names

        names = None if self.class_names is None else read_class_names(self.class_names)
        return Asked(
            preprocessing=self.preprocessing.parsed(),
            class_names=names,
            head=self.head,
            output=self.output,
            trust_pickle=self.trust_pickle,
        )

    def _bundle(self, path: Path) -> Classifier:
        from unhot.cli.output import note
        from unhot.models.bundle import load
        from unhot.models.head import linear

        model = load(path, trust_arch=self.arch)
        if (given := self._asked().class_names) is not None and given != tuple(c.name for c in model.classes):
            note(f"{path.name} is a bundle with class names of its own: --classes is not used for it.")
        if self.head is not None:
            linear(model.module, self.head)
            model = replace(model, head=self.head)
        return model.taking(self.preprocessing.parsed().applied(model.input))

    def _weights(self, path: Path, arch_options: dict[str, Any]) -> Classifier:
        from unhot.cli.output import note
        from unhot.models.formats.foreign import refuse_foreign
        from unhot.models.formats.weights import WeightsFile, load_weights

        if self.arch is None:
            if path.is_file():
                refuse_foreign(path)
            raise ModelError(
                f"{path} is a file, not a bundle (a folder). If it holds weights, set --arch to their architecture."
            )
        how = WeightsFile(
            **vars(self._asked()),
            arch=self.arch,
            input=self.spec,
            arch_options=arch_options,
            data_names=self.data_names,
            key=self.weights_key,
            prefix=self.prefix,
        )
        model = load_weights(path, how)
        names = tuple(c.name for c in model.classes)
        if names == self.data_names and self.class_names is None:
            note(f"{path.name} has no class names. Its outputs are assumed to be, in order: {shortened(names)}.")
        return model


@dataclass(frozen=True)
class SignedModelOptions(ModelOptions):
    """The same of a command whose ``--key`` is that of a signature."""

    weights_key: Annotated[
        str | None,
        typer.Option("--weights-key", help="Key of the weights in a file: what --key is of unhot forget."),
    ] = None
