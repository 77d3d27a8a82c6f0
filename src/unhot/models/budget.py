"""Limits of memory and work of a graph, estimated from shapes before each operator is called.

torch allocates whatever it is asked for, and the system kills a process that asks for too much. Tensors on the meta
device would give the sizes too, but torch takes seconds to import what they need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf, prod
from typing import Any

import torch
from torch import Tensor, nn

ELEMENTS = 2**10  # elements of all live values, for each pixel of each image
LEAST_ELEMENTS = 2**26  # the same for an image of few pixels
ALL_ELEMENTS = 2**32  # the same for all images together
WORK = 2**25  # multiplications for each pixel of each image
LEAST_WORK = 2**34  # the same for an image of few pixels
RESULTS = 65_536  # tensors that one call may return
DIMENSIONS = 64  # dimensions of a tensor; torch computes with few more than 25
PER_ELEMENT = 64  # multiplications that take as long as one element of a slow function, such as a power
PER_TENSOR, LEAST_SIZE = 2**14, 256  # multiplications and elements that even the smallest tensor costs
DIVIDING = "floor_divide", "fmod", "remainder", "div"  # of integers they can crash the process

Given = Mapping[str, Any]  # the arguments of a call, by name


class Budget:
    """Counts the memory and work of a forward pass.

    Args:
        x: Inputs (B, C, H, W).
    """

    def __init__(self, x: Tensor) -> None:
        images = max(len(x), 1)
        pixels = prod(x.shape[2:])
        self.elements = min(images * max(pixels * ELEMENTS, LEAST_ELEMENTS), ALL_ELEMENTS)
        self.work = images * max(pixels * WORK, LEAST_WORK)
        self.alive = _taken([x])

    def take(self, name: str, given: Given) -> None:
        """Count a call before it is made.

        Args:
            name: The operator, without its overload.
            given: Its arguments, by name.

        Raises:
            ValueError: A limit is exceeded.
        """
        _check_division(name, given)
        result, work = estimate(name.rstrip("_"), given)
        self.work -= max(PER_ELEMENT * result, work)
        if self.alive + result > self.elements:
            raise ValueError(f"it needs more than {self.elements:,} numbers at once. Give fewer images at once")
        if self.work < 0:
            raise ValueError("it takes more multiplications than a net for such images has")

    def keep(self, value: Any) -> None:
        """Count the results of a call.

        Raises:
            ValueError: It has too many dimensions.
        """
        tensors = list(tensors_in(value))
        if any(t.ndim > DIMENSIONS for t in tensors):
            raise ValueError(f"it makes a tensor of more than {DIMENSIONS} dimensions")
        self.alive += _taken(tensors)
        self.work -= PER_TENSOR * len(tensors)

    def drop(self, value: Any) -> None:
        """Subtract values that are no longer needed."""
        self.alive -= _taken(tensors_in(value))


def _taken(tensors: Iterable[Tensor]) -> int:
    """Return the number of elements of tensors, with the overhead of torch for each of them."""
    return sum(max(t.numel(), LEAST_SIZE) for t in tensors)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors among the results of an operator, or among its arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from tensors_in(v)


def estimate(name: str, given: Given) -> tuple[int, int]:
    """Return the maximum number of elements that an operator returns or allocates, and that of multiplications."""
    if name in GROWING:
        result = GROWING[name](given)
        return result if isinstance(result, tuple) else (result, 0)
    return _broadcast(tensors_in(list(given.values()))), 0


def of_layer(layer: nn.Module, x: Tensor) -> tuple[str, Given]:
    """Return the call of a layer as the call of its operator."""
    if isinstance(layer, nn.Linear):
        return "linear", {"input": x, "weight": layer.weight}
    if isinstance(layer, nn.Conv2d):
        options = {o: getattr(layer, o) for o in ("stride", "padding", "dilation")}
        return "conv2d", {"input": x, "weight": layer.weight, **options}
    return "batch_norm", {"input": x}


def _check_division(name: str, given: Given) -> None:
    """Refuse integer division that may be by 0 or -1, which can crash the process."""
    if name.rstrip("_") not in DIVIDING or (name.startswith("div") and given.get("rounding_mode") is None):
        return
    number, by = given["self"], given["other"]
    whole = [not (t.is_floating_point() or t.is_complex()) for t in (number, by) if isinstance(t, Tensor)]
    if all(whole) and (isinstance(by, Tensor) or (not isinstance(by, float) and by < 1)):
        raise ValueError("it divides whole numbers by what may be 0 or less")


def _together(shapes: Iterable[Sequence[int]]) -> list[int]:
    """Return the shape to which shapes broadcast; where sizes do not fit, the larger one."""
    sizes: list[int] = []
    for shape in shapes:
        sizes = [1] * (len(shape) - len(sizes)) + sizes
        for i, size in enumerate(reversed(shape), 1):
            sizes[-i] = max(size, sizes[-i]) if 1 not in (size, sizes[-i]) else size * sizes[-i]
    return sizes


def _broadcast(tensors: Iterable[Tensor]) -> int:
    """Return the number of elements to which tensors broadcast."""
    return prod(_together(t.shape for t in tensors))


def _size(sizes: Sequence[int], of: Sequence[int] = ()) -> int:
    """Return the elements of a tensor of these sizes, where -1 stands for the size in ``of``."""
    padded = [1] * (len(sizes) - len(of)) + list(of)
    return prod(old if new < 0 else new for new, old in zip(sizes, padded, strict=False))


def _each(number: Any, count: int) -> Sequence[int]:
    """Return one number for each of some dimensions."""
    many = [number] if isinstance(number, int) else list(number)
    return many * count if len(many) == 1 else many


def _all(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def _range(given: Given) -> int:
    start, end, step = (float(given.get(k, least)) for k, least in (("start", 0), ("end", 0), ("step", 1)))
    count = (end - start) / step if step else 0.0
    return int(count) + 1 if 0 <= count < inf else 0  # torch refuses the others


def _matmul(a: Tensor, b: Tensor) -> tuple[int, int]:
    inner = a.shape[-1] if a.ndim else 1
    rows, columns = (t.shape[i] if t.ndim > 1 else 1 for t, i in ((a, -2), (b, -1)))
    groups = prod(_together([a.shape[:-2], b.shape[:-2]]))
    return groups * max(rows * columns, rows * inner, inner * columns), groups * rows * columns * inner


def _contracted(a: Tensor, b: Tensor, inner: int) -> tuple[int, int]:
    result = a.numel() * b.numel() // max(inner, 1) ** 2
    return max(result, a.numel(), b.numel()), result * inner


def _tensordot(given: Given) -> tuple[int, int]:
    a, b = given["self"], given["other"]
    return _contracted(a, b, prod(a.shape[d] for d in given["dims_self"]))


def _einsum(given: Given) -> tuple[int, int]:
    terms, _, out = given["equation"].replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms.split(","), given["tensors"], strict=True):
        if "." in term or len(term) != tensor.ndim:
            return (everything := prod(t.numel() for t in given["tensors"])), everything
        sizes |= {k: max(n, sizes.get(k, 1)) for k, n in zip(term, tensor.shape, strict=True)}
    work = prod(sizes.values())
    if not out or len(given["tensors"]) > 2:
        return work, work
    return max(prod(sizes.get(k, 1) for k in out), *(t.numel() for t in given["tensors"])), work


def _attention(given: Given) -> tuple[int, int]:
    query, key, value = (given[k] for k in ("query", "key", "value"))
    groups = prod(_together([t.shape[:-2] for t in (query, key, value)]))
    scores = groups * query.shape[-2] * key.shape[-2]
    result = groups * query.shape[-2] * value.shape[-1]
    return max(scores, result), scores * (query.shape[-1] + value.shape[-1])


def _bilinear(given: Given) -> tuple[int, int]:
    (out, *inner), count = given["weight"].shape, given["input1"].numel() // max(given["input1"].shape[-1], 1)
    return count * max(out, prod(inner)), count * out * prod(inner)


def _moved(sizes: Sequence[int], kernel: Sequence[int], given: Given) -> int:
    """Return the maximum number of positions of a window that moves over these sizes."""
    n = len(sizes)
    stride, dilation = (_each(given.get(k) or kernel, n) for k in ("stride", "dilation"))
    padding, places = given.get("padding") or 0, 1
    for i, size in enumerate(sizes):
        wide = dilation[i] * (kernel[i] - 1)
        pad = wide if padding == "same" else 0 if padding == "valid" else 2 * _each(padding, n)[i]
        places *= max((size + pad - wide - 1 + stride[i] - 1) // stride[i] + 1, 0)
    return places


def _conv(given: Given) -> tuple[int, int]:
    x, w = given["input"], given["weight"]
    n = w.ndim - 2
    places = prod(x.shape[: x.ndim - n - 1]) * _moved(x.shape[x.ndim - n :], w.shape[2:], {"dilation": 1} | dict(given))
    windows = places * prod(w.shape[1:])  # torch copies these where it has nothing faster
    copied = windows // 8 if x.dtype in (torch.float32, torch.float16, torch.bfloat16) else windows
    return max(places * len(w), copied), windows * len(w)


def _conv_transpose(given: Given) -> tuple[int, int]:
    x, w = given["input"], given["weight"]
    n = w.ndim - 2
    stride, dilation, more = (_each(given[k], n) for k in ("stride", "dilation", "output_padding"))
    sizes = zip(x.shape[x.ndim - n :], w.shape[2:], stride, dilation, more, strict=True)
    places = prod((size - 1) * s + d * (k - 1) + m + 1 for size, k, s, d, m in sizes)
    work = x.numel() * prod(w.shape[1:])
    images = prod(x.shape[: x.ndim - n - 1])
    return max(images * places * w.shape[1] * given["groups"], work // max(len(w), 1)), work


def _pool(given: Given) -> tuple[int, int]:
    x, kernel = given["self"], given["kernel_size"]
    n = min(len(kernel), x.ndim)
    places = prod(x.shape[: x.ndim - n]) * _moved(x.shape[x.ndim - n :], kernel, {"dilation": 1} | dict(given))
    return places, places * prod(kernel)


def _im2col(given: Given) -> int:
    x: Tensor = given["self"]
    return prod(x.shape[:-2]) * prod(given["kernel_size"]) * _moved(x.shape[-2:], given["kernel_size"], given)


def _resized(x: Tensor, sizes: Sequence[int]) -> int:
    """Return the elements of a tensor with other last sizes."""
    return prod(x.shape[: max(x.ndim - len(sizes), 0)]) * prod(sizes)


def _upsampled(given: Given) -> int:
    x: Tensor = given["input"]
    scales = given["scale_factors"]
    if given["output_size"] is not None:
        return _resized(x, given["output_size"])
    if scales is None or not all(0 < s < 2**31 for s in scales):
        return 0  # torch refuses it
    sizes = zip(x.shape[x.ndim - len(scales) :], scales, strict=True)
    return _resized(x, [int(size * s) + 1 for size, s in sizes])


def _padded(given: Given) -> int:
    x: Tensor = given["self"]
    pad = given.get("pad", given.get("padding"))
    sizes = list(x.shape)
    for i in range(min(len(pad) // 2, x.ndim)):
        sizes[-1 - i] = max(sizes[-1 - i] + pad[2 * i] + pad[2 * i + 1], 0)
    return max(prod(sizes), x.numel())


def _indexed(given: Given) -> int:
    x: Tensor = given["self"]
    left, at, picked = list(x.shape), 0, []
    for index in given["indices"]:
        taken = index.ndim if index is not None and index.dtype in (torch.bool, torch.uint8) else 1
        if index is not None:
            left[at : at + taken] = [1] * taken
            picked.append([index.numel()] if taken != 1 or index.dtype == torch.bool else index.shape)
        at += taken
    return prod(left) * prod(_together(picked))


def _selected(given: Given) -> int:
    x: Tensor = given["self"]
    return x.numel() // max(x.shape[given["dim"]] if x.ndim else 1, 1) * int(given["index"].numel())


def _unfolded(given: Given) -> int:
    x: Tensor = given["self"]
    size, wide = int(given["size"]), x.shape[given["dimension"]] if x.ndim else 1
    return x.numel() // max(wide, 1) * max((wide - size) // int(given["step"]) + 1, 0) * size


def _transformed(given: Given) -> int:
    x: Tensor = given["self"]
    dims, sizes = ([given["dim"]], [given["n"]]) if "n" in given else (given["dim"], given["s"])
    for d, size in zip(dims, sizes if sizes and sizes != [None] else [], strict=False):
        x = x.select(d, 0).unsqueeze(d).expand(*[size if i == d % x.ndim else -1 for i in range(x.ndim)])
    return 4 * x.numel()  # complex ones, or twice as many


def _several(count: int, elements: int) -> int:
    """Return the elements of results in several tensors, each of which takes memory of its own."""
    if count > RESULTS:
        raise ValueError(f"it makes {count:,} tensors of one")
    return elements


# operators that may return or allocate more elements than their arguments have
GROWING: dict[str, Callable[[Given], int | tuple[int, int]]] = {
    **dict.fromkeys(("cat", "concat", "stack"), lambda g: _all(g["tensors"])),
    **dict.fromkeys(("full", "zeros", "ones", "new_full", "new_ones", "new_zeros"), lambda g: _size(g["size"])),
    **dict.fromkeys(("expand", "broadcast_to"), lambda g: _size(g["size"], g["self"].shape)),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _pool),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices"), _pool),
    **dict.fromkeys(
        [f"adaptive_{how}_pool{n}d" for how in ("avg", "max") for n in (1, 2, 3)],
        lambda g: _resized(g["self"], g["output_size"]),
    ),
    **dict.fromkeys(("_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa"), _upsampled),
    **dict.fromkeys(("upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d"), _upsampled),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d"), _upsampled),
    **dict.fromkeys(("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d"), _padded),
    **dict.fromkeys(("replication_pad1d", "replication_pad2d"), _padded),
    **dict.fromkeys(("fft_fft", "fft_fft2", "fft_ifft", "fft_ifft2"), _transformed),
    **dict.fromkeys(("fft_rfft", "fft_rfft2", "fft_irfft", "fft_irfft2"), _transformed),
    **dict.fromkeys(("outer", "kron"), lambda g: prod(t.numel() for t in tensors_in(list(g.values())))),
    **dict.fromkeys(("matmul", "dot"), lambda g: _matmul(*list(g.values())[:2])),
    **dict.fromkeys(("addmm", "mm", "mv", "bmm"), lambda g: _matmul(*list(tensors_in(list(g.values())))[-2:])),
    **dict.fromkeys(("addbmm", "baddbmm"), lambda g: _matmul(g["batch1"], g["batch2"])),
    "linear": lambda g: _contracted(g["input"], g["weight"], g["weight"].shape[-1]),
    "inner": lambda g: _contracted(g["self"], g["other"], g["self"].shape[-1] if g["self"].ndim else 1),
    "tensordot": _tensordot,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "bilinear": _bilinear,
    "cdist": lambda g: _matmul(g["x1"], g["x2"].mT),
    "linalg_norm": lambda g: (g["self"].numel(), g["self"].numel() * min(g["self"].shape[-2:], default=1)),
    "repeat": lambda g: g["self"].numel() * _size(g["repeats"]),
    "tile": lambda g: g["self"].numel() * _size(g["dims"]),
    "repeat_interleave": lambda g: g["self"].numel() * abs(g["repeats"]),
    "arange": _range,
    "linspace": lambda g: g["steps"],
    "eye": lambda g: g["n"] * g.get("m", g["n"]),
    "diff": lambda g: _all(list(tensors_in(list(g.values())))),
    "view_as_real": lambda g: 2 * g["self"].numel(),
    "one_hot": lambda g: g["self"].numel() * g["num_classes"],
    "embedding": lambda g: g["indices"].numel() * prod(g["weight"].shape[1:]),
    "index": _indexed,
    "index_select": _selected,
    "unfold": _unfolded,
    "im2col": _im2col,
    "col2im": lambda g: prod(g["self"].shape[:-1]) * prod(g["output_size"]),
    "grid_sampler": lambda g: prod(g["grid"].shape[:-1]) * g["input"].shape[1],
    "meshgrid": lambda g: prod(t.numel() for t in g["tensors"]) * len(g["tensors"]),
    "broadcast_tensors": lambda g: _broadcast(g["tensors"]) * len(g["tensors"]),
    "unbind": lambda g: _several(g["self"].shape[g["dim"]], g["self"].numel()),
    "split": lambda g: _several(g["self"].shape[g["dim"]] // g["split_size"], g["self"].numel()),
}
