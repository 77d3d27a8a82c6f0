"""How images become inputs, in words."""

from __future__ import annotations

from unhot.records.model import InputSpec


def input_text(spec: InputSpec) -> str:
    """Say how pictures become the inputs of a model: what comes after "pictures are"."""
    size = f"{spec.height} by {spec.width} pixels"
    if isinstance(spec.resize, int):
        sized = f"resized to {spec.resize} pixels on their shorter side, cropped at the centre to {size}"
    elif spec.resize is None or spec.resize == (spec.height, spec.width):
        sized = f"resized to {size}, whatever their shape"
    else:
        height, width = spec.resize
        sized = f"resized to {height} by {width} pixels, whatever their shape, cropped at the centre to {size}"
    colour = {1: "grey", 3: "RGB"}.get(spec.channels, f"{spec.channels} channels")
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (spec.mean, spec.std))
    return f"{sized} ({spec.interpolation}), {colour}, scaled to 0..1, mean {mean} subtracted, divided by {std}"
