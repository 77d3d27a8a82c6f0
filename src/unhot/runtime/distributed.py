"""Several processes that work on one model, started by ``accelerate launch`` or ``torchrun``."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that run the same program, each on its shard of the images; there may be only one.

    Attributes:
        size: Number of processes.
        rank: Rank of this process; only rank 0 writes files and shows progress.
    """

    size: int = 1
    rank: int = 0

    @classmethod
    def here(cls, device: torch.device) -> ProcessGroup:
        """Return the group that this process was started in."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu")
        return cls(state.num_processes, state.process_index)

    def shard(self, index: Tensor) -> Tensor:
        """Return this process's shard of some positions, int64 (N,); all of them if there are fewer than processes."""
        return index if len(index) < self.size else index.tensor_split(self.size)[self.rank]

    def weight(self, count: int) -> float:
        """Return the weight of the mean over this process's shard of ``count`` images in the mean over processes."""
        return 1.0 if count < self.size else len(self.shard(torch.arange(count))) * self.size / count

    def all_gather(self, part: Tensor) -> Tensor:
        """Concatenate the parts of all processes on the CPU, in the order of ranks."""
        if self.size == 1:
            return part
        from accelerate.utils import gather_object

        return torch.cat(gather_object([part.cpu()]))

    def wrap_ddp(self, net: nn.Module) -> nn.Module:
        """Return the module to call instead of a net in training: its gradients are averaged over the processes.

        On GPUs batch normalisation takes its statistics over the processes too. On CPUs, where torch cannot do that,
        each process normalises by its own part.
        """
        if self.size == 1:
            return net
        from accelerate import Accelerator

        device = next(net.parameters()).device
        if device.type == "cuda":
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        wrapped: nn.Module = Accelerator(cpu=device.type == "cpu").prepare_model(net)
        return wrapped
