"""The kinds of models that unhot reads, and those that it refuses and with which words: a table for tests and docs."""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unhot.models.arch import build
from unhot.runtime import torchvision_ops
from unhot.runtime.silence import silence

CLASSES = ("ant", "bee", "cow", "dog", "elk")
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
PICTURES = {"height": 32, "width": 32}


@dataclass(frozen=True)
class Made:
    """What a user has, and the options that are given for it.

    Attributes:
        path: The file or the folder.
        net: The net that it holds, to compare with; None if it is refused.
        options: Fields of :class:`unhot.cli.models.ModelOptions`.
        named: Whether the file itself names the classes.
    """

    path: Path
    net: nn.Module | None = None
    options: tuple[tuple[str, Any], ...] = ()
    named: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        group: What it is a kind of.
        what: Its name in the table.
        make: Makes a small one in an empty folder.
        words: The words with which it is refused; empty if it works.
        said: The words of a note, if there is one.
    """

    group: str
    what: str
    make: Callable[[Path], Made]
    words: str = ""
    said: str = ""


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a net in eval mode with weights that are not all alike."""
    torchvision_ops.prepare()
    with silence(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = make().eval()
        for p in net.parameters():
            nn.init.normal_(p, 0.0, 0.3)
    return net


def of_transformers(name: str, config: dict[str, Any], **more: Any) -> Callable[[Path], Made]:
    """Return what writes a folder of transformers with a net of that class and that configuration."""

    def make(folder: Path) -> Made:
        torchvision_ops.prepare()
        import transformers

        kind = getattr(transformers, name)
        labels = {"id2label": dict(enumerate(CLASSES)), "label2id": {n: i for i, n in enumerate(CLASSES)}}
        net = seeded(lambda: kind(kind.config_class(**(labels | config))))
        with silence():
            net.to(more.pop("dtype", torch.float32)).save_pretrained(folder, **more)
        processor = {"do_resize": True, "size": PICTURES, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
        return Made(folder, net, named="id2label" not in config)

    return make


def changed(made: Callable[[Path], Made], **values: Any) -> Callable[[Path], Made]:
    """Return what writes a folder and changes its ``config.json``; a value of None takes a key away."""

    def make(folder: Path) -> Made:
        path = made(folder).path / "config.json"
        config = {k: v for k, v in (json.loads(path.read_text()) | values).items() if v is not None}
        path.write_text(json.dumps(config))
        return Made(folder)

    return make


def of_timm(name: str, named: bool = True, **options: Any) -> Callable[[Path], Made]:
    """Return what writes a folder of timm's hub."""

    def make(folder: Path) -> Made:
        torchvision_ops.prepare()
        import timm

        net = seeded(lambda: timm.create_model(name, num_classes=5, **options))
        save_file(net.state_dict(), folder / "model.safetensors")
        seen = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
        config: dict[str, Any] = {"architecture": name, "num_classes": 5, "model_args": options, "pretrained_cfg": seen}
        (folder / "config.json").write_text(json.dumps(config | ({"label_names": CLASSES} if named else {})))
        return Made(folder, net, named=named)

    return make


def of_arch(arch: str, size: int = 32, **options: Any) -> Callable[[Path], Made]:
    """Return what writes the weights of an architecture by name."""

    def make(folder: Path) -> Made:
        net = seeded(lambda: build(arch, 5, None, options))
        torch.save(net.state_dict(), folder / "weights.pt")
        return Made(folder / "weights.pt", net, given(arch, size, **options))

    return make


def given(arch: str, size: int = 32, **options: Any) -> tuple[tuple[str, Any], ...]:
    """Return the options of a weights file."""
    pairs = [f"{k}={json.dumps(v)}" for k, v in options.items()]
    return ("arch", arch), ("arch_option", pairs), ("size", size)


class Plain(nn.Module):
    """A small net, whose output a subclass may change."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


class Tupled(Plain):
    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)
        return x.mean(), out


class Averaged(Plain):
    """Its logits are the mean of a convolution, as in a SqueezeNet without the ReLU after its last one."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.fc = nn.Conv2d(8, num_classes, 1)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.norm(self.conv(x)).relu()).mean((2, 3))


class OfTokens(Plain):
    """Adds the largest logits of all positions, as VOLO does."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.other = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Any:
        tokens = self.norm(self.conv(x)).relu().flatten(2).transpose(1, 2)
        return self.fc(tokens[:, 0]) + 0.5 * self.other(tokens[:, 1:]).amax(1)


class OneLogit(Plain):
    def __init__(self, num_classes: int) -> None:
        super().__init__(1)


Write = Callable[[dict[str, Tensor], Path], Any]


def saved(content: Write, name: str = "weights.pt", kind: type[nn.Module] = Plain, **options: Any) -> Any:
    """Return what writes the weights of a small net in some form."""

    def make(folder: Path) -> Made:
        net = seeded(lambda: kind(5))
        whole = content(dict(net.state_dict()), folder / name)
        if whole is not None:
            torch.save(whole, folder / name)
        return Made(folder / name, net, (*given(f"{__name__}:{kind.__name__}"), *options.items()))

    return make


def prefixed(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {prefix + k: v for k, v in state.items()}


def lightning(state: dict[str, Tensor], path: Path) -> None:
    """Write a checkpoint with objects of a class that cannot be imported when it is read."""
    module = types.ModuleType("no_such_lightning")
    settings = type("AttributeDict", (dict,), {"__module__": module.__name__})
    module.AttributeDict = settings  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        kept = prefixed("net.")(state) | {"criterion.weight": torch.ones(5)}
        torch.save({"state_dict": kept, "epoch": 3, "hyper_parameters": settings(lr=0.1), "callbacks": {}}, path)
    finally:
        del sys.modules[module.__name__]


def timm_tar(state: dict[str, Tensor], path: Path) -> dict[str, Any]:
    other = {k: v + 1 for k, v in state.items()}
    return {"epoch": 3, "arch": "x", "state_dict": state, "state_dict_ema": other, "args": argparse.Namespace(lr=0.1)}


def program(state: dict[str, Tensor], path: Path) -> None:
    net = Plain(5).eval()
    net.load_state_dict(state)
    with silence():
        if path.suffix == ".pt2":
            torch.export.save(torch.export.export(net, (torch.rand(2, 3, 32, 32),)), path)
        else:
            torch.jit.trace(net, torch.rand(2, 3, 32, 32)).save(path)  # type: ignore[no-untyped-call]


def foreign(name: str, content: bytes = b"\x08\x07") -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        (folder / name).write_bytes(content)
        return Made(folder / name)

    return make


def foreign_folder(name: str) -> Callable[[Path], Made]:
    return lambda folder: Made(foreign(name, b"{}")(folder).path.parent)


NUMBERED = {i: f"LABEL_{i}" for i in range(5)}


VIT = of_transformers("ViTForImageClassification", SMALL | {"image_size": 32, "patch_size": 8})
MODULE, STRIPPED = "may run code", "names of the weights begin with"
HF, TIMM, ARCH, FILE = "transformers folder", "timm folder", "architecture by name", "weights file"

KINDS = [
    Kind(HF, "ViT", VIT),
    Kind(HF, "DeiT", of_transformers("DeiTForImageClassification", SMALL | {"image_size": 32, "patch_size": 8})),
    Kind(
        HF,
        "DeiT, distilled",
        of_transformers("DeiTForImageClassificationWithTeacher", SMALL | {"image_size": 32, "patch_size": 8}),
    ),
    Kind(
        HF,
        "Swin",
        of_transformers(
            "SwinForImageClassification",
            {
                "image_size": 32,
                "patch_size": 4,
                "embed_dim": 16,
                "depths": [1, 1],
                "num_heads": [2, 2],
                "window_size": 4,
            },
        ),
    ),
    Kind(
        HF,
        "ConvNeXt",
        of_transformers("ConvNextForImageClassification", {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    ),
    Kind(
        HF,
        "ResNet",
        of_transformers(
            "ResNetForImageClassification", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
        ),
    ),
    Kind(HF, "BEiT", of_transformers("BeitForImageClassification", SMALL | {"image_size": 32, "patch_size": 8})),
    Kind(
        HF,
        "DINOv2",
        of_transformers(
            "Dinov2ForImageClassification",
            {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
        ),
    ),
    Kind(HF, "MobileNetV2", of_transformers("MobileNetV2ForImageClassification", {"depth_multiplier": 0.25})),
    Kind(
        HF,
        "weights in several files",
        of_transformers(
            "ViTForImageClassification", SMALL | {"image_size": 32, "patch_size": 8}, max_shard_size="20KB"
        ),
    ),
    Kind(
        HF,
        "weights of 16 bits",
        of_transformers("ViTForImageClassification", SMALL | {"image_size": 32, "patch_size": 8}, dtype=torch.bfloat16),
    ),
    Kind(
        HF,
        "no class names",
        of_transformers("ViTForImageClassification", SMALL | {"image_size": 32, "patch_size": 8, "id2label": NUMBERED}),
    ),
    Kind(HF, "multi-label", changed(VIT, problem_type="multi_label_classification"), "it is a multi-label classifier"),
    Kind(HF, "one output", changed(VIT, id2label={"0": "a"}), "single output or is a regression"),
    Kind(HF, "another task", changed(VIT, architectures=["ViTForMaskedImageModeling"]), "is no image classifier"),
    Kind(HF, "no model of images", changed(VIT, model_type="bert"), "no image classifier of the model_type 'bert'"),
    Kind(
        HF,
        "code in the folder",
        changed(VIT, model_type="mine", auto_map={"AutoModel": "mine.Net"}),
        "needs code in the folder, which is not run",
    ),
    Kind(HF, "quantised", changed(VIT, quantization_config={"quant_method": "gptq"}), "its weights are quantised"),
    Kind(HF, "other sizes than its weights", changed(VIT, hidden_size=48), "has shape"),
    Kind(HF, "far larger than its weights", changed(VIT, hidden_size=8192, num_attention_heads=8), "many more than"),
    Kind(HF, "no model", changed(VIT, model_type=None, architectures=None), "neither model_type nor architecture"),
    Kind(HF, "an adapter of PEFT", foreign_folder("adapter_config.json"), "an adapter of PEFT, not a whole net"),
    Kind(TIMM, "ViT", of_timm("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2)),
    Kind(TIMM, "no class names", of_timm("test_resnet", named=False)),
    Kind(
        TIMM,
        "arguments that fetch weights",
        changed(of_timm("test_resnet"), model_args={"checkpoint_path": "/etc/passwd"}),
        "checkpoint_path, which is not used",
    ),
    Kind(TIMM, "unknown architecture", changed(of_timm("test_resnet"), architecture="mine"), "Unknown timm model"),
    Kind(
        ARCH,
        "timm, two heads (DeiT, distilled)",
        of_arch("timm:deit_tiny_distilled_patch16_224", img_size=32, embed_dim=32, depth=1, num_heads=2),
    ),
    Kind(ARCH, "timm, a convolution as head (DLA)", of_arch("timm:dla46_c")),
    Kind(ARCH, "torchvision (ShuffleNet)", of_arch("torchvision:shufflenet_v2_x0_5", 64)),
    Kind(
        ARCH,
        "torchvision, a convolution before ReLU and pooling (SqueezeNet)",
        of_arch("torchvision:squeezenet1_1", 64),
        "its last convolution 'classifier.1' are changed, as by a ReLU, before they are averaged",
    ),
    Kind(FILE, "state_dict", saved(lambda s, p: s)),
    Kind(FILE, "safetensors", saved(lambda s, p: save_file(s, p), "weights.safetensors")),
    Kind(FILE, "Lightning", saved(lightning, "last.ckpt"), said=STRIPPED),
    Kind(FILE, "FSDP", saved(lambda s, p: {f"_fsdp_wrapped_module.{k}": v for k, v in s.items()})),
    Kind(
        FILE,
        "SWA (AveragedModel)",
        saved(lambda s, p: prefixed("module.")(s) | {"n_averaged": torch.tensor(3)}),
        said=STRIPPED,
    ),
    Kind(FILE, "timm .pth.tar with an average", saved(timm_tar, "last.pth.tar"), said="several sets"),
    *(
        Kind(FILE, f"under {key!r}", saved(lambda s, p, key=key: {key: s, "epoch": 3}))
        for key in ("net", "model", "weights", "params", "model_state", "state_dict", "model_state_dict")
    ),
    Kind(FILE, "under another key", saved(lambda s, p: {"mine": s, "optimizer": {"state": {}}})),
    Kind(FILE, "under one of several keys", saved(lambda s, p: {"x": s, "y": s}), "--key x or y"),
    Kind(FILE, "--key", saved(lambda s, p: {"all": {"teacher": {}, "student": s}}, weights_key="all.student")),
    Kind(FILE, "a prefix of all names", saved(lambda s, p: prefixed("encoder.net.")(s)), said=STRIPPED),
    Kind(
        FILE,
        "several nets by prefix",
        saved(lambda s, p: prefixed("teacher.")(s) | prefixed("student.")(s)),
        "--prefix student. or teacher.",
    ),
    Kind(
        FILE,
        "--prefix",
        saved(lambda s, p: prefixed("teacher.")(s) | prefixed("student.")(s), prefix="student."),
        said="are left out",
    ),
    Kind(FILE, "float16", saved(lambda s, p: {k: v.half() if v.is_floating_point() else v for k, v in s.items()})),
    Kind(FILE, "bfloat16", saved(lambda s, p: {k: v.bfloat16() if v.is_floating_point() else v for k, v in s.items()})),
    Kind(FILE, "logits in a tuple", saved(lambda s, p: s, kind=Tupled), "Name its logits with --output"),
    Kind(FILE, "logits in a tuple, --output 1", saved(lambda s, p: s, kind=Tupled, output="1")),
    Kind(FILE, "a convolution, whose outputs are averaged", saved(lambda s, p: s, kind=Averaged)),
    Kind(
        FILE,
        "two heads, one of which takes the largest logits of all positions (VOLO)",
        saved(lambda s, p: s, kind=OfTokens),
        "in another way than by adding",
    ),
    Kind(FILE, "a single output", saved(lambda s, p: s, kind=OneLogit), "single output"),
    Kind(FILE, "a whole module", saved(lambda s, p: Plain(5)), MODULE),
    Kind(FILE, "TorchScript", saved(program), "is a compiled net (TorchScript)"),
    Kind(FILE, "TorchScript, --trust-pickle", saved(program, trust_pickle=True)),
    Kind(FILE, "pt2", saved(program, "net.pt2"), "is a compiled net (pt2)"),
    Kind(FILE, "pt2, --trust-pickle", saved(program, "net.pt2", trust_pickle=True)),
    Kind(FILE, "ONNX", foreign("net.onnx"), "is an ONNX model, which is not supported"),
    Kind(FILE, "Keras", foreign("net.h5", b"\x89HDF\r\n\x1a\n"), "is a Keras or HDF5 file, which is not supported"),
    Kind(FILE, "npz", foreign("net.npz"), "is a file of numpy, which is not supported"),
]
