"""Calls every operator that a graph may call with random and extreme arguments, through the files of a bundle.

``python fuzz_operators.py FOLDER SEED COUNT [CALL ...]`` tries each operator COUNT times. What is tried next is in
``FOLDER/next.json``, so that whoever started this process knows what ended it. What is neither a result nor a
ModelError is printed, a line of JSON each.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from unhot.errors import ModelError
from unhot.files import sha256
from unhot.models import graph
from unhot.models.budget import Budget, estimate, tensors_in
from unhot.models.bundle import load
from unhot.models.operators import OPERATORS, WORDS, Argument, signature_of

MEMORY = 12 * 2**30
SECONDS = 20
SHAPE = (3, 8, 8)
WEIGHTS = {
    "scalar": torch.tensor(0.5),
    "row": torch.tensor([0.5, -1.0, 2.0]),
    "matrix": torch.ones(4, 3),
    "square": torch.eye(8),
    "kernel1": torch.ones(4, 3, 3),
    "kernel2": torch.ones(4, 3, 3, 3),
    "kernel3": torch.ones(2, 3, 2, 2, 2),
    "none": torch.zeros(0, 3),
    "w_half": torch.ones(3, dtype=torch.float16),
    "w_double": torch.ones(2, 3, 8, 8, dtype=torch.float64),
    "one": torch.tensor(1),
    "whole": torch.tensor([0, 2, 1]),
    "extreme": torch.tensor([-(2**63), -1, 0, 2**63 - 1]),
    "minus": torch.tensor([-1, -1, -1, -1]),
    "byte": torch.tensor([0, 255, 3], dtype=torch.uint8),
    "truth": torch.tensor([True, False, True]),
    "head.weight": torch.ones(5, 3),
    "head.bias": torch.zeros(5),
}
FIRST = [  # values 1 to 10: of every kind
    {"call": "aten.sym_size.int", "args": [{"value": 0}, 0]},
    {"call": "aten.argmax.default", "args": [{"value": 0}, 1]},
    {"call": "aten.gt.Scalar", "args": [{"value": 0}, 0.5]},
    {"call": "aten.flatten.using_ints", "args": [{"value": 0}, 2]},
    {"call": "aten.mean.dim", "args": [{"value": 0}, [2, 3]]},
    {"call": "aten.log.default", "args": [{"value": 0}]},
    {"call": "aten.unsqueeze.default", "args": [{"value": 0}, 2]},
    {"call": "aten.mul.Tensor", "args": [{"value": 0}, 1.5]},
    {"call": "aten.fft_fft.default", "args": [{"value": 0}]},
    {"call": "operator.sub", "args": [{"value": 1}, 2]},
]
TENSORS = [0, 2, 3, 4, 5, 6, 7, 8, 9]
WHOLE = [0, 1, 1, 2, 2, 3, 3, 4, 7, -1, -2, 8, 65_536, -65_536, 2**31 - 1, -(2**31 - 1), 2**63 - 1]
SMALL = [0, 1, 2, 3, -1, -2, 1, 1, 2, 4, 65]
FLOATS = [0.0, 1.0, 0.5, 2.0, -1.0, 1e300, -1e-300, {"float": "inf"}, {"float": "nan"}, 3.5]
EQUATIONS = [
    "bchw,bcvw->bhv",
    "ij,jk",
    "...i,i",
    "ab,ab,ab->",
    "ii->i",
    "bchw->",
    "b...,c->b",
    "a,,b",
    "->",
    "abc,cd->abd",
]


class TooLowError(BaseException):
    """An estimate was too low; nothing may catch it."""


class Checked(Budget):
    """A budget that knows when it was wrong."""

    def take(self, name: str, given: Any) -> None:
        self.estimated = max(estimate(name.rstrip("_"), given))
        super().take(name, given)

    def keep(self, value: Any) -> None:
        returned = max((t.numel() for t in tensors_in(value)), default=0)
        if returned > self.estimated:
            raise TooLowError(f"{returned} elements, and not {self.estimated}")
        super().keep(value)


def one(a: Argument, draw: random.Random) -> Any:
    """Return what an argument, or an item of it, could be."""
    if a.kind == "TensorType":
        if a.name == "other" and draw.random() < 0.2:
            return draw.choice([0, -1, 2, 0.0, 1e30, True, {"value": 10}])
        if draw.random() < 0.6:
            return {"value": draw.choice(TENSORS)}
        return {"weight": draw.choice(sorted(WEIGHTS))}
    if a.kind == "BoolType":
        return draw.random() < 0.5
    if a.kind == "StringType":
        return draw.choice([*WORDS.get(a.name, ()), *(EQUATIONS if a.name == "equation" else ["nothing"])])
    if a.kind == "FloatType":
        return draw.choice(FLOATS)
    if a.kind == "NumberType":
        return draw.choice([*FLOATS, *WHOLE, True, {"value": 1}])
    if a.kind in ("IntType", "SymIntType"):
        if a.kind == "SymIntType" and draw.random() < 0.1:
            return {"value": draw.choice([1, 10])}
        return draw.choice(SMALL if draw.random() < 0.7 else WHOLE)
    named = {
        "ScalarTypeType": {
            "dtype": draw.choice(["float32", "float64", "int64", "bool", "complex64", "uint8", "float16"])
        },
        "DeviceObjType": {"device": "input"},
        "LayoutType": {"layout": "strided"},
        "MemoryFormatType": {"memory_format": draw.choice(["contiguous_format", "channels_last", "preserve_format"])},
    }
    return named.get(a.kind)


def some(a: Argument, draw: random.Random) -> Any:
    """Return what an argument could be."""
    if a.optional and draw.random() < 0.3:
        return None
    if a.length == 0:
        return one(a, draw)
    count = a.length if a.length and draw.random() < 0.8 else draw.randrange(5)
    if a.kind != "TensorType" and draw.random() < 0.5:
        return [one(a, draw)] * count
    return [None if a.items_optional and draw.random() < 0.3 else one(a, draw) for _ in range(count)]


def case(call: str, draw: random.Random) -> dict[str, Any]:
    """Return a step that calls an operator."""
    declared, _ = signature_of(call)
    given = {n: some(a, draw) for n, a in declared.items() if a.needed or draw.random() < 0.4}
    return {"call": call, "kwargs": given}


def written(folder: Path, *tried: dict[str, Any], layers: dict[str, Any] | None = None) -> None:
    """Write a bundle whose graph has these steps."""
    after = [
        {"call": "aten.mean.dim", "args": [{"value": 0}, [2, 3]]},
        {"layer": "head", "args": [{"value": len(FIRST) + len(tried) + 1}]},
    ]
    steps = [*FIRST, *tried, *after]
    content = {
        "shape": SHAPE,
        "parameters": ["head.weight", "head.bias"],
        "layers": {"head": {"kind": "Linear"}} | (layers or {}),
        "steps": steps,
        "output": len(steps),
    }
    (folder / "graph.json").write_text(json.dumps(content))
    info = {
        "arch": "",
        "outputs": 5,
        "classes": [{"index": i, "name": str(i)} for i in range(5)],
        "input": None,
        "head": "head",
        "weights_sha256": sha256(folder / "model.safetensors"),
        "graph_sha256": sha256(folder / "graph.json"),
        "unhot_version": "0",
    }
    (folder / "bundle.json").write_text(json.dumps(info))


def run(folder: Path, step: dict[str, Any]) -> tuple[str, bool]:
    """Load a bundle with this step and run it; return what was wrong, and whether it ran."""
    written(folder, step)
    begun = time.perf_counter()
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1)) - 0.5
    given = x.clone()
    try:
        model = load(folder)
        digest = model.sha256()
        with torch.no_grad():
            model.module(x)
            model.module(x[:1])
        wrong = "" if digest == model.sha256() and torch.equal(x, given) else "weights or inputs were changed"
        return wrong, True
    except ModelError:
        return ("it took too long" if time.perf_counter() - begun > SECONDS else ""), False
    except (Exception, TooLowError) as error:
        return f"{type(error).__name__}: {error}"[:300], False


def main(folder: Path, seed: int, count: int, calls: list[str]) -> None:
    """Try the operators."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    save_file(WEIGHTS, folder / "model.safetensors")
    graph.Budget = Checked  # type: ignore[misc]
    ran = 0
    for call in calls or sorted(OPERATORS):
        for i in range(count):
            step = case(call, random.Random(f"{seed} {call} {i}"))
            (folder / "next.json").write_text(json.dumps(step))
            wrong, done = run(folder, step)
            ran += done
            if wrong:
                print(json.dumps({"wrong": wrong, "step": step}), flush=True)
    (folder / "next.json").write_text(json.dumps(ran))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
