"""Target: what every format of an export has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, final

from torch import Tensor

from unhot.errors import OptionError
from unhot.files import staged_file, staged_folder
from unhot.models.classifier import Classifier

Run = Callable[[Tensor], Tensor]  # inputs (B, C, H, W) to logits (B, K)


def give_usual_mode(folder: Path) -> None:
    """Give the files of a folder the mode that the umask says; other libraries let only the owner read them."""
    (probe := folder / "mode").touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.iterdir():
        path.chmod(mode)


class Target(ABC):
    """A format of an export.

    Args:
        model: A copy of the classifier on the CPU, in eval mode, that may be changed.
        keep_keys: Whether the names of the weights are to be those that came in.

    Raises:
        InputError: The model cannot be exported so, or a package is missing.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()  # of the file; none for a folder
    holds_weights_alone: ClassVar[bool] = False  # the net is built by the code of others

    def __init__(self, model: Classifier, keep_keys: bool) -> None:
        self.model = model
        self.keep_keys = keep_keys

    @property
    def added(self) -> tuple[str, ...]:
        """Names of weights that were not in the original."""
        return ()

    @property
    def stripped(self) -> str:
        """What every name of a weight began with when it came, and does not now."""
        return ""

    @property
    def has_other_cut(self) -> bool:
        """Whether the classes that the model masks have other logits, which are not compared."""
        return False

    @abstractmethod
    def write(self, path: Path) -> None:
        """Write the file, or files into a folder that exists and is empty."""

    @abstractmethod
    def load(self, path: Path) -> Run:
        """Load what was written, as others will."""

    @classmethod
    @final
    def staged(cls, name: str, out: Path) -> AbstractContextManager[Path]:
        """Return a block that yields where to write, and puts it in its place at the end.

        Args:
            name: The name of the format, for an error.
            out: The file or folder.

        Raises:
            OptionError: The name of the file does not say what is in it.
        """
        if not cls.suffixes:
            return staged_folder(out)
        if out.suffix not in cls.suffixes:
            raise OptionError(f"--to {name} writes a file whose name ends in {' or '.join(cls.suffixes)}. Got {out}.")
        return staged_file(out)
