from __future__ import annotations

import pytest

from unhot import errors
from unhot.errors import DataError, ModelError, UnknownNameError, raise_all, shortened


def test_the_tree_is_as_drawn() -> None:
    for leaf, builtin in {
        errors.InputError: ValueError,
        errors.UnknownNameError: LookupError,
        errors.OutputError: OSError,
        errors.UndeclaredReadError: RuntimeError,
        errors.MethodFailedError: RuntimeError,
    }.items():
        assert issubclass(leaf, builtin)
        assert issubclass(leaf, errors.UnhotError)
    for leaf in (errors.OptionError, ModelError, DataError, errors.OutputError, UnknownNameError):
        assert issubclass(leaf, errors.InputError)
    assert issubclass(errors.TooLongError, errors.OptionError)
    drawn = errors.__doc__ or ""
    assert all(name in drawn for name, e in vars(errors).items() if isinstance(e, type) and issubclass(e, Exception))


def test_unknown_name_offers_the_nearest() -> None:
    assert (
        str(UnknownNameError("method", "scrubb", ["scrub", "mask"])) == "Unknown method 'scrubb'. Did you mean 'scrub'?"
    )


def test_unknown_name_lists_what_is_known_when_nothing_is_near() -> None:
    assert str(UnknownNameError("class", 77, ["cat", "dog"])) == "Unknown class '77'. Known: cat, dog."
    assert str(UnknownNameError("option of lenet5:", "x", [])) == "Unknown option of lenet5: 'x'. There are none."


def test_long_lists_are_shortened() -> None:
    assert shortened(range(3)) == "0, 1, 2"
    assert shortened(range(20), limit=2) == "0, 1 and 18 more"


def test_raise_all_says_nothing_one_or_everything() -> None:
    assert raise_all(ModelError, "It", []) is None
    with pytest.raises(ModelError, match=r"^It: no head\.$"):
        raise_all(ModelError, "It", ["no head."])
    with pytest.raises(ModelError, match=r"(?s)^It: 2 problems:\n  - a\.\n  - b\.$"):
        raise_all(ModelError, "It", ["a.", "b."])
