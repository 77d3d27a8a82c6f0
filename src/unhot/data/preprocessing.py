"""Preprocessing that a user asks for, which overrides that of a model or a data set."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from unhot.data.source import check_size, photo_input
from unhot.errors import OptionError, invalid_values
from unhot.records.model import InputSpec


@dataclass(frozen=True)
class Preprocessing:
    """How a user wants pictures to become inputs; None where nothing is asked for.

    Attributes:
        size: Height and width of the input in pixels.
        resize: See :class:`unhot.InputSpec`.
        interpolation: See :class:`unhot.InputSpec`.
        mean: One value for all channels, or one for each.
        std: One value for all channels, or one for each.
    """

    size: int | None = None
    resize: int | tuple[int, int] | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def parse(
        cls, size: int | None, resize: str | None, interpolation: str | None, mean: str | None, std: str | None
    ) -> Preprocessing:
        """Parse the values of options: ``256`` or ``256x192`` for ``resize``, numbers between commas for mean and std.

        Raises:
            OptionError: A value has another form.
        """
        return cls(size, _size("resize", resize), interpolation, _numbers("mean", mean), _numbers("std", std))

    def applied(self, spec: InputSpec | None, channels: int = 3) -> InputSpec | None:
        """Return an input with these values in place of its own; ``resize`` stays in proportion to the size.

        Args:
            spec: The input of a model or a data set; None if it is not known.
            channels: Number of channels of an input that is not known.

        Raises:
            OptionError: A value is invalid, or there is no size.
        """
        if self == Preprocessing():
            return spec
        if spec is None:
            if self.size is None:
                raise OptionError("The size of the inputs is not known. Give --image-size too.")
            named = max(len(self.mean or ()), len(self.std or ()))
            spec = photo_input(self.size, named if named > 1 else channels)
        found = spec.model_dump() | {k: v for k, v in vars(self).items() if v is not None and k != "size"}
        if self.size is not None:
            check_size(self.size)
            found |= {"height": self.size, "width": self.size}
            if self.resize is None:
                found["resize"] = _in_proportion(spec, self.size)
        for key in ("mean", "std"):
            if len(found[key]) == 1:
                found[key] = tuple(found[key]) * spec.channels
        try:
            return InputSpec.model_validate(found)
        except ValidationError as error:
            raise OptionError(f"Invalid preprocessing: {'; '.join(invalid_values(error))}.") from error


def _in_proportion(spec: InputSpec, size: int) -> int | tuple[int, ...] | None:
    if spec.resize is None:
        return None
    if isinstance(spec.resize, int):
        return int(spec.resize * size / min(spec.height, spec.width))
    return tuple(int(side * size / own) for side, own in zip(spec.resize, (spec.height, spec.width), strict=True))


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(
            f"Expected --{name} as one number, or one for each channel between commas. Got {text!r}."
        ) from error


def _size(name: str, text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdecimal() and len(side) < 7 for side in sides):
        raise OptionError(f"Expected --{name} as the shorter side, or HEIGHTxWIDTH, in pixels. Got {text!r}.")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))
