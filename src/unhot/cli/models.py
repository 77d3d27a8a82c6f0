"""MODEL of the command line: what options say of it, and loading it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unhot.cli.options import settings
from unhot.errors import ModelError, shortened

if TYPE_CHECKING:
    from unhot.data.preprocessing import Preprocessing
    from unhot.data.source import Source
    from unhot.models.classifier import Classifier
    from unhot.models.formats.asked import Asked
    from unhot.records.model import InputSpec

MODEL = "Bundle, folder of transformers or timm, or weights file with --arch."


@dataclass(frozen=True)
class ModelOptions:
    """What the options of a command say of its models.

    Attributes:
        arch: The architecture of a weights file; a bundle needs none, and is built by this code if it is the bundle's
            own.
        arch_option: Keyword arguments of the architecture, as ``key=value``.
        preprocessing: What the user says of the inputs, which counts most.
        head: Dotted name of the final linear layer, if it cannot be found.
        output: Key or position of the logits in what the net returns.
        class_names: File of the names of the outputs.
        key: Key of the weights in a file.
        prefix: What the names of the weights in a file begin with.
        trust_pickle: Whether a file may run code.
    """

    arch: str | None
    arch_option: list[str]
    preprocessing: Preprocessing
    head: str | None = None
    output: str | None = None
    class_names: Path | None = None
    key: str | None = None
    prefix: str | None = None
    trust_pickle: bool = False

    def load(self, path: Path, spec: InputSpec | None, data_names: tuple[str, ...] | None) -> Classifier:
        """Load a model: a bundle, a folder of another library, or a weights file with its architecture.

        Args:
            path: The folder or the file.
            spec: How images become inputs, if the model does not say.
            data_names: Names of classes in the data, used for a weights file with as many outputs.

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
            model = self._weights(path, spec, data_names, arch_options)
        if model.input is not None:
            note(f"For {path.name} pictures are {input_text(model.input)}.")
        return model

    def loader(self, source: Source) -> Callable[[Path], Classifier]:
        """Return what loads a model; what a weights file leaves open is taken from the data."""
        images = source.test if source.train is None else source.train
        names = images.class_names if images else None
        return lambda path: self.load(path, source.input, names)

    def _asked(self) -> Asked:
        from unhot.models.formats.asked import Asked, read_class_names

        names = None if self.class_names is None else read_class_names(self.class_names)
        return Asked(
            preprocessing=self.preprocessing,
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
        return model.taking(self.preprocessing.applied(model.input))

    def _weights(
        self, path: Path, spec: InputSpec | None, data_names: tuple[str, ...] | None, arch_options: dict[str, Any]
    ) -> Classifier:
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
            input=spec,
            arch_options=arch_options,
            data_names=data_names,
            key=self.key,
            prefix=self.prefix,
        )
        model = load_weights(path, how)
        names = tuple(c.name for c in model.classes)
        if names == data_names and self.class_names is None:
            note(f"{path.name} has no class names. Its outputs are assumed to be, in order: {shortened(names)}.")
        return model
