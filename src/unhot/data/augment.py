"""Random shifts and flips of whole batches, on the device that holds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """Random changes that preserve the class of an image.

    Attributes:
        shift: Farthest shift in pixels, in each direction; uncovered pixels repeat the border.
        flip: Whether left and right may be swapped.
    """

    shift: int = 0
    flip: bool = False

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a copy of ``x`` (B, C, H, W), each image shifted and flipped at random."""
        b, _, h, w = x.shape
        rows, columns = (torch.arange(n).expand(b, n) for n in (h, w))
        if self.shift:
            moves = torch.randint(-self.shift, self.shift + 1, (2, b, 1), generator=generator)
            rows, columns = (rows + moves[0]).clamp(0, h - 1), (columns + moves[1]).clamp(0, w - 1)
        if self.flip:
            swap = torch.rand(b, 1, generator=generator) < 0.5
            columns = torch.where(swap, columns.flip(1), columns)
        image = torch.arange(b, device=x.device)[:, None, None]
        rows, columns = rows.to(x.device)[:, :, None], columns.to(x.device)[:, None, :]
        return x.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 3, 1, 2)


def distort(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return images that share the pixels of ``x`` (B, C, H, W) but not its class, (6 B, C, H, W).

    Blocks of rows and columns shuffled, coarsely and finely; negatives; quarter and half turns; and noise. They stand
    in for images of other classes where there are none.
    """
    turned = x.transpose(2, 3) if x.shape[2] == x.shape[3] else x.flip(2)
    noise = torch.randn(x.shape, generator=generator).to(x)
    return torch.cat([_shuffled(x, 4, generator), _shuffled(x, 8, generator), -x, turned, x.flip(2, 3), noise])


def _shuffled(x: Tensor, blocks: int, generator: torch.Generator) -> Tensor:
    for dim in (2, 3):
        places = torch.arange(x.shape[dim]).tensor_split(blocks)
        order = torch.randperm(blocks, generator=generator).tolist()
        x = x.index_select(dim, torch.cat([places[i] for i in order]).to(x.device))
    return x
