"""Exports: a classifier in the form in which others run it, one file a format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.models.formats.exports.target import Target

HERE = "unhot.models.formats.exports"

catalogue: Registry[type[Target], Entry] = Registry(
    "export",
    {
        "state_dict": Entry(f"{HERE}.state_dict:StateDict", "the weights alone: .safetensors, or .pt"),
        "hf": Entry(f"{HERE}.hf:HuggingFace", "a folder for from_pretrained of transformers"),
        "timm": Entry(f"{HERE}.timm_hub:TimmFolder", "a folder for timm.create_model('local-dir:FOLDER')"),
        "onnx": Entry(f"{HERE}.onnx:Onnx", "ONNX, for batches of any size: .onnx"),
        "torchscript": Entry(f"{HERE}.torchscript:TorchScript", "TorchScript, for torch.jit.load: .pt"),
        "pt2": Entry(f"{HERE}.pt2:Pt2", "a program of torch.export, for torch.export.load: .pt2"),
    },
)
