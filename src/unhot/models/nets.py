"""The built-in nets. Each takes (outputs, channels, size) and its options, and ends in a linear layer called ``head``.

``lr`` is the highest learning rate of SGD that suits the net on one cycle.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class LeNet5(nn.Sequential):
    """LeNet-5 with ReLU.

    Unlike the paper, the second pooling averages to 5x5 whatever the size, which is the paper's at 28 and 32 pixels.

    Source: LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, Proc. IEEE 1998.
    """

    lr = 0.1

    def __init__(self, outputs: int, channels: int = 1, size: int = 28) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(channels, 6, 5, padding=2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(6, 16, 5),
                relu2=nn.ReLU(),
                pool2=nn.AdaptiveAvgPool2d(5),
                flatten=nn.Flatten(),
                fc1=nn.Linear(400, 120),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84),
                relu4=nn.ReLU(),
                head=nn.Linear(84, outputs),
            )
        )


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the size (at stride 1), with batch normalisation and without bias."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs))


def conv_bn_relu(inputs: int, outputs: int, pool: bool = False) -> nn.Sequential:
    """Return :func:`conv_bn` with ReLU and, where asked, 2x2 max pooling."""
    return nn.Sequential(*conv_bn(inputs, outputs), nn.ReLU(), *([nn.MaxPool2d(2)] if pool else []))


def _positive(width: int) -> int:
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    return width


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + body(x), of the shape of x."""
        return cast(Tensor, x + self.body(x))


class ResNet9(nn.Sequential):
    """A 9-layer residual net for small images.

    Source: Page: How to train your ResNet, Myrtle.ai 2018; without its output scaling.
    """

    lr = 0.2

    def __init__(self, outputs: int, channels: int = 3, size: int = 32, width: int = 32) -> None:
        w = _positive(width)
        super().__init__(
            OrderedDict(
                stem=conv_bn_relu(channels, w),
                stage1=conv_bn_relu(w, 2 * w, pool=True),
                res1=Residual(conv_bn_relu(2 * w, 2 * w), conv_bn_relu(2 * w, 2 * w)),
                stage2=conv_bn_relu(2 * w, 4 * w, pool=True),
                stage3=conv_bn_relu(4 * w, 8 * w, pool=True),
                res3=Residual(conv_bn_relu(8 * w, 8 * w), conv_bn_relu(8 * w, 8 * w)),
                pool=nn.AdaptiveMaxPool2d(1),
                flatten=nn.Flatten(),
                head=nn.Linear(8 * w, outputs),
            )
        )


class BasicBlock(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, outputs, stride=stride)
        self.conv2 = conv_bn(outputs, outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (B, outputs, H / stride, W / stride)."""
        return relu(self.conv2(relu(self.conv1(x))) + self.shortcut(x))


class ResNet18(nn.Sequential):
    """ResNet-18 with a 3x3 stem without pooling, as is usual for images of 32 pixels.

    Source: He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR 2016, section 4.2.
    """

    lr = 0.1

    def __init__(self, outputs: int, channels: int = 3, size: int = 32, width: int = 64) -> None:
        widths = [_positive(width), width, 2 * width, 4 * width, 8 * width]
        stages = {
            f"stage{i}": nn.Sequential(
                BasicBlock(widths[i - 1], widths[i], stride=1 if i == 1 else 2), BasicBlock(widths[i], widths[i], 1)
            )
            for i in range(1, 5)
        }
        super().__init__(
            OrderedDict(
                stem=conv_bn_relu(channels, width),
                **stages,
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                head=nn.Linear(8 * width, outputs),
            )
        )


class Vgg11Bn(nn.Sequential):
    """VGG-11 with batch normalisation and one linear layer, as is usual for images of 32 pixels.

    Source: Simonyan, Zisserman: Very deep convolutional networks for large-scale image
    recognition, ICLR 2015, table 1 A.
    """

    lr = 0.1

    def __init__(self, outputs: int, channels: int = 3, size: int = 32) -> None:
        widths, pooled = (channels, 64, 128, 256, 256, 512, 512, 512, 512), (1, 2, 4, 6)
        stages = {f"conv{i}": conv_bn_relu(widths[i - 1], widths[i], i in pooled) for i in range(1, 9)}
        super().__init__(
            OrderedDict(**stages, pool=nn.AdaptiveMaxPool2d(1), flatten=nn.Flatten(), head=nn.Linear(512, outputs))
        )


class VitTiny(nn.Module):
    """A small vision transformer: pre-norm layers on patch embeddings, features averaged over the patches.

    Source: Dosovitskiy et al.: An image is worth 16x16 words, ICLR 2021; pooling and 6 layers as is usual on
    small images.
    """

    lr = 0.05

    def __init__(self, outputs: int, channels: int = 3, size: int = 32, patch: int = 4) -> None:
        super().__init__()
        if patch < 1 or size % patch:
            raise ValueError(f"patch must divide the image size {size}, got {patch}")
        dim, tokens = 192, (size // patch) ** 2
        self.embed = nn.Conv2d(channels, dim, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, tokens, dim))
        layer = nn.TransformerEncoderLayer(
            dim, nhead=3, dim_feedforward=4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers=6, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
        self.head = nn.Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, outputs) of images x (B, C, H, W)."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        return cast(Tensor, self.head(self.encoder(tokens).mean(1)))
