"""The weights alone, as the code of the original net loads them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from unhot.models.formats.checkpoint import read_weights
from unhot.models.formats.exports.target import Run
from unhot.models.formats.exports.weights_alone import WeightsAlone
from unhot.models.formats.origin import adapted_state, original_state
from unhot.models.weights import as_input, write_tensors

SAFE, TORCH = ".safetensors", (".pt", ".pth", ".bin")


class StateDict(WeightsAlone):
    """A state dict: a file of safetensors, or one of ``torch.save`` that is read with ``weights_only=True``.

    The names are those of the net as it came. What wrappers put before them is there again only if they are to be kept.
    """

    suffixes: ClassVar[tuple[str, ...]] = (SAFE, *TORCH)

    @property
    def stripped(self) -> str:
        """What every name began with when it came, and does not now."""
        origin = self.model.origin
        return "" if origin is None or self.keep_keys else origin.stripped

    @property
    def _before(self) -> str:
        origin = self.model.origin
        return origin.stripped if origin is not None and self.keep_keys else ""

    def write(self, path: Path) -> None:
        """Write the weights of the net."""
        state = {f"{self._before}{name}": t for name, t in original_state(self.model).items()}
        if path.suffix == SAFE:
            write_tensors(state, path)
        else:
            torch.save({name: t.detach().contiguous().clone() for name, t in state.items()}, path)

    def load(self, path: Path) -> Run:
        """Load the weights into a copy of the net whose own weights are blank."""
        net = copy.deepcopy(self.model.module)
        for tensor in net.state_dict().values():
            tensor.zero_()
        state = {name.removeprefix(self._before): t for name, t in read_weights(path).items()}
        net.load_state_dict(state if self.model.origin is None else adapted_state(state, self.model.origin))

        def run(x: Tensor) -> Tensor:
            logits: Tensor = net(as_input(net, x))
            return logits

        return run
