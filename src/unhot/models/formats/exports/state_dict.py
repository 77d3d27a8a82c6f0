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
from unhot.models.weights import as_input, write_tensors

SAFE, TORCH = ".safetensors", (".pt", ".pth", ".bin")


class StateDict(WeightsAlone):
    """A state dict: a file of safetensors, or one of ``torch.save`` that is read with ``weights_only=True``."""

    suffixes: ClassVar[tuple[str, ...]] = (SAFE, *TORCH)

    def write(self, path: Path) -> None:
        """Write the weights of the net."""
        state = self.model.module.state_dict()
        if path.suffix == SAFE:
            write_tensors(state, path)
        else:
            torch.save({name: t.detach().contiguous().clone() for name, t in state.items()}, path)

    def load(self, path: Path) -> Run:
        """Load the weights into a copy of the net whose own weights are blank."""
        net = copy.deepcopy(self.model.module)
        for tensor in net.state_dict().values():
            tensor.zero_()
        net.load_state_dict(read_weights(path))

        def run(x: Tensor) -> Tensor:
            logits: Tensor = net(as_input(net, x))
            return logits

        return run
