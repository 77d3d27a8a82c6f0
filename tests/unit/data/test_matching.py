"""Which class is meant: names first, positions only where no names match, and nothing that is ambiguous."""

from __future__ import annotations

import unicodedata
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhot.data.matching import Known, find_class
from unhot.errors import DataError, DataWarning, InputError, ModelError, ModelWarning, UnknownNameError
from unhot.records.model import ClassLabel

TWELVE = [str(i) for i in range(12)]
CRANES = ["crane", "heron", "crane"]


def labels(names: list[str]) -> tuple[ClassLabel, ...]:
    return tuple(ClassLabel(index=i, name=n) for i, n in enumerate(names))


def known(names: list[str], *excised: int) -> Known:
    everyone = labels(names)
    gone = tuple(everyone[i] for i in excised)
    return Known(tuple(c for c in everyone if c not in gone), gone, len(names))


def matched(model: Known, names: list[str] | None, present: list[int] | None = None) -> list[int]:
    asked = list(range(len(names or ()))) if present is None else present
    found = model.match(names, asked, "data")
    return [found[i].index for i in asked]


@given(st.permutations(TWELVE), st.permutations(TWELVE))
def test_numbers_are_names_in_whatever_order_both_are_sorted(mine: list[str], data: list[str]) -> None:
    found = known(mine).match(data, range(12), "data")
    assert [found[i].name for i in range(12)] == data


@given(st.permutations(["cat", "dog", "cow", "7"]), st.data())
def test_names_decide_whatever_is_missing_from_the_data(mine: list[str], data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(mine), min_size=1, unique=True))
    assert [mine[i] for i in matched(known(mine), some)] == some


def test_positions_decide_where_no_name_is_known_and_that_is_said() -> None:
    with pytest.warns(DataWarning, match=r"data.*class.*name.*position.*'cat'.*'0'.*'dog'"):
        assert matched(known(["0", "1", "2"]), ["cat", "dog", "cow"]) == [0, 1, 2]
    with pytest.raises(DataError, match=r"data.*0.*1.*2"):
        matched(known(["0", "1", "2"]), ["cat", "dog"])


def test_folders_that_are_named_after_indices() -> None:
    with pytest.warns(DataWarning, match=r"by the numbers"):
        assert matched(known(["cat", "dog", "cow"]), ["2", "0"]) == [2, 0]
    with pytest.warns(DataWarning, match=r"by position"):  # counted from one
        assert matched(known(["cat", "dog", "cow"]), ["1", "2", "3"]) == [0, 1, 2]


def test_a_class_that_the_model_does_not_have_is_refused_where_it_has_images() -> None:
    model = known(["cat", "dog", "cow"])
    assert matched(model, ["dog", "horse"], [0]) == [1]
    with pytest.raises(DataError, match=r"classes.*horse"):
        matched(model, ["dog", "horse"])
    for present in ([3], [-1]):
        with pytest.raises(DataError, match=r"does not have the classes"):
            matched(model, None, present)


def test_a_name_that_several_classes_have() -> None:
    assert matched(known(CRANES), CRANES) == [0, 1, 2]  # the same list: position is as good as a name
    assert matched(known(CRANES), ["heron"]) == [1]
    for other in (["heron", "crane"], ["crane", "crane", "heron"]):
        with pytest.raises(DataError, match=r"several.*classes.*crane"):
            matched(known(CRANES), other)
    with pytest.raises(DataError, match=r"several classes are named cat"):
        matched(known(["cat", "dog"]), ["cat", "dog", "cat"])
    assert known(CRANES).match_model(labels(CRANES)[1:], "it") == [*labels(CRANES)[1:]]  # excised: the same classes


