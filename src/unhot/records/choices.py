"""What records and options of the command line choose from; without pydantic, which takes ``unhot --help`` too long."""

from __future__ import annotations

from typing import Literal

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Precision = Literal["fp32", "bf16"]
KeyKind = Literal["ed25519", "ecdsa"]
Holder = Literal["outputs", "features", "weights"]
