"""What a declaration says of a measure in words, and what a record refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from unhot.evaluation import attacks, metrics
from unhot.evaluation.catalogue import BUILTIN, measures
from unhot.records.measure import Measure


def declared(**changes: Any) -> Measure:
    plain = {"name": "theirs", "title": "Kind of Thing", "group": "Output", "sentence": "What it is."}
    return Measure(**(plain | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"low": 0, "high": 1}, "0 to 1"),
        ({"low": -1}, "-1 upwards"),
        ({"high": math.log(2)}, "up to 0.693"),
        ({"low": 0, "high": 5, "unit": "nats"}, "0 to 5, in nats"),
        ({"unit": "bits"}, "in bits"),
        ({"low": 0, "unit": "ratio"}, "0 upwards"),
    ],
)
def test_a_range_in_words(changes: dict[str, Any], words: str) -> None:
    assert declared(**changes).range == words
    assert declared(**changes).reading == "; ".join(filter(None, (words, "neither way is better by itself")))


def test_how_to_read_it_in_words() -> None:
    full = declared(low=0, at_original=1, at_retrained=0.5, beside_retrained=True, note="so", higher_is_better=False)
    assert full.reading == (
        "0 upwards; the original gives 1; a model that never saw the class gives 0.5; compare with the retrained "
        "model's; so; lower is better"
    )


def test_the_head_of_a_column() -> None:
    assert declared().column == "kind of Thing"
    assert declared(short="kNN").column == "kNN"


def test_a_declaration_comes_back_from_json() -> None:
    for measure in BUILTIN.values():
        assert Measure.model_validate_json(measure.model_dump_json()) == measure


def test_all_measures_are_those_of_the_entries_and_are_whole_sentences() -> None:
    entries = [metrics.catalogue.entry(n).measure for n in metrics.catalogue]
    entries += [m for n in attacks.catalogue for m in attacks.catalogue.entry(n).measures]
    assert {m.name: m for m in entries} == measures() == BUILTIN
    assert all(m.sentence[0].isupper() and m.sentence.endswith(".") and m.source for m in entries)
    assert not any(m.note.endswith(".") for m in entries)
    assert len({m.title for m in entries}) == len({m.column for m in entries}) == len(entries)


def test_a_record_says_of_all_that_it_measures_what_it_is(make: Any) -> None:
    record, known = make(), tuple(BUILTIN.values())
    values = record.model_dump(mode="json")

    def read(*measures: Measure) -> Any:
        return type(record).model_validate(values | {"measures": [m.model_dump(mode="json") for m in measures]})

    assert read().measures == ()  # an old one
    assert read(*known).measures == known
    with pytest.raises(ValidationError, match=r"measured.*measures"):
        read(*known[1:])
    with pytest.raises(ValidationError, match="comes twice"):
        read(*known, known[0])