def test_names_that_differ_in_spelling_only_are_not_matched_by_position() -> None:
    with pytest.raises(DataError, match=r"'Cat'.*matched.*'dog'.*'cat'"):
        matched(known(["dog", "cat"]), ["Cat", "Dog"])
    with pytest.warns(DataWarning, match=r"by position"):
        assert matched(known(["cat", "dog"]), ["Cat", "Dog"]) == [0, 1]


NUMBERED = {
    "digits": [str(i) for i in range(12)],
    "zeros": [f"{i:03d}" for i in range(12)],
    "words": [f"Class {i}" for i in range(12)],
    "other words": [f"class_{i:02d}" for i in range(12)],
    "Arabic": [str(i).translate({48 + d: 0x660 + d for d in range(10)}) for i in range(12)],
}


@given(st.sampled_from(sorted(NUMBERED)), st.sampled_from(sorted(NUMBERED)), st.permutations(range(12)))
def test_numbers_in_another_spelling_are_matched_right_or_not_at_all(mine: str, its: str, order: list[int]) -> None:
    names = [NUMBERED[mine][i] for i in order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        try:
            found = known(names).match(NUMBERED[its], range(12), "data")
        except DataError:
            assert order != sorted(order) or mine != its
        else:
            assert [found[i].name for i in range(12)] == NUMBERED[mine]


def test_accents_in_another_encoding_are_not_matched_by_position() -> None:
    composed = ["caf\u00e9", "cr\u00e8me"]
    apart = [unicodedata.normalize("NFD", name) for name in composed]
    with pytest.raises(DataError, match=r"Spell the names alike"):
        matched(known(composed), apart[::-1])
    with pytest.warns(DataWarning, match=r"by position"):
        assert matched(known(composed), apart) == [0, 1]


def test_labels_without_names_of_classes_that_are_the_same_numbers_in_another_order() -> None:
    assert matched(known(TWELVE), None, [10, 2]) == [10, 2]
    with pytest.raises(DataError, match=r"class number 2 is named '10'"):
        matched(known(sorted(TWELVE)), None, [2])
    assert matched(known([str(i + 1) for i in range(5)]), None, [0, 3]) == [0, 3]  # counted from 1: 0 is no name


def test_excised_classes_are_still_known() -> None:
    model = known(["a", "b", "c", "d"], 1)
    assert matched(model, None, [3, 1]) == [3, 1]
    assert matched(model, ["d", "b"]) == [3, 1]
    with pytest.warns(DataWarning):
        assert matched(model, ["w", "x", "y", "z"]) == [0, 1, 2, 3]


def test_another_model_is_matched_in_the_same_way() -> None:
    model = known(["cat", "dog", "cow"])
    assert [c.index for c in model.match_model(labels(["cow", "cat"]), "it")] == [2, 0]
    with pytest.raises(ModelError, match=r"model.*classes.*horse"):
        model.match_model(labels(["cow", "horse"]), "it")
    with pytest.warns(ModelWarning, match=r"by position"):
        assert [c.index for c in model.match_model(labels(["x", "y", "z"]), "it")] == [0, 1, 2]


def test_a_name_comes_before_an_index_and_that_is_said() -> None:
    classes = labels(["cat", "dog", "3", "cow"])
    assert [find_class(c, classes) for c in ("cat", "1", 2, 3)] == [0, 1, 2, 3]
    with pytest.warns(DataWarning, match=r"Class.*3.*taken.*named.*'cow'"):
        assert find_class("3", classes) == 2
    for wrong in (4, -1, "-1", "²", "", True, None):
        with pytest.raises(UnknownNameError, match=r"Unknown class"):
            find_class(wrong, classes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"2.*'crane'.*index.*0.*2"):
        find_class("crane", labels(CRANES))
    assert find_class(2, labels(CRANES)) == 2


def test_where_all_names_are_numbers_a_number_is_a_name() -> None:
    for wanted in (10, "10"):
        with pytest.warns(DataWarning, match=r"number.*10.*'8'"):
            assert find_class(wanted, labels(sorted(TWELVE))) == 2
