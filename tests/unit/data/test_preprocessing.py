from __future__ import annotations

import pytest

from unhot.data.preprocessing import Preprocessing
from unhot.data.source import photo_input
from unhot.errors import OptionError
from unhot.records.model import InputSpec

OWN = InputSpec(
    height=224, width=224, channels=3, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), resize=235, interpolation="bicubic"
)


def parsed(**given: object) -> Preprocessing:
    return Preprocessing.parse(
        *(given.get(k) for k in ("size", "resize", "interpolation", "mean", "std"))  # type: ignore[arg-type]
    )


def test_what_is_not_said_stays() -> None:
    assert parsed().applied(OWN) is OWN
    assert parsed().applied(None) is None


def test_what_is_said_counts() -> None:
    got = parsed(size=128, resize="160", interpolation="lanczos", mean="0.5", std="0.1,0.2,0.4").applied(OWN)
    assert got == InputSpec(
        height=128, width=128, channels=3, mean=(0.5,) * 3, std=(0.1, 0.2, 0.4), resize=160, interpolation="lanczos"
    )
    assert parsed(resize="256x300").applied(OWN).resize == (256, 300)


def test_another_size_keeps_the_share_that_is_cropped() -> None:
    assert parsed(size=112).applied(OWN).resize == 117  # 235 / 2
    exact = OWN.model_copy(update={"resize": (224, 448)})
    assert parsed(size=112).applied(exact).resize == (112, 224)
    assert parsed(size=112).applied(OWN.model_copy(update={"resize": None})).resize is None


def test_without_anything_known_the_size_is_needed() -> None:
    assert parsed(size=32).applied(None) == photo_input(32)
    assert parsed(size=32, mean="0").applied(None).mean == (0.0,) * 3
    with pytest.raises(OptionError, match="Give --image-size too"):
        parsed(mean="0.5").applied(None)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"resize": "big"}, r"Expected --resize as the shorter side, or HEIGHTxWIDTH, in pixels\. Got 'big'"),
        ({"resize": "1x2x3"}, "Got '1x2x3'"),
        ({"resize": "-5"}, "Got '-5'"),
        ({"resize": "9" * 30}, "Expected --resize"),
        ({"mean": "a,b"}, r"Expected --mean as one number, or one for each channel between commas\. Got 'a,b'"),
        ({"mean": "0.1,0.2"}, "mean and std need 3 values"),
        ({"mean": "nan"}, "finite"),
        ({"std": "0"}, "greater than 0"),
        ({"std": "inf"}, "finite"),
        ({"interpolation": "cubic"}, "'bicubic'"),
        ({"resize": "100"}, "resized to at least 224 by 224"),
        ({"size": 0}, "image size must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        parsed(**given).applied(OWN)
