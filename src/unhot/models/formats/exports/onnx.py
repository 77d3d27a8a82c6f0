"""ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unhot.errors import ModelError, first_line
from unhot.models.classifier import Classifier
from unhot.models.formats.exports.pt2 import program_of
from unhot.models.formats.exports.target import Run, Target
from unhot.packages import needed
from unhot.runtime.silence import silence

INPUT, OUTPUT, BATCH = "images", "logits", "batch"
LARGEST = 2**31  # bytes of a file of protobuf


class Onnx(Target):
    """A file whose input is ``images`` (B, C, H, W) and whose output is ``logits`` (B, K); B is named ``batch``.

    The names of the classes are among its metadata, as a JSON list under ``classes``.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)

    def __init__(self, model: Classifier, keep_keys: bool) -> None:
        super().__init__(model, keep_keys)
        with silence():
            needed("onnx", "onnx", "onnxscript", "onnxruntime")
        if sum(t.nbytes for t in model.module.state_dict().values()) >= LARGEST:
            raise ModelError("A file of ONNX holds at most 2 GiB, and the weights are larger. Export it as pt2.")

    def write(self, path: Path) -> None:
        """Trace the net, translate it and write it."""
        program = program_of(self.model, "onnx")
        try:
            with silence():
                made = torch.onnx.export(
                    program, dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT]
                )
                assert made is not None  # as dynamo=True returns
                _name_batch(made.model.graph)
                made.model.metadata_props["classes"] = json.dumps([c.name for c in self.model.classes])
                made.save(path, external_data=False)
        except OSError:
            raise
        except Exception as error:  # torch, onnxscript and onnx raise many kinds
            raise ModelError(
                f"This net cannot be exported as onnx: torch.onnx cannot translate it ({first_line(error)}). Export it "
                "as pt2."
            ) from error

    def load(self, path: Path) -> Run:
        """Load the file in onnxruntime, on the CPU."""
        with silence():
            (runtime,) = needed("onnx", "onnxruntime")
            session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

        def run(x: Tensor) -> Tensor:
            (logits,) = session.run([OUTPUT], {INPUT: x.numpy()})
            return torch.from_numpy(logits)

        return run


def _name_batch(graph: Any) -> None:
    """Name the number of images, which the trace gives a number as its name."""
    traced = graph.inputs[0].shape[0]
    for value in (*graph.inputs, *(out for node in graph for out in node.outputs)):
        for i, size in enumerate(value.shape or ()):
            if size == traced:
                value.shape[i] = BATCH
