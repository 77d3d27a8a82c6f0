"""A grid becomes cells, and everything that is wrong with it is said at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_grid import SMALL, models

from unhot.bench.grid import Grid, read_grid
from unhot.errors import InputError

GridOf = Callable[[str], Grid]


def test_a_grid_expands_to_the_product_of_its_axes(grid_of: GridOf) -> None:
    grid = grid_of(SMALL.replace("seed = [0]", "seed = [0, 1, 2]").replace("shots = 4", "shots = 5"))
    cells = [(c.spec.method, c.spec.classes, c.spec.seed, c.spec.shots) for c in grid.cells]
    assert sorted(cells) == sorted((m, (c,), s, 5) for m in ("mask", "nhle-cwm") for c in (1, 6) for s in (0, 1, 2))


def test_models_are_shared_by_the_cells_that_need_the_same(grid_of: GridOf) -> None:
    grid = grid_of(SMALL)
    assert [s.excluded for s in models(grid)] == [(), (1,), (6,)]
    assert {c.spec.original.digest for c in grid.cells} == {models(grid)[0].digest}


def test_defaults_written_out_or_left_out_are_the_same_cell(grid_of: GridOf) -> None:
    plain = grid_of(SMALL)
    written = grid_of(SMALL.replace("options = { steps = 2 }", "options = { steps = 2, depth = 0.25 }"))
    assert [c.spec.digest for c in plain.cells] == [c.spec.digest for c in written.cells]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("shots = 4", "shots = 5"),
        ("steps = 2", "steps = 3"),
        ("epochs = 2", "epochs = 3"),
        ("seed = [0]", "seed = [1]"),
        ("seed = [0]", "seed = [0]\nmodel_seed = [1]"),
        ('dataset = "digits"', 'dataset = "digits"\nretrained = 2'),
        ('dataset = "digits"', 'dataset = "digits"\naudit = "full"'),
    ],
)
def test_what_determines_a_result_is_in_its_digest(grid_of: GridOf, old: str, new: str) -> None:
    first = next(c for c in grid_of(SMALL).cells if c.spec.method == "nhle-cwm")
    second = next(c for c in grid_of(SMALL.replace(old, new)).cells if c.spec.method == "nhle-cwm")
    assert first.spec.digest != second.spec.digest


def test_a_method_is_tried_with_every_value_of_its_grid(grid_of: GridOf) -> None:
    grid = grid_of(SMALL + "grid = { step_size = [0.01, 0.02], depth = [0.5, 1.0] }\n")
    tried = {tuple(c.options.items()) for c in grid.cells if c.spec.method == "nhle-cwm"}
    assert tried == {(("steps", 2), ("step_size", s), ("depth", d)) for s in (0.01, 0.02) for d in (0.5, 1.0)}


def test_a_method_may_be_tried_with_a_guard_and_without(grid_of: GridOf) -> None:
    text = SMALL.replace('name = "mask"', 'name = "nhle-guard"\n[[method]]\nname = "nhle-guard"\nguard = true')
    bare, guarded = (c for c in grid_of(text).cells if c.spec.method == "nhle-guard" and c.spec.classes == (1,))
    assert (bare.spec.guarded, guarded.spec.guarded) == (False, True)
    assert (bare.uses, guarded.uses) == (("forget",), ("forget", "guard"))
    assert (bare.options, guarded.options) == ({}, {"guarded": True})
    assert bare.spec.digest != guarded.spec.digest
    assert "guarded" not in bare.spec.model_dump()


def test_several_classes_are_one_request_or_a_sequence(grid_of: GridOf) -> None:
    text = SMALL.replace("class = [1, 6]", "class = [[1, 6], 2]")
    at_once = grid_of(text)
    assert {c.spec.classes for c in at_once.cells} == {(1, 6), (2,)}
    assert not any(c.spec.in_sequence for c in at_once.cells)
    sequence = grid_of(text.replace("[fixed]", "[fixed]\nin_sequence = true"))
    assert {(c.spec.classes, c.spec.in_sequence) for c in sequence.cells} == {((1, 6), True), ((2,), False)}


FAULTS = [
    ('name = "mask"', 'name = "maskk"', "Did you mean 'mask'"),
    ('"digits"', '"digitz"', "Did you mean 'digits'"),
    ('"lenet5"', '"lenet6"', "Did you mean 'lenet5'"),
    ("steps = 2", "stepz = 2", "Did you mean 'steps'"),
    ("steps = 2", "steps = -1", "'steps': It must be greater than or equal to 0"),
    ("class = [1, 6]", "class = [1, 16]", "Unknown class '16'"),
    ("class = [1, 6]", "class = [[1, 1]]", "name each class once"),
    ("class = [1, 6]", "class = [[0,1,2,3,4,5,6,7,8]]", "leaves fewer than two classes"),
    ("class = [1, 6]", "class = [[[1]]]", "expected an index, a name, or a list of these. Got [[1]]"),
    ("class = [1, 6]", "class = [[]]", "expected an index, a name, or a list of these. Got []"),
    ("class = [1, 6]", "", "class is missing"),
    ("class = [1, 6]", "class = []", "class is missing"),
    ("shots = 4", "shots = 4000", "4000 shots asked for"),
    ("shots = 4", "shots = 0", "greater than or equal to 1"),
    ("epochs = 2", "epoch = 2", "'epoch': unknown (Did you mean 'epochs'?)"),
    ("seed = [0]", "seed = [0]\nshots = [1]", "shots is in [fixed] and in [grid]"),
    ("seed = [0]", "seed = [0]\ncolour = [1]", "Unknown key of [grid]: 'colour'. Known: dataset, arch, class"),
    ("[fixed]", "[fixxed]", "Unknown key of the grid: 'fixxed'. Did you mean 'fixed'?"),
    ("options = {", "option = {", "Unknown key of [[method]] 2: 'option'. Did you mean 'options'?"),
    ("options = {", "options = [", "not valid TOML"),
    ("[grid]", "[gird]\n[grid]", "Unknown key of the grid: 'gird'. Did you mean 'grid'?"),
    ("schema = 1", "schema = 2", "'schema': It must be 1"),
    ("[[method]]", "[[methods]]", "'method': Field required"),
    ("seed = [0]", "seed = [0", "not valid TOML"),
    ('name = "mask"', 'name = "mask"\nguard = true', "mask: it does not read stored statistics"),
    ("[fixed]", "[fixed]\nretained = 1_000_000", "retained = 1,000,000, but a request leaves"),
    ("[fixed]", "[fixed]\nretrained = 1_000_000", "less than or equal to 100"),
    ("seed = [0]", f"seed = {[*range(60_000)]}", "The grid has 240,000 cells, more than the limit of 100,000"),
    ('name = "mask"', f'name = "mask"\ngrid = {{ a = {[0] * 400}, b = {[0] * 400} }}', "its grid has 160,000 cells"),
    ('name = "mask"', f'name = "mask"\noptions = {{ a = {"[" * 900 + "]" * 900} }}', "nests deeper than 64 levels"),
    ("options = { steps = 2 }", "options = { steps = 2 }\ngrid = { steps = [1] }", "in both options and grid"),
]


@pytest.mark.parametrize(("old", "new", "said"), FAULTS)
def test_a_fault_is_said_in_one_sentence(grid_of: GridOf, old: str, new: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        grid_of(SMALL.replace(old, new))
    assert said in str(error.value)


def test_a_sequence_has_no_guard(grid_of: GridOf) -> None:
    text = SMALL.replace("[fixed]", "[fixed]\nin_sequence = true").replace("[1, 6]", "[[1, 6]]")
    with pytest.raises(InputError, match=r"later.*request.*sequence"):
        grid_of(text.replace('name = "mask"', 'name = "nhle-guard"\nguard = true'))


def test_all_faults_are_said_at_once(grid_of: GridOf) -> None:
    text = SMALL
    for old, new in (('name = "mask"', 'name = "maskk"'), ('"digits"', '"digitz"'), ("steps = 2", "stepz = 2")):
        text = text.replace(old, new)
    with pytest.raises(InputError) as error:
        grid_of(text)
    assert all(word in str(error.value) for word in ("3 problems", "maskk", "digitz", "stepz"))


def test_unknown_keys_and_invalid_values_hide_no_other_fault(grid_of: GridOf) -> None:
    text = SMALL
    for old, new in (
        ('name = "mask"', 'name = "maskk"\noption = { cut = "none" }'),
        ("class = [1, 6]", "class = [[]]"),
        ("seed = [0]", "sede = [0]"),
        ('"lenet5"', '"lenet6"'),
        ("[[method]]\n", "[[method]]\nguard = true\n[[method]]\n"),
    ):
        text = text.replace(old, new, 1)
    with pytest.raises(InputError) as error:
        grid_of(text)
    said = str(error.value)
    assert [
        word for word in ("6 problems", "maskk", "'option'", "Got []", "'sede'", "lenet6") if word not in said
    ] == []
    assert "'method.0.name': Field required" in said
    assert "missing" not in said


def test_a_grid_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml cannot be read"):
        read_grid(tmp_path / "none.toml")
